//! Felix's messages in, verdicts out: as the compiled policies that workers have give them.

use std::net::IpAddr;
use std::sync::Arc;

use classifier::sets::Capacity;
use control::program::felix::*;
use control::program::policy::{Answer, Enforcement, PortInfo, Question, Verdict};
use fastpath::meta::PortId;
use fastpath::qsbr::Qsbr;
use proptest::prelude::*;

fn empty() -> Enforcement {
    let capacity = Capacity {
        prefix_bytes: 1 << 20,
        class_bytes: 1 << 20,
    };
    let mut enforcement = Enforcement::new(capacity, Arc::new(Qsbr::new(1))).unwrap();
    for (port, name, address) in [
        (1, "cali1", None),
        (2, "cali2", None),
        (3, "eth0", Some("192.0.2.1")),
        (4, "cali4", None),
    ] {
        let addresses = address.map(|address| address.parse().unwrap()).into_iter().collect();
        let info = PortInfo {
            name: name.to_owned(),
            device: None,
            addresses,
        };
        enforcement.set_port(PortId(port), Some(info));
    }
    enforcement
}

/// Two pods, `web` hears TCP port 80 from the set `clients`, `client` may send what it likes.
fn started() -> Enforcement {
    let mut enforcement = empty();
    for message in snapshot() {
        enforcement.receive(message);
    }
    enforcement.receive(ToDataplane::InSync);
    assert!(enforcement.publish());
    enforcement
}

fn snapshot() -> Vec<ToDataplane> {
    let mut from_clients = rule("allow");
    from_clients.protocol = Some(Protocol::Name("TCP".to_owned()));
    from_clients.src.ip_set_ids = vec!["clients".to_owned()];
    from_clients.dst.ports = vec![PortRange { first: 80, last: 80 }];
    vec![
        set("clients", &["10.0.0.1/32"]),
        policy("web", vec![from_clients], vec![]),
        profile("all", vec![rule("allow")], vec![rule("allow")]),
        workload("client", "cali1", "10.0.0.1", &[], &["all"]),
        workload("web", "cali2", "10.0.0.2", &["web"], &["all"]),
    ]
}

fn rule(action: &str) -> Rule {
    Rule {
        action: action.to_owned(),
        ..Rule::default()
    }
}

fn set(id: &str, members: &[&str]) -> ToDataplane {
    ToDataplane::IpSetUpdate(IpSetUpdate {
        id: id.to_owned(),
        members: members.iter().map(ToString::to_string).collect(),
        r#type: IpSetType::Net,
    })
}

fn id(name: &str) -> PolicyId {
    let kind = if name.starts_with("staged") {
        "StagedNetworkPolicy"
    } else {
        "NetworkPolicy"
    };
    PolicyId {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        kind: kind.to_owned(),
    }
}

fn policy(name: &str, inbound_rules: Vec<Rule>, outbound_rules: Vec<Rule>) -> ToDataplane {
    let policy = Policy {
        inbound_rules,
        outbound_rules,
        tier: "default".to_owned(),
        ..Policy::default()
    };
    ToDataplane::ActivePolicyUpdate(ActivePolicyUpdate { id: id(name), policy })
}

fn profile(name: &str, inbound_rules: Vec<Rule>, outbound_rules: Vec<Rule>) -> ToDataplane {
    ToDataplane::ActiveProfileUpdate(ActiveProfileUpdate {
        id: name.to_owned(),
        inbound_rules,
        outbound_rules,
    })
}

fn tier(ingress: &[&str], egress: &[&str]) -> TierInfo {
    TierInfo {
        name: "default".to_owned(),
        ingress_policies: ingress.iter().map(|name| id(name)).collect(),
        egress_policies: egress.iter().map(|name| id(name)).collect(),
        default_action: "Deny".to_owned(),
    }
}

fn workload_id(pod: &str) -> WorkloadEndpointId {
    WorkloadEndpointId {
        orchestrator_id: "k8s".to_owned(),
        workload_id: format!("shop/{pod}"),
        endpoint_id: "eth0".to_owned(),
    }
}

fn workload(pod: &str, interface: &str, address: &str, ingress: &[&str], profiles: &[&str]) -> ToDataplane {
    let endpoint = WorkloadEndpoint {
        state: "active".to_owned(),
        name: interface.to_owned(),
        profile_ids: profiles.iter().map(ToString::to_string).collect(),
        ipv4_nets: vec![format!("{address}/32")],
        tiers: vec![tier(ingress, &[])],
        ..WorkloadEndpoint::default()
    };
    ToDataplane::WorkloadEndpointUpdate(WorkloadEndpointUpdate {
        id: workload_id(pod),
        endpoint,
    })
}

fn host(name: &str, endpoint: HostEndpoint) -> ToDataplane {
    ToDataplane::HostEndpointUpdate(HostEndpointUpdate {
        endpoint_id: name.to_owned(),
        endpoint,
    })
}

fn config(settings: &[(&str, &str)]) -> ToDataplane {
    let pairs = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let config = pairs.collect();
    ToDataplane::ConfigUpdate(ConfigUpdate { config })
}

fn explain(enforcement: &mut Enforcement, from: &str, to: &str, port: u16) -> Answer {
    let question = Question {
        from: from.to_owned(),
        to: to.to_owned(),
        protocol: 6,
        source_port: 40_000,
        port,
    };
    let uplink = |_: IpAddr| Some(PortId(3));
    enforcement.explain(&question, &uplink).unwrap()
}

fn allows(enforcement: &mut Enforcement, from: &str, to: &str, port: u16) -> bool {
    explain(enforcement, from, to, port).verdict == Verdict::Allow
}

#[test]
fn both_ends_decide_and_the_way_is_told() {
    let mut plane = started();
    let answer = explain(&mut plane, "shop/client", "web", 80);
    assert_eq!((answer.verdict, answer.pending), (Verdict::Allow, None));
    let told: Vec<_> = answer
        .steps
        .iter()
        .map(|step| (step.endpoint.as_str(), step.stage, step.policy.as_deref(), step.rule))
        .collect();
    let (all, web) = (Some("Profile all"), Some("NetworkPolicy shop/web"));
    assert_eq!(
        told,
        [
            ("shop/client", "egress", all, Some(0)),
            ("shop/web", "ingress", web, Some(0))
        ]
    );
    assert_eq!(answer.steps[1].tier.as_deref(), Some("default"));
    let answer = explain(&mut plane, "client", "web", 81);
    assert_eq!(answer.verdict, Verdict::Deny);
    assert_eq!(answer.steps[1].reason, "no policy of the tier allows it");
    assert!(
        allows(&mut plane, "web", "client", 5),
        "no policy selects it, its profile allows"
    );
    assert!(
        !allows(&mut plane, "10.0.0.9", "web", 80),
        "behind a port that nobody described"
    );
    assert!(
        !allows(&mut plane, "client", "192.0.2.1", 80),
        "from a workload to its host"
    );
}

#[test]
fn nothing_is_in_force_before_everything_was_heard_once() {
    let mut plane = empty();
    snapshot().into_iter().for_each(|message| plane.receive(message));
    assert!(!plane.publish() && !plane.in_force());
    assert!(allows(&mut plane, "client", "web", 81));
    plane.receive(ToDataplane::InSync);
    assert!(plane.publish() && plane.in_force());
    assert!(!allows(&mut plane, "client", "web", 81));
    assert!(!plane.publish(), "nothing has changed");
}

#[test]
fn members_and_rules_change_and_what_is_missing_denies() {
    let mut plane = started();
    plane.receive(ToDataplane::IpSetDeltaUpdate(IpSetDeltaUpdate {
        id: "clients".to_owned(),
        added_members: vec!["10.0.0.7".to_owned(), "nonsense".to_owned()],
        removed_members: vec!["10.0.0.1/32".to_owned()],
    }));
    plane.publish();
    assert!(!allows(&mut plane, "client", "web", 80));
    assert_eq!(
        plane.take_warnings(),
        ["set clients: the member `nonsense` is left out: it is none"]
    );
    plane.receive(set("clients", &["10.0.0.0/30"]));
    plane.publish();
    assert!(allows(&mut plane, "client", "web", 80));
    plane.receive(ToDataplane::IpSetRemove("clients".to_owned()));
    plane.publish();
    let answer = explain(&mut plane, "client", "web", 80);
    let last = answer.steps.last().unwrap();
    assert_eq!(last.reason, "the policy is not there, or names a set that is not");
    assert_eq!(last.policy.as_deref(), Some("NetworkPolicy shop/web"));
    // It comes again, after what names it.
    plane.receive(set("clients", &["10.0.0.1"]));
    plane.publish();
    assert!(allows(&mut plane, "client", "web", 80));
    plane.receive(ToDataplane::ActivePolicyRemove(id("web")));
    plane.publish();
    assert!(!allows(&mut plane, "client", "web", 80), "its endpoint still has it");
    plane.receive(workload("web", "cali2", "10.0.0.2", &[], &["all"]));
    plane.publish();
    assert!(allows(&mut plane, "client", "web", 81));
    plane.receive(workload("web", "cali2", "10.0.0.2", &[], &[]));
    plane.publish();
    assert!(!allows(&mut plane, "client", "web", 81), "no policy, no profile");
}

#[test]
fn odd_rules_deny_and_are_told() {
    let mut plane = started();
    let mut odd = rule("allow");
    odd.protocol = Some(Protocol::Name("gre".to_owned()));
    plane.receive(policy("web", vec![rule("allow"), odd], vec![]));
    plane.publish();
    assert!(!allows(&mut plane, "client", "web", 80));
    assert_eq!(
        plane.take_warnings(),
        ["NetworkPolicy shop/web, ingress rule 1: the protocol `gre` is not known"]
    );
    let unfinished = plane
        .policies()
        .iter()
        .filter(|policy| policy.unfinished[0].is_some())
        .count();
    assert_eq!(unfinished, 1);
}

#[test]
fn staged_policies_decide_nothing_and_are_told_beside() {
    let mut plane = started();
    plane.receive(policy("staged-lock", vec![rule("deny")], vec![]));
    plane.receive(workload("web", "cali2", "10.0.0.2", &["staged-lock", "web"], &["all"]));
    plane.publish();
    let answer = explain(&mut plane, "client", "web", 80);
    assert_eq!((answer.verdict, answer.pending), (Verdict::Allow, Some(Verdict::Deny)));
    let pending: Vec<_> = answer.steps.iter().filter(|step| step.pending).collect();
    assert_eq!(pending.len(), 1);
    assert_eq!(
        pending[0].policy.as_deref(),
        Some("StagedNetworkPolicy shop/staged-lock")
    );
}

#[test]
fn host_endpoints_find_their_ports_and_keep_ways_in_open() {
    let mut plane = started();
    let lock = || HostEndpoint {
        name: "*".to_owned(),
        ..HostEndpoint::default()
    };
    plane.receive(host("all", lock()));
    plane.publish();
    assert!(
        !allows(&mut plane, "198.51.100.1", "192.0.2.1", 80),
        "no policy, no profile"
    );
    assert!(allows(&mut plane, "198.51.100.1", "192.0.2.1", 22), "a failsafe port");
    assert!(allows(&mut plane, "10.0.0.1", "198.51.100.1", 80), "no forward policy");
    let open = |name: &str, addresses: Vec<String>| HostEndpoint {
        name: name.to_owned(),
        profile_ids: vec!["all".to_owned()],
        expected_ipv4_addrs: addresses,
        ..HostEndpoint::default()
    };
    plane.receive(host("by-address", open("", vec!["192.0.2.1".to_owned()])));
    plane.publish();
    assert!(allows(&mut plane, "198.51.100.1", "192.0.2.1", 80));
    plane.receive(host(
        "by-name",
        HostEndpoint {
            name: "eth0".to_owned(),
            ..lock()
        },
    ));
    plane.publish();
    assert!(!allows(&mut plane, "198.51.100.1", "192.0.2.1", 80));
    // The forward policy of all interfaces reaches workloads, too.
    plane.receive(policy("forward", vec![rule("deny")], vec![]));
    plane.receive(host(
        "all",
        HostEndpoint {
            forward_tiers: vec![tier(&["forward"], &[])],
            ..lock()
        },
    ));
    plane.publish();
    let answer = explain(&mut plane, "client", "web", 80);
    assert_eq!((answer.verdict, answer.steps[0].stage), (Verdict::Deny, "forward"));
}

#[test]
fn settings_are_heeded() {
    let mut plane = started();
    assert!(
        !allows(&mut plane, "client", "198.51.100.1", 80),
        "nobody described eth0"
    );
    plane.receive(config(&[
        ("InterfacePrefix", "cali"),
        ("DefaultEndpointToHostAction", "Accept"),
    ]));
    plane.publish();
    assert!(allows(&mut plane, "client", "198.51.100.1", 80));
    assert!(allows(&mut plane, "client", "192.0.2.1", 80));
    // cali4 is a workload's, and nobody described it.
    let question = Question {
        from: "client".to_owned(),
        to: "198.51.100.1".to_owned(),
        protocol: 6,
        source_port: 1,
        port: 1,
    };
    let answer = plane.explain(&question, &|_| Some(PortId(4))).unwrap();
    assert_eq!(answer.verdict, Verdict::Deny);
    for (from, sentence) in [
        ("nobody", "there is no workload, host endpoint or address"),
        ("fd00::1", "no addresses of one family"),
    ] {
        let question = Question {
            from: from.to_owned(),
            ..question.clone()
        };
        let error = plane.explain(&question, &|_| Some(PortId(4))).unwrap_err();
        assert!(error.contains(sentence), "{error}");
    }
}

/// A message about one of a few things.
fn message() -> impl Strategy<Value = ToDataplane> {
    let name = || prop::sample::select(vec!["a", "b", "staged-c"]);
    let action = || prop::sample::select(vec!["allow", "deny", "pass", "log", "odd"]);
    let made_rule = || {
        (action(), prop::option::of(name()), any::<bool>()).prop_map(|(action, set, port)| {
            let mut rule = rule(action);
            rule.src.ip_set_ids = set.map(str::to_owned).into_iter().collect();
            if port {
                rule.protocol = Some(Protocol::Number(6));
                rule.dst.ports = vec![PortRange { first: 80, last: 81 }];
            }
            rule
        })
    };
    let rules = || prop::collection::vec(made_rule(), 0..3);
    let member = || prop::sample::select(vec!["10.0.0.0/30", "10.0.0.1", "10.0.0.2", "198.51.100.0/24"]);
    let pod = || prop::sample::select(vec![("client", "cali1", "10.0.0.1"), ("web", "cali2", "10.0.0.2")]);
    let names = || prop::collection::vec(name(), 0..3);
    prop_oneof![
        3 => (name(), prop::collection::vec(member(), 0..3)).prop_map(|(name, members)| set(name, &members)),
        1 => name().prop_map(|name| ToDataplane::IpSetRemove(name.to_owned())),
        4 => (name(), rules(), rules()).prop_map(|(name, inbound, outbound)| policy(name, inbound, outbound)),
        1 => name().prop_map(|name| ToDataplane::ActivePolicyRemove(id(name))),
        2 => (name(), rules(), rules()).prop_map(|(name, inbound, outbound)| profile(name, inbound, outbound)),
        1 => name().prop_map(|name| ToDataplane::ActiveProfileRemove(name.to_owned())),
        4 => (pod(), names(), names()).prop_map(|((pod, interface, address), policies, profiles)| {
            workload(pod, interface, address, &policies, &profiles)
        }),
        1 => pod().prop_map(|(pod, ..)| ToDataplane::WorkloadEndpointRemove(workload_id(pod))),
        2 => (prop::sample::select(vec!["*", "eth0"]), names()).prop_map(|(name, policies)| {
            let endpoint = HostEndpoint {
                name: name.to_owned(),
                tiers: vec![tier(&policies, &[])],
                forward_tiers: vec![tier(&policies, &policies)],
                ..HostEndpoint::default()
            };
            host(name, endpoint)
        }),
        1 => prop::sample::select(vec!["*", "eth0"]).prop_map(|name| ToDataplane::HostEndpointRemove(name.to_owned())),
    ]
}

/// What a message is about, and whether it says that it is there.
fn subject(message: &ToDataplane) -> (String, bool) {
    use ToDataplane as To;
    match message {
        To::IpSetUpdate(update) => (format!("set {}", update.id), true),
        To::IpSetRemove(id) => (format!("set {id}"), false),
        To::ActivePolicyUpdate(update) => (format!("policy {:?}", update.id), true),
        To::ActivePolicyRemove(id) => (format!("policy {id:?}"), false),
        To::ActiveProfileUpdate(update) => (format!("profile {}", update.id), true),
        To::ActiveProfileRemove(id) => (format!("profile {id}"), false),
        To::WorkloadEndpointUpdate(update) => (format!("workload {:?}", update.id), true),
        To::WorkloadEndpointRemove(id) => (format!("workload {id:?}"), false),
        To::HostEndpointUpdate(update) => (format!("host {}", update.endpoint_id), true),
        To::HostEndpointRemove(id) => (format!("host {id}"), false),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever came before, the same is in force as if only what is there now had been told.
    #[test]
    fn a_history_ends_where_its_end_begins(messages in prop::collection::vec(message(), 1..40), at in 0usize..40) {
        let mut plane = empty();
        let mut now = std::collections::BTreeMap::new();
        for (place, message) in messages.iter().enumerate() {
            plane.receive(message.clone());
            if place == at {
                plane.receive(ToDataplane::InSync);
            }
            plane.publish();
            plane.reclaim();
            let (subject, there) = subject(message);
            match there {
                true => now.insert(subject, message.clone()),
                false => now.remove(&subject),
            };
        }
        plane.receive(ToDataplane::InSync);
        plane.publish();
        let mut fresh = empty();
        now.into_values().for_each(|message| fresh.receive(message));
        fresh.receive(ToDataplane::InSync);
        fresh.publish();
        for from in ["10.0.0.1", "10.0.0.2", "198.51.100.1", "192.0.2.1"] {
            for to in ["10.0.0.1", "10.0.0.2", "198.51.100.1", "192.0.2.1"] {
                for port in [80, 22] {
                    prop_assert_eq!(explain(&mut plane, from, to, port), explain(&mut fresh, from, to, port));
                }
            }
        }
        prop_assert_eq!(plane.policies(), fresh.policies());
    }
}
