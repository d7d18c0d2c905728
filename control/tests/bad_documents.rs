//! Every bad document gets its sentence.

#[path = "documents/mutated.rs"]
mod mutated;

use control::refusal::Refusal;
use control::resource::{Format, Source, read};
use serde_json::json;

fn yaml(text: &str) -> Vec<Source> {
    vec![Source::file("a.yaml", text)]
}

fn refused(text: &str) -> Refusal {
    match read(&yaml(text)) {
        Err(refusal) => refusal,
        Ok(documents) => panic!("accepted: {documents:?}\nfrom: {text}"),
    }
}

fn port(spec: &str) -> String {
    format!("{{apiVersion: margay/v1, kind: Port, metadata: {{name: left}}, spec: {spec}}}")
}

fn route(spec: &str) -> String {
    format!("{{apiVersion: margay/v1, kind: Route, metadata: {{name: to-right}}, spec: {spec}}}")
}

fn neighbor(spec: &str) -> String {
    format!("{{apiVersion: margay/v1, kind: Neighbor, metadata: {{name: peer}}, spec: {spec}}}")
}

/// The document or its spec, the path of the field at fault, and a part of the sentence.
type Case = (&'static str, &'static str, &'static str);

fn check(document_of: fn(&str) -> String, cases: &[Case]) {
    for (text, field, part) in cases {
        let refusal = refused(&document_of(text));
        assert_eq!(refusal.field.as_deref().unwrap_or(""), *field, "{text}\n{refusal}");
        assert!(refusal.error.contains(part), "{text}\nexpected: {part}\nis: {refusal}");
        let document = refusal.document.as_deref().unwrap();
        assert!(document.starts_with("a.yaml document 1"), "{document}");
        assert!(refusal.error.starts_with(document), "{refusal}");
        assert!(!refusal.error.contains('\n'), "{refusal}");
    }
}

const ENVELOPES: &[Case] = &[
    ("just text", "", "expected a mapping with `apiVersion`"),
    ("[1, 2]", "", "expected a mapping"),
    ("kind: Port", "apiVersion", "missing field `apiVersion`"),
    ("apiVersion: margay/v1", "kind", "missing field `kind`"),
    (
        "{apiVersion: 1, kind: Port}",
        "apiVersion",
        "expected text, such as `margay/v1`, not 1",
    ),
    (
        "{apiVersion: margay/v1, kind: Prot}",
        "kind",
        "unknown kind `Prot`; expected Port, Route, Neighbor, ",
    ),
    (
        "{apiVersion: margay/v2, kind: Port}",
        "apiVersion",
        "no version `margay/v2`; expected `margay/v1`",
    ),
    (
        "{apiVersion: margay/v1, kind: Port}",
        "metadata",
        "missing field `metadata`",
    ),
    (
        "{apiVersion: margay/v1, kind: Port, metadata: {}}",
        "metadata.name",
        "missing field `name`",
    ),
    (
        "{apiVersion: margay/v1, kind: Port, metadata: {name: 7}}",
        "metadata.name",
        "invalid type: integer `7`",
    ),
    (
        "{apiVersion: margay/v1, kind: Port, metadata: {name: Left}}",
        "metadata.name",
        "`Left` is not a name",
    ),
    (
        "{apiVersion: margay/v1, kind: Port, metadata: {name: a, nmae: b}}",
        "metadata.nmae",
        "unknown field",
    ),
    (
        "{apiVersion: margay/v1, kind: Port, metadata: {name: a, namespace: b}}",
        "metadata.namespace",
        "a Port has no namespace; leave it out",
    ),
    (
        "{apiVersion: margay/v1, kind: Port, metadata: {name: a}}",
        "spec",
        "missing field `spec`",
    ),
    (
        "{apiVersion: margay/v1, kind: Port, metadata: {name: a}, spec: {device: a}, status: {}}",
        "status",
        "unknown field `status`",
    ),
    (
        "{apiVersion: v1, kind: List, items: 1}",
        "items",
        "expected the documents",
    ),
    (
        "{apiVersion: v1, kind: List, itms: []}",
        "itms",
        "unknown field in a List",
    ),
];

#[test]
fn envelopes() {
    check(str::to_owned, ENVELOPES);
}

const YAML: &[Case] = &[
    ("a: [1", "", "not valid YAML"),
    ("{a: 1, a: 2}", "", "duplicate"),
    (
        "{apiVersion: margay/v1, kind: Port, metadata: {name: left}, spec: {device: a, device: b}}",
        "",
        "duplicate",
    ),
    ("a: *nothing", "", "not valid YAML"),
    ("a: !!python/object x", "", "not valid YAML"),
    ("\u{7}", "", "not valid YAML"),
];

#[test]
fn yaml_itself() {
    check(str::to_owned, YAML);
    let bomb: String = (1..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        let before = level - 1;
        text + &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(","))
    });
    assert!(refused(&bomb).error.contains("not valid YAML"));
    let deep = "[".repeat(100_000);
    assert!(refused(&deep).error.contains("not valid YAML"));
}

const PORTS: &[Case] = &[
    ("{}", "spec.device", "missing field `device`"),
    ("7", "spec", "invalid type: integer `7`"),
    (
        "{device: left0, colour: red}",
        "spec.colour",
        "unknown field `colour`, expected one of `device`",
    ),
    ("{device: ''}", "spec.device", "cannot name a network device"),
    ("{device: a-very-long-device-name}", "spec.device", "1 to 15 bytes"),
    ("{device: a/b}", "spec.device", "cannot name"),
    ("{device: '..'}", "spec.device", "cannot name"),
    ("{device: '', driver: pcap}", "spec.device", "empty"),
    (
        "{device: a, driver: dpdk}",
        "spec.driver",
        "unknown variant `dpdk`, expected one of `xdp`, `tap`, `pcap`, `memory`",
    ),
    ("{device: a, mode: fast}", "spec.mode", "unknown variant `fast`"),
    (
        "{device: a, mode: native, driver: tap}",
        "spec.mode",
        "for driver xdp only",
    ),
    (
        "{device: a, zeroCopy: true, driver: tap}",
        "spec.zeroCopy",
        "for driver xdp only",
    ),
    (
        "{device: a, zeroCopy: sometimes}",
        "spec.zeroCopy",
        "expected `auto`, `true` or `false`",
    ),
    (
        "{device: a, punt: tap, driver: tap}",
        "spec.punt",
        "for driver xdp only",
    ),
    (
        "{device: a, netns: pod}",
        "spec.netns",
        "is for driver tap only; leave it out for driver xdp",
    ),
    (
        "{device: a, driver: memory, hostAddresses: [10.0.0.1/24]}",
        "spec.hostAddresses",
        "is for driver tap only; leave it out for driver memory",
    ),
    (
        "{device: a, driver: tap, hostAddresses: [10.0.0.0/24]}",
        "spec.hostAddresses[0]",
        "is the address of the network itself",
    ),
    (
        "{device: a, driver: tap, netns: ''}",
        "spec.netns",
        "is empty or has a zero byte",
    ),
    ("{device: 'tap%d', driver: tap}", "spec.device", "has a `%`"),
    ("{device: a, punt: all}", "spec.punt", "unknown variant `all`"),
    ("{device: a, queues: 0}", "spec.queues", "a whole number from 1 to 64"),
    ("{device: a, queues: 65}", "spec.queues", "a whole number from 1 to 64"),
    (
        "{device: a, queues: -1}",
        "spec.queues",
        "integer `-1`, expected a whole number from 1 to 64",
    ),
    (
        "{device: a, mtu: 67}",
        "spec.mtu",
        "integer `67`, expected a whole number from 68 to 1774",
    ),
    ("{device: a, mtu: 1775}", "spec.mtu", "from 68 to 1774"),
    ("{device: a, mtu: 99999999999999999999}", "spec.mtu", "from 68 to 1774"),
    ("{device: a, mtu: big}", "spec.mtu", "from 68 to 1774"),
    ("{device: a, mtu: 1500.5}", "spec.mtu", "from 68 to 1774"),
    ("{device: a, vrf: Red}", "spec.vrf", "`Red` is not a name"),
    (
        "{device: a, addresses: 10.1.0.1/24}",
        "spec.addresses",
        "expected a sequence",
    ),
    (
        "{device: a, addresses: [10.1.0.1]}",
        "spec.addresses[0]",
        "string \"10.1.0.1\", expected an address with its prefix length",
    ),
    (
        "{device: a, addresses: [10.1.0.1/33]}",
        "spec.addresses[0]",
        "expected an address with its prefix length",
    ),
    (
        "{device: a, addresses: [10.1]}",
        "spec.addresses[0]",
        "expected an address with its prefix length",
    ),
    (
        "{device: a, addresses: [10.1.0.0/24]}",
        "spec.addresses[0]",
        "is the address of the network itself",
    ),
    (
        "{device: a, addresses: [10.1.0.255/24]}",
        "spec.addresses[0]",
        "is the broadcast address of its network",
    ),
    (
        "{device: a, addresses: [224.0.0.1/24]}",
        "spec.addresses[0]",
        "multicast",
    ),
    ("{device: a, addresses: ['::1/128']}", "spec.addresses[0]", "loopback"),
    ("{device: a, addresses: ['::/64']}", "spec.addresses[0]", "unspecified"),
    (
        "{device: a, addresses: ['::ffff:10.0.0.1/128']}",
        "spec.addresses[0]",
        "IPv4-mapped",
    ),
    (
        "{device: a, addresses: [10.1.0.1/24, 10.1.0.1/16]}",
        "spec.addresses[1]",
        "10.1.0.1 stands twice",
    ),
];

#[test]
fn ports() {
    check(port, PORTS);
}

const ROUTES: &[Case] = &[
    (
        "{via: [{drop: true}]}",
        "spec.destination",
        "missing field `destination`",
    ),
    ("{destination: 10.2.0.0/16}", "spec.via", "missing field `via`"),
    (
        "{destination: 10.2.0.1/16, via: [{drop: true}]}",
        "spec.destination",
        "write 10.2.0.0/16 for the prefix, or 10.2.0.1/32",
    ),
    (
        "{destination: here, via: [{drop: true}]}",
        "spec.destination",
        "string \"here\", expected a prefix",
    ),
    (
        "{destination: 224.0.0.0/4, via: [{drop: true}]}",
        "spec.destination",
        "multicast",
    ),
    (
        "{destination: 10.2.0.0/16, via: []}",
        "spec.via",
        "has 0 next hops; expected 1 to 64",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{}]}",
        "spec.via[0]",
        "exactly one of `gateway`, `port`, `vrf` and `drop`",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{drop: true, gateway: 10.1.0.1}]}",
        "spec.via[0]",
        "exactly one of",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{port: a, vrf: b}]}",
        "spec.via[0]",
        "exactly one of",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{port: a, vrf: b, gateway: 10.1.0.1}]}",
        "spec.via[0]",
        "or a `gateway` with a `port` or a `vrf`",
    ),
    (
        "{destination: 10.2.0.0/16, vrf: red, via: [{vrf: red}]}",
        "spec.via[0].vrf",
        "is the table of the route itself, red; expected another one",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{vrf: red}, {gateway: 10.1.0.1}]}",
        "spec.via[0].vrf",
        "beside other next hops",
    ),
    ("{destination: 10.2.0.0/16, via: [{vrf: 'a b'}]}", "spec.via[0].vrf", ""),
    (
        "{destination: 10.2.0.0/16, via: [{drop: false}]}",
        "spec.via[0]",
        "expected `gateway`, `port`, `vrf` or `drop: true`",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{gateway: x}]}",
        "spec.via[0].gateway",
        "expected an IPv4 or IPv6 address",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{gatway: 10.1.0.1}]}",
        "spec.via[0].gatway",
        "unknown field `gatway`",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{gateway: fd00::1}]}",
        "spec.via[0].gateway",
        "another family than the destination 10.2.0.0/16; expected an IPv4",
    ),
    (
        "{destination: 'fd00:2::/64', via: [{gateway: 10.0.0.1}]}",
        "spec.via[0].gateway",
        "expected an IPv6",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{gateway: 224.0.0.1}]}",
        "spec.via[0].gateway",
        "not the address of a router",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{gateway: 10.1.0.2, weight: 0}]}",
        "spec.via[0].weight",
        "a whole number from 1 to 256",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{gateway: 10.1.0.2, weight: 257}]}",
        "spec.via[0].weight",
        "a whole number from 1 to 256",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{gateway: 10.1.0.2}, {gateway: 10.1.0.2}]}",
        "spec.via[1]",
        "stands twice; give it a weight",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{gateway: 10.1.0.2}, {drop: true}]}",
        "spec.via[1]",
        "a route drops or forwards",
    ),
    (
        "{destination: 10.2.0.0/16, via: [{port: LEFT}]}",
        "spec.via[0].port",
        "`LEFT` is not a name",
    ),
    (
        "{destination: 10.2.0.0/16, vrf: '', via: [{drop: true}]}",
        "spec.vrf",
        "is not a name",
    ),
];

#[test]
fn routes() {
    check(route, ROUTES);
}

const NEIGHBORS: &[Case] = &[
    (
        "{address: 10.1.0.2, mac: '02:00:00:00:00:02'}",
        "spec.port",
        "missing field `port`",
    ),
    (
        "{port: left, mac: '02:00:00:00:00:02'}",
        "spec.address",
        "missing field `address`",
    ),
    ("{port: left, address: 10.1.0.2}", "spec.mac", "missing field `mac`"),
    (
        "{port: left, address: 10.1.0.2, mac: '02:00'}",
        "spec.mac",
        "expected an Ethernet address, such as 02:00:00:00:00:02",
    ),
    (
        "{port: left, address: 10.1.0.2, mac: 2}",
        "spec.mac",
        "expected an Ethernet address",
    ),
    (
        "{port: left, address: 10.1.0.2, mac: 'ff:ff:ff:ff:ff:ff'}",
        "spec.mac",
        "group or all-zero",
    ),
    (
        "{port: left, address: 10.1.0.2/24, mac: '02:00:00:00:00:02'}",
        "spec.address",
        "expected an IPv4 or IPv6 address",
    ),
    (
        "{port: left, address: 'ff02::1', mac: '02:00:00:00:00:02'}",
        "spec.address",
        "not the address of one host",
    ),
];

#[test]
fn neighbors() {
    check(neighbor, NEIGHBORS);
}

#[test]
fn the_sentence_names_file_number_kind_and_name() {
    let good = port("{device: left0}");
    let bad = route("{destination: 10.2.0.0/16, via: []}");
    let sources = [
        Source::file("first.yaml", &*good),
        Source::file("second.yaml", format!("{good}\n---\n{bad}\n")),
    ];
    let refusal = read(&sources).unwrap_err();
    assert_eq!(
        refusal.document.as_deref(),
        Some("second.yaml document 2, Route/to-right")
    );
    assert!(
        refusal
            .error
            .starts_with("second.yaml document 2, Route/to-right, field spec.via: has 0"),
        "{refusal}"
    );
    let unnamed = Source {
        name: String::new(),
        text: bad,
        format: Format::Yaml,
    };
    assert_eq!(
        read(&[unnamed]).unwrap_err().document.as_deref(),
        Some("document 1, Route/to-right")
    );
}

#[test]
fn json_is_strict_too() {
    let json = |text: &str| read(&[Source::file("a.json", text)]);
    assert!(
        json(r#"{"apiVersion":"margay/v1","kind":"Port","kind":"Port"}"#)
            .unwrap_err()
            .error
            .contains("duplicate key `kind`")
    );
    assert!(json("{").unwrap_err().error.contains("not valid JSON"));
    assert!(json(&"[".repeat(100_000)).unwrap_err().error.contains("not valid JSON"));
    let port = json!({"apiVersion": "margay/v1", "kind": "Port", "metadata": {"name": "a"}, "spec": {"device": "a"}});
    assert_eq!(json(&port.to_string()).unwrap().len(), 1);
    assert_eq!(json(&json!([port, port]).to_string()).unwrap().len(), 2);
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [port, {"kind": "Port"}]});
    assert_eq!(
        json(&list.to_string()).unwrap_err().document.as_deref(),
        Some("a.json document 1 item 2")
    );
}
