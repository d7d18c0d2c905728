//! Random policies as people write them, random packets, and a naive reading of Calico's rules: what passes the whole graph
//! is what that reading allows, after every change.

use std::fmt::Write;
use std::net::IpAddr;

use proptest::prelude::*;
use testbed::Plane;
use testbed::packets::{frame, open, port_mac, tcp, udp};

/// Who takes part: port, label, IPv4 and IPv6 address, number. The last is the world, behind a host endpoint.
const HOSTS: [(&str, &str, [&str; 2], u8); 4] = [
    ("web", "web", ["10.1.0.2", "fd00:1::2"], 1),
    ("api", "api", ["10.2.0.2", "fd00:2::2"], 2),
    ("db", "db", ["10.3.0.2", "fd00:3::2"], 3),
    ("uplink", "", ["192.0.2.2", "fd00:9::2"], 9),
];
const TIERS: [(&str, &str); 3] = [("first", "Deny"), ("second", "Pass"), ("default", "Deny")];
const PORTS: [u16; 4] = [80, 81, 443, 5432];
const ACTIONS: [&str; 4] = ["Allow", "Deny", "Pass", "Log"];

#[derive(Clone, Copy, Debug)]
enum Selector {
    All,
    Is(usize),
    IsNot(usize),
}

#[derive(Clone, Debug)]
struct Rule {
    action: usize,
    udp: Option<bool>,
    negate_protocol: bool,
    ports: Option<(usize, usize)>,
    negate_ports: bool,
    peer: Option<Selector>,
    net: Option<usize>,
    negate_net: bool,
}

#[derive(Clone, Debug)]
struct Policy {
    tier: usize,
    order: u8,
    staged: bool,
    selector: Selector,
    /// Rules of ingress and of egress, for as far as it has these types.
    rules: [Option<Vec<Rule>>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    from: usize,
    to: usize,
    family: usize,
    udp: bool,
    port: usize,
}

fn label(host: usize) -> &'static str {
    HOSTS[host].1
}

impl Selector {
    fn selects(self, host: usize) -> bool {
        match self {
            Selector::All => host < 3,
            Selector::Is(of) => label(host) == label(of),
            Selector::IsNot(of) => host < 3 && label(host) != label(of),
        }
    }

    /// The world's endpoint has no label: a selector that asks for one leaves it out.
    fn text(self) -> String {
        match self {
            Selector::All => "has(app)".to_owned(),
            Selector::Is(of) => format!("app == '{}'", label(of)),
            Selector::IsNot(of) => format!("has(app) && app != '{}'", label(of)),
        }
    }
}

/// The networks that rules name, for each family: of a host, or of all.
fn net(of: usize, family: usize) -> String {
    match (HOSTS.get(of), family) {
        (Some(host), 0) => format!("{}/32", host.2[0]),
        (Some(host), _) => format!("{}/128", host.2[1]),
        (None, 0) => "10.0.0.0/8".to_owned(),
        (None, _) => "fd00::/29".to_owned(),
    }
}

fn in_net(host: usize, of: usize) -> bool {
    if of < HOSTS.len() { host == of } else { host < 3 }
}

impl Rule {
    fn matches(&self, packet: &Packet, peer: usize) -> bool {
        let protocol = self.udp.is_none_or(|udp| (udp == packet.udp) != self.negate_protocol);
        // Ports need a protocol, and both have ports here.
        let within = |(first, last): (usize, usize)| (first.min(last)..=first.max(last)).contains(&packet.port);
        let port = self.ports().is_none_or(|range| within(range) != self.negate_ports);
        let selected = self.peer.is_none_or(|selector| selector.selects(peer));
        let net = self.net.is_none_or(|of| in_net(peer, of) != self.negate_net);
        protocol && port && selected && net
    }

    /// Calico takes ports only beside a protocol that has some.
    fn ports(&self) -> Option<(usize, usize)> {
        self.ports.filter(|_| self.udp.is_some() && !self.negate_protocol)
    }

    fn text(&self, ingress: bool) -> String {
        let (mut rule, mut source, mut destination) = (format!("action: {}", ACTIONS[self.action]), vec![], vec![]);
        if let Some(udp) = self.udp {
            let key = if self.negate_protocol {
                "notProtocol"
            } else {
                "protocol"
            };
            write!(rule, ", {key}: {}", if udp { "UDP" } else { "TCP" }).unwrap();
        }
        if let Some((first, last)) = self.ports() {
            let (first, last) = (PORTS[first.min(last)], PORTS[first.max(last)]);
            let key = if self.negate_ports { "notPorts" } else { "ports" };
            destination.push(format!("{key}: ['{first}:{last}']"));
        }
        let peer = if ingress { &mut source } else { &mut destination };
        peer.extend(self.peer.map(|selector| format!("selector: \"{}\"", selector.text())));
        if let Some(of) = self.net {
            let key = if self.negate_net { "notNets" } else { "nets" };
            // A rule with networks of both families would match neither's packets alike; one rule for each.
            peer.push(format!("{key}: ['FAMILY{of}']"));
        }
        for (end, parts) in [("source", source), ("destination", destination)] {
            if !parts.is_empty() {
                write!(rule, ", {end}: {{{}}}", parts.join(", ")).unwrap();
            }
        }
        match self.net {
            Some(of) => [0, 1]
                .map(|family| {
                    let version = if family == 0 { 4 } else { 6 };
                    format!("{{{rule}, ipVersion: {version}}}").replace(&format!("FAMILY{of}"), &net(of, family))
                })
                .join(", "),
            None => format!("{{{rule}}}"),
        }
    }
}

impl Policy {
    fn name(&self, slot: usize) -> String {
        format!("{}.policy-{slot}", TIERS[self.tier].0)
    }

    fn head(&self, slot: usize) -> String {
        let staged = if self.staged { "Staged" } else { "" };
        format!(
            "apiVersion: projectcalico.org/v3, kind: {staged}GlobalNetworkPolicy, metadata: {{name: {}}}",
            self.name(slot)
        )
    }

    fn text(&self, slot: usize) -> String {
        let (mut types, mut rules) = (vec![], String::new());
        for (direction, (kind, key)) in [("Ingress", "ingress"), ("Egress", "egress")].into_iter().enumerate() {
            let Some(of) = &self.rules[direction] else { continue };
            types.push(kind);
            let of: Vec<String> = of.iter().map(|rule| rule.text(direction == 0)).collect();
            write!(rules, ", {key}: [{}]", of.join(", ")).unwrap();
        }
        format!(
            "{{{}, spec: {{tier: {}, order: {}, selector: \"{}\", types: [{}]{rules}}}}}\n",
            self.head(slot),
            TIERS[self.tier].0,
            self.order,
            self.selector.text(),
            types.join(", ")
        )
    }
}

/// What calico.md says of a packet at one endpoint, in one direction: 0 is ingress, 1 egress.
fn allows(policies: &[Option<Policy>], endpoint: usize, peer: usize, direction: usize, packet: &Packet) -> bool {
    for (tier, (_, default)) in TIERS.iter().enumerate() {
        let applies = |policy: &&Policy| {
            policy.tier == tier
                && !policy.staged
                && policy.selector.selects(endpoint)
                && policy.rules[direction].is_some()
        };
        let named = policies.iter().enumerate();
        let named = named.filter_map(|(slot, policy)| Some((slot, policy.as_ref()?)));
        let mut here: Vec<_> = named.filter(|(_, policy)| applies(policy)).collect();
        here.sort_by_key(|(slot, policy)| (policy.order, policy.name(*slot)));
        let rules = here
            .iter()
            .filter_map(|(_, policy)| policy.rules[direction].as_ref())
            .flatten();
        let mut decided = rules
            .filter(|rule| rule.matches(packet, peer))
            .map(|rule| ACTIONS[rule.action]);
        match decided.find(|action| *action != "Log") {
            Some("Allow") => return true,
            Some("Deny") => return false,
            Some(_) => {}
            None if here.is_empty() || *default == "Pass" => {}
            None => return false,
        }
    }
    // The profile of the namespace allows.
    true
}

fn expected(policies: &[Option<Policy>], packet: &Packet) -> bool {
    let out = packet.from == 3 || allows(policies, packet.from, packet.to, 1, packet);
    let into = packet.to == 3 || allows(policies, packet.to, packet.from, 0, packet);
    out && into
}

fn network() -> String {
    let mut text = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n".to_owned();
    for (tier, default) in &TIERS[..2] {
        let order = if *tier == "first" { 1 } else { 2 };
        writeln!(
            text,
            "---\n{{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {{name: {tier}}}, spec: {{order: {order}, defaultAction: {default}}}}}"
        )
        .unwrap();
    }
    for (port, app, [v4, v6], number) in HOSTS {
        let [gateway4, gateway6] = [v4, v6].map(|address| format!("{}1", &address[..address.len() - 1]));
        writeln!(text, "---\n{{apiVersion: margay/v1, kind: Port, metadata: {{name: {port}}}, spec: {{device: {port}, driver: memory, addresses: [{gateway4}/24, '{gateway6}/64']}}}}").unwrap();
        for (family, address) in [("4", v4), ("6", v6)] {
            writeln!(text, "---\n{{apiVersion: margay/v1, kind: Neighbor, metadata: {{name: {port}-{family}}}, spec: {{port: {port}, address: '{address}', mac: '02:00:00:00:00:0{number}'}}}}").unwrap();
        }
        let endpoint = match app {
            "" => format!(
                "{{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {{name: {port}}}, spec: {{node: here, interfaceName: {port}}}}}"
            ),
            app => format!(
                "{{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {{name: {port}, namespace: shop, labels: {{app: {app}}}}}, spec: {{orchestrator: k8s, node: here, pod: {port}, endpoint: eth0, interfaceName: {port}, ipNetworks: [{v4}/32, '{v6}/128'], profiles: [kns.shop]}}}}"
            ),
        };
        writeln!(text, "---\n{endpoint}").unwrap();
    }
    text
}

/// Whether a packet of a connection of its own arrives.
fn passes(plane: &mut Plane, packet: &Packet, number: u16) -> bool {
    let (from, to) = (&HOSTS[packet.from], &HOSTS[packet.to]);
    let address = |host: &(&str, &str, [&str; 2], u8)| -> IpAddr { host.2[packet.family].parse().unwrap() };
    let ends = ((address(from), number), (address(to), PORTS[packet.port]));
    let bytes = match packet.udp {
        true => udp(ends.0, ends.1, 64, b"?"),
        false => tcp(ends.0, ends.1, 64),
    };
    let link = frame(port_mac_of(from.0), [2, 0, 0, 0, 0, from.3], &bytes);
    let [arrived] = plane.exchange(from.0, &[link], [to.0]);
    let header = if packet.family == 0 { 20 } else { 40 };
    arrived.iter().any(|frame| open(frame).payload == bytes[header..])
}

/// Ports get their addresses in the order of their coming.
fn port_mac_of(port: &str) -> [u8; 6] {
    let place = HOSTS.iter().position(|host| host.0 == port).unwrap();
    port_mac(place as u8 + 1)
}

fn selectors() -> impl Strategy<Value = Selector> {
    prop_oneof![
        Just(Selector::All),
        (0..3usize).prop_map(Selector::Is),
        (0..3usize).prop_map(Selector::IsNot)
    ]
}

fn rules() -> impl Strategy<Value = Rule> {
    let protocol = (proptest::option::of(any::<bool>()), any::<bool>());
    let ports = (proptest::option::of((0..4usize, 0..4usize)), any::<bool>());
    let peer = (
        proptest::option::of(selectors()),
        proptest::option::weighted(0.3, 0..5usize),
        any::<bool>(),
    );
    (0..4usize, protocol, ports, peer).prop_map(
        |(action, (udp, negate_protocol), (ports, negate_ports), (peer, net, negate_net))| Rule {
            action,
            udp,
            negate_protocol,
            ports,
            negate_ports,
            peer,
            net,
            negate_net,
        },
    )
}

fn policies() -> impl Strategy<Value = Policy> {
    let some_rules = || proptest::option::of(proptest::collection::vec(rules(), 0..4));
    let types = (some_rules(), some_rules()).prop_map(|(ingress, egress)| match (ingress, egress) {
        // One without a type is not written; Calico would take Ingress.
        (None, None) => [Some(vec![]), None],
        (ingress, egress) => [ingress, egress],
    });
    (0..3usize, 0..4u8, proptest::bool::weighted(0.2), selectors(), types).prop_map(
        |(tier, order, staged, selector, rules)| Policy {
            tier,
            order,
            staged,
            selector,
            rules,
        },
    )
}

fn packets() -> impl Strategy<Value = Packet> {
    (0..4usize, 1..4usize, 0..2usize, any::<bool>(), 0..4usize).prop_map(|(from, step, family, udp, port)| Packet {
        from,
        to: (from + step) % 4,
        family,
        udp,
        port,
    })
}

/// A change of one policy, and what is sent then.
fn steps() -> impl Strategy<Value = (usize, Option<Policy>, Vec<Packet>)> {
    let change = proptest::option::weighted(0.8, policies());
    (0..5usize, change, proptest::collection::vec(packets(), 12))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_passes_is_what_the_rules_allow(steps in proptest::collection::vec(steps(), 1..12)) {
        let mut plane = Plane::new(&network()).unwrap();
        let mut policies = vec![None; 5];
        let mut number = 1024;
        for (slot, next, packets) in steps {
            let before: Option<Policy> = std::mem::replace(&mut policies[slot], next);
            if let Some(before) = before {
                plane.delete(&format!("{{{}}}", before.head(slot))).unwrap();
            }
            if let Some(policy) = &policies[slot] {
                plane.apply(&policy.text(slot)).unwrap();
            }
            for packet in packets {
                number += 1;
                let wanted = expected(&policies, &packet);
                let found = passes(&mut plane, &packet, number);
                prop_assert_eq!(found, wanted, "{:?} under {:?}; {:?}", packet, policies, plane.drops());
            }
        }
    }
}
