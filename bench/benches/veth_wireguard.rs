//! Tunnels over veth beside other programs: two hosts, each behind a gateway, and a tunnel between the gateways. Hosts
//! run on core 0, both gateways on core 1. `cargo bench -p bench --bench veth_wireguard`; needs root. The name of a
//! program (`Margay`, `wireguard-go`, `boringtun`) measures that alone.

#[path = "veth_wireguard/boringtun.rs"]
mod boringtun;

use bench::report::record;
use bench::spread::Spread;
use control::keys::Secret;
use serde_json::Value;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use testbed::wireguard_peer::{Tunnel, WIREGUARD_GO};
use testbed::{Child, Error, Host, Lab};

/// The table of the report.
const TABLE: &str = "A tunnel over veth";
/// Where hosts run, and where the gateways do.
const HOST_CORE: usize = 0;
const GATEWAY_CORE: usize = 1;
/// Times each figure is taken.
const RUNS: usize = 5;
/// One of them.
const WINDOW: Duration = Duration::from_secs(2);
/// The largest packet inside a tunnel.
const MTU: u16 = 1420;
/// Payload of a datagram, in an IP packet of 1,400 bytes.
const DATAGRAM: &str = "1372";
const PORT: u16 = 51820;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, device] = arguments.as_slice()
        && flag == boringtun::FLAG
    {
        return boringtun::run(device);
    }
    let missing = testbed::need_root()
        .or_else(|| testbed::need_programs(&["ip", "ethtool", "iperf3", "ping", "taskset"]))
        .or_else(|| (cores() < 2).then(|| "needs two cores".to_owned()));
    if let Some(reason) = missing {
        eprintln!("skipped veth_wireguard: {reason}");
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with("--"));
    match compare(wanted.map(String::as_str)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("veth_wireguard: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn compare(wanted: Option<&str>) -> Result<(), Error> {
    let measured = |who: &str| wanted.is_none_or(|wanted| wanted == who);
    if measured("Margay") {
        Network::new(false)?.measure("Margay", Network::margay)?;
    }
    if measured("wireguard-go") {
        match testbed::need_programs(&["wireguard-go", "wg"]) {
            Some(reason) => eprintln!("skipped wireguard-go: {reason}"),
            None => Network::new(true)?.measure("wireguard-go", |network, number| {
                network.other(number, WIREGUARD_GO.map(OsString::from))
            })?,
        }
    }
    if measured("boringtun") {
        let program = std::env::current_exe().unwrap_or_default().into_os_string();
        match testbed::need_programs(&["wg"]) {
            Some(reason) => eprintln!("skipped boringtun: {reason}"),
            None => Network::new(true)?.measure("boringtun", |network, number| {
                network.other(number, [program.clone(), boringtun::FLAG.into()])
            })?,
        }
    }
    Ok(())
}

struct Network {
    lab: Lab,
    hosts: [Host; 2],
    gateways: [Host; 2],
}

impl Network {
    /// With `kernel`, it is the kernel that passes packets between the gateways' devices; else their devices are for a
    /// data plane to take.
    fn new(kernel: bool) -> Result<Self, Error> {
        let lab = Lab::new()?;
        let host = |name: &str, core| Ok::<_, Error>(lab.host(name)?.on_core(core));
        let hosts = [host("left", HOST_CORE)?, host("right", HOST_CORE)?];
        let gateways = [host("west", GATEWAY_CORE)?, host("east", GATEWAY_CORE)?];
        for (number, (host, gateway)) in (1..).zip(hosts.iter().zip(&gateways)) {
            let (own, gateway_own) = (format!("10.{number}.0.2/24"), format!("10.{number}.0.1/24"));
            match kernel {
                true => lab.link((host, "eth0", [&own]), (gateway, "lan0", [&gateway_own]))?,
                false => lab.link((host, "eth0", [&own]), (gateway, "lan0", []))?,
            }
            host.route("default", &format!("10.{number}.0.1"))?;
            // Segments that fit a tunnel, whoever's it is.
            host.run(["ip", "link", "set", "eth0", "mtu", &MTU.to_string()])?;
            key(number)
                .write(&lab.folder().join(format!("{number}.key")))
                .map_err(|source| Error::File {
                    path: lab.folder(),
                    source,
                })?;
        }
        let [west, east] = &gateways;
        match kernel {
            true => lab.link((west, "wan0", ["192.0.2.1/24"]), (east, "wan0", ["192.0.2.2/24"]))?,
            false => lab.link((west, "wan0", []), (east, "wan0", []))?,
        }
        if kernel {
            let mask = 1 << GATEWAY_CORE;
            let forward = format!(
                "echo 1 >/proc/sys/net/ipv4/ip_forward
                 for device in lan0 wan0; do echo {mask:x} >/sys/class/net/$device/queues/rx-0/rps_cpus; done"
            );
            for gateway in &gateways {
                gateway.run(["sh", "-ec", &forward])?;
            }
        }
        Ok(Self { lab, hosts, gateways })
    }

    /// Margay as gateway 1 or 2.
    fn margay(&self, number: u8) -> Result<Child, Error> {
        let other = 3 - number;
        let resources = format!(
            "apiVersion: margay/v1\nkind: Port\nmetadata: {{ name: lan }}\n\
             spec: {{ device: lan0, addresses: [10.{number}.0.1/24] }}\n---\n\
             apiVersion: margay/v1\nkind: Port\nmetadata: {{ name: wan }}\n\
             spec: {{ device: wan0, addresses: [192.0.2.{number}/24] }}\n---\n\
             apiVersion: margay/v1\nkind: WireguardInterface\nmetadata: {{ name: wg0 }}\n\
             spec: {{ privateKeyFile: {folder}/{number}.key, listenPort: {PORT}, mtu: {MTU} }}\n---\n\
             apiVersion: margay/v1\nkind: WireguardPeer\nmetadata: {{ name: other }}\n\
             spec: {{ interface: wg0, publicKey: '{public}', endpoint: '192.0.2.{other}:{PORT}', \
             allowedIPs: [10.{other}.0.0/24] }}\n",
            folder = self.lab.folder().display(),
            public = key(other).public(),
        );
        let arguments = ["--cores", &GATEWAY_CORE.to_string()];
        Ok(self
            .lab
            .margay(&self.gateways[usize::from(number) - 1], &resources, &arguments)?
            .child)
    }

    /// Another program with a TUN device as gateway 1 or 2.
    fn other(&self, number: u8, program: [OsString; 2]) -> Result<Child, Error> {
        let other = 3 - number;
        let settings = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n[Peer]\nPublicKey = {}\n\
             AllowedIPs = 10.{other}.0.0/24\nEndpoint = 192.0.2.{other}:{PORT}\n",
            *key(number).text(),
            key(other).public()
        );
        let tunnel = Tunnel {
            device: "wg0",
            settings: &settings,
            addresses: &[],
            mtu: MTU,
        };
        Ok(self
            .lab
            .wireguard(&self.gateways[usize::from(number) - 1], program, tunnel)?
            .child)
    }

    fn measure(self, who: &str, start: impl Fn(&Self, u8) -> Result<Child, Error>) -> Result<(), Error> {
        let programs = [start(&self, 1)?, start(&self, 2)?];
        self.hosts[0].run(["ping", "-c", "1", "-W", "10", "10.2.0.2"])?;
        for udp in [false, true] {
            let mut figures = Figures::default();
            for _ in 0..RUNS {
                let before = self.reading(&programs)?;
                let report = self.iperf(udp)?;
                figures.add(&before, &self.reading(&programs)?, &report);
            }
            figures.record(who, udp);
        }
        Ok(())
    }

    /// Sends for a while; what iperf3 says of it.
    fn iperf(&self, udp: bool) -> Result<Value, Error> {
        let mut server = self.hosts[1].spawn(["iperf3", "--server", "--one-off", "--forceflush"])?;
        server.wait_for_line("Server listening", WINDOW)?;
        let seconds = WINDOW.as_secs().to_string();
        let mut argv = vec!["iperf3", "--client", "10.2.0.2", "--time", &seconds, "--json"];
        if udp {
            argv.extend(["--udp", "--bitrate", "0", "--length", DATAGRAM]);
        }
        let output = self.hosts[0].run(argv)?;
        serde_json::from_str(&output.stdout).map_err(|error| Error::Nonsense {
            command: "iperf3".to_owned(),
            reason: error.to_string(),
        })
    }

    fn reading(&self, programs: &[Child; 2]) -> Result<Reading, Error> {
        let mut reading = Reading {
            at: Instant::now(),
            packets: 0,
            bytes: 0,
            user: Duration::ZERO,
            system: Duration::ZERO,
        };
        for host in &self.hosts {
            let received = host.counters("eth0")?;
            reading.packets += received.rx_packets;
            reading.bytes += received.rx_bytes;
        }
        for program in programs {
            let (user, system) = program.cpu()?;
            reading.user += user;
            reading.system += system;
        }
        Ok(reading)
    }
}

/// What hosts have received and gateways used so far.
struct Reading {
    at: Instant,
    packets: u64,
    bytes: u64,
    user: Duration,
    system: Duration,
}

#[derive(Default)]
struct Figures {
    gigabits: Vec<f64>,
    again: Vec<f64>,
    per_cpu_second: Vec<f64>,
    user: Vec<f64>,
}

impl Figures {
    fn add(&mut self, before: &Reading, after: &Reading, report: &Value) {
        let packets = (after.packets - before.packets) as f64;
        let used = (after.user - before.user) + (after.system - before.system);
        self.per_cpu_second.push(packets / used.as_secs_f64() / 1e3);
        self.user.push((after.user - before.user).as_nanos() as f64 / packets);
        let end = &report["end"];
        match end["sum_sent"]["retransmits"].as_f64() {
            Some(again) => {
                self.again.push(again);
                self.gigabits
                    .push(end["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e9);
            }
            // What arrived of the datagrams; iperf3 sends for as long as it says, and starts and ends around that.
            None => {
                let seconds = end["sum"]["seconds"]
                    .as_f64()
                    .unwrap_or((after.at - before.at).as_secs_f64());
                self.gigabits.push((after.bytes - before.bytes) as f64 * 8e-9 / seconds);
            }
        }
    }

    fn record(self, who: &str, udp: bool) {
        let scenario = if udp { "1,400-byte UDP" } else { "TCP, one connection" };
        let row = |what: &str, values| record(TABLE, scenario, &format!("{who}, {what}"), Spread::of(values));
        row("Gbit/s", self.gigabits);
        row("K packets a CPU second of both gateways", self.per_cpu_second);
        row("user ns a packet, both gateways", self.user);
        if !udp {
            row("retransmits in 2 s", self.again);
        }
    }
}

/// A private key that belongs to a gateway.
fn key(number: u8) -> Secret {
    // As X25519 uses it (RFC 7748 section 5).
    let mut bytes = [number; 32];
    (bytes[0], bytes[31]) = (bytes[0] & 0xf8, bytes[31] & 0x7f | 0x40);
    Secret::new(&bytes)
}
