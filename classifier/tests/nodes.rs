//! The nodes of the classifier, each in a graph of its own.

#[path = "oracle/graph.rs"]
mod graph;

use classifier::compiler::Compiler;
use classifier::endpoints::{Endpoint, Failsafe, Failsafes, Settings, Sources, ToHost, Workload};
use classifier::nodes::{classify, pre_dnat, untracked};
use classifier::program::{Chain, ChainId, DefaultAction, Direction, Last, Placed, Policy, PolicyId, Tier};
use classifier::rule::{Action, End, Icmp, Ports, Rule};
use classifier::sets::Capacity;
use fastpath::forwarding::{Forwarding, LOCAL, TUNNEL};
use fastpath::meta::{Endpoint as Transport, Flags, Meta, PortId};
use fastpath::qsbr::Qsbr;
use graph::{Bench, Fed};
use std::sync::Arc;

const CLIENT: PortId = PortId(1);
const SERVER: PortId = PortId(2);
const UPLINK: PortId = PortId(3);
const NOBODY: PortId = PortId(9);

/// Two workloads, 10.0.0.1 and 10.0.0.2, and a port of the host. The client may speak to whom it likes, the server hears
/// TCP port 80 and echo requests.
struct World {
    compiler: Compiler,
    qsbr: Arc<Qsbr>,
    settings: Settings,
}

impl World {
    fn new() -> World {
        let qsbr = Arc::new(Qsbr::new(1));
        let capacity = Capacity {
            prefix_bytes: 1 << 20,
            class_bytes: 1 << 20,
        };
        let mut world = World {
            compiler: Compiler::new(capacity, qsbr.clone()).unwrap(),
            qsbr,
            settings: Settings {
                in_force: true,
                ..Settings::default()
            },
        };
        let hears = vec![
            Rule {
                protocol: Some(6),
                target: End {
                    ports: vec![Ports::one(80)],
                    ..End::default()
                },
                ..Rule::all(Action::Allow)
            },
            Rule {
                protocol: Some(1),
                icmp: Some(Icmp { kind: 8, code: None }),
                ..Rule::all(Action::Allow)
            },
        ];
        for (port, last, hears) in [(CLIENT, 1, vec![]), (SERVER, 2, hears)] {
            let egress = world.chain(Direction::Egress, vec![Rule::all(Action::Allow)]);
            let ingress = world.chain(Direction::Ingress, hears);
            world.workload(port, last, true, (ingress, egress));
        }
        world.publish();
        world
    }

    fn publish(&mut self) {
        self.compiler.set_settings(self.settings.clone());
        self.compiler.publish();
    }

    fn policy(&mut self, rules: Vec<Rule>) -> PolicyId {
        let id = self.compiler.reserve_policy();
        let (ingress, egress) = (rules.clone(), rules);
        self.compiler.set_policy(id, Policy { ingress, egress });
        id
    }

    fn chain(&mut self, direction: Direction, rules: Vec<Rule>) -> ChainId {
        self.chain_to(direction, rules, DefaultAction::Deny, Last::Profiles(vec![]))
    }

    fn chain_to(&mut self, direction: Direction, rules: Vec<Rule>, default: DefaultAction, last: Last) -> ChainId {
        let policy = self.policy(rules);
        let placed = Placed { policy, staged: false };
        let tiers = vec![Tier {
            policies: vec![placed],
            default,
        }];
        self.compiler.chain(&Chain { direction, tiers, last })
    }

    fn workload(&mut self, port: PortId, last: u8, up: bool, (ingress, egress): (ChainId, ChainId)) {
        let sources = Sources::new(&[format!("10.0.0.{last}/32").parse().unwrap()]);
        let endpoint = Endpoint {
            workload: Some(Workload { up, sources }),
            sends: [None, Some(egress)],
            receives: [Some(ingress), None],
            to_host: Some(egress),
            ..Endpoint::default()
        };
        self.compiler.set_endpoint(port, Some(endpoint));
    }

    fn classify(&self) -> Bench {
        let node = classify::Classify::new(self.compiler.classifier(), Arc::new(Forwarding::default()));
        Bench::new(node, &[classify::Next::Allowed, classify::Next::Rejected], &self.qsbr)
    }
}

fn packet(protocol: u8, from: u8, to: u8, ports: (u16, u16)) -> Meta {
    let mut meta = Meta::default();
    meta.source = Transport::v4([10, 0, 0, from], ports.0);
    meta.target = Transport::v4([10, 0, 0, to], ports.1);
    meta.protocol = protocol;
    meta.flags = Flags::IPV4.and(Flags::TRACKED);
    meta
}

fn tcp(from: u8, to: u8, ports: (u16, u16)) -> Meta {
    packet(6, from, to, ports)
}

fn from(port: PortId, to: PortId, mut meta: Meta) -> Fed {
    (meta.port, meta.egress, meta.adjacency) = (port, to, TUNNEL);
    (meta, vec![0; 60])
}

fn to_host(port: PortId, meta: Meta) -> Fed {
    let (mut meta, bytes) = from(port, port, meta);
    meta.adjacency = LOCAL;
    (meta, bytes)
}

fn answering(mut meta: Meta) -> Meta {
    meta.flags.set(Flags::REPLY);
    meta
}

#[test]
fn both_ends_have_to_agree_and_answers_go_with_what_they_answer() {
    let world = World::new();
    let mut bench = world.classify();
    let cases = [
        (from(CLIENT, SERVER, tcp(1, 2, (5000, 80))), "allowed"),
        (from(CLIENT, SERVER, tcp(1, 2, (5000, 81))), "no-policy-allows"),
        (from(SERVER, CLIENT, tcp(2, 1, (80, 5000))), "no-policy-allows"),
        (from(SERVER, CLIENT, answering(tcp(2, 1, (80, 5000)))), "allowed"),
        (
            from(SERVER, CLIENT, answering(tcp(2, 1, (81, 5000)))),
            "no-policy-allows",
        ),
        (from(CLIENT, NOBODY, tcp(1, 7, (5000, 80))), "undescribed-interface"),
        (from(NOBODY, SERVER, tcp(7, 2, (5000, 80))), "undescribed-interface"),
        (to_host(CLIENT, tcp(1, 9, (5000, 80))), "workload-to-host"),
    ];
    for (packet, wanted) in cases {
        assert_eq!(bench.fate(packet.clone()), wanted, "{:?}", packet.0);
    }
    let icmp = |kind: u16, from: u8, to: u8| packet(1, from, to, (77, kind << 8));
    assert_eq!(bench.fate(from(CLIENT, SERVER, icmp(8, 1, 2))), "allowed");
    assert_eq!(bench.fate(from(CLIENT, SERVER, icmp(13, 1, 2))), "no-policy-allows");
    assert_eq!(bench.fate(from(SERVER, CLIENT, answering(icmp(0, 2, 1)))), "allowed");
    assert_eq!(
        bench.fate(from(SERVER, CLIENT, answering(icmp(14, 2, 1)))),
        "no-policy-allows"
    );
}

#[test]
fn a_workload_that_is_down_or_wraps_packets_is_not_heard() {
    let mut world = World::new();
    let mut bench = world.classify();
    let (vxlan, ipip) = (packet(17, 1, 2, (5000, 4789)), packet(4, 1, 2, (0, 0)));
    assert_eq!(bench.fate(from(CLIENT, SERVER, vxlan)), "workload-tunnel");
    assert_eq!(bench.fate(from(CLIENT, SERVER, ipip)), "workload-tunnel");
    let chains = (ChainId(1), ChainId(2));
    world.workload(SERVER, 2, false, chains);
    world.publish();
    for packet in [
        from(CLIENT, SERVER, tcp(1, 2, (5000, 80))),
        from(SERVER, CLIENT, tcp(2, 1, (5000, 80))),
    ] {
        assert_eq!(bench.fate(packet), "endpoint-down");
    }
}

#[test]
fn nothing_is_asked_where_nobody_has_policy() {
    let mut world = World::new();
    world.settings.in_force = false;
    world.publish();
    assert_eq!(
        world.classify().fate(from(NOBODY, NOBODY, tcp(1, 2, (1, 2)))),
        "allowed"
    );
}

#[test]
fn senders_are_told_where_that_is_wanted() {
    let mut world = World::new();
    world.settings.reject = true;
    world.publish();
    let mut bench = world.classify();
    let (taken, drops) = bench.run([
        from(CLIENT, SERVER, tcp(1, 2, (5000, 81))),
        from(CLIENT, SERVER, tcp(1, 2, (5000, 80))),
        from(CLIENT, NOBODY, tcp(1, 2, (5000, 80))),
    ]);
    let mut ways: Vec<_> = taken.iter().map(|(way, meta)| (*way, meta.complaint)).collect();
    ways.sort_unstable();
    assert_eq!(ways, [("allowed", 0), ("rejected", 6)]);
    assert_eq!(drops, [("undescribed-interface", 1)]);
}

/// The host's own policy, with a way in that it cannot close; what it forwards has other policy.
#[test]
fn a_host_cannot_lock_itself_out() {
    let mut world = World::new();
    let deny = || vec![Rule::all(Action::Deny)];
    let (ingress, egress) = (
        world.chain(Direction::Ingress, deny()),
        world.chain(Direction::Egress, deny()),
    );
    let uplink = Endpoint {
        to_host: Some(ingress),
        from_host: Some(egress),
        ..Endpoint::default()
    };
    world.compiler.set_endpoint(UPLINK, Some(uplink.clone()));
    let ssh = Failsafe {
        protocol: 6,
        port: Some(22),
        network: Some("10.0.0.0/30".parse().unwrap()),
    };
    world.settings.failsafes = Arc::new(Failsafes {
        inbound: vec![ssh],
        outbound: vec![],
    });
    world.settings.workload_to_host = ToHost::Accept;
    world.publish();
    let mut bench = world.classify();
    for (packet, wanted) in [
        (to_host(UPLINK, tcp(1, 200, (5000, 22))), "allowed"),
        (to_host(UPLINK, tcp(9, 200, (5000, 22))), "denied"),
        (to_host(UPLINK, tcp(1, 200, (5000, 23))), "denied"),
        // No forward policy: what is forwarded meets that of the workload only.
        (from(UPLINK, SERVER, tcp(1, 2, (5000, 80))), "allowed"),
        (from(UPLINK, SERVER, tcp(1, 2, (5000, 22))), "no-policy-allows"),
        (from(CLIENT, UPLINK, tcp(1, 200, (5000, 22))), "allowed"),
        (to_host(CLIENT, tcp(1, 200, (5000, 99))), "allowed"),
    ] {
        assert_eq!(bench.fate(packet.clone()), wanted, "{:?}", packet.0);
    }
    let forward = world.chain(Direction::Ingress, deny());
    let sends = [Some(forward), None];
    world.compiler.set_endpoint(UPLINK, Some(Endpoint { sends, ..uplink }));
    world.publish();
    assert_eq!(bench.fate(from(UPLINK, SERVER, tcp(1, 2, (5000, 80)))), "denied");
}

#[test]
fn policy_that_is_not_there_denies() {
    let mut world = World::new();
    let policy = world.compiler.reserve_policy();
    let chain = world.compiler.chain(&Chain {
        direction: Direction::Ingress,
        tiers: vec![Tier {
            policies: vec![Placed { policy, staged: false }],
            default: DefaultAction::Pass,
        }],
        last: Last::Allow,
    });
    world.workload(SERVER, 2, true, (chain, chain));
    world.publish();
    let mut bench = world.classify();
    let packet = || from(CLIENT, SERVER, tcp(1, 2, (5000, 80)));
    assert_eq!(bench.fate(packet()), "policy-not-there");
    world.compiler.set_policy(policy, Policy::default());
    world.publish();
    assert_eq!(
        bench.fate(packet()),
        "allowed",
        "nothing decides, and the chain ends in allow"
    );
    world.workload(SERVER, 2, true, (ChainId(500), ChainId(500)));
    world.publish();
    assert_eq!(bench.fate(packet()), "policy-not-there");
    let nothing = world.compiler.chain(&Chain {
        direction: Direction::Ingress,
        tiers: vec![],
        last: Last::Profiles(vec![]),
    });
    world.workload(SERVER, 2, true, (nothing, nothing));
    world.publish();
    assert_eq!(bench.fate(packet()), "no-profile-allows");
}

#[test]
fn before_tracking_sources_are_checked_and_untracked_policy_decides() {
    let mut world = World::new();
    let to = |port, action| Rule {
        protocol: Some(6),
        target: End {
            ports: vec![Ports::one(port)],
            ..End::default()
        },
        ..Rule::all(action)
    };
    let rules = vec![to(80, Action::Allow), to(81, Action::Deny), to(22, Action::Deny)];
    let chain = world.chain_to(Direction::Ingress, rules, DefaultAction::Pass, Last::Undecided);
    let uplink = Endpoint {
        untracked: Some(chain),
        ..Endpoint::default()
    };
    world.compiler.set_endpoint(UPLINK, Some(uplink));
    let ssh = Failsafe {
        protocol: 6,
        port: Some(22),
        network: None,
    };
    world.settings.failsafes = Arc::new(Failsafes {
        inbound: vec![ssh],
        outbound: vec![],
    });
    world.publish();
    let node = untracked::Untracked::new(world.compiler.classifier());
    let mut bench = Bench::new(node, &[untracked::Next::Track, untracked::Next::Untracked], &world.qsbr);
    let mut later = tcp(1, 2, (0, 81));
    later.flags.set(Flags::LATER_FRAGMENT);
    for (packet, wanted) in [
        (from(CLIENT, SERVER, tcp(1, 2, (5000, 81))), "track"),
        (from(CLIENT, SERVER, tcp(2, 1, (5000, 80))), "spoofed-source"),
        (from(UPLINK, SERVER, tcp(2, 1, (5000, 80))), "untracked"),
        (from(UPLINK, SERVER, tcp(2, 1, (5000, 81))), "denied"),
        (from(UPLINK, SERVER, tcp(2, 1, (5000, 82))), "track"),
        (from(UPLINK, SERVER, tcp(2, 1, (5000, 22))), "track"),
        (from(UPLINK, SERVER, later), "track"),
    ] {
        assert_eq!(bench.fate(packet.clone()), wanted, "{:?}", packet.0);
    }
    let (taken, _) = bench.run([from(UPLINK, SERVER, tcp(2, 1, (5000, 80)))]);
    assert!(!taken[0].1.flags.has(Flags::TRACKED));
}

/// The meta knows the backend already; the policy is about the service's address.
#[test]
fn before_services_policy_sees_where_a_packet_was_sent() {
    let mut world = World::new();
    let to_service = Rule {
        target: End {
            networks: vec!["10.96.0.1/32".parse().unwrap()],
            ports: vec![Ports::one(443)],
            ..End::default()
        },
        protocol: Some(6),
        ..Rule::all(Action::Deny)
    };
    let chain = world.chain_to(
        Direction::Ingress,
        vec![to_service],
        DefaultAction::Pass,
        Last::Undecided,
    );
    let uplink = Endpoint {
        before_services: Some(chain),
        ..Endpoint::default()
    };
    world.compiler.set_endpoint(UPLINK, Some(uplink));
    world.publish();
    let node = pre_dnat::PreDnat::new(world.compiler.classifier());
    let mut bench = Bench::new(node, &[pre_dnat::Next::On], &world.qsbr);
    let sent = |address: [u8; 4], port: u16| {
        let (mut meta, _) = from(UPLINK, SERVER, tcp(7, 2, (5000, 8443)));
        (meta.network_offset, meta.transport_offset) = (14, 20);
        let mut bytes = vec![0; 14 + 40];
        bytes[14 + 16..][..4].copy_from_slice(&address);
        bytes[14 + 20 + 2..][..2].copy_from_slice(&port.to_be_bytes());
        (meta, bytes)
    };
    assert_eq!(bench.fate(sent([10, 96, 0, 1], 443)), "denied");
    assert_eq!(bench.fate(sent([10, 96, 0, 1], 444)), "on");
    assert_eq!(bench.fate(sent([10, 96, 0, 2], 443)), "on");
    let (answer, bytes) = sent([10, 96, 0, 1], 443);
    assert_eq!(bench.fate((answering(answer), bytes)), "on");
}
