use super::*;
use crate::key::Key;
use fastpath::meta::Flags;
use fastpath::wire::protocol;
use proptest::prelude::*;
use std::collections::BTreeMap;

const VRF: VrfId = VrfId(0);

fn endpoint(n: u32) -> Endpoint {
    Endpoint::v4((0x0a01_0000 + n).to_be_bytes(), 8080)
}

fn member(n: u32) -> Member {
    Member {
        endpoint: endpoint(n),
        weight: 1,
        remote: false,
    }
}

fn lead(pool: PoolId) -> Lead {
    Lead {
        pool,
        sources: Arc::new([]),
        masquerade: false,
        silent: false,
        direct: None,
    }
}

fn key(client: u32, port: u16) -> Key {
    let (source, target) = (
        Endpoint::v4(client.to_be_bytes(), port),
        Endpoint::v4([10, 96, 0, 1], 80),
    );
    Key::new(&source, &target, protocol::TCP, VRF, Flags::IPV4)
}

fn address(n: u8) -> IpAddr {
    [10, 96, 0, n].into()
}

#[test]
fn frontends_are_found_by_address_protocol_and_port() {
    let mut book = Book::default();
    let (web, dns) = (book.add_pool(), book.add_pool());
    book.set_pool(web, &[member(1)], 0);
    book.set_pool(dns, &[member(2)], 0);
    let tcp = Frontend::at(VRF, address(1), protocol::TCP, 80);
    book.set_frontend(tcp, lead(web));
    book.set_frontend(
        Frontend {
            protocol: protocol::UDP,
            ..tcp
        },
        lead(dns),
    );
    assert!(book.publish() && !book.publish(), "nothing new the second time");
    let services = book.published();
    let find = |vrf, last, port, protocol| {
        let found = services.find(VrfId(vrf), &Endpoint::v4([10, 96, 0, last], port), protocol);
        found.map(|(lead, _)| lead.pool)
    };
    assert_eq!(find(0, 1, 80, protocol::TCP), Some(web));
    assert_eq!(find(0, 1, 80, protocol::UDP), Some(dns));
    let others = [
        (1, 1, 80, protocol::TCP),
        (0, 2, 80, protocol::TCP),
        (0, 1, 81, protocol::TCP),
    ];
    assert!(
        others
            .iter()
            .all(|(vrf, last, port, protocol)| find(*vrf, *last, *port, *protocol).is_none())
    );
    assert_eq!(find(0, 1, 80, protocol::SCTP), None);
}

#[test]
fn a_node_port_is_at_every_address_of_ours() {
    let mut book = Book::default();
    let web = book.add_pool();
    let everywhere = Frontend::at(VRF, [0, 0, 0, 0].into(), protocol::TCP, 30_080);
    book.set_frontend(everywhere, lead(web));
    let ours: [IpAddr; 2] = [[192, 0, 2, 1].into(), "fd00::1".parse().unwrap()];
    book.set_addresses(ours.into_iter().map(|address| (VRF, mapped(address))).collect());
    book.publish();
    let services = book.published();
    let find = |vrf, last, port| services.find(VrfId(vrf), &Endpoint::v4([192, 0, 2, last], port), protocol::TCP);
    assert!(find(0, 1, 30_080).is_some());
    let v6 = Endpoint {
        address: mapped(ours[1]),
        port: 30_080,
    };
    assert!(services.find(VRF, &v6, protocol::TCP).is_none(), "of the other family");
    assert!(find(0, 2, 30_080).is_none() && find(1, 1, 30_080).is_none() && find(0, 1, 30_081).is_none());
}

#[test]
fn a_snapshot_stays_what_it_was() {
    let mut book = Book::default();
    let web = book.add_pool();
    let frontend = Frontend::at(VRF, address(1), protocol::TCP, 80);
    book.set_pool(web, &[member(1), member(2)], 0);
    book.set_frontend(frontend, lead(web));
    book.publish();
    let before = book.published();
    book.set_pool(web, &[member(2)], 0);
    assert_eq!(before.pool(web).unwrap().shares().count(), 2);
    book.publish();
    let after = book.published();
    assert!(before.pool(web).unwrap().at(&endpoint(1)).is_some());
    assert!(after.pool(web).unwrap().at(&endpoint(1)).is_none());
    assert!((0..1000).all(|n| after.pool(web).unwrap().choose(&key(n, 1)).unwrap().member == member(2)));
    book.remove_frontend(&frontend);
    book.remove_pool(web);
    book.publish();
    assert_eq!((before.len(), book.published().len()), (1, 0));
    assert!(book.published().pool(web).is_none());
    assert_eq!(book.add_pool(), web, "numbers are used again");
}

#[test]
fn a_draining_backend_is_known_and_gets_nothing() {
    let mut book = Book::default();
    let web = book.add_pool();
    book.set_pool(web, &[member(1), Member { weight: 0, ..member(2) }], 0);
    book.publish();
    let services = book.published();
    let pool = services.pool(web).unwrap();
    assert!(pool.at(&endpoint(2)).is_some());
    assert!((0..1000).all(|n| pool.choose(&key(n, 1)).unwrap().member == member(1)));
    book.set_pool(web, &[Member { weight: 0, ..member(2) }], 0);
    book.publish();
    assert!(book.published().pool(web).unwrap().choose(&key(1, 1)).is_none());
}

#[test]
fn a_client_that_stays_gets_the_same_by_every_port() {
    let mut book = Book::default();
    let web = book.add_pool();
    let members: Vec<Member> = (0..10).map(member).collect();
    let chosen = |book: &Book, client, port| {
        let services = book.published();
        services.pool(web).unwrap().choose(&key(client, port)).unwrap().member
    };
    book.set_pool(web, &members, 60);
    book.publish();
    assert!((0..200).all(|port| chosen(&book, 7, port) == chosen(&book, 7, 0)));
    book.set_pool(web, &members, 0);
    book.publish();
    assert!((0..200).any(|port| chosen(&book, 7, port) != chosen(&book, 7, 0)));
}

#[test]
fn prefixes_contain_their_addresses() {
    let v4 = Prefix::new([10, 1, 0, 0].into(), 16);
    let of = |address: [u8; 4]| mapped(address.into());
    assert!(v4.contains(&of([10, 1, 2, 3])) && !v4.contains(&of([10, 2, 0, 1])));
    let all = Prefix::new([0, 0, 0, 0].into(), 0);
    let v6 = mapped("fd00::1".parse().unwrap());
    assert!(all.contains(&of([1, 1, 1, 1])) && !all.contains(&v6), "all of IPv4");
    assert!(Prefix::new("::".parse().unwrap(), 0).contains(&v6));
}

#[test]
fn nodes_choose_alike() {
    let mut books = [Book::default(), Book::default()];
    let tables = books.each_mut().map(|book| {
        let other = book.add_pool();
        let web = book.add_pool();
        (other, web)
    });
    let forth: Vec<Member> = (0..50).map(member).collect();
    let back: Vec<Member> = (0..50).rev().map(member).collect();
    books[0].set_pool(tables[0].1, &forth, 0);
    books[1].set_pool(tables[1].1, &[member(99)], 0);
    books[1].publish();
    books[1].set_pool(tables[1].1, &back, 0);
    books.iter_mut().for_each(|book| _ = book.publish());
    let snapshots = books.each_ref().map(Book::published);
    for client in 0..1000 {
        let [one, other] = [0, 1].map(|n: usize| {
            let pool = snapshots[n].pool(tables[n].1).unwrap();
            pool.choose(&key(client, 5)).unwrap().member
        });
        assert_eq!(one, other);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Frontend(u8, u16, usize),
    NoFrontend(u8, u16),
    Pool(usize, Vec<u32>),
    Publish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..20u8, 80..83u16, 0..4usize).prop_map(|(last, port, pool)| Step::Frontend(last, port, pool)),
        (0..20u8, 80..83u16).prop_map(|(last, port)| Step::NoFrontend(last, port)),
        (0..4usize, prop::collection::vec(0..30u32, 0..12)).prop_map(|(pool, members)| Step::Pool(pool, members)),
        Just(Step::Publish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]

    /// What workers find is what a map says, whatever was before.
    #[test]
    fn it_says_what_a_map_says(steps in prop::collection::vec(step(), 1..100)) {
        let mut book = Book::default();
        let pools: Vec<PoolId> = (0..4).map(|_| book.add_pool()).collect();
        let mut leads = BTreeMap::new();
        let mut members: BTreeMap<PoolId, Vec<u32>> = BTreeMap::new();
        let frontend = |last, port| Frontend::at(VRF, address(last), protocol::TCP, port);
        for step in steps.into_iter().chain([Step::Publish]) {
            match step {
                Step::Frontend(last, port, pool) => {
                    book.set_frontend(frontend(last, port), lead(pools[pool]));
                    leads.insert((last, port), pools[pool]);
                }
                Step::NoFrontend(last, port) => {
                    book.remove_frontend(&frontend(last, port));
                    leads.remove(&(last, port));
                }
                Step::Pool(pool, mut there) => {
                    there.sort_unstable();
                    there.dedup();
                    let list: Vec<Member> = there.iter().copied().map(member).collect();
                    book.set_pool(pools[pool], &list, 0);
                    members.insert(pools[pool], there);
                }
                Step::Publish => {
                    book.publish();
                    let services = book.published();
                    prop_assert_eq!(services.len(), leads.len());
                    for last in 0..20u8 {
                        for port in 80..83 {
                            let target = Endpoint::v4([10, 96, 0, last], port);
                            let found = services.find(VRF, &target, protocol::TCP);
                            prop_assert_eq!(found.map(|(lead, _)| &lead.pool), leads.get(&(last, port)));
                        }
                    }
                    for pool in &pools {
                        let there = members.get(pool).cloned().unwrap_or_default();
                        let kept = services.pool(*pool).unwrap();
                        let mut shares: Vec<_> = kept.shares().map(|(backend, slots)| {
                            assert!(slots > 0);
                            backend.member.endpoint.v4_bits() - 0x0a01_0000
                        }).collect();
                        shares.sort_unstable();
                        prop_assert_eq!(&shares, &there);
                        let chosen = kept.choose(&key(5, 5)).map(|backend| backend.member);
                        prop_assert_eq!(chosen.is_some(), !there.is_empty());
                    }
                }
            }
        }
    }
}

/// Clients, their ports and services come in order, and choices spread all the same.
#[test]
fn choices_spread_over_what_is_counted_upwards() {
    let at = |n: u32| Endpoint::v4(n.to_be_bytes(), 0);
    let with_port = |end: Endpoint, n: u32| Endpoint { port: n as u16, ..end };
    let wide = |n: u32| Endpoint {
        address: (u128::from(n) | 0x2001_0db8 << 96).to_be_bytes(),
        port: 1,
    };
    let (client, server) = (at(0x0a01_0203), with_port(at(0x0a60_0001), 80));
    let key = |from: &Endpoint, to: &Endpoint, flags| Key::new(from, to, protocol::TCP, VRF, flags);
    let kinds: [&dyn Fn(u32) -> Key; 4] = [
        &|n| key(&with_port(at(0x0a01_0000 + n), 40_000), &server, Flags::IPV4),
        &|n| key(&with_port(client, n), &server, Flags::IPV4),
        &|n| key(&client, &with_port(at(0x0a60_0000 + n), 80), Flags::IPV4),
        &|n| key(&wide(n), &wide(7), Flags::default()),
    ];
    let mut sticky = Pool::default();
    sticky.affinity_s = 1;
    // Where a client stays, only the client counts.
    let pools = [(Pool::default(), &kinds[..]), (sticky, &kinds[..1])];
    for (pool, kinds) in pools {
        for (kind, key) in kinds.iter().enumerate() {
            let mut tops = [0u32; 64];
            (0..64_000).for_each(|n| tops[(pool.hash(&key(n)) >> 58) as usize] += 1);
            // A thousand each; the deviation of a fair hash is 31.
            assert!(tops.iter().all(|count| (800..1200).contains(count)), "{kind}: {tops:?}");
        }
    }
}
