//! Tunnels between the running program and wireguard-go: both roles, both families, changes under running traffic.

mod router;
mod tunnel;

use router::{drops, iperf, iperf_server, shell, until};
use testbed::wireguard_peer::{Tunnel, WIREGUARD_GO};
use testbed::{Lab, need};
use tunnel::{CLIENT, LAPTOP, LAPTOP_V4, MARGAY_V4, Net, PORTS, asks, handshakes, key, laptop_peer, peer, public};

/// The harness itself: the others reach each other.
#[test]
fn two_others_reach_each_other() {
    need!("ping", "wireguard-go", "wg");
    let lab = Lab::new().unwrap();
    let [one, other] = ["one", "other"].map(|name| lab.host(name).unwrap());
    lab.link((&one, "eth0", ["192.0.2.1/24"]), (&other, "eth0", ["192.0.2.2/24"]))
        .unwrap();
    let start = |host, own: u8, theirs: u8| {
        let settings = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = 51820\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.9.0.0/24\n\
             Endpoint = 192.0.2.{theirs}:51820\n",
            *key(own).text(),
            public(theirs)
        );
        let tunnel = Tunnel {
            device: "wg0",
            settings: &settings,
            addresses: &[&format!("10.9.0.{own}/24")],
            mtu: 1420,
        };
        lab.wireguard(host, WIREGUARD_GO, tunnel).unwrap()
    };
    let tunnels = [start(&one, 1, 2), start(&other, 2, 1)];
    asks(&one, "10.9.0.2");
    for tunnel in tunnels {
        assert!(tunnel.latest_handshake().unwrap() > 0 && tunnel.received_bytes().unwrap() > 0);
    }
}

#[test]
fn margay_begins() {
    need!("ping", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start(LAPTOP_V4);
    // The laptop cannot begin: it does not know where Margay is.
    let laptop = net.start_laptop("");
    for (client, laptop) in CLIENT.into_iter().zip(LAPTOP) {
        asks(&net.client, laptop);
        asks(&net.laptop, client);
    }
    for own in ["10.9.0.1", "fd00:9::1"] {
        asks(&net.laptop, own);
    }
    assert_eq!(handshakes(&margay), 1);
    assert!(laptop.latest_handshake().unwrap() > 0);
    let shown = peer(&margay, "laptop");
    assert_eq!(shown["endpoint"], "192.0.2.2:51820");
    assert!(
        shown["rx_packets"].as_u64() > Some(5) && shown["tx_packets"].as_u64() > Some(5),
        "{shown}"
    );
    margay.stop().unwrap();
}

#[test]
fn margay_answers() {
    need!("ping", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start("");
    let _laptop = net.start_laptop(MARGAY_V4);
    // Nobody knows yet where the laptop is, and the client is told at once.
    let said = shell(&net.client, "ping -c1 -W10 10.9.0.2 || true");
    assert!(said.contains("Unreachable"), "{said}");
    assert!(drops(&margay, "peer-unreachable") > 0);
    for (client, laptop) in CLIENT.into_iter().zip(LAPTOP) {
        asks(&net.laptop, client);
        asks(&net.client, laptop);
    }
    assert_eq!(handshakes(&margay), 1);
    margay.stop().unwrap();
}

#[test]
fn both_families_pass_over_both_families() {
    need!("ping", "wireguard-go", "wg");
    for (begin, answer) in [
        ("endpoint: '[2001:db8::2]:51820'", ""),
        ("", "Endpoint = [2001:db8::1]:51820"),
    ] {
        let net = Net::new();
        let margay = net.start(begin);
        let _laptop = net.start_laptop(answer);
        for (client, laptop) in CLIENT.into_iter().zip(LAPTOP) {
            match begin.is_empty() {
                true => asks(&net.laptop, client),
                false => asks(&net.client, laptop),
            }
        }
        for laptop in LAPTOP {
            asks(&net.client, laptop);
        }
        assert_eq!(peer(&margay, "laptop")["endpoint"], "[2001:db8::2]:51820");
        assert_eq!(handshakes(&margay), 1);
        margay.stop().unwrap();
    }
}

#[test]
fn a_preshared_key_has_to_be_the_same() {
    need!("ping", "wireguard-go", "wg");
    let net = Net::new();
    let (file, text) = net.preshared_key(7);
    let margay = net.start(&format!("{LAPTOP_V4}, presharedKeyFile: {file}"));
    let mut laptop = net.start_laptop(&format!("PresharedKey = {text}"));
    asks(&net.client, LAPTOP[0]);
    assert_eq!(peer(&margay, "laptop")["preshared_key"], true);
    // Without it: the laptop starts anew, so that there has to be another handshake.
    laptop.child.kill();
    let _laptop = net.start_laptop(MARGAY_V4);
    let received = echoes(&net);
    assert!(net.laptop.run(["ping", "-c3", "-W1", CLIENT[0]]).is_err());
    assert_eq!((handshakes(&margay), echoes(&net)), (1, received));
    margay.stop().unwrap();
}

fn echoes(net: &Net) -> u64 {
    tunnel::echoes_in(&net.client)
}

#[test]
fn a_stranger_gets_no_answer() {
    need!("ping", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start(LAPTOP_V4);
    let laptop = net.start_laptop(MARGAY_V4);
    // Another key than the one that Margay knows.
    let other = net.lab.folder().join("other.key");
    key(9).write(&other).unwrap();
    laptop.set(&format!("private-key {}", other.display())).unwrap();
    assert!(net.laptop.run(["ping", "-c2", "-W1", CLIENT[0]]).is_err());
    assert!(net.client.run(["ping", "-c2", "-W1", LAPTOP[0]]).is_err());
    assert_eq!((handshakes(&margay), laptop.received_bytes().unwrap() % 148), (0, 0));
    assert_eq!(echoes(&net), 0);
    margay.stop().unwrap();
}

#[test]
fn keepalives_come_without_traffic() {
    need!("ping", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start(&format!("{LAPTOP_V4}, persistentKeepalive: 1"));
    let laptop = net.start_laptop("");
    // Nothing has been sent: the keepalive brings the handshake about.
    until("the handshake", || laptop.latest_handshake().unwrap() > 0);
    let keepalives = |before: u64| (laptop.received_bytes().unwrap() - before) / 32;
    let before = laptop.received_bytes().unwrap();
    until("three keepalives of ours", || keepalives(before) >= 3);
    margay.apply(&laptop_peer(LAPTOP_V4)).unwrap();
    laptop
        .set(&format!("peer {} persistent-keepalive 1", public(1)))
        .unwrap();
    let received = || peer(&margay, "laptop")["rx_packets"].as_u64().unwrap();
    let before = received();
    until("three keepalives of theirs", || received() >= before + 3);
    assert_eq!(handshakes(&margay), 1);
    margay.stop().unwrap();
}

#[test]
fn connections_pass_both_ways() {
    need!("ping", "iperf3", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start(LAPTOP_V4);
    let _laptop = net.start_laptop(MARGAY_V4);
    asks(&net.client, LAPTOP[0]);
    let _server = iperf_server(&net.laptop);
    for to in LAPTOP {
        for way in ["", "--reverse"] {
            let report = iperf(&net.client, &format!("-c {to} -t 2 {way}"));
            let bytes = report["end"]["sum_received"]["bytes"].as_f64().unwrap();
            assert!(bytes > 1e6, "{to} {way}: {}", report["end"]);
        }
    }
    assert_eq!(handshakes(&margay), 1);
    margay.stop().unwrap();
}

#[test]
fn packets_too_large_are_cut_or_refused() {
    need!("ping", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start(LAPTOP_V4);
    let _laptop = net.start_laptop(MARGAY_V4);
    for (to, headers) in [(LAPTOP[0], 28), (LAPTOP[1], 48)] {
        // What just fits, without being cut; and what does not, from who knows of the tunnel only what it is told.
        let fits = (1420 - headers).to_string();
        net.client
            .run(["ping", "-c1", "-W20", "-M", "do", "-s", &fits, to])
            .unwrap();
        let line = format!("ping -c2 -W2 -M do -s {} {to} 2>&1 || true", 1421 - headers);
        let said = shell(&net.client, &line);
        assert!(
            said.contains("mtu=1420") || said.contains("mtu = 1420") || said.contains("mtu: 1420"),
            "{said}"
        );
        for size in ["2000", "8000", "20000"] {
            net.client
                .run(["ping", "-c1", "-W20", "-M", "dont", "-s", size, to])
                .unwrap();
        }
    }
    for to in CLIENT {
        for size in ["1393", "8000", "20000"] {
            net.laptop.run(["ping", "-c1", "-W20", "-s", size, to]).unwrap();
        }
    }
    assert!(drops(&margay, "too-big") >= 2, "{}", margay.show("drops").unwrap());
    margay.stop().unwrap();
}

#[test]
fn a_peer_may_move() {
    need!("ping", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start(LAPTOP_V4);
    let laptop = net.start_laptop(MARGAY_V4);
    asks(&net.client, LAPTOP[0]);
    // Another address, another family, another port: each time the laptop speaks first.
    let moves = [
        (
            "ip address del 192.0.2.2/24 dev eth0; ip address add 192.0.2.77/24 dev eth0",
            "192.0.2.1",
            51820,
            "192.0.2.77:51820",
        ),
        (
            "ip -6 route get 2001:db8::1",
            "[2001:db8::1]",
            51820,
            "[2001:db8::2]:51820",
        ),
        ("true", "192.0.2.1", 4444, "192.0.2.77:4444"),
    ];
    for (script, margay_at, port, expected) in moves {
        shell(&net.laptop, script);
        laptop.set(&format!("listen-port {port}")).unwrap();
        laptop
            .set(&format!("peer {} endpoint {margay_at}:51820", public(1)))
            .unwrap();
        // The first answer goes to where the question came from.
        asks(&net.laptop, CLIENT[0]);
        until("Margay to see where the laptop is", || {
            peer(&margay, "laptop")["endpoint"] == expected
        });
        asks(&net.client, LAPTOP[0]);
        asks(&net.client, LAPTOP[1]);
    }
    assert_eq!(handshakes(&margay), 1);
    margay.stop().unwrap();
}

#[test]
fn allowed_ips_change_under_traffic_without_a_handshake() {
    need!("ping", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start(LAPTOP_V4);
    let _laptop = net.start_laptop(MARGAY_V4);
    shell(&net.laptop, "ip address add 10.77.0.1/32 dev lo");
    asks(&net.client, LAPTOP[0]);
    let mut running = net
        .client
        .spawn(["ping", "-i0.05", "-c100", "-W20", LAPTOP[0]])
        .unwrap();
    let more = "allowedIPs: [10.9.0.2/32, 10.77.0.0/16, 'fd00:9::2/128']";
    for _ in 0..3 {
        assert!(net.client.run(["ping", "-c1", "-W1", "10.77.0.1"]).is_err());
        let said = margay.apply(&laptop_peer(&format!("{more}, {LAPTOP_V4}"))).unwrap();
        assert!(said.contains("configured"), "{said}");
        asks(&net.client, "10.77.0.1");
        // Both ways: as a source, too.
        net.laptop
            .run(["ping", "-c1", "-W20", "-I", "10.77.0.1", CLIENT[0]])
            .unwrap();
        margay.apply(&laptop_peer(LAPTOP_V4)).unwrap();
        let before = drops(&margay, "foreign-source");
        assert!(
            net.laptop
                .run(["ping", "-c1", "-W1", "-I", "10.77.0.1", CLIENT[0]])
                .is_err()
        );
        assert!(drops(&margay, "foreign-source") > before);
    }
    let report = running.wait(router::LIMIT).unwrap().stdout;
    assert!(report.contains(" 0% packet loss"), "{report}");
    assert_eq!(handshakes(&margay), 1);
    margay.stop().unwrap();
}

/// A file of wg-quick that sends everything into the tunnel, beside default routes by which its other end is reached.
#[test]
fn everything_goes_into_the_tunnel_but_what_comes_out_of_it() {
    need!("ping", "wireguard-go", "wg");
    for (endpoint, another) in [
        ("198.51.100.9:51820", "198.51.100.10:51820"),
        ("[2001:db8:51::9]:51820", "[2001:db8:51::a]:51820"),
    ] {
        let net = Net::new();
        let script = "ip addr add 198.51.100.9/32 dev lo; ip addr add 198.51.100.10/32 dev lo
            ip addr add 2001:db8:51::9/128 dev lo; ip addr add 2001:db8:51::a/128 dev lo
            ip addr add 203.0.113.1/32 dev lo; ip addr add 2001:db8:77::1/128 dev lo";
        shell(&net.laptop, script);
        let margay = net.lab.margay(&net.router, &default_routes(), &[]).unwrap();
        let laptop = net.start_laptop("");
        import_everything(&net, &margay, endpoint);
        let sent = || peer(&margay, "laptop")["tx_packets"].as_u64().unwrap();
        for to in ["203.0.113.1", "2001:db8:77::1", LAPTOP[0], LAPTOP[1]] {
            asks(&net.client, to);
            let before = sent();
            asks(&net.client, to);
            assert!(sent() > before, "{to} is not reached through the tunnel");
        }
        assert_eq!(peer(&margay, "laptop")["endpoint"], endpoint);
        // It moves: what it says comes from another address, behind the same default route.
        let own = another.rsplit_once(':').unwrap().0.trim_matches(['[', ']']);
        for (margay_at, family) in [("192.0.2.1", "-4"), ("2001:db8::1", "-6")] {
            if own.contains(':') == margay_at.contains(':') {
                shell(
                    &net.laptop,
                    &format!("ip {family} route add {margay_at} dev eth0 src {own}"),
                );
                let at = if family == "-6" {
                    format!("[{margay_at}]")
                } else {
                    margay_at.to_owned()
                };
                laptop.set(&format!("peer {} endpoint {at}:51820", public(1))).unwrap();
            }
        }
        asks(&net.laptop, CLIENT[0]);
        until("Margay to see where the laptop is", || {
            peer(&margay, "laptop")["endpoint"] == another
        });
        asks(&net.client, "203.0.113.1");
        asks(&net.client, "2001:db8:77::1");
        assert_eq!((handshakes(&margay), drops(&margay, "nested-tunnel")), (1, 0));
        margay.stop().unwrap();
    }
}

fn default_routes() -> String {
    let route = |name: &str, net: &str, gateway: &str| {
        format!(
            "---\n{{apiVersion: margay/v1, kind: Route, metadata: {{name: {name}}}, \
             spec: {{destination: '{net}', via: [{{gateway: '{gateway}'}}]}}}}\n"
        )
    };
    [
        PORTS,
        &route("v4", "0.0.0.0/0", "192.0.2.2"),
        &route("v6", "::/0", "2001:db8::2"),
    ]
    .concat()
}

fn import_everything(net: &Net, margay: &testbed::Margay, endpoint: &str) {
    let file = net.lab.folder().join("wg0.conf");
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 51820\nAddress = 10.9.0.1/32, fd00:9::1/128\nFwMark = 51820\n\
         [Peer]\n# laptop\nPublicKey = {}\nEndpoint = {endpoint}\nAllowedIPs = 0.0.0.0/0, ::/0\n",
        *key(1).text(),
        public(2)
    );
    std::fs::write(&file, text).unwrap();
    margay
        .command(["wg", "import", file.to_str().unwrap(), "--apply"])
        .unwrap();
}

/// REKEY_AFTER_TIME is 120 s of the other's own clock, so this waits for it: `make long` asks for that.
#[test]
fn sessions_are_renewed_without_losing_a_packet() {
    need!("ping", "wireguard-go", "wg");
    if std::env::var_os("MARGAY_LONG").is_none() {
        testbed::skip!("it takes three minutes; `make long` runs it");
    }
    // Whoever began renews.
    let roles = [(LAPTOP_V4, ""), ("", MARGAY_V4)];
    std::thread::scope(|scope| {
        for (begin, answer) in roles {
            scope.spawn(move || {
                let net = Net::new();
                let margay = net.start(begin);
                let _laptop = net.start_laptop(answer);
                match begin.is_empty() {
                    true => asks(&net.laptop, CLIENT[0]),
                    false => asks(&net.client, LAPTOP[0]),
                }
                assert_eq!(handshakes(&margay), 1);
                for _ in 0..10 {
                    let said = shell(&net.client, &format!("ping -q -i 0.1 -c 150 -W 5 {}", LAPTOP[0]));
                    assert!(said.contains("150 received"), "{said}");
                }
                assert!(handshakes(&margay) >= 2, "{}", peer(&margay, "laptop"));
                margay.stop().unwrap();
            });
        }
    });
}
