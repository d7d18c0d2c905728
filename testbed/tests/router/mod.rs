//! What the tests of the running program share: two hosts with a router between them, and questions to the router.
#![allow(dead_code)] // each test file uses its share

use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::{Child, Host, Lab, Margay};

/// How long anything awaited may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The router's two ports.
pub const PORTS: &str = "\
apiVersion: margay/v1
kind: Port
metadata: { name: left }
spec: { device: left0, addresses: [10.1.0.1/24, 'fd00:1::1/64'] }
---
apiVersion: margay/v1
kind: Port
metadata: { name: right }
spec: { device: right0, addresses: [10.2.0.1/24, 'fd00:2::1/64'] }
";

/// Left (10.1.0.2, fd00:1::2) and right (10.2.0.2, fd00:2::2), each with a default route to the router.
pub struct Net {
    pub left: Host,
    pub right: Host,
    pub router: Host,
    pub lab: Lab,
}

impl Net {
    pub fn new() -> Net {
        let lab = Lab::new().unwrap();
        let [left, router, right] = ["left", "router", "right"].map(|name| lab.host(name).unwrap());
        let net = Net {
            left,
            right,
            router,
            lab,
        };
        net.join(&net.left, "left0", 1);
        net.join(&net.right, "right0", 2);
        net
    }

    /// Links a host's `eth0` to the router's `device`, as subnet `number`.
    pub fn join(&self, host: &Host, device: &str, number: u8) {
        let (v4, v6) = (format!("10.{number}.0.2/24"), format!("fd00:{number}::2/64"));
        let end = (host, "eth0", [v4.as_str(), v6.as_str()]);
        self.lab.link(end, (&self.router, device, [])).unwrap();
        for gateway in [format!("10.{number}.0.1"), format!("fd00:{number}::1")] {
            host.route("default", &gateway).unwrap();
        }
    }

    /// The program on the router, with both ports.
    pub fn start(&self, arguments: &[&str]) -> Margay {
        self.lab.margay(&self.router, PORTS, arguments).unwrap()
    }

    /// The router's devices as `ip -d link` describes them: flags, MTU, XDP program, promiscuity.
    pub fn devices(&self) -> String {
        self.router.run(["ip", "-d", "link"]).unwrap().stdout
    }

    /// Left reaches right, in both families; waits for it.
    pub fn both_families_pass(&self) {
        for to in ["10.2.0.2", "fd00:2::2"] {
            reaches(&self.left, to);
        }
    }
}

/// One answer to one question, within a second.
pub fn ping(host: &Host, to: &str) -> bool {
    host.run(["ping", "-c1", "-W1", to]).is_ok()
}

/// Waits until `to` answers `host`.
pub fn reaches(host: &Host, to: &str) {
    until(&format!("{to} to answer {}", host.name()), || ping(host, to));
}

/// Runs `ip` with these words (separated by blanks) on a host.
pub fn ip(host: &Host, words: &str) {
    shell(host, &format!("ip {words}"));
}

/// Has a host's kernel forget who is where; what it learns again meanwhile may stay.
pub fn forget_neighbours(host: &Host) {
    shell(host, "ip neigh flush all || true");
}

/// Runs a line of shell on a host; what it printed.
pub fn shell(host: &Host, line: &str) -> String {
    host.run(["sh", "-ec", line]).unwrap().stdout
}

/// Waits for a condition.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {LIMIT:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What `show ports` tells of one.
pub fn port(margay: &Margay, name: &str) -> Value {
    let ports = margay.show("ports").unwrap();
    let found = ports.as_array().unwrap().iter().find(|port| port["name"] == name);
    found.unwrap_or_else(|| panic!("no port {name} in {ports}")).clone()
}

/// Waits until a port is up.
pub fn until_up(margay: &Margay, name: &str) {
    until(&format!("port {name} to be up"), || port(margay, name)["state"] == "up");
}

/// Waits until a port is down for a reason that contains `why`.
pub fn until_down(margay: &Margay, name: &str, why: &str) {
    let mut last = Value::Null;
    let deadline = Instant::now() + LIMIT;
    while last["state"] != "down" || !last["why"].as_str().unwrap_or_default().contains(why) {
        assert!(Instant::now() < deadline, "port {name} is not down by {why:?}: {last}");
        std::thread::sleep(Duration::from_millis(10));
        last = port(margay, name);
    }
}

/// Packets dropped for a reason, of all nodes.
pub fn drops(margay: &Margay, reason: &str) -> u64 {
    let drops = margay.show("drops").unwrap();
    let of_reason = drops.as_array().unwrap().iter().filter(|drop| drop["reason"] == reason);
    of_reason.map(|drop| drop["packets"].as_u64().unwrap()).sum()
}

/// Frames in use: with the ports, in the kernel's hands or waiting.
pub fn frames_used(margay: &Margay) -> u64 {
    let memory = margay.show("memory").unwrap();
    let frames = memory.as_array().unwrap().iter().find(|part| part["what"] == "frames");
    frames.unwrap()["used"].as_u64().unwrap()
}

/// `iperf3` that serves one client after another.
pub fn iperf_server(host: &Host) -> Child {
    let mut server = host.spawn(["iperf3", "--server", "--forceflush"]).unwrap();
    server.wait_for_line("Server listening", LIMIT).unwrap();
    server
}

/// The report of an `iperf3` client.
pub fn iperf(host: &Host, arguments: &str) -> Value {
    let output = shell(host, &format!("iperf3 --json {arguments}"));
    serde_json::from_str(&output).unwrap()
}
