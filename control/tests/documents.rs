//! Every bad document gets its sentence; every good one comes back as it was written.

use control::refusal::Refusal;
use control::resource::{Document, Format, Resource, Source, read, read_keys};
use serde_json::{Value, json};

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

/// The document, the path of the field, and a part of the sentence.
fn check(cases: &[(String, &str, &str)]) {
    for (text, field, part) in cases {
        let refusal = refused(text);
        assert_eq!(refusal.field.as_deref().unwrap_or(""), *field, "{text}\n{refusal}");
        assert!(refusal.error.contains(part), "{text}\nexpected: {part}\nis: {refusal}");
        let document = refusal.document.as_deref().unwrap();
        assert!(document.starts_with("a.yaml document 1"), "{document}");
        assert!(refusal.error.starts_with(document), "{refusal}");
        assert!(!refusal.error.contains('\n'), "{refusal}");
    }
}

#[test]
fn envelopes() {
    check(&[
        ("just text".into(), "", "expected a mapping with `apiVersion`"),
        ("[1, 2]".into(), "", "expected a mapping"),
        ("kind: Port".into(), "apiVersion", "missing field `apiVersion`"),
        ("apiVersion: margay/v1".into(), "kind", "missing field `kind`"),
        (
            "{apiVersion: 1, kind: Port}".into(),
            "apiVersion",
            "expected text, such as `margay/v1`, not 1",
        ),
        (
            "{apiVersion: margay/v1, kind: Prot}".into(),
            "kind",
            "unknown kind `Prot`; expected Port, Route or Neighbor",
        ),
        (
            "{apiVersion: margay/v2, kind: Port}".into(),
            "apiVersion",
            "no version `margay/v2`; expected `margay/v1`",
        ),
        (
            "{apiVersion: margay/v1, kind: Port}".into(),
            "metadata",
            "missing field `metadata`",
        ),
        (
            "{apiVersion: margay/v1, kind: Port, metadata: {}}".into(),
            "metadata.name",
            "missing field `name`",
        ),
        (
            "{apiVersion: margay/v1, kind: Port, metadata: {name: 7}}".into(),
            "metadata.name",
            "invalid type: integer `7`",
        ),
        (
            "{apiVersion: margay/v1, kind: Port, metadata: {name: Left}}".into(),
            "metadata.name",
            "`Left` is not a name",
        ),
        (
            "{apiVersion: margay/v1, kind: Port, metadata: {name: a, nmae: b}}".into(),
            "metadata.nmae",
            "unknown field",
        ),
        (
            "{apiVersion: margay/v1, kind: Port, metadata: {name: a, namespace: b}}".into(),
            "metadata.namespace",
            "a Port has no namespace; leave it out",
        ),
        (
            "{apiVersion: margay/v1, kind: Port, metadata: {name: a}}".into(),
            "spec",
            "missing field `spec`",
        ),
        (
            "{apiVersion: margay/v1, kind: Port, metadata: {name: a}, spec: {device: a}, status: {}}".into(),
            "status",
            "unknown field `status`",
        ),
        (
            "{apiVersion: v1, kind: List, items: 1}".into(),
            "items",
            "expected the documents",
        ),
        (
            "{apiVersion: v1, kind: List, itms: []}".into(),
            "itms",
            "unknown field in a List",
        ),
    ]);
}

#[test]
fn yaml_itself() {
    check(&[
        ("a: [1".into(), "", "not valid YAML"),
        ("{a: 1, a: 2}".into(), "", "duplicate"),
        (port("{device: a, device: b}"), "", "duplicate"),
        ("a: *nothing".into(), "", "not valid YAML"),
        ("a: !!python/object x".into(), "", "not valid YAML"),
        ("\u{7}".into(), "", "not valid YAML"),
    ]);
    let bomb: String = (1..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        let before = level - 1;
        text + &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(","))
    });
    assert!(refused(&bomb).error.contains("not valid YAML"));
    let deep = "[".repeat(100_000);
    assert!(refused(&deep).error.contains("not valid YAML"));
}

#[test]
fn ports() {
    check(&[
        (port("{}"), "spec.device", "missing field `device`"),
        (port("7"), "spec", "invalid type: integer `7`"),
        (
            port("{device: left0, colour: red}"),
            "spec.colour",
            "unknown field `colour`, expected one of `device`",
        ),
        (port("{device: ''}"), "spec.device", "cannot name a network device"),
        (
            port("{device: a-very-long-device-name}"),
            "spec.device",
            "1 to 15 bytes",
        ),
        (port("{device: a/b}"), "spec.device", "cannot name"),
        (port("{device: '..'}"), "spec.device", "cannot name"),
        (port("{device: '', driver: pcap}"), "spec.device", "empty"),
        (
            port("{device: a, driver: dpdk}"),
            "spec.driver",
            "unknown variant `dpdk`, expected one of `xdp`, `tap`, `pcap`, `memory`",
        ),
        (port("{device: a, mode: fast}"), "spec.mode", "unknown variant `fast`"),
        (
            port("{device: a, mode: native, driver: tap}"),
            "spec.mode",
            "for driver xdp only",
        ),
        (
            port("{device: a, zeroCopy: true, driver: tap}"),
            "spec.zeroCopy",
            "for driver xdp only",
        ),
        (
            port("{device: a, zeroCopy: sometimes}"),
            "spec.zeroCopy",
            "expected `auto`, `true` or `false`",
        ),
        (
            port("{device: a, punt: kernel, driver: tap}"),
            "spec.punt",
            "for driver xdp only",
        ),
        (port("{device: a, punt: all}"), "spec.punt", "unknown variant `all`"),
        (
            port("{device: a, queues: 0}"),
            "spec.queues",
            "a whole number from 1 to 64",
        ),
        (
            port("{device: a, queues: 65}"),
            "spec.queues",
            "a whole number from 1 to 64",
        ),
        (
            port("{device: a, queues: -1}"),
            "spec.queues",
            "integer `-1`, expected a whole number from 1 to 64",
        ),
        (
            port("{device: a, mtu: 67}"),
            "spec.mtu",
            "integer `67`, expected a whole number from 68 to 1774",
        ),
        (port("{device: a, mtu: 1775}"), "spec.mtu", "from 68 to 1774"),
        (
            port("{device: a, mtu: 99999999999999999999}"),
            "spec.mtu",
            "from 68 to 1774",
        ),
        (port("{device: a, mtu: big}"), "spec.mtu", "from 68 to 1774"),
        (port("{device: a, mtu: 1500.5}"), "spec.mtu", "from 68 to 1774"),
        (port("{device: a, vrf: Red}"), "spec.vrf", "`Red` is not a name"),
        (
            port("{device: a, addresses: 10.1.0.1/24}"),
            "spec.addresses",
            "expected a sequence",
        ),
        (
            port("{device: a, addresses: [10.1.0.1]}"),
            "spec.addresses[0]",
            "string \"10.1.0.1\", expected an address with its prefix length",
        ),
        (
            port("{device: a, addresses: [10.1.0.1/33]}"),
            "spec.addresses[0]",
            "expected an address with its prefix length",
        ),
        (
            port("{device: a, addresses: [10.1]}"),
            "spec.addresses[0]",
            "expected an address with its prefix length",
        ),
        (
            port("{device: a, addresses: [10.1.0.0/24]}"),
            "spec.addresses[0]",
            "is the address of the network itself",
        ),
        (
            port("{device: a, addresses: [10.1.0.255/24]}"),
            "spec.addresses[0]",
            "is the broadcast address of its network",
        ),
        (
            port("{device: a, addresses: [224.0.0.1/24]}"),
            "spec.addresses[0]",
            "multicast",
        ),
        (
            port("{device: a, addresses: ['::1/128']}"),
            "spec.addresses[0]",
            "loopback",
        ),
        (
            port("{device: a, addresses: ['::/64']}"),
            "spec.addresses[0]",
            "unspecified",
        ),
        (
            port("{device: a, addresses: ['::ffff:10.0.0.1/128']}"),
            "spec.addresses[0]",
            "IPv4-mapped",
        ),
        (
            port("{device: a, addresses: [10.1.0.1/24, 10.1.0.1/16]}"),
            "spec.addresses[1]",
            "10.1.0.1 stands twice",
        ),
    ]);
}

#[test]
fn routes() {
    check(&[
        (
            route("{via: [{drop: true}]}"),
            "spec.destination",
            "missing field `destination`",
        ),
        (route("{destination: 10.2.0.0/16}"), "spec.via", "missing field `via`"),
        (
            route("{destination: 10.2.0.1/16, via: [{drop: true}]}"),
            "spec.destination",
            "write 10.2.0.0/16 for the prefix, or 10.2.0.1/32",
        ),
        (
            route("{destination: here, via: [{drop: true}]}"),
            "spec.destination",
            "string \"here\", expected a prefix",
        ),
        (
            route("{destination: 224.0.0.0/4, via: [{drop: true}]}"),
            "spec.destination",
            "multicast",
        ),
        (
            route("{destination: 10.2.0.0/16, via: []}"),
            "spec.via",
            "has 0 next hops; expected 1 to 64",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{}]}"),
            "spec.via[0]",
            "exactly one of `gateway`, `port` and `drop`",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{drop: true, gateway: 10.1.0.1}]}"),
            "spec.via[0]",
            "exactly one of",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{port: a, gateway: 10.1.0.1}]}"),
            "spec.via[0]",
            "exactly one of",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{drop: false}]}"),
            "spec.via[0]",
            "expected `gateway`, `port` or `drop: true`",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{gateway: x}]}"),
            "spec.via[0].gateway",
            "expected an IPv4 or IPv6 address",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{gatway: 10.1.0.1}]}"),
            "spec.via[0].gatway",
            "unknown field `gatway`",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{gateway: fd00::1}]}"),
            "spec.via[0].gateway",
            "another family than the destination 10.2.0.0/16; expected an IPv4",
        ),
        (
            route("{destination: 'fd00:2::/64', via: [{gateway: 10.0.0.1}]}"),
            "spec.via[0].gateway",
            "expected an IPv6",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{gateway: 224.0.0.1}]}"),
            "spec.via[0].gateway",
            "not the address of a router",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{gateway: 10.1.0.2, weight: 0}]}"),
            "spec.via[0].weight",
            "a whole number from 1 to 256",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{gateway: 10.1.0.2, weight: 257}]}"),
            "spec.via[0].weight",
            "a whole number from 1 to 256",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{gateway: 10.1.0.2}, {gateway: 10.1.0.2}]}"),
            "spec.via[1]",
            "stands twice; give it a weight",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{gateway: 10.1.0.2}, {drop: true}]}"),
            "spec.via[1]",
            "a route drops or forwards",
        ),
        (
            route("{destination: 10.2.0.0/16, via: [{port: LEFT}]}"),
            "spec.via[0].port",
            "`LEFT` is not a name",
        ),
        (
            route("{destination: 10.2.0.0/16, vrf: '', via: [{drop: true}]}"),
            "spec.vrf",
            "is not a name",
        ),
    ]);
}

#[test]
fn neighbors() {
    check(&[
        (
            neighbor("{address: 10.1.0.2, mac: '02:00:00:00:00:02'}"),
            "spec.port",
            "missing field `port`",
        ),
        (
            neighbor("{port: left, mac: '02:00:00:00:00:02'}"),
            "spec.address",
            "missing field `address`",
        ),
        (
            neighbor("{port: left, address: 10.1.0.2}"),
            "spec.mac",
            "missing field `mac`",
        ),
        (
            neighbor("{port: left, address: 10.1.0.2, mac: '02:00'}"),
            "spec.mac",
            "expected an Ethernet address, such as 02:00:00:00:00:02",
        ),
        (
            neighbor("{port: left, address: 10.1.0.2, mac: 2}"),
            "spec.mac",
            "expected an Ethernet address",
        ),
        (
            neighbor("{port: left, address: 10.1.0.2, mac: 'ff:ff:ff:ff:ff:ff'}"),
            "spec.mac",
            "group or all-zero",
        ),
        (
            neighbor("{port: left, address: 10.1.0.2/24, mac: '02:00:00:00:00:02'}"),
            "spec.address",
            "expected an IPv4 or IPv6 address",
        ),
        (
            neighbor("{port: left, address: 'ff02::1', mac: '02:00:00:00:00:02'}"),
            "spec.address",
            "not the address of one host",
        ),
    ]);
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

/// The documents of the interface description, written out in full.
const COMPLETE: &str = r#"
apiVersion: margay/v1
kind: Port
metadata: { name: left, labels: { side: left }, annotations: { note: "x: y" } }
spec:
  device: left0
  driver: xdp
  mode: auto
  zeroCopy: auto
  queues: 1
  mtu: 1500
  vrf: default
  addresses: [10.1.0.1/24, "fd00:1::1/64"]
  punt: none
---
# Empty documents are no documents.
---
apiVersion: margay/v1
kind: Route
metadata: { name: to-right }
spec:
  destination: 10.20.0.0/16
  vrf: default
  via: [{ gateway: 10.2.0.2 }, { gateway: 10.2.0.3, weight: 2 }]
---
apiVersion: margay/v1
kind: Route
metadata: { name: nowhere }
spec: { destination: "fd00:9::/32", vrf: red, via: [{ drop: true }] }
---
apiVersion: margay/v1
kind: Route
metadata: { name: on-link }
spec: { destination: 10.3.0.0/16, vrf: default, via: [{ port: left }] }
---
apiVersion: margay/v1
kind: Neighbor
metadata: { name: right-peer }
spec: { port: right, address: 10.2.0.2, mac: "02:00:00:00:00:02" }
"#;

#[test]
fn documents_come_back_as_written() {
    let documents = read(&yaml(COMPLETE)).unwrap();
    assert_eq!(documents.len(), 5);
    let written: Vec<Value> = COMPLETE
        .split("\n---\n")
        .filter_map(|text| serde_saphyr::from_str(text).ok())
        .collect();
    let written: Vec<&Value> = written.iter().filter(|value| value.is_object()).collect();
    assert_eq!(written.len(), 5);
    for (Document { resource, .. }, written) in documents.iter().zip(written) {
        assert_eq!(&serde_json::to_value(resource).unwrap(), written);
        let again = serde_saphyr::to_string(resource).unwrap();
        assert_eq!(read(&yaml(&again)).unwrap()[0].resource, *resource, "{again}");
        assert_eq!(
            Resource::from_value(serde_json::to_value(resource).unwrap()).unwrap(),
            *resource
        );
    }
}

#[test]
fn defaults_are_those_of_the_interface() {
    let short = read(&yaml(&port("{device: left0}"))).unwrap();
    let full = port("{device: left0, driver: xdp, queues: 1, mtu: 1500, vrf: default, addresses: [], punt: none}");
    assert_eq!(short[0].resource, read(&yaml(&full)).unwrap()[0].resource);
}

#[test]
fn names_are_not_booleans() {
    for name in ["n", "y", "on", "off", "no"] {
        let text =
            format!("{{apiVersion: margay/v1, kind: Port, metadata: {{name: {name}}}, spec: {{device: {name}}}}}");
        assert_eq!(read(&yaml(&text)).unwrap()[0].resource.metadata().name, name);
    }
}

#[test]
fn what_a_cluster_adds_to_metadata_is_accepted() {
    let text = "{apiVersion: margay/v1, kind: Port, spec: {device: a}, metadata: {name: a, uid: b, resourceVersion: '1', \
                creationTimestamp: null, generation: 2, managedFields: [{a: b}], ownerReferences: [], finalizers: []}}";
    assert_eq!(read(&yaml(text)).unwrap()[0].resource.metadata().name, "a");
}

#[test]
fn a_deletion_needs_no_valid_body() {
    let keys = read_keys(&yaml(&port("{device: 7, was: different}"))).unwrap();
    assert_eq!(keys[0].key.to_string(), "Port/left");
    assert_eq!(keys[0].origin, "a.yaml document 1, Port/left");
    assert!(read_keys(&yaml("{apiVersion: margay/v1, kind: Port}")).is_err());
}

#[test]
fn large_requests_are_read() {
    let routes: String = (0..20_000)
        .map(|n| {
            route(&format!(
                "{{destination: 10.{}.{}.0/24, via: [{{drop: true}}]}}",
                n / 256,
                n % 256
            )) + "\n---\n"
        })
        .collect();
    assert_eq!(read(&yaml(&routes)).unwrap().len(), 20_000);
}
