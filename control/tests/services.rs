//! Services and slices as Kubernetes writes them: real ones come back as they were, bad ones get their sentence.

use control::refusal::Refusal;
use control::resource::{Source, read, read_keys};
use control::store::{Request, Store};
use serde_json::Value;

fn yaml(text: &str) -> Vec<Source> {
    vec![Source::file("a.yaml", text)]
}

/// As `kubectl get service,endpointslice -o yaml` prints them.
const REAL: &str = r#"
apiVersion: v1
kind: List
metadata: { resourceVersion: "" }
items:
- apiVersion: v1
  kind: Service
  metadata:
    annotations: { note: "shop front" }
    creationTimestamp: "2026-08-01T10:00:00Z"
    labels: { app: web }
    name: web
    namespace: shop
    resourceVersion: "4711"
    uid: 0e0f1c2a-0000-4000-8000-000000000001
  spec:
    allocateLoadBalancerNodePorts: true
    clusterIP: 10.96.0.1
    clusterIPs: [10.96.0.1, "fd00:96::1"]
    externalIPs: [192.0.2.7]
    externalTrafficPolicy: Local
    healthCheckNodePort: 30999
    internalTrafficPolicy: Cluster
    ipFamilies: [IPv4, IPv6]
    ipFamilyPolicy: PreferDualStack
    loadBalancerSourceRanges: [198.51.100.0/24]
    ports:
    - { appProtocol: http, name: http, nodePort: 30080, port: 80, protocol: TCP, targetPort: web }
    - { name: metrics, nodePort: 30081, port: 9100, protocol: TCP, targetPort: 9100 }
    publishNotReadyAddresses: false
    selector: { app: web }
    sessionAffinity: ClientIP
    sessionAffinityConfig: { clientIP: { timeoutSeconds: 600 } }
    trafficDistribution: PreferClose
    type: LoadBalancer
  status:
    loadBalancer:
      ingress: [{ ip: 192.0.2.8, ipMode: VIP }]
- apiVersion: v1
  kind: Service
  metadata: { name: db, namespace: shop }
  spec: { clusterIP: None, clusterIPs: [None], ports: [{ port: 5432 }], sessionAffinity: None, type: ClusterIP }
  status: { loadBalancer: {} }
- apiVersion: v1
  kind: Service
  metadata: { name: elsewhere, namespace: shop }
  spec: { externalName: db.example, sessionAffinity: None, type: ExternalName }
  status: { loadBalancer: {} }
- addressType: IPv4
  apiVersion: discovery.k8s.io/v1
  endpoints:
  - addresses: [10.1.0.5]
    conditions: { ready: true, serving: true, terminating: false }
    hints: { forZones: [{ name: zone-a }] }
    nodeName: node-1
    targetRef: { kind: Pod, name: web-5, namespace: shop, uid: 0e0f1c2a-0000-4000-8000-000000000002 }
    zone: zone-a
  kind: EndpointSlice
  metadata:
    generateName: web-
    generation: 3
    labels:
      endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io
      kubernetes.io/service-name: web
    name: web-x7k2p
    namespace: shop
    ownerReferences: [{ apiVersion: v1, blockOwnerDeletion: true, controller: true, kind: Service, name: web, uid: x }]
  ports:
  - { appProtocol: http, name: http, port: 8080, protocol: TCP }
  - { name: metrics, port: 9100, protocol: TCP }
- addressType: IPv6
  apiVersion: discovery.k8s.io/v1
  endpoints: null
  kind: EndpointSlice
  metadata: { labels: { kubernetes.io/service-name: web }, name: web.ipv6-1, namespace: shop }
  ports: null
"#;

#[test]
fn real_documents_come_back_as_they_were() {
    let documents = read(&yaml(REAL)).unwrap();
    let again: Vec<Value> = documents
        .iter()
        .map(|document| serde_json::to_value(&document.resource).unwrap())
        .collect();
    assert_eq!(again.len(), 5);
    for (document, value) in documents.iter().zip(&again) {
        let same = control::resource::Resource::from_value(value.clone()).unwrap();
        assert_eq!(same, document.resource);
    }
    let spec = &again[0]["spec"];
    for (field, expected) in [
        ("ipFamilyPolicy", "PreferDualStack".into()),
        ("healthCheckNodePort", 30_999.into()),
        ("selector", serde_json::json!({"app": "web"})),
        ("trafficDistribution", "PreferClose".into()),
        ("clusterIPs", serde_json::json!(["10.96.0.1", "fd00:96::1"])),
    ] {
        assert_eq!(spec[field], expected, "{field}");
    }
    assert_eq!(spec["ports"][0]["targetPort"], "web");
    assert_eq!(again[1]["spec"]["clusterIP"], "None");
    assert_eq!(again[3]["endpoints"][0]["targetRef"]["kind"], "Pod");
    assert_eq!(again[4]["endpoints"], serde_json::json!([]));
    assert_eq!(again[0]["metadata"]["namespace"], "shop");
}

#[test]
fn rows_are_as_kubectl_prints_them() {
    let documents = read(&yaml(REAL)).unwrap();
    let rows: Vec<String> = documents
        .iter()
        .map(|document| document.resource.row().join(" "))
        .collect();
    let expected = [
        "LoadBalancer 10.96.0.1,fd00:96::1 192.0.2.7,192.0.2.8 80:30080/TCP,9100:30081/TCP",
        "ClusterIP None <none> 5432/TCP",
        "ExternalName <none> <none> ",
        "IPv4 8080,9100 10.1.0.5",
        "IPv6  ",
    ];
    assert_eq!(rows, expected);
}

fn refused(text: &str) -> Refusal {
    match read(&yaml(text)) {
        Err(refusal) => refusal,
        Ok(documents) => panic!("accepted: {documents:?}\nfrom: {text}"),
    }
}

fn service(spec: &str) -> String {
    format!("{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {spec}}}")
}

fn slice(rest: &str) -> String {
    format!("{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: web-1}}, {rest}}}")
}

/// The rest of the document, the path of the field at fault, and a part of the sentence.
type Case = (&'static str, &'static str, &'static str);

const SERVICES: &[Case] = &[
    ("{}", "spec.ports", "at least one port"),
    ("{ports: [{port: 0}]}", "spec.ports[0].port", "1 to 65535"),
    ("{ports: [{port: 70000}]}", "spec.ports[0].port", "u16"),
    (
        "{ports: [{port: 80, protocol: tcp}]}",
        "spec.ports[0].protocol",
        "unknown variant",
    ),
    ("{ports: [{port: 80, name: Web}]}", "spec.ports[0].name", "not a name"),
    (
        "{ports: [{port: 80, targetPort: 0}]}",
        "spec.ports[0].targetPort",
        "no target port",
    ),
    (
        "{ports: [{port: 80, nodePort: 30080}]}",
        "spec.ports[0].nodePort",
        "type ClusterIP has none",
    ),
    (
        "{ports: [{port: 80}, {port: 81}]}",
        "spec.ports[0].name",
        "several ports",
    ),
    (
        "{ports: [{name: a, port: 80}, {name: a, port: 81}]}",
        "spec.ports[1].name",
        "already",
    ),
    (
        "{ports: [{name: a, port: 80}, {name: b, port: 80}]}",
        "spec.ports[1].port",
        "80/TCP is there already",
    ),
    (
        "{clusterIP: 10.96.0, ports: [{port: 80}]}",
        "spec.clusterIP",
        "no address",
    ),
    (
        "{clusterIP: None, type: NodePort, ports: [{port: 80}]}",
        "spec.clusterIP",
        "does not go with",
    ),
    (
        "{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.2], ports: [{port: 80}]}",
        "spec.clusterIPs[0]",
        "same",
    ),
    (
        "{clusterIPs: [10.96.0.1, 10.96.0.2], ports: [{port: 80}]}",
        "spec.clusterIPs",
        "of each family",
    ),
    (
        "{externalIPs: [127.0.0.1], ports: [{port: 80}]}",
        "spec.externalIPs[0]",
        "send to",
    ),
    ("{type: ExternalName}", "spec.externalName", "expected a name"),
    (
        "{loadBalancerSourceRanges: [10.0.0.0/8], ports: [{port: 80}]}",
        "spec.loadBalancerSourceRanges",
        "only",
    ),
    (
        "{externalTrafficPolicy: Local, ports: [{port: 80}]}",
        "spec.externalTrafficPolicy",
        "only",
    ),
    (
        "{sessionAffinityConfig: {}, ports: [{port: 80}]}",
        "spec.sessionAffinityConfig",
        "no meaning",
    ),
    (
        "{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}, ports: [{port: 80}]}",
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        "1 to 86400",
    ),
    ("{ports: [{port: 80}], color: red}", "spec.color", "unknown field"),
];

const SLICES: &[Case] = &[
    ("addressType: IPv5", "addressType", "unknown variant"),
    (
        "addressType: IPv4, endpoints: [{addresses: []}]",
        "endpoints[0].addresses",
        "expected an address",
    ),
    (
        "addressType: IPv4, endpoints: [{addresses: ['fd00::1']}]",
        "endpoints[0].addresses[0]",
        "not an IPv4",
    ),
    (
        "addressType: IPv6, endpoints: [{addresses: [10.1.0.1]}]",
        "endpoints[0].addresses[0]",
        "not an IPv6",
    ),
    (
        "addressType: IPv4, endpoints: [{addresses: [127.0.0.1]}]",
        "endpoints[0].addresses[0]",
        "can have",
    ),
    (
        "addressType: IPv4, ports: [{port: 80}, {port: 81}]",
        "ports[1].name",
        "already",
    ),
    ("addressType: IPv4, ports: [{port: 0}]", "ports[0].port", "1 to 65535"),
];

#[test]
fn bad_documents_get_their_sentence() {
    let documents = SERVICES.iter().map(|case| (service(case.0), case));
    for (document, (_, field, part)) in documents.chain(SLICES.iter().map(|case| (slice(case.0), case))) {
        let refusal = refused(&document);
        assert_eq!(refusal.field.as_deref().unwrap_or(""), *field, "{document}\n{refusal}");
        assert!(
            refusal.error.contains(part),
            "{document}\nexpected: {part}\nis: {refusal}"
        );
    }
    let nameless = slice("addressType: IPv4").replace("web-1", "web..1");
    assert_eq!(refused(&nameless).field.as_deref(), Some("metadata.name"));
}

#[test]
fn two_services_cannot_have_the_same_address_and_port() {
    let named = |name: &str, spec: &str| service(spec).replace("name: web", &format!("name: {name}"));
    let first =
        "{type: NodePort, clusterIP: 10.96.0.1, externalIPs: [192.0.2.7], ports: [{port: 80, nodePort: 30080}]}";
    let mut store = Store::default();
    let plan = |store: &Store, text: &str| store.plan(Request::Apply(read(&yaml(text)).unwrap()));
    let created = plan(&store, &named("one", first)).unwrap();
    store.commit(&created);
    let clashes = [
        (
            "{clusterIP: 10.96.0.1, ports: [{port: 80}]}",
            "address 10.96.0.1 port 80/TCP",
        ),
        (
            "{externalIPs: [192.0.2.7], clusterIP: 10.96.0.2, ports: [{port: 80}]}",
            "address 192.0.2.7 port 80/TCP",
        ),
        (
            "{type: NodePort, ports: [{port: 81, nodePort: 30080}]}",
            "node port 30080/TCP",
        ),
    ];
    for (spec, what) in clashes {
        let refusal = plan(&store, &named("two", spec)).unwrap_err();
        let expected = format!("{what} already belongs to Service/default/one");
        assert!(
            refusal.error.contains(&expected) && refusal.error.contains("Service/two"),
            "{refusal}"
        );
    }
    let other_protocol = "{clusterIP: 10.96.0.1, ports: [{port: 80, protocol: UDP}]}";
    let beside = plan(&store, &named("two", other_protocol)).unwrap();
    store.commit(&beside);
    // Both at once: nothing is applied; and an address is free again once its service has gone.
    let both = format!(
        "{}\n---\n{}",
        named("a", "{clusterIP: 10.96.9.9, ports: [{port: 1}]}"),
        named("b", "{clusterIP: 10.96.9.9, ports: [{port: 1}]}")
    );
    assert!(plan(&store, &both).is_err());
    let gone = store
        .plan(Request::Delete(read_keys(&yaml(&named("one", first))).unwrap()))
        .unwrap();
    store.commit(&gone);
    assert!(plan(&store, &named("three", first)).is_ok());
}

#[test]
fn a_service_without_an_address_is_taken_with_a_warning() {
    let store = Store::default();
    let plan = store
        .plan(Request::Apply(read(&yaml(&service("{ports: [{port: 80}]}"))).unwrap()))
        .unwrap();
    assert!(plan.warnings[0].contains("no clusterIP"), "{:?}", plan.warnings);
}
