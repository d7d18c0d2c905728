//! Every good document comes back as it was written.

use control::resource::{Document, Resource, Source, read, read_keys};
use serde_json::Value;

fn yaml(text: &str) -> Vec<Source> {
    vec![Source::file("a.yaml", text)]
}

fn port(spec: &str) -> String {
    format!("{{apiVersion: margay/v1, kind: Port, metadata: {{name: left}}, spec: {spec}}}")
}

fn route(spec: &str) -> String {
    format!("{{apiVersion: margay/v1, kind: Route, metadata: {{name: to-right}}, spec: {spec}}}")
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
