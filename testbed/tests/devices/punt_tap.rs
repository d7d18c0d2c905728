//! A port whose device a TAP takes the place of: the host behind it goes on, while the plane is there, when it ends, and
//! after it was killed.

use testbed::{Margay, need};

use super::punt::{Node, ask};
use super::router::{self, drops, ip, ping, port, reaches, shell, until, until_up};

/// The uplink has the host's own addresses, and one that the host has not.
const UPLINK: &str = "\
apiVersion: margay/v1
kind: Port
metadata: { name: uplink }
spec: { device: uplink0, punt: tap, addresses: [10.4.0.1/24, 10.4.0.3/24, 'fd00:4::1/64'] }
";

impl Node {
    /// The plane has the uplink, and the host a TAP.
    pub fn start_with_tap(&self) -> Margay {
        let resources = [router::PORTS, UPLINK].join("---\n");
        let margay = self.net.lab.margay(&self.net.router, &resources, &[]).unwrap();
        until_up(&margay, "uplink");
        until_up(&margay, "uplink/host");
        margay
    }

    /// What the host has, and what its uplink is, without numbers and times that another device has others of.
    fn host(&self) -> String {
        shell(
            &self.net.router,
            "cat /sys/class/net/uplink0/address; \
             ip -o address show dev uplink0 | sed 's/^[0-9]*: //; s/\\\\.*//; s/nodad//g; s/proto [a-z_]*//g' | tr -s ' '; \
             ip route; ip -6 route; ip route show table 100",
        )
    }

    /// The host's routes are more than those of its addresses.
    fn prepare(&self) {
        shell(
            &self.net.router,
            "ip route add default via 10.4.0.2 metric 50; ip -6 route add default via fd00:4::2; \
             ip route add 10.99.0.0/16 via 10.4.0.2 table 100; ip address add 10.4.0.7/24 dev uplink0",
        );
    }
}

/// Packets that came by the TAP and went there.
fn by_host(margay: &Margay) -> (u64, u64) {
    let tap = port(margay, "uplink/host");
    (tap["rx_packets"].as_u64().unwrap(), tap["tx_packets"].as_u64().unwrap())
}

#[test]
fn the_host_goes_on_behind_a_tap() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    node.prepare();
    let before = node.host();
    let margay = node.start_with_tap();
    assert_eq!(node.host(), before, "a TAP has what the device had");
    node.host_is_there();
    let (sent, received) = by_host(&margay);
    assert!(sent > 20 && received > 20, "{sent} and {received} packets");
    assert!(ping(&node.net.router, "10.4.0.2") && ping(&node.net.router, "fd00:4::2"));
    // An address of the host's that the port does not name.
    assert!(ask(&node.world, "10.4.0.7:8080").is_some_and(|answer| answer.starts_with("host")));
    // Pods are the plane's.
    for pod in ["10.1.0.2", "fd00:1::2"] {
        reaches(&node.world, pod);
    }
    let said = |from, to| ask(from, to).unwrap_or_default();
    assert_eq!(said(&node.world, "10.1.0.2:8080"), "pod ::ffff:10.4.0.2");
    assert_eq!(said(&node.net.left, "10.4.0.2:8080"), "world ::ffff:10.1.0.2");
    assert_eq!(said(&node.world, "[fd00:1::2]:8080"), "pod fd00:4::2");
    // An address that only the plane has is the plane's.
    let (_, received) = by_host(&margay);
    reaches(&node.world, "10.4.0.3");
    assert_eq!(ask(&node.world, "10.4.0.3:8080"), None);
    assert!(by_host(&margay).1 < received + 5, "the host got what is the plane's");
    // The device is a port as any other.
    assert_eq!(port(&margay, "uplink")["mac"], port(&margay, "uplink/host")["mac"]);
    assert_eq!(drops(&margay, "no-host"), 0);
    margay.stop().unwrap();
    assert_eq!(node.host(), before);
    node.host_is_there();
}

/// Says what it hears on a connection.
const LISTENER: &str = "\
import socket
server = socket.create_server(('::', 7000), family=socket.AF_INET6, dualstack_ipv6=True)
print('ready', flush=True)
connection, _ = server.accept()
for line in connection.makefile():
    print('heard', line.strip(), flush=True)
";

/// Says on a connection what stands in a file, each time it changes.
const SPEAKER: &str = "\
import socket, sys, time
connection, last = socket.create_connection((sys.argv[1], 7000)), ''
while True:
    word = open(sys.argv[2]).read()
    if word != last:
        connection.sendall(word.encode())
        last = word
    time.sleep(0.05)
";

#[test]
fn a_connection_of_the_hosts_lives_through_everything() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    let (router, world) = (&node.net.router, &node.world);
    let file = node.net.lab.folder().join("word");
    // As with ssh: one connection to the host, and one from it.
    for (server, client, to) in [(router, world, "10.4.0.1"), (world, router, "fd00:4::2")] {
        std::fs::write(&file, "").unwrap();
        let mut listener = server.spawn(["python3", "-uc", LISTENER]).unwrap();
        listener.wait_for_line("ready", router::LIMIT).unwrap();
        let path = file.display().to_string();
        let _speaker = client.spawn(["python3", "-uc", SPEAKER, to, &path]).unwrap();
        let mut say = |word: &str| {
            std::fs::write(&file, format!("{word}\n")).unwrap();
            listener.wait_for_line(&format!("heard {word}"), router::LIMIT).unwrap();
        };
        say("before");
        let margay = node.start_with_tap();
        say("behind the TAP");
        margay.kill();
        let margay = node.start_with_tap();
        say("behind the next");
        margay.stop().unwrap();
        say("after");
    }
}

#[test]
fn what_is_sent_to_many_reaches_the_host_and_dhcp_does() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    let margay = node.start_with_tap();
    let listen = |what: &str, port: u16| {
        let program = format!(
            "import socket, struct\n\
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'uplink0')\n\
             s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n\
             s.bind(('', {port}))\n\
             {what}\n\
             print('ready', flush=True)\n\
             print('got', s.recv(100), flush=True)\n"
        );
        let mut child = node.net.router.spawn(["python3", "-uc", &program]).unwrap();
        child.wait_for_line("ready", router::LIMIT).unwrap();
        child
    };
    let send = |to: &str, port: u16, from: u16| {
        let program = format!(
            "import socket\n\
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n\
             s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0')\n\
             s.bind(('', {from}))\n\
             s.sendto(b'hello', ('{to}', {port}))\n"
        );
        node.world.run(["python3", "-c", &program]).unwrap();
    };
    // RIP's group, as a routing daemon joins it.
    let group = "s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, \
                 socket.inet_aton('224.0.0.9') + socket.inet_aton('10.4.0.1'))";
    let mut heard = listen(group, 520);
    send("224.0.0.9", 520, 520);
    heard.wait_for_line("got b'hello'", router::LIMIT).unwrap();
    // An offer to all, as a client without an address gets it.
    let mut heard = listen("", 68);
    send("255.255.255.255", 68, 67);
    heard.wait_for_line("got b'hello'", router::LIMIT).unwrap();
    // All nodes of the link; the answer of the host is one of the kernel's.
    let all = shell(&node.world, "ping -6 -c2 -W2 ff02::1%eth0 || true");
    assert!(
        all.contains("bytes from fe80") || all.contains("bytes from fd00"),
        "{all}"
    );
    // What the host sends to all arrives as well.
    let (sent, _) = by_host(&margay);
    shell(&node.net.router, "ping -b -c1 -W1 10.4.0.255 > /dev/null 2>&1 || true");
    assert!(by_host(&margay).0 > sent);
    margay.stop().unwrap();
}

#[test]
fn after_a_kill_the_device_is_given_back_by_the_next_start_or_by_hand() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    node.prepare();
    let before = node.host();
    let margay = node.start_with_tap();
    let refusal = margay.command(["restore"]).unwrap_err().to_string();
    assert!(refusal.contains("a data plane answers on"), "{refusal}");
    let (socket, binary) = (margay.socket().to_owned(), margay.binary().to_owned());
    margay.kill();
    until("the TAP to be gone", || {
        !shell(&node.net.router, "ip link").contains("uplink0")
    });
    // By the next start.
    let margay = node.start_with_tap();
    assert_eq!(node.host(), before);
    node.host_is_there();
    margay.kill();
    // By hand.
    let restore = |words: &str| {
        shell(
            &node.net.router,
            &format!("{} restore --socket {} {words}", binary.display(), socket.display()),
        )
    };
    assert_eq!(restore(""), "device uplink0 restored\n");
    assert_eq!(node.host(), before);
    node.host_is_there();
    assert!(restore("").contains("nothing to restore"));
    assert_eq!(
        restore("-o json").split_whitespace().collect::<String>(),
        "{\"restored\":[]}"
    );
    // Without the port, the next start gives the device back, too.
    node.start_with_tap().kill();
    let margay = node.net.lab.margay(&node.net.router, router::PORTS, &[]).unwrap();
    assert_eq!(node.host(), before);
    // What the host changes while the TAP is there is kept.
    margay.apply(UPLINK).unwrap();
    until_up(&margay, "uplink/host");
    shell(
        &node.net.router,
        "ip address add 10.4.0.8/24 dev uplink0; ip route add 10.98.0.0/16 via 10.4.0.2",
    );
    let changed = node.host();
    assert!(changed.contains("10.4.0.8") && changed.contains("10.98.0.0/16"));
    until("the new address to be the host's", || ping(&node.world, "10.4.0.8"));
    margay.delete(UPLINK).unwrap();
    assert_eq!(node.host(), changed);
    node.host_is_there();
    margay.stop().unwrap();
}

#[test]
fn a_host_that_loses_its_tap_or_its_device_gets_them_back() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    let margay = node.start_with_tap();
    node.host_is_there();
    ip(&node.net.router, "link delete uplink0");
    node.host_is_there();
    until_up(&margay, "uplink/host");
    // What the kernel tells of giving back and taking again is no reason to do it once more.
    let tap = || shell(&node.net.router, "cat /sys/class/net/uplink0/ifindex");
    let there = tap();
    node.host_is_there();
    assert_eq!(tap(), there);
    // A service on the host's address is the plane's: that port, and no other.
    let service = "
{apiVersion: v1, kind: Service, metadata: {name: shop, namespace: shop},
 spec: {type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30080, targetPort: 8080}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{port: 8080}],
 metadata: {name: shop, namespace: shop, labels: {kubernetes.io/service-name: shop}},
 endpoints: [{addresses: [10.1.0.2]}]}
---
{apiVersion: margay/v1, kind: SourceNat, metadata: {name: out}, spec: {source: 10.1.0.0/24, address: 10.4.0.1, outPort: uplink}}
";
    margay.apply(service).unwrap();
    let said = |from, to| ask(from, to).unwrap_or_default();
    until("the node port", || {
        said(&node.world, "10.4.0.1:30080").starts_with("pod")
    });
    until("source NAT", || {
        said(&node.net.left, "10.4.0.2:8080") == "world ::ffff:10.4.0.1"
    });
    assert!(ping(&node.net.left, "10.4.0.2"));
    node.host_is_there();
    assert_eq!(said(&node.net.router, "10.4.0.2:8080"), "world ::ffff:10.4.0.1");
    margay.stop().unwrap();
    node.host_is_there();
}
