//! Every bad document about policy gets its sentence.

use control::refusal::Refusal;
use control::resource::read;

use crate::{calico, yaml};

pub fn refused(text: &str) -> Refusal {
    match read(&yaml(text)) {
        Err(refusal) => refusal,
        Ok(documents) => panic!("accepted: {documents:?}\nfrom: {text}"),
    }
}

/// The kind, its spec, the path of the field at fault, and a part of the sentence.
type Case = (&'static str, &'static str, &'static str, &'static str);

fn check(document_of: fn(&str, &str) -> String, cases: &[Case]) {
    for (kind, spec, field, part) in cases {
        let refusal = refused(&document_of(kind, spec));
        assert_eq!(refusal.field.as_deref().unwrap_or(""), *field, "{spec}\n{refusal}");
        assert!(refusal.error.contains(part), "{spec}\nexpected: {part}\nis: {refusal}");
        assert!(refusal.error.starts_with("a.yaml document 1, "), "{refusal}");
        assert!(!refusal.error.contains('\n'), "{refusal}");
    }
}

const POLICIES: &[Case] = &[
    (
        "NetworkPolicy",
        "{order: null}",
        "spec.order",
        "expected a finite number",
    ),
    (
        "NetworkPolicy",
        "{order: first}",
        "spec.order",
        "invalid type: string \"first\"",
    ),
    ("NetworkPolicy", "{selecter: all()}", "spec.selecter", "unknown field"),
    (
        "NetworkPolicy",
        "{selector: \"app = 'web'\"}",
        "spec.selector",
        "`app = 'web'` is not a selector: at character 5, expected `==`",
    ),
    (
        "NetworkPolicy",
        "{selector: global()}",
        "spec.selector",
        "has `global()`",
    ),
    (
        "NetworkPolicy",
        "{types: [Ingress, Ingress]}",
        "spec.types[1]",
        "Ingress stands twice",
    ),
    (
        "NetworkPolicy",
        "{types: [Both]}",
        "spec.types[0]",
        "unknown variant `Both`",
    ),
    ("NetworkPolicy", "{tier: 'Not A Tier'}", "spec.tier", "is not a name"),
    (
        "NetworkPolicy",
        "{doNotTrack: true}",
        "spec.doNotTrack",
        "a NetworkPolicy has none",
    ),
    (
        "NetworkPolicy",
        "{namespaceSelector: all()}",
        "spec.namespaceSelector",
        "a NetworkPolicy has none",
    ),
    (
        "GlobalNetworkPolicy",
        "{stagedAction: Set}",
        "spec.stagedAction",
        "a GlobalNetworkPolicy has none",
    ),
    (
        "GlobalNetworkPolicy",
        "{doNotTrack: true}",
        "spec.applyOnForward",
        "has to be true",
    ),
    (
        "GlobalNetworkPolicy",
        "{doNotTrack: true, preDNAT: true, applyOnForward: true}",
        "spec.preDNAT",
        "cannot stand beside `doNotTrack`",
    ),
    (
        "GlobalNetworkPolicy",
        "{preDNAT: true, applyOnForward: true, egress: [{action: Allow}]}",
        "spec.egress",
        "which is for ingress",
    ),
    (
        "GlobalNetworkPolicy",
        "{preDNAT: true, applyOnForward: true, types: [Egress]}",
        "spec.types",
        "which is for ingress",
    ),
    (
        "NetworkPolicy",
        "{egress: [{action: Allow, source: {services: {name: a}}}]}",
        "spec.egress[0].source.services",
        "write it at `destination`",
    ),
    (
        "NetworkPolicy",
        "{egress: [{action: Allow, protocol: TCP, destination: {services: {name: a}, ports: [80]}}]}",
        "spec.egress[0].destination.services",
        "stands beside other fields",
    ),
    (
        "GlobalNetworkPolicy",
        "{egress: [{action: Allow, destination: {services: {name: a}}}]}",
        "spec.egress[0].destination.services.namespace",
        "is missing",
    ),
    (
        "StagedNetworkPolicy",
        "{stagedAction: Perhaps}",
        "spec.stagedAction",
        "unknown variant",
    ),
    ("Tier", "{order: null}", "spec.order", "expected a finite number"),
    (
        "Tier",
        "{defaultAction: Allow}",
        "spec.defaultAction",
        "unknown variant `Allow`",
    ),
];

#[test]
fn policies() {
    check(calico, POLICIES);
}

fn rule(_: &str, rule: &str) -> String {
    calico("NetworkPolicy", &format!("{{ingress: [{{action: Allow}}, {rule}]}}"))
}

const RULES: &[Case] = &[
    (
        "",
        "{protocol: TCP}",
        "spec.ingress[1].action",
        "missing field `action`",
    ),
    (
        "",
        "{action: allow}",
        "spec.ingress[1].action",
        "unknown variant `allow`",
    ),
    (
        "",
        "{action: Allow, protocol: TCPP}",
        "spec.ingress[1].protocol",
        "expected TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255",
    ),
    (
        "",
        "{action: Allow, protocol: 0}",
        "spec.ingress[1].protocol",
        "from 1 to 255",
    ),
    (
        "",
        "{action: Allow, protocol: 256}",
        "spec.ingress[1].protocol",
        "from 1 to 255",
    ),
    (
        "",
        "{action: Allow, protocol: TCP, destination: {ports: [70000]}}",
        "spec.ingress[1].destination.ports[0]",
        "a port from 0 to 65535",
    ),
    (
        "",
        "{action: Allow, protocol: TCP, destination: {ports: ['9:8']}}",
        "spec.ingress[1].destination.ports[0]",
        "with the lower first",
    ),
    (
        "",
        "{action: Allow, protocol: TCP, destination: {ports: ['a b']}}",
        "spec.ingress[1].destination.ports[0]",
        "a port's name",
    ),
    (
        "",
        "{action: Allow, destination: {ports: [80]}}",
        "spec.ingress[1].destination.ports",
        "need a `protocol` that has them",
    ),
    (
        "",
        "{action: Allow, protocol: ICMP, source: {notPorts: [80]}}",
        "spec.ingress[1].source.notPorts",
        "need a `protocol` that has them",
    ),
    (
        "",
        "{action: Allow, source: {nets: [10.0.0.1/8]}}",
        "spec.ingress[1].source.nets[0]",
        "bits set beyond its prefix length; write 10.0.0.0/8",
    ),
    (
        "",
        "{action: Allow, source: {notNets: [10.0.0.0/33]}}",
        "spec.ingress[1].source.notNets[0]",
        "a prefix such as",
    ),
    (
        "",
        "{action: Allow, source: {nets: [10.0.0.0/8]}, destination: {nets: ['fd00::/8']}}",
        "spec.ingress[1].destination.nets",
        "is of IPv6, and source.nets of IPv4; write a rule for each",
    ),
    (
        "",
        "{action: Allow, ipVersion: 6, protocol: ICMP}",
        "spec.ingress[1].protocol",
        "is of IPv4, and ipVersion of IPv6",
    ),
    (
        "",
        "{action: Allow, ipVersion: 5}",
        "spec.ingress[1].ipVersion",
        "expected 4 or 6",
    ),
    (
        "",
        "{action: Allow, protocol: TCP, icmp: {type: 8}}",
        "spec.ingress[1].icmp",
        "needs `protocol: ICMP`",
    ),
    (
        "",
        "{action: Allow, protocol: ICMP, icmp: {code: 8}}",
        "spec.ingress[1].icmp.code",
        "a code of no type",
    ),
    (
        "",
        "{action: Allow, protocol: ICMP, notICMP: {type: 255}}",
        "spec.ingress[1].notICMP.type",
        "expected 0 to 254",
    ),
    (
        "",
        "{action: Allow, protocol: ICMP, icmp: {type: 8, code: 256}}",
        "spec.ingress[1].icmp.code",
        "a whole number from 0 to 255",
    ),
    (
        "",
        "{action: Allow, http: {methods: [GET]}}",
        "spec.ingress[1].http",
        "matches HTTP, which is inside of connections",
    ),
    (
        "",
        "{action: Allow, source: {selector: \"(has(a)\"}}",
        "spec.ingress[1].source.selector",
        "at character 8, expected `)`",
    ),
    (
        "",
        "{action: Allow, source: {notSelector: global()}}",
        "spec.ingress[1].source.notSelector",
        "has `global()`",
    ),
    (
        "",
        "{action: Allow, source: {serviceAccounts: {names: ['A B']}}}",
        "spec.ingress[1].source.serviceAccounts.names[0]",
        "is not a name",
    ),
    (
        "",
        "{action: Allow, source: {services: {name: a}, nets: [10.0.0.0/8]}}",
        "spec.ingress[1].source.services",
        "stands beside other fields",
    ),
    (
        "",
        "{action: Allow, source: {services: {name: a}, serviceAccounts: {names: [a]}}}",
        "spec.ingress[1].source.services",
        "stands beside other fields",
    ),
    (
        "",
        "{action: Allow, source: {services: {name: 'A B'}}}",
        "spec.ingress[1].source.services.name",
        "is not a name",
    ),
    (
        "",
        "{action: Allow, source: {services: {name: a, namespace: a.b}}}",
        "spec.ingress[1].source.services.namespace",
        "is not a name",
    ),
    (
        "",
        "{action: Allow, destination: {services: {name: a}}}",
        "spec.ingress[1].destination.services",
        "write it at `source`",
    ),
    (
        "",
        "{action: Allow, source: {domains: [a]}}",
        "spec.ingress[1].source.domains",
        "unknown field",
    ),
];

#[test]
fn rules() {
    check(rule, RULES);
}

const OTHERS: &[Case] = &[
    ("NetworkSet", "{nets: [10.0.0.1/8]}", "spec.nets[0]", "bits set beyond"),
    ("GlobalNetworkSet", "{nets: [all]}", "spec.nets[0]", "a prefix such as"),
    ("HostEndpoint", "{node: n}", "spec.interfaceName", "so is `expectedIPs`"),
    (
        "HostEndpoint",
        "{expectedIPs: [10.0.0.0/8]}",
        "spec.expectedIPs[0]",
        "an address, such as",
    ),
    (
        "HostEndpoint",
        "{interfaceName: eth0, ports: [{name: a, protocol: ICMP, port: 1}]}",
        "spec.ports[0].protocol",
        "ICMP has no ports",
    ),
    (
        "HostEndpoint",
        "{interfaceName: eth0, profiles: [a, a]}",
        "spec.profiles[1]",
        "a stands twice",
    ),
    (
        "WorkloadEndpoint",
        "{ipNetworks: [10.0.0.0/24]}",
        "spec.ipNetworks[0]",
        "an address",
    ),
    ("WorkloadEndpoint", "{mac: here}", "spec.mac", "an Ethernet address"),
    (
        "WorkloadEndpoint",
        "{ipNetworks: [10.0.0.1], ipNATs: [{internalIP: 10.0.0.2, externalIP: 192.0.2.1}]}",
        "spec.ipNATs[0].internalIP",
        "is no address of the endpoint's",
    ),
    (
        "WorkloadEndpoint",
        "{ports: [{name: a, protocol: TCP, port: 0}]}",
        "spec.ports[0].port",
        "from 1 to 65535",
    ),
    ("IPPool", "{cidr: 10.0.0.1/16}", "spec.cidr", "bits set beyond"),
    (
        "IPPool",
        "{cidr: 10.0.0.0/16, blockSize: 8}",
        "spec.blockSize",
        "expected 20 to 32",
    ),
    (
        "IPPool",
        "{cidr: 10.0.0.0/16, ipipMode: Always, vxlanMode: Always}",
        "spec.vxlanMode",
        "one of them has to be Never",
    ),
];

#[test]
fn other_kinds_of_calico() {
    check(calico, OTHERS);
}

pub fn kubernetes(_: &str, spec: &str) -> String {
    format!("{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: a}}, spec: {spec}}}")
}

const KUBERNETES: &[Case] = &[
    ("", "{podSelecter: {}}", "spec.podSelecter", "unknown field"),
    (
        "",
        "{podSelector: {matchExpressions: [{key: a, operator: In}]}}",
        "spec.podSelector.matchExpressions[0].values",
        "is empty",
    ),
    (
        "",
        "{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
        "spec.podSelector.matchExpressions[0].values",
        "speak of none",
    ),
    (
        "",
        "{podSelector: {matchLabels: {a: \"it's\"}}}",
        "spec.podSelector.matchLabels",
        "is not the value of a label",
    ),
    (
        "",
        "{ingress: [{from: [{}]}]}",
        "spec.ingress[0].from[0]",
        "says nothing",
    ),
    (
        "",
        "{ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}",
        "spec.ingress[0].from[0].ipBlock",
        "stands beside a selector",
    ),
    (
        "",
        "{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [192.0.2.0/24]}}]}]}",
        "spec.egress[0].to[0].ipBlock.except",
        "192.0.2.0/24 is not a part of 10.0.0.0/8",
    ),
    (
        "",
        "{ingress: [{ports: [{port: 70000}]}]}",
        "spec.ingress[0].ports[0].port",
        "from 0 to 65535",
    ),
    (
        "",
        "{ingress: [{ports: [{port: 0}]}]}",
        "spec.ingress[0].ports[0].port",
        "from 1 to 65535",
    ),
    (
        "",
        "{ingress: [{ports: [{protocol: ICMP}]}]}",
        "spec.ingress[0].ports[0].protocol",
        "ICMP has no ports",
    ),
    (
        "",
        "{ingress: [{ports: [{port: 80, endPort: 79}]}]}",
        "spec.ingress[0].ports[0].endPort",
        "is less than port 80",
    ),
    (
        "",
        "{ingress: [{ports: [{port: http, endPort: 79}]}]}",
        "spec.ingress[0].ports[0].endPort",
        "needs a `port` that is a number",
    ),
];

#[test]
fn kubernetes_policies() {
    check(kubernetes, KUBERNETES);
}
