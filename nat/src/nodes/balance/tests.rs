use super::*;
use crate::fixed::Fixed;
use crate::nodes::testing::{Alone, opening};
use crate::service::{Book, Frontend, Member, PoolId, Prefix};
use fastpath::meta::VrfId;
use fastpath::publish::Publisher;
use fastpath::wire::protocol::{TCP, UDP};

const VIP: [u8; 4] = [10, 96, 0, 1];
const VRF: VrfId = VrfId(0);

fn member(n: u8) -> Member {
    Member {
        endpoint: Endpoint::v4([10, 1, 0, n], 8080),
        weight: 1,
        remote: false,
    }
}

/// A service at port 80 of TCP and UDP, and the node that balances it.
struct Setup {
    book: Book,
    pool: PoolId,
    rules: Publisher<Rules>,
    node: Alone,
}

impl Setup {
    fn new(members: &[Member], affinity_s: u32) -> Self {
        let mut book = Book::default();
        let pool = book.add_pool();
        book.set_pool(pool, members, affinity_s);
        let rules = Publisher::new(Rules::default());
        let node = Balance::new(
            book.reader(),
            rules.reader(),
            Publisher::new(Interfaces::default()).reader(),
            Arc::new(Affinity::new(1024, 7)),
        );
        let node = Alone::new(node, [Next::Route, Next::NoEndpoints]);
        let mut setup = Self {
            book,
            pool,
            rules,
            node,
        };
        setup.lead(|_| {});
        setup
    }

    fn lead(&mut self, change: impl Fn(&mut Lead)) {
        let mut lead = Lead {
            pool: self.pool,
            sources: Arc::new([]),
            masquerade: false,
            silent: false,
            direct: None,
        };
        change(&mut lead);
        for protocol in [TCP, UDP] {
            self.book
                .set_frontend(Frontend::at(VRF, VIP.into(), protocol, 80), lead.clone());
        }
        self.book.publish();
    }

    fn members(&mut self, members: &[Member], affinity_s: u32) {
        self.book.set_pool(self.pool, members, affinity_s);
        self.book.publish();
    }

    /// The backend of a new connection.
    fn connect(&mut self, client: [u8; 4], port: u16, now_s: u64) -> Endpoint {
        let (edge, meta) = self.node.send(opening(TCP, (client, port), (VIP, 80)), now_s).unwrap();
        assert_eq!((edge, meta.reserved), (0, 0));
        meta.target
    }
}

const CLIENT: [u8; 4] = [10, 2, 0, 9];

#[test]
fn a_new_connection_gets_a_backend_and_others_none() {
    let members: Vec<Member> = (0..4).map(member).collect();
    let mut setup = Setup::new(&members, 0);
    let mut had = [0; 4];
    for port in 0..400 {
        let target = setup.connect(CLIENT, port, 0);
        had[members.iter().position(|member| member.endpoint == target).unwrap()] += 1;
    }
    assert!(had.iter().all(|count| (60..140).contains(count)), "{had:?}");
    let services = setup.book.published();
    let pool = services.pool(setup.pool).unwrap();
    let counted: u64 = pool.shares().map(|(backend, _)| pool.connections(backend)).sum();
    assert_eq!(counted, 400);
    for (target, port) in [(VIP, 81), ([10, 96, 0, 2], 80)] {
        let (edge, meta) = setup.node.send(opening(TCP, (CLIENT, 5), (target, port)), 0).unwrap();
        assert_eq!((edge, meta.target), (0, Endpoint::v4(target, port)));
    }
    let (_, meta) = setup.node.send(opening(1, (CLIENT, 5), (VIP, 80)), 0).unwrap();
    assert_eq!(meta.target, Endpoint::v4(VIP, 80), "ICMP has no services");
}

#[test]
fn without_endpoints_the_sender_is_told_or_all_is_silent() {
    let mut setup = Setup::new(&[], 0);
    let syn = || opening(TCP, (CLIENT, 5), (VIP, 80));
    let (edge, meta) = setup.node.send(syn(), 0).unwrap();
    assert_eq!((edge, meta.complaint), (1, Complaint::PortClosed as u8));
    setup.lead(|lead| lead.silent = true);
    assert_eq!(setup.node.send(syn(), 0).unwrap_err(), Drop::NotHere as usize);
}

#[test]
fn sources_out_of_range_are_dropped() {
    let mut setup = Setup::new(&[member(1)], 0);
    setup.lead(|lead| lead.sources = Arc::new([Prefix::new([10, 2, 0, 0].into(), 16)]));
    setup.connect(CLIENT, 5, 0);
    let stranger = opening(TCP, ([10, 3, 0, 9], 5), (VIP, 80));
    assert_eq!(setup.node.send(stranger, 0).unwrap_err(), Drop::SourceRange as usize);
}

#[test]
fn a_client_stays_with_its_backend_while_there_is_one() {
    let members: Vec<Member> = (0..20).map(member).collect();
    let mut setup = Setup::new(&members[..10], 60);
    let clients: Vec<[u8; 4]> = (0..50).map(|n| [10, 2, 0, n]).collect();
    let first: Vec<Endpoint> = clients.iter().map(|client| setup.connect(*client, 1, 0)).collect();
    setup.members(&members, 60);
    let again: Vec<Endpoint> = clients.iter().map(|client| setup.connect(*client, 2, 59)).collect();
    assert_eq!(again, first, "others have come, nobody moves");
    let later: Vec<Endpoint> = clients.iter().map(|client| setup.connect(*client, 3, 119)).collect();
    assert_ne!(later, first, "their time is over, and Maglev has others now");
    // The backend of the first client drains.
    let gone = later[0];
    let drained: Vec<Member> = members
        .iter()
        .map(|member| Member {
            weight: u32::from(member.endpoint != gone),
            ..*member
        })
        .collect();
    setup.members(&drained, 60);
    let moved = setup.connect(clients[0], 4, 120);
    assert_ne!(moved, gone);
    setup.members(&members, 60);
    assert_eq!(setup.connect(clients[0], 5, 121), moved, "and stays there");
}

#[test]
fn whose_answers_would_not_come_back_is_masqueraded() {
    let remote = Member {
        remote: true,
        ..member(1)
    };
    let mut setup = Setup::new(&[remote], 0);
    let mark = |setup: &mut Setup, client| {
        let sent = setup.node.send(opening(TCP, (client, 5), (VIP, 80)), 0);
        sent.unwrap().1.reserved
    };
    assert_eq!(mark(&mut setup, CLIENT), 0, "inside, answers find their way");
    assert_eq!(mark(&mut setup, [10, 1, 0, 1]), MASQUERADE, "its own client");
    setup.lead(|lead| lead.masquerade = true);
    assert_eq!(mark(&mut setup, CLIENT), MASQUERADE);
    setup.members(&[member(1)], 0);
    assert_eq!(mark(&mut setup, CLIENT), 0, "on this node");
}

/// A packet of a known connection, whose target is translated to a backend's already.
fn known(protocol: u8, backend: u8) -> (Meta, Vec<u8>) {
    let (mut meta, bytes) = opening(protocol, (CLIENT, 5), (VIP, 80));
    (meta.flow, meta.target) = (8, member(backend).endpoint);
    (meta, bytes)
}

#[test]
fn known_connections_stay_but_udp_leaves_a_dead_backend() {
    let mut setup = Setup::new(&[member(1), Member { weight: 0, ..member(2) }], 0);
    let mut became = |packet| {
        let (edge, meta) = setup.node.send(packet, 0).unwrap();
        assert_eq!(edge, 0);
        (meta.target, meta.reserved)
    };
    for (protocol, backend) in [(TCP, 1), (TCP, 2), (TCP, 3), (UDP, 1), (UDP, 2)] {
        let stays = (member(backend).endpoint, 0);
        assert_eq!(became(known(protocol, backend)), stays, "{protocol} at {backend}");
    }
    assert_eq!(became(known(UDP, 3)), (member(1).endpoint, MOVED));
    let (mut meta, bytes) = known(UDP, 3);
    meta.flags.set(Flags::REPLY);
    assert_eq!(became((meta, bytes)), (member(3).endpoint, 0), "an answer");
    // The service goes: what was translated goes where it was sent.
    for protocol in [TCP, UDP] {
        setup.book.remove_frontend(&Frontend::at(VRF, VIP.into(), protocol, 80));
    }
    setup.book.publish();
    let (_, meta) = setup.node.send(known(UDP, 1), 0).unwrap();
    assert_eq!((meta.target, meta.reserved), (Endpoint::v4(VIP, 80), MOVED));
    let (_, meta) = setup.node.send(known(TCP, 1), 0).unwrap();
    assert_eq!((meta.target, meta.reserved), (member(1).endpoint, 0));
}

#[test]
fn connections_are_counted_over_changes_of_others() {
    let mut setup = Setup::new(&[member(1)], 0);
    (0..5).for_each(|port| _ = setup.connect(CLIENT, port, 0));
    let counted = |setup: &Setup, n| {
        let services = setup.book.published();
        let pool = services.pool(setup.pool).unwrap();
        pool.connections(pool.at(&member(n).endpoint).unwrap())
    };
    let many: Vec<Member> = (1..=150).map(member).collect();
    setup.members(&many, 0);
    assert_eq!((counted(&setup, 1), counted(&setup, 150)), (5, 0));
    setup.members(&[], 0);
    setup.members(&many, 0);
    assert_eq!(counted(&setup, 1), 0, "it has come anew");
}

#[test]
fn an_address_that_stands_for_another_leads_there_and_moves_with_it() {
    let outside = [192, 0, 2, 10];
    let mut setup = Setup::new(&[], 0);
    let stands_for = |setup: &mut Setup, n: u8| {
        let pairs = [(outside.into(), [10, 1, 0, n].into())];
        setup.rules.publish(Rules {
            fixed: Fixed::new(pairs.into_iter(), vec![]),
            ..Rules::default()
        });
    };
    stands_for(&mut setup, 5);
    let became = |setup: &mut Setup, protocol, client, flow| {
        let (mut meta, bytes) = opening(protocol, (client, 7), (outside, 22));
        if flow != leg::NONE {
            (meta.flow, meta.target) = (flow, Endpoint::v4([10, 1, 0, 5], 22));
        }
        let (edge, meta) = setup.node.send((meta, bytes), 0).unwrap();
        assert_eq!(edge, 0);
        (meta.target, meta.reserved)
    };
    let at = |n| Endpoint::v4([10, 1, 0, n], 22);
    assert_eq!(became(&mut setup, TCP, CLIENT, leg::NONE), (at(5), 0));
    assert_eq!(became(&mut setup, TCP, [10, 1, 0, 5], leg::NONE), (at(5), MASQUERADE));
    assert_eq!(became(&mut setup, UDP, CLIENT, 8), (at(5), 0));
    stands_for(&mut setup, 6);
    assert_eq!(became(&mut setup, UDP, CLIENT, 8), (at(6), MOVED));
    assert_eq!(
        became(&mut setup, TCP, CLIENT, 8),
        (at(5), 0),
        "a stream stays where its other end is"
    );
}
