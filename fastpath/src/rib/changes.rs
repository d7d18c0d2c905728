//! What routes there are, and which changed, for who tells others of them.

use super::{Origin, Rib, Target, origins};
use crate::meta::VrfId;
use ipnet::IpNet;

impl Rib {
    /// All routes: table, prefix, origin, target. Those that count come first among the routes of one prefix.
    pub fn iter(&self) -> impl Iterator<Item = (VrfId, IpNet, Origin, Target)> + '_ {
        self.routes.iter().flat_map(|((vrf, net), candidates)| {
            let known = origins(net)
                .into_iter()
                .filter_map(|origin| Some((origin, candidates[origin as usize]?)));
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
        let mut known = origins(&net)
            .into_iter()
            .filter(|origin| *origin != Origin::Neighbour)
            .filter_map(|origin| Some((origin, candidates[origin as usize]?)));
        let (origin, id) = known.next()?;
        Some((origin, self.keys.get(&id)?))
    }
}
