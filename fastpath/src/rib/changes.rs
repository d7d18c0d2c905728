//! What routes there are, and which changed, for who tells others of them.

use super::{ORIGINS, Origin, Rib, Target};
use crate::meta::VrfId;
use ipnet::IpNet;

impl Rib {
    /// All routes: table, prefix, origin, target. Those that count come first among the routes of one prefix.
    pub fn iter(&self) -> impl Iterator<Item = (VrfId, IpNet, Origin, Target)> + '_ {
        self.routes.iter().flat_map(|((vrf, net), candidates)| {
            let known = ORIGINS
                .into_iter()
                .zip(candidates)
                .filter_map(|(origin, id)| Some((origin, (*id)?)));
            known.filter_map(|(origin, id)| Some((*vrf, *net, origin, self.keys.get(&id)?.clone())))
        })
    }

    /// Remembers from now on which prefixes' routes change, or no longer. Neither neighbours' own routes
    /// count nor the kernel's.
    pub fn keep_changed(&mut self, keep: bool) {
        if keep != self.changed.is_some() {
            self.changed = keep.then(Vec::new);
        }
    }

    /// The prefixes whose routes changed since this was last asked.
    pub fn take_changed(&mut self) -> Vec<(VrfId, IpNet)> {
        self.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn note(&mut self, vrf: VrfId, net: IpNet, origin: Origin) {
        if let Some(changed) = self
            .changed
            .as_mut()
            .filter(|_| !matches!(origin, Origin::Neighbour | Origin::Kernel))
        {
            changed.push((vrf, net));
        }
    }

    /// The route of a prefix that counts, but for one that a neighbour has for itself.
    pub fn best(&self, vrf: VrfId, net: IpNet) -> Option<(Origin, &Target)> {
        let candidates = self.routes.get(&(vrf, net))?;
        let known = ORIGINS
            .into_iter()
            .zip(candidates)
            .filter(|(origin, _)| *origin != Origin::Neighbour);
        let (origin, id) = known.filter_map(|(origin, id)| Some((origin, (*id)?))).next()?;
        Some((origin, self.keys.get(&id)?))
    }
}
