//! What tunnels sealed: wherever the routes lead into a tunnel, the second table has the best route that does not, as
//! a look at all of them finds it.

use fastpath::fib::{self, Pages};
use fastpath::forwarding::{Forwarding, Path, Vrfs, lookup, lookup_around};
use fastpath::meta::{Endpoint, PortId, VrfId};
use fastpath::publish::Reader;
use fastpath::qsbr::Qsbr;
use fastpath::rib::{Origin, Rib, Target};
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const ORIGINS: [Origin; 4] = [Origin::Connected, Origin::Static, Origin::Allowed, Origin::Kernel];
const VRF: VrfId = VrfId(1);

/// By prefix and origin, in the order in which they count.
type Written = BTreeMap<(IpNet, usize), Target>;

fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (0..4u8, 0..4u8, prop::sample::select(vec![0, 1, 8, 9, 16, 24, 32]))
        .prop_map(|(one, two, length)| IpNet::new(IpAddr::from([one << 6, two << 6, 0, 1]), length));
    let v6 = (0..4u16, prop::sample::select(vec![0, 16, 32, 64, 128]))
        .prop_map(|(one, length)| IpNet::new(IpAddr::from([one << 14, 0, 0, 0, 0, 0, 0, 1]), length));
    prop_oneof![v4, v6].prop_map(|net| net.unwrap().trunc())
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (0..3u16).prop_map(|port| Target::OnLink(PortId(port))),
        (8..10u16).prop_map(|port| Target::Tunnel(PortId(port))),
    ]
}

/// The longest prefix around an address whose target counts, and of its origins the first.
fn naive(written: &Written, address: IpAddr, counts: impl Fn(&Target) -> bool) -> Option<&Target> {
    let around = written
        .iter()
        .filter(|((net, _), target)| net.contains(&address) && counts(target));
    around
        .max_by_key(|((net, origin), _)| {
            // A default route of a tunnel counts before those that are written down.
            let rank = if net.prefix_len() == 0 {
                [0, 2, 1, 3][*origin]
            } else {
                *origin
            };
            (net.prefix_len(), std::cmp::Reverse(rank))
        })
        .map(|(_, target)| target)
}

fn path_of(target: Option<&Target>) -> Path {
    match target {
        Some(Target::OnLink(port)) => Path::Glean(*port),
        Some(Target::Tunnel(port)) => Path::Tunnel(*port),
        _ => Path::None,
    }
}

fn check(forwarding: &Forwarding, vrfs: &mut Reader<Vrfs>, written: &Written) {
    let ends = written.keys().map(|(net, _)| net.addr());
    let between = ["64.0.0.2", "192.192.0.1", "4000::2", "::"].map(|address| address.parse().unwrap());
    for address in ends.chain(between) {
        let end = match address {
            IpAddr::V4(v4) => Endpoint::v4(v4.octets(), 0),
            IpAddr::V6(v6) => Endpoint {
                address: v6.octets(),
                port: 0,
            },
        };
        let is_v4 = address.is_ipv4();
        let best = forwarding.path(lookup(vrfs.refresh(), VRF, &end, is_v4));
        assert_eq!(best, path_of(naive(written, address, |_| true)), "{address}");
        if let Path::Tunnel(_) = best {
            let around = forwarding.path(lookup_around(vrfs.refresh(), VRF, &end, is_v4));
            let no_tunnel = |target: &Target| !matches!(target, Target::Tunnel(_));
            assert_eq!(around, path_of(naive(written, address, no_tunnel)), "{address}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn sealed_packets_have_the_best_route_around_tunnels(
        steps in prop::collection::vec((net(), 0..4usize, prop::option::weighted(0.7, target())), 1..60)
    ) {
        let qsbr = Arc::new(Qsbr::new(1));
        let forwarding = Arc::new(Forwarding::default());
        let pool = fib::Pool::new(16 << 20, Pages::Small, qsbr.clone()).unwrap();
        let mut rib = Rib::new(forwarding.clone(), qsbr, pool);
        rib.ensure_vrf(VRF);
        let (mut vrfs, mut written) = (rib.reader(), Written::new());
        for (net, origin, target) in steps {
            match target {
                Some(target) => {
                    rib.set(VRF, net, ORIGINS[origin], &target).unwrap();
                    written.insert((net, origin), target);
                }
                None => {
                    let known = rib.clear(VRF, net, ORIGINS[origin]).unwrap();
                    assert_eq!(known, written.remove(&(net, origin)).is_some());
                }
            }
            check(&forwarding, &mut vrfs, &written);
        }
    }
}
