//! Tunnels against a real kernel's: VXLAN as Calico sets it up, and IP in IP between two programs.

use testbed::{Host, Lab, Margay, need};

use crate::router::{drops, ip, iperf, iperf_server, port, reaches, shell};

/// A client behind the router, and a node that the router reaches over the underlay 192.0.2.0/24.
struct Overlay {
    client: Host,
    router: Host,
    node: Host,
    lab: Lab,
}

const PORTS: &str = "\
apiVersion: margay/v1
kind: Port
metadata: { name: lan }
spec: { device: lan0, addresses: [10.1.0.1/24, 'fd00:1::1/64'] }
---
apiVersion: margay/v1
kind: Port
metadata: { name: wan }
spec: { device: wan0, addresses: [192.0.2.1/24] }
---
";

/// As Calico's agent has it: the node's tunnel address is 10.9.0.0, and its pods' block is behind that.
const VXLAN: &str = "\
apiVersion: margay/v1
kind: Port
metadata: { name: vxlan }
spec: { device: vxlan.calico, driver: vxlan, local: 192.0.2.1, mac: '66:00:00:00:00:01', addresses: [10.8.0.0/32] }
---
apiVersion: margay/v1
kind: Neighbor
metadata: { name: node }
spec: { port: vxlan, address: 10.9.0.0, mac: '66:00:00:00:00:02', remote: 192.0.2.2 }
---
apiVersion: margay/v1
kind: Route
metadata: { name: node }
spec: { destination: 10.9.0.0/26, via: [{ gateway: 10.9.0.0, port: vxlan }] }
---
apiVersion: margay/v1
kind: Neighbor
metadata: { name: node6 }
spec: { port: vxlan, address: 'fd00:9::', mac: '66:00:00:00:00:02', remote: 192.0.2.2 }
---
apiVersion: margay/v1
kind: Route
metadata: { name: node6 }
spec: { destination: 'fd00:9::/122', via: [{ gateway: 'fd00:9::', port: vxlan }] }
";

/// The kernel's end of the same (Felix's dataplane/linux/vxlan_mgr.go).
const KERNEL: &str = "\
ip link add vxlan.calico address 66:00:00:00:00:02 type vxlan id 4096 local 192.0.2.2 dstport 4789 nolearning
ip link set vxlan.calico mtu 1450 up
ip address add 10.9.0.0/32 dev vxlan.calico
ip address add 10.9.0.2/32 dev vxlan.calico
ip address add fd00:9::2/128 dev vxlan.calico nodad
bridge fdb add 66:00:00:00:00:01 dev vxlan.calico dst 192.0.2.1
ip neigh add 10.8.0.0 lladdr 66:00:00:00:00:01 dev vxlan.calico
ip -6 neigh add fd00:8:: lladdr 66:00:00:00:00:01 dev vxlan.calico
ip route add 10.1.0.0/24 via 10.8.0.0 dev vxlan.calico onlink src 10.9.0.2
ip -6 route add fd00:1::/64 via fd00:8:: dev vxlan.calico onlink src fd00:9::2";

impl Overlay {
    fn new() -> Overlay {
        let lab = Lab::new().unwrap();
        let [client, router, node] = ["client", "router", "node"].map(|name| lab.host(name).unwrap());
        let lan = ["10.1.0.2/24", "fd00:1::2/64"];
        lab.link((&client, "eth0", lan), (&router, "lan0", [])).unwrap();
        lab.link((&node, "eth0", ["192.0.2.2/24"]), (&router, "wan0", []))
            .unwrap();
        for gateway in ["10.1.0.1", "fd00:1::1"] {
            client.route("default", gateway).unwrap();
        }
        Overlay {
            client,
            router,
            node,
            lab,
        }
    }
}

/// One TCP connection of a megabyte or more, each way.
fn tcp_passes(client: &Host, to: &str) {
    for way in ["", " --reverse"] {
        let report = iperf(client, &format!("-c {to} -n 4M --connect-timeout 5000{way}"));
        let received = report["end"]["sum_received"]["bytes"].as_u64();
        assert!(received.is_some_and(|bytes| bytes >= 1 << 20), "{report}");
    }
}

/// The kernel that shares its device goes on answering.
fn ping_the_node(net: &Overlay) {
    net.node.route("10.1.0.0/24", "192.0.2.1").unwrap();
    net.client.run(["ping", "-c1", "-W5", "192.0.2.2"]).unwrap();
}

fn count(margay: &Margay, name: &str, what: &str) -> u64 {
    port(margay, name)[what].as_u64().unwrap()
}

#[test]
fn a_kernels_vxlan_is_the_other_end() {
    need!("ping", "iperf3", "bridge");
    let net = Overlay::new();
    if net
        .router
        .run(["ip", "link", "add", "probe", "type", "vxlan", "id", "1", "dstport", "9"])
        .is_err()
    {
        return testbed::skip::announce("this kernel has no VXLAN");
    }
    ip(&net.router, "link del probe");
    shell(&net.node, KERNEL);
    let margay = net.lab.margay(&net.router, &[PORTS, VXLAN].concat(), &[]).unwrap();
    let _server = iperf_server(&net.node);
    for to in ["10.9.0.2", "fd00:9::2"] {
        reaches(&net.client, to);
        // Both learn how much fits by being told.
        tcp_passes(&net.client, to);
    }
    assert!(count(&margay, "vxlan", "rx_packets") > 1000 && count(&margay, "vxlan", "tx_packets") > 1000);
    // Another network, and another node.
    ip(
        &net.node,
        "link add other address 66:00:00:00:00:02 type vxlan id 7 local 192.0.2.2 dstport 4789 nolearning",
    );
    shell(
        &net.node,
        "ip link set other up; ip address add 10.7.0.2/24 dev other; ip neigh add 10.7.0.1 lladdr 66:00:00:00:00:01 \
         dev other; bridge fdb add 66:00:00:00:00:01 dev other dst 192.0.2.1; ping -c1 -W1 10.7.0.1 || true",
    );
    assert!(drops(&margay, "unknown-tunnel") > 0);
    margay.stop().unwrap();
}

/// IP in IP between two nodes whose ends are these, and a route to what is behind the other.
fn ipip(local: &str, remote: &str, inside: &str) -> String {
    format!(
        "---\napiVersion: margay/v1\nkind: Port\nmetadata: {{ name: tunl0 }}\n\
         spec: {{ device: tunl0, driver: ipip, local: {local} }}\n\
         ---\napiVersion: margay/v1\nkind: Route\nmetadata: {{ name: far }}\n\
         spec: {{ destination: {inside}, via: [{{ gateway: {remote}, port: tunl0 }}] }}\n"
    )
}

#[test]
fn two_programs_have_ip_in_ip_between_them() {
    need!("ping", "iperf3");
    let net = Overlay::new();
    let far = net.lab.host("far").unwrap();
    net.lab
        .link((&far, "eth0", ["10.3.0.2/24"]), (&net.node, "lan0", []))
        .unwrap();
    far.route("default", "10.3.0.1").unwrap();
    let near = [PORTS, &ipip("192.0.2.1", "192.0.2.2", "10.3.0.0/24")].concat();
    let ports = PORTS.replace(
        "lan0, addresses: [10.1.0.1/24, 'fd00:1::1/64']",
        "lan0, addresses: [10.3.0.1/24]",
    );
    // This one leaves its device to the kernel, but for what the tunnel is sent.
    let ports = ports.replace(
        "wan0, addresses: [192.0.2.1/24]",
        "eth0, punt: kernel, addresses: [192.0.2.2/24]",
    );
    let margay = net.lab.margay(&net.router, &near, &[]).unwrap();
    let other = [&ports, &ipip("192.0.2.2", "192.0.2.1", "10.1.0.0/24")[..]].concat();
    let other = net.lab.margay(&net.node, &other, &[]).unwrap();
    let _server = iperf_server(&far);
    reaches(&net.client, "10.3.0.2");
    tcp_passes(&net.client, "10.3.0.2");
    ping_the_node(&net);
    for margay in [&margay, &other] {
        assert!(count(margay, "tunl0", "rx_packets") > 1000 && count(margay, "tunl0", "tx_packets") > 1000);
    }
    margay.stop().unwrap();
    other.stop().unwrap();
}
