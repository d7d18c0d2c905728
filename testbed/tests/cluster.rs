//! A small cluster with real clients and servers across the running program: services, policy and source NAT, and what
//! becomes of connections when these change.

#[path = "cluster/flood.rs"]
mod flood;
mod router;
#[path = "cluster/ways_in.rs"]
mod ways_in;

use std::collections::BTreeMap;
use std::time::Duration;

use router::{LIMIT, Net, PORTS, ip, iperf_server, until};
use serde_json::Value;
use testbed::{Child, Host, Margay, need};

/// Answers every request over HTTP with its name and who asked.
const SERVER: &str = "\
import http.server, sys
class Who(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f'{sys.argv[1]} {self.client_address[0]}'.encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('0.0.0.0', 8080), Who).serve_forever()
";

/// The third and the fourth link of the router.
const MORE_PORTS: &str = "---
{apiVersion: margay/v1, kind: Port, metadata: {name: third}, spec: {device: third0, addresses: [10.3.0.1/24]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: uplink}, spec: {device: uplink0, addresses: [10.4.0.1/24]}}
";

const SERVICE: &str = "
{apiVersion: v1, kind: Service, metadata: {name: shop, namespace: shop},
 spec: {type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30080, targetPort: 8080}]}}
";

/// The endpoints that the service has, by their last but one number.
fn slice(backends: &[u8]) -> String {
    let endpoints: Vec<String> = backends
        .iter()
        .map(|number| format!("{{addresses: [10.{number}.0.2]}}"))
        .collect();
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{{port: 8080}}],
          metadata: {{name: shop, namespace: shop, labels: {{kubernetes.io/service-name: shop}}}},
          endpoints: [{}]}}\n",
        endpoints.join(", ")
    )
}

/// A client, two backends and somebody outside, around one router.
struct Cluster {
    net: Net,
    third: Host,
    world: Host,
    margay: Margay,
    servers: Vec<Child>,
}

impl Cluster {
    fn new(resources: &[&str]) -> Self {
        Self::with(resources, &[])
    }

    fn with(resources: &[&str], arguments: &[&str]) -> Self {
        let net = Net::new();
        let (third, world) = (net.lab.host("third").unwrap(), net.lab.host("world").unwrap());
        net.join(&third, "third0", 3);
        net.join(&world, "uplink0", 4);
        let documents = [&[PORTS, MORE_PORTS], resources].concat().join("---\n");
        let margay = net.lab.margay(&net.router, &documents, arguments).unwrap();
        let servers = [("right", &net.right), ("third", &third), ("world", &world)]
            .map(|(name, host)| host.spawn(["python3", "-c", SERVER, name]).unwrap());
        let mut cluster = Cluster {
            margay,
            servers: servers.into(),
            net,
            third,
            world,
        };
        cluster.await_servers();
        cluster
    }

    fn await_servers(&mut self) {
        for host in [&self.net.right, &self.third, &self.world] {
            until("a server", || ask(host, "127.0.0.1:8080").is_ok());
        }
        assert_eq!(self.servers.len(), 3);
    }

    /// How often each server answered so many questions, one connection each.
    fn answers(&self, from: &Host, to: &str, questions: usize) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for _ in 0..questions {
            let answer = ask(from, to).unwrap();
            let name = answer.split(' ').next().unwrap().to_owned();
            *answers.entry(name).or_default() += 1;
        }
        answers
    }
}

/// What a server says; or curl's exit code.
fn ask(host: &Host, to: &str) -> Result<String, i32> {
    let url = format!("http://{to}/");
    let words = format!("curl -sS --max-time 2 {url} || echo failed $?");
    let answer = host.run(["sh", "-c", &words]).unwrap().stdout;
    match answer.trim().strip_prefix("failed ") {
        Some(code) => Err(code.parse().unwrap()),
        None => Ok(answer.trim().to_owned()),
    }
}

/// curl's code for a connection that was refused.
const REFUSED: Result<String, i32> = Err(7);
/// curl's code for an answer that did not come.
const SILENCE: Result<String, i32> = Err(28);

#[test]
fn clients_reach_backends_by_the_service_and_follow_it() {
    need!("python3", "curl");
    let cluster = Cluster::new(&[SERVICE, &slice(&[2, 3])]);
    let Cluster { net, margay, world, .. } = &cluster;
    for (from, to) in [(&net.left, "10.96.0.1"), (world, "10.4.0.1:30080")] {
        let answers = cluster.answers(from, to, 30);
        assert_eq!(answers.len(), 2, "both backends answer: {answers:?}");
    }
    // The servers saw who asked.
    assert!(ask(&net.left, "10.96.0.1").unwrap().ends_with(" 10.1.0.2"));

    margay.apply(&slice(&[3])).unwrap();
    let answers = cluster.answers(&net.left, "10.96.0.1", 10);
    assert_eq!(answers, BTreeMap::from([("third".to_owned(), 10)]));
    // Its own backend is reached, too.
    assert!(ask(&cluster.third, "10.96.0.1").unwrap().starts_with("third "));

    margay.apply(&slice(&[])).unwrap();
    assert_eq!(ask(&net.left, "10.96.0.1"), REFUSED);
    margay.apply(&slice(&[2])).unwrap();
    assert!(ask(&net.left, "10.96.0.1").unwrap().starts_with("right "));
}

/// Streams through a service, whose two connections have to reach the same backend.
const STREAMS: &str = "
{apiVersion: v1, kind: Service, metadata: {name: streams, namespace: shop},
 spec: {clusterIP: 10.96.0.2, sessionAffinity: ClientIP, ports: [{port: 5201}]}}
";

#[test]
fn a_stream_stays_with_its_backend_while_backends_come_and_go() {
    need!("python3", "curl", "iperf3");
    let backends = |numbers: &[u8]| {
        let slice = slice(numbers).replace("port: 8080", "port: 5201");
        slice
            .replace("name: shop,", "name: streams,")
            .replace("service-name: shop", "service-name: streams")
    };
    let cluster = Cluster::new(&[STREAMS, &backends(&[2])]);
    let Cluster { net, third, margay, .. } = &cluster;
    let _servers = [iperf_server(&net.right), iperf_server(third)];
    let report = net.lab.folder().join("report");
    let words = format!("iperf3 -c 10.96.0.2 -t 5 -b 50M --json > {}", report.display());
    let mut client = net.left.spawn(["sh", "-c", &words]).unwrap();
    let carried = || third.counters("eth0").unwrap().rx_packets;
    let streamed = || net.right.counters("eth0").unwrap().rx_packets;
    let start = streamed();
    until("the stream", || streamed() > start + 500);
    for numbers in [&[2, 3][..], &[3], &[], &[3]] {
        margay.apply(&backends(numbers)).unwrap();
        let before = streamed();
        until("the stream to go on", || streamed() > before + 200);
    }
    client.wait_for_end(LIMIT).unwrap();
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert!(report["error"].is_null(), "{report}");
    let received = report["end"]["sum_received"]["bytes"].as_u64();
    assert!(received > Some(10_000_000), "{report}");
    // Who is new goes to who is left.
    let before = carried();
    router::iperf(&net.left, "-c 10.96.0.2 -t 1 -b 10M");
    assert!(carried() > before + 200);
}

#[test]
fn clients_leave_by_the_address_of_the_gateway() {
    need!("python3", "curl", "iperf3");
    let rule = "
{apiVersion: margay/v1, kind: SourceNat, metadata: {name: out}, spec: {source: 10.0.0.0/8, exclude: [10.2.0.0/16], address: 10.4.0.1, outPort: uplink}}
";
    let cluster = Cluster::new(&[rule]);
    let Cluster { net, world, .. } = &cluster;
    // The world needs no way back to the clients.
    ip(world, "route del default");
    assert_eq!(ask(&net.left, "10.4.0.2:8080"), Ok("world 10.4.0.1".to_owned()));
    assert_eq!(ask(&net.left, "10.2.0.2:8080"), Ok("right 10.1.0.2".to_owned()));
    let _server = iperf_server(world);
    for arguments in ["-c 10.4.0.2 -t 1", "-c 10.4.0.2 -t 1 -R -P 4"] {
        let report = router::iperf(&net.left, arguments);
        let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap();
        assert!(received > 1_000_000, "{arguments}: {report}");
    }
}

/// Who is behind the ports, for policy.
const ENDPOINTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: web, namespace: shop, labels: {app: web}},
 spec: {orchestrator: k8s, node: here, pod: web, endpoint: eth0, interfaceName: left0, ipNetworks: [10.1.0.2/32], profiles: [kns.shop]}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: api, namespace: shop, labels: {app: api}},
 spec: {orchestrator: k8s, node: here, pod: api, endpoint: eth0, interfaceName: right0, ipNetworks: [10.2.0.2/32], profiles: [kns.shop]}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: db, namespace: shop, labels: {app: db}},
 spec: {orchestrator: k8s, node: here, pod: db, endpoint: eth0, interfaceName: third0, ipNetworks: [10.3.0.2/32], profiles: [kns.shop]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: uplink}, spec: {node: here, interfaceName: uplink0}}
";

/// A three-tier application: the world may ask web, web the api, the api the database.
const TIERS: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: shop},
 spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 8080}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: api, namespace: shop},
 spec: {podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]}}
";

#[test]
fn an_application_in_three_tiers_is_kept_apart() {
    need!("python3", "curl");
    let cluster = Cluster::new(&[ENDPOINTS, TIERS, SERVICE, &slice(&[2])]);
    let Cluster {
        net,
        third,
        world,
        margay,
        ..
    } = &cluster;
    let (web, api, db) = (&net.left, &net.right, third);
    let (api_address, db_address) = ("10.2.0.2:8080", "10.3.0.2:8080");
    assert!(ask(web, api_address).is_ok());
    assert!(ask(api, db_address).is_ok());
    assert_eq!(ask(web, db_address), SILENCE);
    assert_eq!(ask(world, api_address), SILENCE);
    assert_eq!(ask(db, api_address), SILENCE);
    // A service does not lead around policy.
    assert!(ask(web, "10.96.0.1").is_ok());
    assert_eq!(ask(world, "10.4.0.1:30080"), SILENCE);

    let explain = |from: &str, to: &str| {
        let words = [
            "explain", "--from", from, "--to", to, "--proto", "tcp", "--port", "8080",
        ];
        margay.command(words).unwrap().stdout
    };
    let (allowed, denied) = (explain("shop/web", "shop/api"), explain("shop/web", "shop/db"));
    assert!(allowed.contains("allow") && allowed.contains("api"), "{allowed}");
    assert!(denied.contains("den") && denied.contains("db"), "{denied}");

    // A staged policy denies nothing; enforced, it does, and goes again.
    let strict = "
{apiVersion: projectcalico.org/v3, kind: StagedGlobalNetworkPolicy, metadata: {name: strict},
 spec: {order: 1, selector: app == 'api', types: [Ingress], ingress: [{action: Deny}]}}
";
    margay.apply(strict).unwrap();
    assert!(ask(web, api_address).is_ok());
    let enforced = strict.replace("Staged", "");
    margay.apply(&enforced).unwrap();
    assert_eq!(ask(web, api_address), SILENCE);
    margay.delete(&enforced).unwrap();
    assert!(ask(web, api_address).is_ok());
}

#[test]
fn a_policy_cuts_what_runs_and_lets_it_go_on() {
    need!("python3", "curl", "iperf3");
    let cluster = Cluster::new(&[ENDPOINTS]);
    let Cluster { net, margay, .. } = &cluster;
    let _server = iperf_server(&net.right);
    let words = "iperf3 -c 10.2.0.2 -u -b 20M -l 1000 -t 6 -i 0.5 --json --get-server-output";
    let mut client = net
        .left
        .spawn(["sh", "-c", &format!("{words} > {}/report", net.lab.folder().display())])
        .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let deny = "
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: cut},
 spec: {selector: app == 'api', types: [Ingress], ingress: [{action: Deny, protocol: UDP}, {action: Allow}]}}
";
    margay.apply(deny).unwrap();
    let cut = router::drops(margay, "denied");
    std::thread::sleep(Duration::from_millis(1500));
    let denied = router::drops(margay, "denied") - cut;
    margay.delete(deny).unwrap();
    client.wait_for_end(LIMIT).unwrap();
    let report = std::fs::read_to_string(net.lab.folder().join("report")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    // 2,500 packets a second for a second and a half were denied, give or take.
    assert!((2_000..6_000).contains(&denied), "{denied} were denied");
    let sum = &report["end"]["sum"];
    let (lost, all) = (sum["lost_packets"].as_u64().unwrap(), sum["packets"].as_u64().unwrap());
    assert!((2_000..all / 2).contains(&lost), "{lost} of {all} were lost");
    assert!(all > 12_000, "{all}");
}
