//! The lookup tables as routes fill them: one of all routes, and beside it one of those that lead around the tunnels.
//!
//! What a tunnel sealed must not go into it again, though its routes may hold the address of the tunnel's other end, as
//! those of a peer that is allowed everything do. For such packets the second table has the routes that lead into no
//! tunnel. It has only those that have a prefix leading into a tunnel within them, or are one: all others a lookup in the
//! first table finds by itself. So it is small, whatever the first one holds, and empty without tunnels.

use super::{Candidates, Full, Origin, Rib, Target, origins};
use crate::meta::VrfId;
use ipnet::IpNet;

impl Rib {
    /// Makes the tables what the origins know of a prefix now, other than before.
    ///
    /// # Errors
    /// A table is full; all is as it was.
    pub(super) fn change(
        &mut self,
        vrf: VrfId,
        net: IpNet,
        (before, after): (Candidates, Candidates),
    ) -> Result<(), Full> {
        self.write(vrf, net, &after)?;
        let led_in = self.tunnels.contains(&(vrf, net));
        self.remember(vrf, net, &after);
        if let Err(full) = self.write_around(vrf, net, led_in) {
            // What was there before fits again.
            let leads_in = self.tunnels.contains(&(vrf, net));
            let _ = self.write(vrf, net, &before);
            self.remember(vrf, net, &before);
            let _ = self.write_around(vrf, net, leads_in);
            return Err(full);
        }
        Ok(())
    }

    fn write(&mut self, vrf: VrfId, net: IpNet, candidates: &Candidates) -> Result<(), Full> {
        let path = self.chosen(&net, candidates, |_| true);
        match self.tables.get_mut(usize::from(vrf.0)) {
            Some(table) => table.write(&mut self.pool, net, path),
            None => Ok(()),
        }
    }

    fn remember(&mut self, vrf: VrfId, net: IpNet, candidates: &Candidates) {
        let path = self.chosen(&net, candidates, |_| true);
        match path.and_then(|path| self.keys.get(&path)) {
            Some(Target::Tunnel(_)) => self.tunnels.insert((vrf, net)),
            _ => self.tunnels.remove(&(vrf, net)),
        };
        if *candidates == Candidates::default() {
            self.routes.remove(&(vrf, net));
        } else {
            self.routes.insert((vrf, net), *candidates);
        }
    }

    /// Has the second table follow a prefix that changed: if that leads into a tunnel now, or does no longer, all that
    /// hold it follow.
    fn write_around(&mut self, vrf: VrfId, net: IpNet, led_in: bool) -> Result<(), Full> {
        if self.tunnels.is_empty() && !led_in {
            return Ok(());
        }
        if self.tunnels.contains(&(vrf, net)) == led_in {
            return self.write_one_around(vrf, net);
        }
        let mut holding = (0..=net.prefix_len()).filter_map(|length| IpNet::new(net.addr(), length).ok());
        holding.try_for_each(|holding| self.write_one_around(vrf, holding.trunc()))
    }

    fn write_one_around(&mut self, vrf: VrfId, net: IpNet) -> Result<(), Full> {
        let known = self.routes.get(&(vrf, net)).filter(|_| self.holds_tunnel(vrf, net));
        let path =
            known.and_then(|candidates| self.chosen(&net, candidates, |target| !matches!(target, Target::Tunnel(_))));
        match self.around.get_mut(usize::from(vrf.0)) {
            Some(table) => table.write(&mut self.pool, net, path),
            None => Ok(()),
        }
    }

    /// Whether a prefix within `net` leads into a tunnel. Prefixes are in order of their addresses, and the longer ones of
    /// an address come later: the first from `net` on is within it if any is.
    fn holds_tunnel(&self, vrf: VrfId, net: IpNet) -> bool {
        let first = self.tunnels.range((vrf, net)..).next();
        first.is_some_and(|(table, inside)| *table == vrf && net.contains(inside))
    }

    /// The path of a prefix, among those to targets that count.
    fn chosen(&self, net: &IpNet, candidates: &Candidates, counts: impl Fn(&Target) -> bool) -> Option<u32> {
        let counted = |path: &u32| self.keys.get(path).is_some_and(&counts);
        // A neighbour has a route of its own only where the others would have it asked for.
        let own = candidates[Origin::Neighbour as usize].filter(counted);
        own.or_else(|| {
            let mut known = origins(net)
                .into_iter()
                .filter_map(|origin| candidates[origin as usize]);
            known.find(counted)
        })
    }
}
