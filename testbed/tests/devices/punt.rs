//! A port that shares its device with the kernel: the host behind it goes on as if nothing were there, whatever the plane
//! takes, and whatever becomes of the plane.

use testbed::{Child, Host, Margay, need};

use super::router::{self, Net, ip, ping, port, reaches, shell, until, until_up};

/// The uplink has the host's own addresses, and one that the host has not.
const UPLINK: &str = "\
apiVersion: margay/v1
kind: Port
metadata: { name: uplink }
spec: { device: uplink0, punt: kernel, addresses: [10.4.0.1/24, 10.4.0.3/24, 'fd00:4::1/64'] }
";

const SERVER: &str = "\
import http.server, socket, sys
class Who(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f'{sys.argv[1]} {self.client_address[0]}'.encode())
    def log_message(self, *_): pass
class Both(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Both(('::', 8080), Who).serve_forever()
";

/// A host with an uplink to the world, and a pod behind the plane that runs on it.
pub(super) struct Node {
    pub net: Net,
    pub world: Host,
    _servers: Vec<Child>,
}

impl Node {
    pub fn new() -> Node {
        let net = Net::new();
        let world = net.lab.host("world").unwrap();
        let ours = (&net.router, "uplink0", ["10.4.0.1/24", "fd00:4::1/64"]);
        net.lab
            .link((&world, "eth0", ["10.4.0.2/24", "fd00:4::2/64"]), ours)
            .unwrap();
        for (host, pods, by) in [
            (&world, "10.1.0.0/24", "10.4.0.1"),
            (&world, "fd00:1::/64", "fd00:4::1"),
        ] {
            host.route(pods, by).unwrap();
        }
        let servers = [("host", &net.router), ("world", &world), ("pod", &net.left)];
        let start = |(name, host): (&str, &Host)| host.spawn(["python3", "-c", SERVER, name]).unwrap();
        let node = Node {
            _servers: servers.map(start).into(),
            world,
            net,
        };
        for host in [&node.net.router, &node.world, &node.net.left] {
            until("a server", || ask(host, "127.0.0.1:8080").is_some());
        }
        node
    }

    pub fn start(&self) -> Margay {
        let resources = [router::PORTS, UPLINK].join("---\n");
        let margay = self.net.lab.margay(&self.net.router, &resources, &[]).unwrap();
        until_up(&margay, "uplink");
        margay
    }

    /// Everything that the host does with its uplink by itself.
    pub fn host_is_there(&self) {
        for (from, to, name) in [
            (&self.world, "10.4.0.1:8080", "host"),
            (&self.world, "[fd00:4::1]:8080", "host"),
            (&self.net.router, "10.4.0.2:8080", "world"),
            (&self.net.router, "[fd00:4::2]:8080", "world"),
        ] {
            until(&format!("{name} at {to}"), || {
                ask(from, to).is_some_and(|answer| answer.starts_with(name))
            });
        }
        assert!(ping(&self.world, "10.4.0.1") && ping(&self.world, "fd00:4::1"));
    }
}

/// What a server says.
pub(super) fn ask(from: &Host, to: &str) -> Option<String> {
    let answer = from
        .run(["curl", "-sS", "-g", "--max-time", "2", &format!("http://{to}/")])
        .ok()?;
    Some(answer.stdout)
}

/// Packets that came to the plane by the uplink.
fn received(margay: &Margay) -> u64 {
    port(margay, "uplink")["rx_packets"].as_u64().unwrap()
}

#[test]
fn the_host_keeps_its_uplink_and_the_plane_takes_what_goes_to_pods() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    node.host_is_there();
    let margay = node.start();
    node.host_is_there();
    // What is for the host never came to the plane.
    let before = received(&margay);
    for _ in 0..20 {
        assert!(ask(&node.world, "10.4.0.1:8080").is_some());
    }
    assert_eq!(received(&margay), before);
    // Pods are reached through the plane, whose questions the kernel gets the answers to.
    for pod in ["10.1.0.2", "fd00:1::2"] {
        reaches(&node.world, pod);
    }
    let said = |from, to| ask(from, to).unwrap_or_default();
    assert_eq!(said(&node.world, "10.1.0.2:8080"), "pod ::ffff:10.4.0.2");
    assert_eq!(said(&node.net.left, "10.4.0.2:8080"), "world ::ffff:10.1.0.2");
    assert_eq!(said(&node.world, "[fd00:1::2]:8080"), "pod fd00:4::2");
    assert!(received(&margay) > before);
    // An address that only the plane has is the plane's.
    reaches(&node.world, "10.4.0.3");
    assert_eq!(ask(&node.world, "10.4.0.3:8080"), None);
    node.host_is_there();
    margay.stop().unwrap();
    node.host_is_there();
}

#[test]
fn the_host_survives_the_plane() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    let margay = node.start();
    reaches(&node.world, "10.1.0.2");
    margay.kill();
    node.host_is_there();
    let margay = node.start();
    reaches(&node.world, "10.1.0.2");
    node.host_is_there();
    margay.stop().unwrap();
}

#[test]
fn routes_services_and_source_nat_claim_what_is_theirs() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    let margay = node.start();
    let said = |to: &str| ask(&node.world, to).unwrap_or_default();
    reaches(&node.world, "10.1.0.2");
    // A node port on the host's own address: that port, and no other.
    let service = "
{apiVersion: v1, kind: Service, metadata: {name: shop, namespace: shop},
 spec: {type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30080, targetPort: 8080}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{port: 8080}],
 metadata: {name: shop, namespace: shop, labels: {kubernetes.io/service-name: shop}},
 endpoints: [{addresses: [10.1.0.2]}]}
";
    assert_eq!(said("10.4.0.1:30080"), "");
    margay.apply(service).unwrap();
    until("the node port", || said("10.4.0.1:30080").starts_with("pod"));
    node.host_is_there();
    // Source NAT on the host's own address.
    let nat = "
{apiVersion: margay/v1, kind: SourceNat, metadata: {name: out}, spec: {source: 10.1.0.0/24, address: 10.4.0.1, outPort: uplink}}
";
    margay.apply(nat).unwrap();
    until("source NAT", || {
        ask(&node.net.left, "10.4.0.2:8080").is_some_and(|answer| answer == "world ::ffff:10.4.0.1")
    });
    assert!(ping(&node.net.left, "10.4.0.2"));
    for _ in 0..20 {
        assert_eq!(
            ask(&node.net.left, "10.4.0.2:8080").unwrap_or_default(),
            "world ::ffff:10.4.0.1"
        );
        assert_eq!(
            ask(&node.net.router, "10.4.0.2:8080").unwrap_or_default(),
            "world ::ffff:10.4.0.1"
        );
    }
    // A route that comes and goes.
    shell(&node.net.left, "ip address add 10.77.0.1/32 dev lo");
    node.world.route("10.77.0.0/16", "10.4.0.1").unwrap();
    assert!(!ping(&node.world, "10.77.0.1"));
    let route = "
{apiVersion: margay/v1, kind: Route, metadata: {name: more}, spec: {destination: 10.77.0.0/16, via: [{gateway: 10.1.0.2}]}}
";
    margay.apply(route).unwrap();
    reaches(&node.world, "10.77.0.1");
    margay.delete(route).unwrap();
    until("the route to be gone", || !ping(&node.world, "10.77.0.1"));
    // The service's port is the host's again.
    margay.delete(service).unwrap();
    until("the node port to be gone", || said("10.4.0.1:30080").is_empty());
    node.host_is_there();
    margay.stop().unwrap();
}

#[test]
fn an_address_that_the_host_gives_up_is_the_planes() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    let margay = node.start();
    node.host_is_there();
    let before = received(&margay);
    ip(&node.net.router, "address del 10.4.0.1/24 dev uplink0");
    until("the plane to answer", || {
        ping(&node.world, "10.4.0.1") && received(&margay) > before
    });
    ip(&node.net.router, "address add 10.4.0.1/24 dev uplink0");
    until("the host to answer", || ask(&node.world, "10.4.0.1:8080").is_some());
    margay.stop().unwrap();
}

/// Nobody locks himself out by policy, and is told that it protects what is behind the host alone.
#[test]
fn policy_reaches_what_is_forwarded_and_not_the_host() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    let margay = node.start();
    reaches(&node.world, "10.1.0.2");
    let pod_is_open = || ask(&node.world, "10.1.0.2:8080").is_some();
    let ends = "
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: pod, namespace: shop},
 spec: {node: here, pod: pod, interfaceName: left0, ipNetworks: [10.1.0.2/32], profiles: [open]}}
---
{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: open}, spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: uplink, labels: {way: in}}, spec: {node: here, interfaceName: uplink0}}
";
    let file = node.net.lab.folder().join("ends.yaml");
    std::fs::write(&file, ends).unwrap();
    let said = margay.command(["apply", "-f", &file.to_string_lossy()]).unwrap().stderr;
    assert!(
        said.contains("HostEndpoint/uplink does not protect the host itself"),
        "{said}"
    );
    assert!(pod_is_open());
    for stage in ["doNotTrack: true, ", "preDNAT: true, ", ""] {
        let closed = format!(
            "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: closed}},
              spec: {{selector: way == 'in', {stage}applyOnForward: true, types: [Ingress], ingress: [{{action: Deny}}]}}}}\n"
        );
        margay.apply(&closed).unwrap();
        assert!(!pod_is_open(), "{stage}");
        node.host_is_there();
    }
}
