//! Ports of driver tap: hosts whose only device is a TAP of the router's, in a network namespace of their own.

mod offload;

use testbed::{Host, Lab, Margay, need};

use super::router::{LIMIT, drops, ip, iperf, iperf_server, ping, port, reaches, shell, until, until_down, until_up};

/// A host `one` and a host `two`, each with a TAP of the router's.
struct Taps {
    one: Host,
    two: Host,
    router: Host,
    lab: Lab,
}

impl Taps {
    fn new() -> Taps {
        let lab = Lab::new().unwrap();
        let [one, router, two] = ["one", "router", "two"].map(|name| lab.host(name).unwrap());
        Taps { one, two, router, lab }
    }

    /// The resources of a host's port, whose subnet is `number`.
    fn port(host: &Host, number: u8, more: &str) -> String {
        let (name, netns) = (host.name(), host.namespace());
        format!(
            "---\napiVersion: margay/v1\nkind: Port\nmetadata: {{ name: {name} }}\nspec:\n  \
             {{ device: eth0, driver: tap, netns: {netns}, addresses: [10.{number}.0.1/24, 'fd00:{number}::1/64'], \
             hostAddresses: [10.{number}.0.2/24, 'fd00:{number}::2/64'] {more} }}\n"
        )
    }

    fn start(&self, more: &str) -> Margay {
        let resources = Taps::port(&self.one, 1, more) + &Taps::port(&self.two, 2, more);
        let margay = self.lab.margay(&self.router, &resources, &[]).unwrap();
        routes(&self.one, 1);
        routes(&self.two, 2);
        margay
    }
}

fn routes(host: &Host, number: u8) {
    host.route("default", &format!("10.{number}.0.1")).unwrap();
    host.route("default", &format!("fd00:{number}::1")).unwrap();
}

fn loses_nothing(margay: &Margay, name: &str) {
    let port = port(margay, name);
    let lost = ["rx_dropped", "fill_ring_empty", "tx_invalid"].map(|what| port["socket"][what].as_u64());
    assert_eq!(lost, [Some(0); 3], "{port}");
}

/// Sends some megabytes from one host to another, or back with `--reverse`.
fn carries(from: &Host, to: &Host, address: &str, arguments: &str) {
    let _server = iperf_server(to);
    let report = iperf(from, &format!("--client {address} --bytes 30M {arguments}"));
    assert!(report["error"].is_null(), "{report}");
    // The server stops when the client does: what is on its way by then is not counted.
    let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap();
    assert!(received > 10_000_000, "{report}");
}

#[test]
fn hosts_on_taps_talk_in_large_pieces() {
    need!("ping", "iperf3");
    let net = Taps::new();
    let margay = net.start("");
    for to in ["10.2.0.2", "fd00:2::2"] {
        reaches(&net.one, to);
        shell(&net.one, &format!("ping -c1 -W5 -s 20000 {to}"));
        let before = net.two.counters("eth0").unwrap();
        carries(&net.one, &net.two, to, "");
        let after = net.two.counters("eth0").unwrap();
        let bytes = (after.rx_bytes - before.rx_bytes) / (after.rx_packets - before.rx_packets);
        assert!(bytes > 1514, "{bytes} bytes a packet: nothing was joined");
        carries(&net.one, &net.two, to, "--reverse");
        // The larger datagrams are fragmented by the host, the smaller are not.
        carries(&net.one, &net.two, to, "--udp --bitrate 200M --length 1400");
    }
    loses_nothing(&margay, "one");
    loses_nothing(&margay, "two");
    // The plane saw packets of the link's size only.
    let one = port(&margay, "one");
    let (bytes, packets) = (one["rx_bytes"].as_u64().unwrap(), one["rx_packets"].as_u64().unwrap());
    assert!(bytes / packets <= 1514, "{one}");
    margay.stop().unwrap();
    // The devices went with the process.
    assert!(!shell(&net.one, "ip link").contains("eth0"));
}

#[test]
fn a_tap_and_a_veth_talk_both_ways() {
    need!("ping", "iperf3", "curl", "python3");
    let net = Taps::new();
    let veth = net.lab.host("veth").unwrap();
    let end = (&veth, "eth0", ["10.3.0.2/24", "fd00:3::2/64"]);
    net.lab.link(end, (&net.router, "veth0", [])).unwrap();
    routes(&veth, 3);
    let margay = net.start("");
    let xdp = "{ apiVersion: margay/v1, kind: Port, metadata: { name: veth }, \
               spec: { device: veth0, addresses: [10.3.0.1/24, 'fd00:3::1/64'] } }";
    margay.apply(xdp).unwrap();
    for (there, back) in [("10.3.0.2", "10.1.0.2"), ("fd00:3::2", "fd00:1::2")] {
        reaches(&net.one, there);
        reaches(&veth, back);
        carries(&net.one, &veth, there, "");
        carries(&veth, &net.one, back, "");
    }
    let file = net.lab.folder().join("large").to_string_lossy().into_owned();
    let words = (0..5_000_000u32).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes());
    std::fs::write(&file, words.collect::<Vec<u8>>()).unwrap();
    let folder = net.lab.folder().to_string_lossy().into_owned();
    for (server, client, subnet) in [(&net.one, &veth, 1), (&veth, &net.one, 3)] {
        let argv = [
            "python3",
            "-u",
            "-m",
            "http.server",
            "--bind",
            "::",
            "--directory",
            &folder,
            "80",
        ];
        let mut serving = server.spawn(argv).unwrap();
        serving.wait_for_line("Serving", LIMIT).unwrap();
        for address in [format!("10.{subnet}.0.2"), format!("[fd00:{subnet}::2]")] {
            shell(
                client,
                &format!("curl -sSf --max-time 25 'http://{address}/large' | cmp - {file}"),
            );
        }
    }
    loses_nothing(&margay, "one");
    margay.stop().unwrap();
}

#[test]
fn a_tap_has_queues_and_an_mtu() {
    need!("ping", "iperf3");
    let net = Taps::new();
    let margay = net.start(", queues: 2, mtu: 1400");
    assert_eq!(port(&margay, "one")["queues"], 2);
    let mtu = |host: &Host| {
        shell(
            host,
            "cat /sys/class/net/eth0/mtu; ls /sys/class/net/eth0/queues | wc -l",
        )
    };
    assert_eq!(mtu(&net.one), "1400\n4\n", "two queues each way");
    reaches(&net.one, "10.2.0.2");
    carries(&net.one, &net.two, "10.2.0.2", "--parallel 4");
    assert!(
        net.one
            .run(["ping", "-c1", "-W1", "-Mdo", "-s1373", "10.2.0.2"])
            .is_err()
    );
    shell(&net.one, "ping -c1 -W5 -Mdo -s1372 10.2.0.2");
    // Another MTU needs no new device.
    let index = || shell(&net.one, "cat /sys/class/net/eth0/ifindex");
    let before = index();
    margay
        .apply(&Taps::port(&net.one, 1, ", queues: 2, mtu: 1300"))
        .unwrap();
    assert_eq!(mtu(&net.one), "1300\n4\n");
    assert_eq!(index(), before);
    reaches(&net.one, "10.2.0.2");
    loses_nothing(&margay, "one");
    margay.stop().unwrap();
}

#[test]
fn a_name_that_is_taken_is_refused_and_nothing_is_left() {
    need!();
    let net = Taps::new();
    ip(&net.one, "link add eth0 type veth peer name other");
    ip(&net.two, "tuntap add eth0 mode tap");
    let margay = net.lab.margay(&net.router, "", &[]).unwrap();
    for (host, number) in [(&net.one, 1), (&net.two, 2)] {
        let refusal = margay.apply(&Taps::port(host, number, "")).unwrap_err().to_string();
        assert!(refusal.contains("there is a device `eth0` already"), "{refusal}");
        assert!(shell(host, "ip link").contains("eth0"), "it was not ours to remove");
    }
    let elsewhere = Taps::port(&net.one, 1, "").replace(&net.one.namespace(), "mg-nowhere");
    let refusal = margay.apply(&elsewhere).unwrap_err().to_string();
    assert!(
        refusal.contains("there is no network namespace /run/netns/mg-nowhere"),
        "{refusal}"
    );
    ip(&net.one, "link delete eth0");
    // An address that the kernel refuses leaves no device behind.
    let twice = Taps::port(&net.one, 1, "").replace("hostAddresses: [", "hostAddresses: [10.1.0.2/16, ");
    let refusal = margay.apply(&twice).unwrap_err().to_string();
    assert!(
        refusal.contains("spec.hostAddresses[1]: 10.1.0.2 stands twice"),
        "{refusal}"
    );
    assert!(!shell(&net.one, "ip link").contains("eth0"));
    margay.apply(&Taps::port(&net.one, 1, "")).unwrap();
    reaches(&net.one, "10.1.0.1");
    margay.delete(&Taps::port(&net.one, 1, "")).unwrap();
    assert!(!shell(&net.one, "ip link").contains("eth0"));
    margay.stop().unwrap();
}

#[test]
fn a_device_or_namespace_that_goes_comes_back_by_itself() {
    need!("ping");
    let net = Taps::new();
    let margay = net.start("");
    reaches(&net.one, "10.2.0.2");
    ip(&net.two, "link set eth0 down");
    until_down(&margay, "two", "link set eth0 up`");
    assert!(!ping(&net.one, "10.2.0.2"));
    assert!(drops(&margay, "port-down") > 0);
    ip(&net.two, "link set eth0 up");
    until_up(&margay, "two");
    net.two.route("default", "10.2.0.1").unwrap();
    reaches(&net.one, "10.2.0.2");

    ip(&net.two, "link delete eth0");
    until("eth0 to be made anew", || {
        net.two
            .run(["ip", "route", "replace", "default", "via", "10.2.0.1"])
            .is_ok()
    });
    reaches(&net.one, "10.2.0.2");

    let name = net.two.namespace();
    shell(&net.router, &format!("ip netns delete {name}"));
    until_down(&margay, "two", "there is no network namespace");
    assert!(ping(&net.one, "10.1.0.1"), "the other port suffers");
    let two = net.lab.host("two").unwrap();
    until_up(&margay, "two");
    routes(&two, 2);
    reaches(&net.one, "10.2.0.2");
    reaches(&net.one, "fd00:2::2");
    margay.stop().unwrap();
}
