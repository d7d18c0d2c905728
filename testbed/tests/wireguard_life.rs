//! What tunnels outlive: an end that starts anew or is killed, an address of ours that changes, a thousand other peers.

mod router;
mod tunnel;

use std::fmt::Write;

use router::{iperf, iperf_server, reaches};
use testbed::{Host, Lab, Margay, need};
use tunnel::{CLIENT, LAPTOP, LAPTOP_V4, MARGAY_V4, Net, asks, handshakes, key, peer, public};

#[test]
fn margay_may_be_restarted_and_killed() {
    need!("ping", "wireguard-go", "wg");
    let net = Net::new();
    let _laptop = net.start_laptop("");
    for kill in [false, true, false] {
        let margay = net.start(LAPTOP_V4);
        for laptop in LAPTOP {
            asks(&net.client, laptop);
        }
        asks(&net.laptop, CLIENT[0]);
        assert_eq!(handshakes(&margay), 1);
        match kill {
            true => margay.kill(),
            false => drop(margay.stop().unwrap()),
        }
    }
}

#[test]
fn a_peer_may_start_anew() {
    need!("ping", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start(LAPTOP_V4);
    for round in 1..=3 {
        let mut laptop = net.start_laptop(MARGAY_V4);
        // The first answer is sent under the session that the peer knows.
        asks(&net.laptop, CLIENT[0]);
        asks(&net.client, LAPTOP[1]);
        assert!(handshakes(&margay) >= round);
        laptop.child.kill();
    }
    margay.stop().unwrap();
}

#[test]
fn our_address_may_change() {
    need!("ping", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start(LAPTOP_V4);
    let laptop = net.start_laptop("");
    asks(&net.client, LAPTOP[0]);
    assert!(laptop.show("endpoints").unwrap().contains("192.0.2.1:51820"));
    let port = "apiVersion: margay/v1\nkind: Port\nmetadata: { name: wan }\n\
                spec: { device: wan0, addresses: [192.0.2.51/24, '2001:db8::1/64'] }\n";
    margay.apply(port).unwrap();
    // What is sent from the old address is not ours to send any more.
    reaches(&net.client, LAPTOP[0]);
    assert!(laptop.show("endpoints").unwrap().contains("192.0.2.51:51820"));
    asks(&net.laptop, CLIENT[0]);
    margay.stop().unwrap();
}

#[test]
fn a_thousand_peers_are_no_burden() {
    need!("ping", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start(LAPTOP_V4);
    let mut peers = String::new();
    for number in 0..999_u32 {
        let mut private = [1; 32];
        private[1..5].copy_from_slice(&number.to_le_bytes());
        let public = control::keys::Secret::new(&private).public();
        let [_, _, high, low] = number.to_be_bytes();
        // Writing to a text does not fail.
        let _ = write!(
            peers,
            "---\napiVersion: margay/v1\nkind: WireguardPeer\nmetadata: {{ name: peer-{number} }}\n\
             spec: {{ interface: wg0, publicKey: '{public}', allowedIPs: [10.128.{high}.{low}/32], \
             endpoint: '192.0.2.9:51820' }}\n"
        );
    }
    margay.apply(&peers).unwrap();
    let _laptop = net.start_laptop(MARGAY_V4);
    for (client, laptop) in CLIENT.into_iter().zip(LAPTOP) {
        asks(&net.client, laptop);
        asks(&net.laptop, client);
    }
    assert_eq!(
        margay.show("wireguard").unwrap()[0]["peers"].as_array().unwrap().len(),
        1000
    );
    assert_eq!(handshakes(&margay), 1);
    // Those that are not there are not waited for by those that are.
    assert!(!router::ping(&net.client, "10.128.0.1"));
    asks(&net.client, LAPTOP[0]);
    margay.delete(&peers).unwrap();
    asks(&net.client, LAPTOP[0]);
    assert_eq!(handshakes(&margay), 1);
    margay.stop().unwrap();
}

/// A node of two: a pod behind Margay, and a wire to the other node.
struct Node {
    pod: Host,
    router: Host,
    number: u8,
}

impl Node {
    fn new(lab: &Lab, number: u8) -> Node {
        let [pod, router] = ["pod", "router"].map(|name| lab.host(&format!("{name}{number}")).unwrap());
        let (v4, v6) = (format!("10.{number}.0.2/24"), format!("fd00:{number}::2/64"));
        lab.link((&pod, "eth0", [&v4, &v6]), (&router, "pod0", [])).unwrap();
        for gateway in [format!("10.{number}.0.1"), format!("fd00:{number}::1")] {
            pod.route("default", &gateway).unwrap();
        }
        key(number).write(&lab.folder().join(format!("{number}.key"))).unwrap();
        Node { pod, router, number }
    }

    fn start(&self, lab: &Lab) -> Margay {
        let (number, other) = (self.number, 3 - self.number);
        let resources = format!(
            "apiVersion: margay/v1\nkind: Port\nmetadata: {{ name: pod }}\n\
             spec: {{ device: pod0, addresses: [10.{number}.0.1/24, 'fd00:{number}::1/64'] }}\n\
             ---\napiVersion: margay/v1\nkind: Port\nmetadata: {{ name: wire }}\n\
             spec: {{ device: wire0, addresses: ['2001:db8::{number}/64'] }}\n\
             ---\napiVersion: margay/v1\nkind: WireguardInterface\nmetadata: {{ name: wg0 }}\n\
             spec: {{ privateKeyFile: {folder}/{number}.key, clampMSS: true }}\n\
             ---\napiVersion: margay/v1\nkind: WireguardPeer\nmetadata: {{ name: other }}\n\
             spec: {{ interface: wg0, publicKey: '{public}', endpoint: '[2001:db8::{other}]:51820', \
             allowedIPs: [10.{other}.0.0/24, 'fd00:{other}::/64'] }}\n",
            folder = lab.folder().display(),
            public = public(other),
        );
        lab.margay(&self.router, &resources, &[]).unwrap()
    }
}

#[test]
fn two_of_ours_carry_their_pods_traffic() {
    need!("ping", "iperf3");
    let lab = Lab::new().unwrap();
    let nodes = [1, 2].map(|number| Node::new(&lab, number));
    lab.link((&nodes[0].router, "wire0", []), (&nodes[1].router, "wire0", []))
        .unwrap();
    let [one, mut two] = [&nodes[0], &nodes[1]].map(|node| node.start(&lab));
    let _server = iperf_server(&nodes[1].pod);
    for to in ["10.2.0.2", "fd00:2::2"] {
        asks(&nodes[0].pod, to);
        let report = iperf(&nodes[0].pod, &format!("-c {to} -t 2"));
        assert!(
            report["end"]["sum_received"]["bytes"].as_f64().unwrap() > 1e6,
            "{}",
            report["end"]
        );
        // The segments were told to fit, so nobody had to be told later.
        assert_eq!(router::drops(&one, "too-big"), 0);
    }
    assert_eq!(
        ["one", "two"].map(|_| peer(&one, "other")["handshakes"].as_u64()),
        [Some(1); 2]
    );
    // One dies under traffic; the pods are back without anybody's help.
    let running = nodes[0].pod.spawn(["ping", "-i0.1", "-w60", "10.2.0.2"]).unwrap();
    two.child.kill();
    two = nodes[1].start(&lab);
    for (node, to) in [(0, "10.2.0.2"), (1, "10.1.0.2"), (0, "fd00:2::2")] {
        reaches(&nodes[node].pod, to);
    }
    drop(running);
    for margay in [one, two] {
        margay.stop().unwrap();
    }
}
