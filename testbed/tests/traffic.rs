//! Real traffic of both families across the running program: pings, traces, large packets, TCP, errors, neighbours.

mod router;

use std::time::Duration;

use router::{LIMIT, Net, drops, forget_neighbours, ip, iperf, iperf_server, ping, reaches, shell, until};
use testbed::{Child, Host, Lab, need};

/// A web server for files of the lab's folder.
fn serve(net: &Net, host: &Host) -> Child {
    let folder = net.lab.folder();
    let argv = [
        "python3",
        "-m",
        "http.server",
        "--bind",
        "::",
        "--directory",
        &folder.to_string_lossy(),
        "80",
    ];
    let server = host.spawn(argv).unwrap();
    until("the web server", || {
        host.run(["curl", "-sf", "-o", "/dev/null", "http://[::1]/"]).is_ok()
    });
    server
}

/// Fetches `bytes` bytes with curl and checks every one of them.
fn fetch(net: &Net, url: &str, name: &str) {
    let folder = net.lab.folder();
    let (original, copy) = (folder.join(name), folder.join(format!("{name}.copy")));
    let argv = ["curl", "-sSf", "--max-time", "60", "-o", &copy.to_string_lossy(), url];
    net.left.run_within(Duration::from_secs(70), argv).unwrap();
    let same = std::fs::read(&original).unwrap() == std::fs::read(&copy).unwrap();
    assert!(same, "{url} came changed");
}

/// A file whose bytes differ from place to place.
fn write_file(net: &Net, name: &str, bytes: usize) {
    let words = (0..bytes as u32 / 4).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes());
    std::fs::write(net.lab.folder().join(name), words.collect::<Vec<u8>>()).unwrap();
}

#[test]
fn hosts_reach_each_other_and_the_router() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    for to in ["10.1.0.1", "10.2.0.1", "fd00:1::1", "fd00:2::1"] {
        reaches(&net.left, to);
        reaches(&net.right, to);
    }
    // The link-local address every port has from its Ethernet address (RFC 4291, appendix A).
    let mac = net.router.mac("left0").unwrap();
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let [a, b, c, d, e, f] = bytes[..] else { panic!("{mac}") };
    let local = format!(
        "fe80::{:x}:{:x}:{:x}:{:x}",
        u16::from_be_bytes([a ^ 2, b]),
        u16::from_be_bytes([c, 0xff]),
        u16::from_be_bytes([0xfe, d]),
        u16::from_be_bytes([e, f])
    );
    reaches(&net.left, &format!("{local}%eth0"));
    margay.stop().unwrap();
}

#[test]
fn large_packets_cross_in_fragments() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    for to in ["10.2.0.2", "fd00:2::2"] {
        for size in ["1472", "1473", "3000", "20000"] {
            // One at a time: after the last of several, ping waits no longer than the others took.
            net.left.run(["ping", "-c1", "-W10", "-s", size, to]).unwrap();
        }
    }
    margay.stop().unwrap();
}

#[test]
fn traceroute_shows_the_router() {
    need!("python3", "ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    // One datagram of hop limit 1; the kernel keeps who complained (IP_RECVERR of ip(7)).
    let script = "
import socket, sys
v6 = ':' in sys.argv[1]
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
level, hops, errors = (41, 16, 25) if v6 else (0, 2, 11)
s.setsockopt(level, hops, 1); s.setsockopt(level, errors, 1); s.settimeout(5)
s.connect((sys.argv[1], 33434)); s.send(b'x')
try: s.recv(100)
except OSError as e: print('error', e.errno)
data, ancillary, flags, address = s.recvmsg(100, 1000, 0x2000)
body = ancillary[0][2]
offender = socket.inet_ntop(socket.AF_INET6, body[24:40]) if v6 else socket.inet_ntop(socket.AF_INET, body[20:24])
print('type', body[5], 'code', body[6], 'from', offender)
";
    for (to, expected) in [
        ("10.2.0.2", "error 113\ntype 11 code 0 from 10.1.0.1\n"),
        ("fd00:2::2", "error 113\ntype 3 code 0 from fd00:1::1\n"),
    ] {
        assert_eq!(net.left.run(["python3", "-c", script, to]).unwrap().stdout, expected);
    }
    // And with the real tool, where it is there.
    if testbed::need_programs(&["traceroute"]).is_none() {
        for (family, to, hops) in [
            ("-4", "10.2.0.2", ["10.1.0.1", "10.2.0.2"]),
            ("-6", "fd00:2::2", ["fd00:1::1", "fd00:2::2"]),
        ] {
            let said = net.left.run(["traceroute", "-n", "-q1", family, to]).unwrap().stdout;
            let shown: Vec<&str> = said
                .lines()
                .skip(1)
                .filter_map(|line| line.split_whitespace().nth(1))
                .collect();
            assert_eq!(shown, hops, "{said}");
        }
    }
    margay.stop().unwrap();
}

#[test]
fn path_mtu_discovery_works_through_a_small_link() {
    need!("iperf3", "ping");
    let net = Net::new();
    // The right host promises segments of 1460 bytes, but the way to it takes smaller ones.
    let ports = router::PORTS.replace("right0, ", "right0, mtu: 1280, ");
    let margay = net.lab.margay(&net.router, &ports, &[]).unwrap();
    net.both_families_pass();
    let _server = iperf_server(&net.right);
    for (to, exception) in [("10.2.0.2", "-4"), ("fd00:2::2", "-6")] {
        // What must not be cut is answered with the MTU.
        let said = shell(&net.left, &format!("ping -c2 -W2 -M do -s 1400 {to} 2>&1 || true"));
        assert!(
            said.contains("mtu=1280") || said.contains("mtu = 1280") || said.contains("mtu: 1280"),
            "{said}"
        );
        ip(&net.left, &format!("{exception} route flush cache"));
        // The client's segments begin large, and shrink when it is told.
        let report = iperf(&net.left, &format!("-c {to} -t 1"));
        assert!(
            report["end"]["sum_received"]["bytes"].as_f64().unwrap() > 2e6,
            "{}",
            report["end"]
        );
        let route = shell(&net.left, &format!("ip {exception} route get {to}"));
        assert!(route.contains("mtu 1280"), "{route}");
    }
    assert!(drops(&margay, "too-big") > 0);
    // IPv4 without the flag is cut on the way.
    let uncut = ["ping", "-c1", "-W10", "-M", "dont", "-s", "1400", "10.2.0.2"];
    net.left.run(uncut).unwrap();
    margay.stop().unwrap();
}

#[test]
fn errors_reach_the_sender() {
    need!("python3", "ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    let script = "
import socket, sys
v6 = ':' in sys.argv[1]
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(*((41, 25, 1) if v6 else (0, 11, 1))); s.settimeout(10); s.connect((sys.argv[1], 9))
s.send(b'x')
try: s.recv(100)
except OSError as e: print(e.errno)
";
    let error = |to: &str| {
        net.left
            .run(["python3", "-c", script, to])
            .unwrap()
            .stdout
            .trim()
            .to_owned()
    };
    // ECONNREFUSED of a closed port of the router, EHOSTUNREACH of a host that is not there.
    for to in ["10.1.0.1", "10.2.0.1", "fd00:1::1", "fd00:2::1"] {
        assert_eq!(error(to), "111", "{to}");
    }
    for to in ["10.2.0.77", "fd00:2::77"] {
        assert_eq!(error(to), "113", "{to}");
    }
    // ENETUNREACH, where no route leads; IPv6 has a code of its own for it (RFC 4443 section 3.1), and the same error.
    for to in ["10.77.0.1", "fd00:77::1"] {
        assert_eq!(error(to), "101", "{to}");
    }
    margay.stop().unwrap();
}

#[test]
fn flows_spread_over_two_gateways() {
    need!("ping", "iperf3");
    let net = Net::new();
    // Both hosts have the addresses: which way a flow went is told by who counted it.
    shell(
        &net.right,
        "ip address add 192.0.2.1/32 dev lo; ip address add fd00:99::1/128 dev lo",
    );
    let second = net.lab.host("second").unwrap();
    net.lab
        .link(
            (&second, "eth0", ["10.4.0.2/24", "fd00:4::2/64"]),
            (&net.router, "second0", []),
        )
        .unwrap();
    shell(
        &second,
        "ip route add default via 10.4.0.1; ip -6 route add default via fd00:4::1; \
         ip address add 192.0.2.1/32 dev lo; ip address add fd00:99::1/128 dev lo",
    );
    let more = "---\napiVersion: margay/v1\nkind: Port\nmetadata: { name: second }\n\
                spec: { device: second0, addresses: [10.4.0.1/24, 'fd00:4::1/64'] }\n\
                ---\napiVersion: margay/v1\nkind: Route\nmetadata: { name: four }\n\
                spec: { destination: 192.0.2.1/32, via: [{ gateway: 10.2.0.2 }, { gateway: 10.4.0.2 }] }\n\
                ---\napiVersion: margay/v1\nkind: Route\nmetadata: { name: six }\n\
                spec: { destination: 'fd00:99::1/128', via: [{ gateway: 'fd00:2::2' }, { gateway: 'fd00:4::2' }] }\n";
    let margay = net
        .lab
        .margay(&net.router, &format!("{}{more}", router::PORTS), &[])
        .unwrap();
    let _servers = [iperf_server(&net.right), iperf_server(&second)];
    for to in ["192.0.2.1", "fd00:99::1"] {
        // Packets for a gateway that is not known yet wait, but not hundreds of them.
        for known in [to, "10.2.0.2", "10.4.0.2", "fd00:2::2", "fd00:4::2"] {
            reaches(&net.left, known);
        }
        let before = [net.right.counters("eth0").unwrap(), second.counters("eth0").unwrap()];
        // Flows of one packet each; an answer proves that it came, and by which way the counters tell.
        let script = "import socket, sys\nv6 = ':' in sys.argv[1]\nfor port in range(400):\n \
                      s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)\n \
                      s.sendto(b'x', (sys.argv[1], 20000 + port))\n";
        net.left.run(["python3", "-c", script, to]).unwrap();
        let both = || {
            [(&net.right, 0), (&second, 1)]
                .map(|(host, at)| host.counters("eth0").unwrap().rx_packets - before[at].rx_packets)
        };
        until("400 flows to arrive", || both().iter().sum::<u64>() >= 400);
        assert!(both().iter().all(|share| *share > 100), "{to}: {:?} of 400", both());
    }
    margay.stop().unwrap();
}

#[test]
fn a_static_neighbour_is_not_asked_for() {
    need!("ping");
    let net = Net::new();
    // The right answers no ARP: only who knows its address reaches it.
    ip(&net.right, "link set eth0 arp off");
    ip(
        &net.right,
        &format!(
            "neigh add 10.2.0.1 lladdr {} dev eth0",
            net.router.mac("right0").unwrap()
        ),
    );
    let margay = net.start(&[]);
    assert!(!ping(&net.left, "10.2.0.2"));
    let neighbour = format!(
        "apiVersion: margay/v1\nkind: Neighbor\nmetadata: {{ name: right }}\n\
         spec: {{ port: right, address: 10.2.0.2, mac: '{}' }}\n",
        net.right.mac("eth0").unwrap()
    );
    margay.apply(&neighbour).unwrap();
    reaches(&net.left, "10.2.0.2");
    let neighbors = margay.command(["show", "neighbors"]).unwrap().stdout;
    assert!(neighbors.contains("permanent"), "{neighbors}");
    margay.delete(&neighbour).unwrap();
    until("the way to be closed", || !ping(&net.left, "10.2.0.2"));
    margay.stop().unwrap();
}

#[test]
fn files_cross_unchanged() {
    need!("curl", "python3");
    let net = Net::new();
    let margay = net.start(&[]);
    write_file(&net, "small", 1_000_000);
    write_file(&net, "large", 100_000_000);
    let _server = serve(&net, &net.right);
    for url in [
        "http://10.2.0.2/small",
        "http://[fd00:2::2]/small",
        "http://10.2.0.2/large",
    ] {
        fetch(&net, url, url.rsplit('/').next().unwrap());
    }
    margay.stop().unwrap();
}

#[test]
fn many_connections_at_once_all_get_on() {
    need!("iperf3");
    let net = Net::new();
    let margay = net.start(&[]);
    let _server = iperf_server(&net.right);
    for to in ["10.2.0.2", "fd00:2::2"] {
        let report = iperf(&net.left, &format!("-c {to} -P 16 -t 3"));
        let streams = report["end"]["streams"].as_array().unwrap();
        assert_eq!(streams.len(), 16);
        for stream in streams {
            assert!(stream["receiver"]["bytes"].as_f64().unwrap() > 0.0, "{stream}");
        }
    }
    margay.stop().unwrap();
}

#[test]
fn neighbours_may_forget_and_change_under_traffic() {
    need!("iperf3", "ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    let _server = iperf_server(&net.right);
    // A host that changes its address announces that (arp_notify, ndisc_notify of ip-sysctl).
    let announce = "echo 1 >/proc/sys/net/ipv4/conf/eth0/arp_notify; echo 1 >/proc/sys/net/ipv6/conf/eth0/ndisc_notify";
    shell(&net.right, announce);
    let mut client = net
        .left
        .spawn(["iperf3", "-c", "10.2.0.2", "-t", "6", "--json"])
        .unwrap();
    // The kernel fails what asks for a neighbour while it is made to forget it: a connection first.
    until("traffic", || {
        router::port(&margay, "left")["rx_packets"].as_u64() > Some(100)
    });
    let mac = |last: u32| format!("02:00:00:00:99:{last:02x}");
    let mut round = 0;
    while client.status().unwrap().is_none() {
        round += 1;
        for host in [&net.left, &net.right] {
            router::forget_neighbours(host);
        }
        if round == 2 {
            ip(&net.right, &format!("link set eth0 address {}", mac(round)));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let report: serde_json::Value = serde_json::from_str(&client.wait(LIMIT).unwrap().stdout).unwrap();
    let intervals = report["intervals"].as_array().unwrap();
    assert!(intervals.len() >= 2, "{report}");
    let last = &intervals[intervals.len() - 2]["sum"];
    assert!(
        last["bytes"].as_f64().unwrap() > 0.0,
        "traffic did not come back: {report}"
    );
    let neighbors = margay.command(["show", "neighbors"]).unwrap().stdout;
    for address in ["10.2.0.2", "fd00:2::2"] {
        let line = neighbors
            .lines()
            .find(|line| line.contains(address))
            .unwrap_or_default();
        assert!(line.contains(&mac(2)), "{neighbors}");
    }
    net.both_families_pass();
    margay.stop().unwrap();
}

#[test]
fn a_lab_without_routes_is_not_crossed() {
    need!("ping");
    let lab = Lab::new().unwrap();
    let [left, router] = ["left", "router"].map(|name| lab.host(name).unwrap());
    lab.link((&left, "eth0", ["10.1.0.2/24", "fd00:1::2/64"]), (&router, "left0", []))
        .unwrap();
    left.route("default", "10.1.0.1").unwrap();
    let documents: Vec<&str> = router::PORTS.split("---\n").collect();
    let margay = lab.margay(&router, documents[0], &[]).unwrap();
    reaches(&left, "10.1.0.1");
    assert!(!ping(&left, "192.0.2.1"));
    assert!(drops(&margay, "no-route") > 0, "{}", margay.show("drops").unwrap());
    margay.stop().unwrap();
}

/// Pings from a VLAN, tag and all, for a kernel may know no VLANs: a frame out of a packet socket, until it is answered.
/// Tells the VLAN of the answer, which the kernel took off on the way (PACKET_AUXDATA, packet(7)).
const PING_IN_VLAN: &str = r#"
import socket, struct, sys
router, ours = [bytes.fromhex(mac.replace(':', '')) for mac in sys.argv[1:3]]
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.bind(('eth0', 0))
link.setsockopt(263, 8, 1)
link.settimeout(0.2)
def summed(words):
    total = sum(struct.unpack('!%dH' % (len(words) // 2), words))
    total = (total >> 16) + (total & 0xffff)
    return struct.pack('!H', ~(total + (total >> 16)) & 0xffff)
ends = bytes([10, 3, 0, 2, 10, 2, 0, 2])
data = struct.pack('!HH', 7, 1) + b'x' * 1472
echo = b'\x08\0' + summed(b'\x08\0\0\0' + data) + data
head = struct.pack('!BBHHHBB', 0x45, 0, 20 + len(echo), 1, 0x4000, 64, 1)
packet = head + summed(head + b'\0\0' + ends) + ends + echo
for _ in range(100):
    link.send(router + ours + struct.pack('!HHH', 0x8100, 100, 0x0800) + packet)
    try:
        while True:
            frame, said, _, _ = link.recvmsg(2048, 256)
            tag = [struct.unpack('IIIHHHH', about[2][:20])[5] for about in said if about[:2] == (263, 8)]
            if frame[12:14] == b'\x81\0':
                tag, frame = [struct.unpack('!H', frame[14:16])[0]], frame[:12] + frame[16:]
            if frame[12:14] == b'\x08\0' and frame[23] == 1 and frame[34] == 0 and frame[26:30] == ends[4:]:
                print(tag[0] & 4095, len(frame))
                sys.exit()
    except TimeoutError:
        pass
sys.exit('no answer')
"#;

/// A VLAN of the left link beside its untagged port, with a subnet of its own.
#[test]
fn a_host_of_a_vlan_is_answered_with_its_tag() {
    need!("ping", "python3");
    let net = Net::new();
    let [ours, router] = [net.left.mac("eth0"), net.router.mac("left0")].map(Result::unwrap);
    let vlan = format!(
        "---
apiVersion: margay/v1
kind: Port
metadata: {{ name: guests }}
spec: {{ device: left0, vlan: 100, addresses: [10.3.0.1/24] }}
---
apiVersion: margay/v1
kind: Neighbor
metadata: {{ name: guest }}
spec: {{ port: guests, address: 10.3.0.2, mac: '{ours}' }}
"
    );
    let resources = format!("{}{vlan}", router::PORTS);
    let margay = net.lab.margay(&net.router, &resources, &[]).unwrap();
    net.both_families_pass();
    let answer = net
        .left
        .run(["python3", "-c", PING_IN_VLAN, &router, &ours])
        .unwrap()
        .stdout;
    // The largest packet, with nothing cut off.
    assert_eq!(answer.trim(), "100 1514");
    let guests = router::port(&margay, "guests");
    assert!(
        guests["rx_packets"].as_u64() > Some(0) && guests["tx_packets"].as_u64() > Some(0),
        "{guests}"
    );
    assert_eq!((drops(&margay, "vlan-unknown"), drops(&margay, "vlan-stack")), (0, 0));
}

/// Hosts that take announcements know the router before they ask for it; again when its link was down.
#[test]
fn a_port_that_comes_up_announces_its_addresses() {
    need!("sysctl");
    let net = Net::new();
    shell(
        &net.left,
        "sysctl -qw net.ipv4.conf.eth0.arp_accept=1 net.ipv6.conf.eth0.forwarding=1 \
         net.ipv6.conf.eth0.accept_untracked_na=1",
    );
    let known = || {
        let mac = net.router.mac("left0").unwrap();
        let shown = shell(&net.left, "ip neigh show 10.1.0.1; ip neigh show fd00:1::1");
        shown.matches(&format!("lladdr {mac}")).count() == 2
    };
    let margay = net.start(&[]);
    until("the announcements", known);
    ip(&net.router, "link set left0 down");
    router::until_down(&margay, "left", "is down");
    forget_neighbours(&net.left);
    assert!(!known());
    ip(&net.router, "link set left0 up");
    until("the announcements after the link was down", known);
}
