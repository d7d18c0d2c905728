use super::*;
use crate::resource::{Resource, Source, read};

/// A service and its slices.
struct Written {
    service: Service,
    slices: Vec<EndpointSlice>,
}

fn written(service: &str, slices: &[&str]) -> Written {
    let head = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";
    let slice_head = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web}\n";
    let mut text = format!("{head}{service}");
    slices
        .iter()
        .for_each(|slice| text.push_str(&format!("\n---\n{slice_head}{slice}")));
    let mut written = Written {
        service: Service::default(),
        slices: vec![],
    };
    for document in read(&[Source::file("a.yaml", text)]).unwrap() {
        match document.resource {
            Resource::Service(object) => written.service = object.body.clone(),
            Resource::EndpointSlice(object) => written.slices.push(object.body.clone()),
            other => panic!("{other:?}"),
        }
    }
    written
}

fn seen(written: &Written) -> Balanced {
    let here = Place {
        node: "here".to_owned(),
        named: true,
        zone: Some("a".to_owned()),
    };
    balance(&written.service, written.slices.iter(), Answers::Back, &here)
}

/// Each frontend as text: `10.96.0.1:80 > cluster`, with `masquerade` and `silent` behind.
fn frontends(balanced: &Balanced) -> Vec<String> {
    let one = |(front, lead): (&Front, &Lead)| {
        let mut text = format!("{}:{}/{} >", front.address, front.port, front.protocol.name());
        let flags = [
            (!lead.pool.local, " cluster"),
            (lead.pool.local, " local"),
            (lead.masquerade, " masquerade"),
            (lead.silent, " silent"),
            (!lead.sources.is_empty(), " filtered"),
        ];
        flags
            .iter()
            .filter(|(is, _)| *is)
            .for_each(|(_, word)| text.push_str(word));
        text
    };
    balanced.frontends.iter().map(one).collect()
}

/// The backends of the only pool that is local or not: address, port and state.
fn backends(balanced: &Balanced, local: bool) -> Vec<String> {
    let pool = balanced
        .pools
        .iter()
        .find(|(name, _)| name.local == local && name.is_v4)
        .unwrap()
        .1;
    let one = |((address, port), backend): (&(IpAddr, u16), &Backend)| format!("{address}:{port} {:?}", backend.state);
    pool.iter().map(one).collect()
}

const CLUSTER_IP: &str = "spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}";

fn slice(endpoints: &str) -> String {
    format!("addressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{endpoints}]")
}

#[test]
fn conditions_say_who_gets_connections() {
    let ready = "{addresses: [10.1.0.1]}, {addresses: [10.1.0.2], conditions: {ready: true}}";
    let unready = "{addresses: [10.1.0.3], conditions: {ready: false}}";
    let ending = "{addresses: [10.1.0.4], conditions: {ready: false, serving: true, terminating: true}}";
    let all = slice(&format!("{ready}, {unready}, {ending}"));
    let mixed = seen(&written(CLUSTER_IP, &[&all]));
    let expected = ["10.1.0.1:8080 Ready", "10.1.0.2:8080 Ready", "10.1.0.4:8080 Draining"];
    assert_eq!(backends(&mixed, false), expected);
    let last = seen(&written(CLUSTER_IP, &[&slice(&format!("{unready}, {ending}"))]));
    assert_eq!(backends(&last, false), ["10.1.0.4:8080 LastResort"]);
    assert_eq!(frontends(&last), ["10.96.0.1:80/TCP > cluster"]);
    assert!(backends(&seen(&written(CLUSTER_IP, &[])), false).is_empty());
}

#[test]
fn ports_are_found_by_name_and_slices_join() {
    let service = "spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80, targetPort: web}, {name: dns, port: 53, protocol: UDP}]}";
    let one = "addressType: IPv4\nports: [{name: http, port: 8080}, {name: dns, port: 5353, protocol: UDP}]\nendpoints: [{addresses: [10.1.0.1]}]";
    let other = "addressType: IPv4\nports: [{name: http, port: 9090}]\nendpoints: [{addresses: [10.1.0.2]}]";
    let v6 = "addressType: IPv6\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: ['fd00::1']}]";
    let balanced = seen(&written(service, &[one, other, v6]));
    let pool = |port, protocol| PoolName {
        port: (port, protocol),
        is_v4: true,
        local: false,
    };
    let of = |name| balanced.pools[&name].keys().copied().collect::<Vec<_>>();
    let at = |last, port| (IpAddr::from([10, 1, 0, last]), port);
    assert_eq!(of(pool(80, Protocol::TCP)), [at(1, 8080), at(2, 9090)]);
    assert_eq!(of(pool(53, Protocol::UDP)), [at(1, 5353)]);
    assert_eq!(balanced.pools.len(), 2, "nothing leads to those of IPv6");
}

const LOAD_BALANCER: &str = "
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, 'fd00:96::1']
  externalIPs: [192.0.2.7]
  externalTrafficPolicy: POLICY
  loadBalancerSourceRanges: [198.51.100.0/24]
  ports: [{port: 80, nodePort: 30080}]
status: {loadBalancer: {ingress: [{ip: 192.0.2.8}, {ip: 192.0.2.9, ipMode: Proxy}, {hostname: lb.example}]}}
";

#[test]
fn all_frontends_of_a_load_balancer() {
    let own = slice("{addresses: [10.1.0.1], nodeName: here}, {addresses: [10.1.0.2], nodeName: there}");
    let cluster = written(&LOAD_BALANCER.replace("POLICY", "Cluster"), &[&own]);
    let expected = [
        "0.0.0.0:30080/TCP > cluster masquerade",
        "10.96.0.1:80/TCP > cluster",
        "192.0.2.7:80/TCP > cluster masquerade",
        "192.0.2.8:80/TCP > cluster masquerade filtered",
        ":::30080/TCP > cluster masquerade",
        "fd00:96::1:80/TCP > cluster",
    ];
    assert_eq!(frontends(&seen(&cluster)), expected);
    let pool = seen(&cluster).pools.into_values().last().unwrap();
    assert_eq!(
        pool.values().map(|backend| backend.remote).collect::<Vec<_>>(),
        [false, true]
    );
}

#[test]
fn policy_local_keeps_to_this_node() {
    let both = slice("{addresses: [10.1.0.1], nodeName: here}, {addresses: [10.1.0.2], nodeName: there}");
    let local = seen(&written(&LOAD_BALANCER.replace("POLICY", "Local"), &[&both]));
    assert_eq!(backends(&local, true), ["10.1.0.1:8080 Ready"]);
    assert!(frontends(&local).contains(&"0.0.0.0:30080/TCP > local".to_owned()));
    assert!(frontends(&local).contains(&"10.96.0.1:80/TCP > cluster".to_owned()));
    let there = slice("{addresses: [10.1.0.2], nodeName: there}");
    let remote = seen(&written(&LOAD_BALANCER.replace("POLICY", "Local"), &[&there]));
    assert!(frontends(&remote).contains(&"0.0.0.0:30080/TCP > local silent".to_owned()));
    let nobody = seen(&written(&LOAD_BALANCER.replace("POLICY", "Local"), &[]));
    assert!(
        frontends(&nobody).contains(&"0.0.0.0:30080/TCP > local".to_owned()),
        "they are told"
    );
    let inside = "spec: {clusterIP: 10.96.0.1, internalTrafficPolicy: Local, ports: [{port: 80}]}";
    assert_eq!(
        frontends(&seen(&written(inside, &[&both]))),
        ["10.96.0.1:80/TCP > local"]
    );
}

#[test]
fn hints_count_where_everybody_has_one() {
    let hinted = |zone: &str, last| format!("{{addresses: [10.1.0.{last}], hints: {{forZones: [{{name: {zone}}}]}}}}");
    let state = |endpoints: &[String]| backends(&seen(&written(CLUSTER_IP, &[&slice(&endpoints.join(", "))])), false);
    let near = [hinted("a", 1), hinted("b", 2)];
    assert_eq!(state(&near), ["10.1.0.1:8080 Ready", "10.1.0.2:8080 Elsewhere"]);
    let far = [hinted("b", 1), hinted("b", 2)];
    assert_eq!(state(&far), ["10.1.0.1:8080 Ready", "10.1.0.2:8080 Ready"]);
    let unsaid = [hinted("a", 1), "{addresses: [10.1.0.2]}".to_owned()];
    assert_eq!(state(&unsaid), ["10.1.0.1:8080 Ready", "10.1.0.2:8080 Ready"]);
    let node = "{addresses: [10.1.0.1], hints: {forNodes: [{name: here}], forZones: [{name: b}]}}";
    let other = "{addresses: [10.1.0.2], hints: {forNodes: [{name: there}], forZones: [{name: a}]}}";
    let expected = ["10.1.0.1:8080 Ready", "10.1.0.2:8080 Elsewhere"];
    assert_eq!(
        state(&[node.to_owned(), other.to_owned()]),
        expected,
        "nodes come before zones"
    );
}

#[test]
fn names_and_headless_services_lead_nowhere() {
    let one = slice("{addresses: [10.1.0.1]}");
    for service in [
        "spec: {clusterIP: None, ports: [{port: 80}]}",
        "spec: {type: ExternalName, externalName: db.example}",
    ] {
        let balanced = seen(&written(service, &[&one]));
        assert!(balanced.frontends.is_empty() && balanced.pools.is_empty(), "{service}");
    }
    let sticky = "spec: {clusterIP: 10.96.0.1, sessionAffinity: ClientIP, ports: [{port: 80}]}";
    assert_eq!(seen(&written(sticky, &[&one])).affinity_s, 10_800);
}
