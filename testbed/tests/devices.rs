//! Devices that go down, up, away and come back, while the program runs: it says so, drops by name, and goes on.

#[path = "devices/learn.rs"]
mod learn;
#[path = "devices/limits.rs"]
mod limits;
#[path = "devices/marks.rs"]
mod marks;
#[path = "devices/overlays.rs"]
mod overlays;
#[path = "devices/punt.rs"]
mod punt;
#[path = "devices/punt_tap.rs"]
mod punt_tap;
mod router;
#[path = "tap/mod.rs"]
mod tap;

use std::net::Ipv4Addr;

use router::{
    Net, drops, frames_used, ip, iperf, iperf_server, ping, port, reaches, shell, until, until_down, until_up,
};
use testbed::{Margay, need};

/// Frames that the threads of one worker and of control may keep in stock while no port needs any.
const STOCKS: u64 = 2 * 576;

/// Left sends to the right until the router says that it dropped for this reason.
fn dropped_by_name(net: &Net, margay: &Margay, reason: &str) {
    let before = drops(margay, reason);
    until(&format!("drops by {reason}"), || {
        assert!(!ping(&net.left, "10.2.0.2"), "the way to the right is open");
        drops(margay, reason) > before
    });
}

/// What a host loses with its link: addresses of IPv6, and routes.
fn readdress(net: &Net) {
    shell(
        &net.right,
        "ip address replace fd00:2::2/64 dev eth0 nodad; ip route replace default via 10.2.0.1; \
         ip -6 route replace default via fd00:2::1",
    );
}

#[test]
fn a_veth_is_native_and_generic_on_request() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    assert_eq!(port(&margay, "right")["mode"], "native");
    net.both_families_pass();
    let generic = router::PORTS.replace("right0, ", "right0, mode: generic, ");
    let said = margay.apply(&generic).unwrap();
    assert!(said.contains("configured") && said.contains("unchanged"), "{said}");
    assert_eq!(port(&margay, "right")["mode"], "generic");
    assert_eq!(port(&margay, "left")["mode"], "native");
    assert!(net.devices().contains("xdpgeneric"));
    net.both_families_pass();
    margay.apply(router::PORTS).unwrap();
    assert_eq!(port(&margay, "right")["mode"], "native");
    net.both_families_pass();
    margay.stop().unwrap();
}

#[test]
fn a_device_that_is_set_down_comes_back_by_itself() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    for _ in 0..2 {
        ip(&net.router, "link set right0 down");
        until_down(&margay, "right", "device right0 is down; `ip link set right0 up`");
        dropped_by_name(&net, &margay, "port-down");
        assert_eq!(port(&margay, "left")["state"], "up");
        assert!(ping(&net.left, "10.1.0.1"), "the other port suffers");
        ip(&net.router, "link set right0 up");
        until_up(&margay, "right");
        net.both_families_pass();
    }
    margay.stop().unwrap();
}

#[test]
fn a_lost_carrier_is_noticed() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    let received = net.right.counters("eth0").unwrap().rx_packets;
    ip(&net.right, "link set eth0 down");
    until_down(&margay, "right", "device right0 has no carrier");
    dropped_by_name(&net, &margay, "port-down");
    ip(&net.right, "link set eth0 up");
    readdress(&net);
    until_up(&margay, "right");
    net.both_families_pass();
    let after = net.right.counters("eth0").unwrap().rx_packets - received;
    assert!(
        after < 50,
        "{after} packets came: those of the time without carrier were kept"
    );
    margay.stop().unwrap();
}

#[test]
fn a_port_on_a_device_without_carrier_is_down_from_the_start() {
    need!("ping");
    let net = Net::new();
    ip(&net.right, "link set eth0 down");
    let documents: Vec<&str> = router::PORTS.split("---\n").collect();
    let margay = net.lab.margay(&net.router, documents[0], &[]).unwrap();
    margay.apply(documents[1]).unwrap();
    until_down(&margay, "right", "device right0 has no carrier");
    dropped_by_name(&net, &margay, "port-down");
    ip(&net.right, "link set eth0 up");
    readdress(&net);
    until_up(&margay, "right");
    net.both_families_pass();
    margay.stop().unwrap();
}

#[test]
fn a_device_that_is_deleted_and_made_again_is_taken_again() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    for _ in 0..3 {
        net.both_families_pass();
        let mac = net.router.mac("right0").unwrap();
        assert_eq!(port(&margay, "right")["mac"], mac.as_str());
        ip(&net.router, "link delete right0");
        until_down(&margay, "right", "device right0 is gone");
        dropped_by_name(&net, &margay, "port-down");
        net.join(&net.right, "right0", 2);
        until_up(&margay, "right");
        assert_ne!(net.router.mac("right0").unwrap(), mac);
    }
    net.both_families_pass();
    // And the other way round: deleted with the program's end near.
    ip(&net.router, "link delete right0");
    margay.stop().unwrap();
}

#[test]
fn a_renamed_device_is_gone_until_it_has_its_name_again() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    let before = net.devices();
    // Since 6.2 the kernel renames what is up.
    ip(&net.router, "link set right0 name other0");
    until_down(&margay, "right", "device right0 is gone");
    dropped_by_name(&net, &margay, "port-down");
    assert!(
        !shell(&net.router, "ip -d link show other0").contains("xdp"),
        "the program is left on it"
    );
    ip(&net.router, "link set other0 name right0");
    until_up(&margay, "right");
    net.both_families_pass();
    let xdp_ids = |text: &str| text.matches("xdp").count();
    assert_eq!(xdp_ids(&net.devices()), xdp_ids(&before));
    margay.stop().unwrap();
}

#[test]
fn a_device_may_be_renamed_while_its_port_has_another_name_of_it() {
    need!("ping");
    let net = Net::new();
    ip(&net.router, "link property add dev right0 altname uplink");
    let margay = net
        .lab
        .margay(
            &net.router,
            &router::PORTS.replace("device: right0", "device: uplink"),
            &[],
        )
        .unwrap();
    net.both_families_pass();
    ip(&net.router, "link set right0 name other0");
    // News come in their order: with this, that of the name has come.
    ip(&net.router, "link set other0 address 02:00:00:00:77:02");
    until("the new address", || {
        port(&margay, "right")["mac"] == "02:00:00:00:77:02"
    });
    assert_eq!(port(&margay, "right")["state"], "up");
    router::forget_neighbours(&net.right);
    net.both_families_pass();
    let log = margay.child.stderr();
    assert!(!log.contains("port right is down"), "{log}");
    // Without that name it is gone, and back with it.
    ip(&net.router, "link property del dev other0 altname uplink");
    until_down(&margay, "right", "device uplink is gone");
    let log = margay.child.stderr();
    assert!(log.contains("port right is down: device uplink is gone"), "{log}");
    dropped_by_name(&net, &margay, "port-down");
    ip(&net.router, "link property add dev other0 altname uplink");
    until_up(&margay, "right");
    net.both_families_pass();
    margay.stop().unwrap();
}

#[test]
fn a_device_whose_mtu_shrinks_below_the_ports_is_down() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    ip(&net.router, "link set right0 mtu 1400");
    until_down(&margay, "right", "MTU of 1400, less than the port's 1500");
    dropped_by_name(&net, &margay, "port-down");
    ip(&net.router, "link set right0 mtu 1500");
    until_up(&margay, "right");
    net.both_families_pass();
    margay.stop().unwrap();
}

#[test]
fn an_address_that_the_device_changes_is_followed() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    ip(&net.router, "link set right0 address 02:00:00:00:77:01");
    until("the new address", || {
        port(&margay, "right")["mac"] == "02:00:00:00:77:01"
    });
    // The host's kernel finds the old one wrong after a while; flushing is asking at once.
    router::forget_neighbours(&net.right);
    net.both_families_pass();
    margay.stop().unwrap();
}

#[test]
fn ports_come_and_go_beside_traffic() {
    need!("iperf3", "ping");
    let net = Net::new();
    let extra = net.lab.host("extra").unwrap();
    net.join(&extra, "extra0", 3);
    let margay = net.start(&["--frames", "16384"]);
    let _server = iperf_server(&net.right);
    let mut client = net
        .left
        .spawn(["iperf3", "-c", "10.2.0.2", "-t", "8", "--json"])
        .unwrap();
    let document = "apiVersion: margay/v1\nkind: Port\nmetadata: { name: extra }\n\
                    spec: { device: extra0, addresses: [10.3.0.1/24, 'fd00:3::1/64'] }\n";
    let descriptors = || shell(&net.router, &format!("ls /proc/{}/fd | wc -l", margay.child.id()));
    let sockets = || shell(&net.router, "ip -d link").matches("xdp").count();
    let (before, attached) = (descriptors(), sockets());
    let mut rounds = 0;
    while client.status().unwrap().is_none() {
        assert!(margay.apply(document).unwrap().contains("extra"), "round {rounds}");
        reaches(&extra, "10.3.0.1");
        assert!(ping(&net.left, "10.3.0.2"), "round {rounds}");
        margay.delete(document).unwrap();
        rounds += 1;
    }
    assert!(rounds >= 3, "only {rounds} rounds beside the traffic");
    assert_eq!(
        (descriptors(), sockets()),
        (before, attached),
        "something of {rounds} ports is left"
    );
    let report = client.wait(router::LIMIT).unwrap().stdout;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    for interval in report["intervals"].as_array().unwrap() {
        assert!(
            interval["sum"]["bytes"].as_f64().unwrap() > 0.0,
            "traffic stood still: {interval}"
        );
    }
    margay.delete(router::PORTS).unwrap();
    until("all frames to be back", || frames_used(&margay) <= STOCKS);
    margay.stop().unwrap();
}

/// A link whose devices have two queues each, as subnet `number`.
fn join_with_two_queues(net: &Net, host: &testbed::Host, device: &str, number: u8) {
    shell(
        &net.router,
        &format!(
            "ip link add {device} numrxqueues 2 numtxqueues 2 type veth \
             peer name eth0 netns {} numrxqueues 2 numtxqueues 2; ip link set {device} addrgenmode none; ip link set {device} up",
            host.namespace()
        ),
    );
    let own = Ipv4Addr::new(10, number, 0, 2);
    shell(
        host,
        &format!(
            "ethtool -K eth0 tx off >/dev/null; ip address add {own}/24 dev eth0; \
             ip address add fd00:{number}::2/64 dev eth0 nodad; ip link set eth0 up; \
             ip route add default via 10.{number}.0.1; ip -6 route add default via fd00:{number}::1"
        ),
    );
}

/// Packets by `node` on each worker.
fn by_worker(margay: &Margay, node: &str) -> Vec<u64> {
    let runtime = margay.show("runtime").unwrap();
    let workers = runtime["workers"].as_array().unwrap();
    let packets = |worker: &serde_json::Value| {
        let nodes = worker["nodes"].as_array().unwrap();
        let found = nodes.iter().find(|found| found["name"] == node);
        found.and_then(|found| found["packets"].as_u64()).unwrap()
    };
    workers.iter().map(packets).collect()
}

/// A router with two workers, and so many queues a port.
fn two_workers(queues: u8) -> (Net, Margay) {
    let lab = testbed::Lab::new().unwrap();
    let [left, router, right] = ["left", "router", "right"].map(|name| lab.host(name).unwrap());
    let net = Net {
        left,
        right,
        router,
        lab,
    };
    join_with_two_queues(&net, &net.left, "left0", 1);
    join_with_two_queues(&net, &net.right, "right0", 2);
    if queues == 1 {
        // Queues without a socket go to the kernel.
        shell(&net.router, "ethtool -L left0 rx 1 tx 1; ethtool -L right0 rx 1 tx 1");
    }
    let ports = router::PORTS.replace("0, addresses", &format!("0, queues: {queues}, addresses"));
    let margay = net
        .lab
        .margay(&net.router, &ports, &["--cores", "0,1", "--frames", "16384"])
        .unwrap();
    net.both_families_pass();
    (net, margay)
}

/// Two workers forward several flows of UDP and of TCP both ways; no packet overtakes another of its flow.
fn two_workers_keep_the_order(queues: u8) -> (Net, Margay) {
    let (net, margay) = two_workers(queues);
    // Who receives sees the order, and a client that has its server send tells of it.
    for (client, server, addresses) in [
        (&net.left, &net.right, ["10.2.0.2", "fd00:2::2"]),
        (&net.right, &net.left, ["10.1.0.2", "fd00:1::2"]),
    ] {
        let _server = iperf_server(server);
        for address in addresses {
            let report = iperf(client, &format!("-c {address} --reverse -u -b 20M -l 200 -P 6 -t 2"));
            let streams = report["end"]["streams"].as_array().unwrap();
            assert_eq!(streams.len(), 6, "{report}");
            for stream in streams {
                assert!(stream["udp"]["packets"].as_u64().unwrap() > 1_000, "{stream}");
                assert_eq!(stream["udp"]["out_of_order"], 0, "{stream}");
            }
            let report = iperf(client, &format!("-c {address} -P 4 -t 1"));
            let bytes = report["end"]["sum_received"]["bytes"].as_f64().unwrap();
            assert!(bytes > 1e6, "{}", report["end"]);
        }
    }
    (net, margay)
}

/// Without ports, frames are nowhere but in the stocks of two workers and control.
fn all_frames_come_back(margay: &Margay) {
    margay.delete(router::PORTS).unwrap();
    until("all frames to be back", || frames_used(margay) <= STOCKS + 576);
}

#[test]
fn two_queues_with_a_worker_each_keep_the_order() {
    need!("iperf3", "ping");
    let (_net, margay) = two_workers_keep_the_order(2);
    for packets in by_worker(&margay, "port-in") {
        assert!(packets > 1_000, "a queue had no traffic: {packets}");
    }
    all_frames_come_back(&margay);
    margay.stop().unwrap();
}

#[test]
fn packets_leave_by_a_port_of_another_worker_in_order() {
    need!("iperf3", "ping");
    let (_net, margay) = two_workers_keep_the_order(1);
    for packets in by_worker(&margay, "handoff") {
        assert!(packets > 1_000, "nothing went from worker to worker: {packets}");
    }
    all_frames_come_back(&margay);
    margay.stop().unwrap();
}

#[test]
fn many_flows_keep_the_order_while_their_routes_change() {
    need!("iperf3", "ping");
    let (net, margay) = two_workers(2);
    let _server = iperf_server(&net.left);
    // The hosts' own routes come and go over those of their links, among others.
    let route = |number: usize, destination: &str, gateway: &str| {
        format!(
            "---\n{{apiVersion: margay/v1, kind: Route, metadata: {{name: r{number}}}, \
             spec: {{destination: \"{destination}\", via: [{{gateway: \"{gateway}\"}}]}}}}\n"
        )
    };
    let mut routes = route(0, "10.2.0.2/32", "10.2.0.2") + &route(1, "10.2.0.0/25", "10.2.0.2");
    routes += &(route(2, "10.1.0.2/32", "10.1.0.2") + &route(3, "fd00:2::2/128", "fd00:2::2"));
    routes.extend((4..500).map(|number| {
        route(
            number,
            &format!("10.77.{}.{}/32", number >> 8, number & 255),
            "10.2.0.2",
        )
    }));
    let mut client = net
        .right
        .spawn([
            "iperf3",
            "-c",
            "10.1.0.2",
            "--reverse",
            "-u",
            "-b",
            "2M",
            "-l",
            "200",
            "-P",
            "32",
            "-t",
            "4",
            "--json",
        ])
        .unwrap();
    let mut changes = 0;
    while client.status().unwrap().is_none() {
        margay.apply(&routes).unwrap();
        margay.delete(&routes).unwrap();
        changes += 2;
    }
    assert!(changes >= 6, "only {changes} changes beside the traffic");
    let report = client.wait(router::LIMIT).unwrap().stdout;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let streams = report["end"]["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 32, "{report}");
    for stream in streams {
        assert!(stream["udp"]["packets"].as_u64().unwrap() > 500, "{stream}");
        assert_eq!(stream["udp"]["out_of_order"], 0, "{stream}");
    }
    for packets in by_worker(&margay, "port-in") {
        assert!(packets > 1_000, "a queue had no traffic: {packets}");
    }
    for reason in ["no-route", "unknown-neighbour", "port-down"] {
        assert_eq!(drops(&margay, reason), 0, "{reason}");
    }
    all_frames_come_back(&margay);
    margay.stop().unwrap();
}
