//! A flood of openings that nobody answers, beside connections of people.

use testbed::{Child, need};

use super::router::{self, LIMIT, iperf_server, shell, until};
use super::{Cluster, SERVICE, ask};

/// Connections that the table has room for.
const FLOWS: u64 = 4096;
/// Different ends that the flood claims to come from: more than the table has room for.
const OPENINGS: u32 = 4 * FLOWS as u32;
/// Openings a millisecond, where floods are compared.
const RATE: u32 = 50;

/// Sends SYNs by its packet socket to a service until it is killed, or the same with a header that is wrong: so many a
/// millisecond, or as fast as it can.
const FLOOD: &str = r"
import socket, struct, sys, time
router, wrong = bytes.fromhex(sys.argv[1].replace(':', '')), int(sys.argv[2])
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(('eth0', 0))
ours = link.getsockname()[4]
def summed(words):
    total = sum(struct.unpack('!%dH' % (len(words) // 2), words))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
def opening(n):
    ends = bytes([198, 18, n >> 8 & 255, n & 255]) + bytes([10, 96, 0, 1])
    head = struct.pack('!BBHHHBB', 0x45, 0, 40, 1, 0x4000, 64, 6)
    part = struct.pack('!HHLLBBH', 1024 + n, 80, n, 0, 0x50, 2, 1024)
    checked = part + struct.pack('!HH', summed(ends + struct.pack('!HH', 6, 20) + part + bytes(4)), 0)
    return router + ours + b'\x08\0' + head + struct.pack('!H', summed(head + ends) ^ wrong) + ends + checked
frames = [opening(n) for n in range(int(sys.argv[3]))]
print('flooding', flush=True)
rate, sent, start = int(sys.argv[4]), 0, time.monotonic()
while True:
    for frame in frames:
        try:
            link.send(frame)
        except OSError:
            pass
        sent += 1
        while rate and sent > (time.monotonic() - start) * 1000 * rate:
            time.sleep(0.001)
";

/// The service's only backend is never there, behind a port that costs the kernel nothing.
const NOBODY: &str = "
{apiVersion: margay/v1, kind: Port, metadata: {name: void}, spec: {device: void, driver: memory, addresses: [10.5.0.1/24]}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: nobody}, spec: {port: void, address: 10.5.0.77, mac: '02:00:00:00:00:77'}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{port: 8080}],
 metadata: {name: shop, namespace: shop, labels: {kubernetes.io/service-name: shop}}, endpoints: [{addresses: [10.5.0.77]}]}
";

/// So many openings a millisecond, of which each may be `wrong`; 0 for as many as it can.
fn flood(cluster: &Cluster, wrong: bool, rate: u32) -> Child {
    let mac = cluster.net.router.mac("uplink0").unwrap();
    let numbers = [u32::from(wrong), OPENINGS, rate].map(|number| number.to_string());
    let [wrong, openings, rate] = &numbers;
    let mut flood = cluster
        .world
        .spawn(["python3", "-c", FLOOD, &mac, wrong, openings, rate])
        .unwrap();
    flood.wait_for_line("flooding", LIMIT).unwrap();
    flood
}

/// A number of `/metrics`.
fn metric(cluster: &Cluster, name: &str) -> u64 {
    let socket = cluster.margay.socket().display().to_string();
    let text = shell(
        &cluster.net.router,
        &format!("curl -sf --unix-socket {socket} http://margay/metrics"),
    );
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let number = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    number.trim().parse().unwrap()
}

/// Bits a second of a stream beside a flood, and packets of the flood a second that came to the router meanwhile.
fn beside(cluster: &Cluster, wrong: bool) -> (f64, u64) {
    let received = || router::port(&cluster.margay, "uplink")["rx_packets"].as_u64().unwrap();
    let mut flood = flood(cluster, wrong, RATE);
    let before = received();
    until("the flood", || received() > before + u64::from(OPENINGS));
    let before = received();
    let report = router::iperf(&cluster.net.left, "-c 10.2.0.2 -t 2");
    let packets = received() - before;
    flood.kill();
    let sum = &report["end"]["sum_received"];
    (sum["bits_per_second"].as_f64().unwrap(), packets / 2)
}

#[test]
fn a_flood_of_openings_takes_no_place_from_who_answers() {
    need!("python3", "curl", "iperf3");
    let cluster = Cluster::with(&[SERVICE, NOBODY], &["--flows", &FLOWS.to_string()]);
    let Cluster { net, margay, .. } = &cluster;
    let _server = iperf_server(&net.right);
    let stream = format!(
        "iperf3 -c 10.2.0.2 -t 5 -b 10M --json > {}/stream",
        net.lab.folder().display()
    );
    let mut stream = net.left.spawn(["sh", "-c", &stream]).unwrap();
    until("the stream", || {
        margay.show("flows").unwrap().to_string().contains("5201")
    });

    let mut opening = flood(&cluster, false, 0);
    until("the table to be full", || {
        metric(&cluster, "margay_flows_evicted_total") > FLOWS
    });
    // Who is new finds a place, though there are always more of those that nobody answers.
    for _ in 0..10 {
        assert_eq!(ask(&net.left, "10.2.0.2:8080"), Ok("right 10.1.0.2".to_owned()));
    }
    let (flows, capacity) = (
        metric(&cluster, "margay_flows"),
        metric(&cluster, "margay_flows_capacity"),
    );
    assert!(flows <= capacity && flows > capacity / 2, "{flows} of {capacity}");
    stream.wait_for_end(LIMIT).unwrap();
    opening.kill();
    let report = std::fs::read_to_string(net.lab.folder().join("stream")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let sent = report["end"]["sum_received"]["bytes"].as_u64();
    assert!(sent > Some(1_000_000), "the stream went on: {report}");

    let (dropped, at_that) = beside(&cluster, true);
    let (tracked, at_this) = beside(&cluster, false);
    println!(
        "beside a flood of openings {:.2} Gbit/s ({at_this} packets/s), of wrong packets {:.2} Gbit/s ({at_that} packets/s): {:.0} %",
        tracked / 1e9,
        dropped / 1e9,
        100.0 * tracked / dropped
    );
    assert!(tracked > 0.0 && dropped > 0.0);
}
