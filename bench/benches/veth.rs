//! Forwarding over veth beside the kernel: two hosts in namespaces, sender and receiver on core 0, the router on core 1.
//! `cargo bench -p bench --bench veth`; needs root.

#[path = "veth/bare.rs"]
mod bare;
#[path = "veth/sender.rs"]
mod sender;

use bench::report::record;
use bench::spread::Spread;
use serde_json::Value;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use testbed::{Error, Host, Lab, Margay};

/// The table of the report.
const TABLE: &str = "Over veth";
/// Where hosts run, and where the router does.
const HOST_CORE: usize = 0;
const ROUTER_CORE: usize = 1;
/// Times each figure is taken.
const RUNS: usize = 5;
/// Packets a second that a bare AF_XDP loop passes on the machine of the goals.
const BARE_LOOP: f64 = 0.57e6;
/// One of them.
const WINDOW: Duration = Duration::from_secs(2);

const RESOURCES: &str = "\
apiVersion: margay/v1
kind: Port
metadata: { name: left }
spec: { device: left0, addresses: [10.1.0.1/24] }
---
apiVersion: margay/v1
kind: Port
metadata: { name: right }
spec: { device: right0, addresses: [10.2.0.1/24] }
---
apiVersion: margay/v1
kind: Route
metadata: { name: beyond }
spec: { destination: 10.20.0.0/16, via: [{ gateway: 10.2.0.2 }] }
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [flag, device, mac, rate] if flag == sender::FLAG => return sender::run(device, mac, rate),
        [flag, from, to, mac] if flag == bare::FLAG => return bare::run(from, to, mac),
        _ => {}
    }
    let missing = testbed::need_root()
        .or_else(|| testbed::need_programs(&["ip", "ethtool", "iperf3", "ping", "taskset"]))
        .or_else(|| (cores() < 2).then(|| "needs two cores".to_owned()));
    if let Some(reason) = missing {
        eprintln!("skipped veth: {reason}");
        return ExitCode::SUCCESS;
    }
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("veth: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn compare() -> Result<(), Error> {
    let margay = Network::new(false)?;
    let arguments = ["--cores", &ROUTER_CORE.to_string()];
    let plane = margay.lab.margay(&margay.router, RESOURCES, &arguments)?;
    margay.measure("Margay", &|| plane_time(&plane))?;
    println!("{}", plane.command(["show", "runtime"])?.stdout);
    println!("{}", plane.command(["show", "ports"])?.stdout);
    println!("{}", plane.command(["show", "drops"])?.stdout);
    plane.stop()?;
    drop(margay);
    behind_taps()?;
    bare_loop()?;
    Network::new(true)?.measure("kernel", &softirq_time)
}

/// TCP between two hosts whose devices are TAPs of the plane: segments of 64 KiB come and go.
fn behind_taps() -> Result<(), Error> {
    let lab = Lab::new()?;
    let host = |name| Ok::<_, Error>(lab.host(name)?.on_core(HOST_CORE));
    let (left, right, router) = (host("left")?, host("right")?, lab.host("router")?);
    let port = |number: u8, host: &Host| {
        format!(
            "---\napiVersion: margay/v1\nkind: Port\nmetadata: {{ name: {} }}\nspec:\n  {{ device: eth0, driver: tap, \
             netns: {}, addresses: [10.{number}.0.1/24], hostAddresses: [10.{number}.0.2/24] }}\n",
            host.name(),
            host.namespace(),
        )
    };
    let resources = port(1, &left) + &port(2, &right);
    let plane = lab.margay(&router, &resources, &["--cores", &ROUTER_CORE.to_string()])?;
    left.route("default", "10.1.0.1")?;
    right.route("default", "10.2.0.1")?;
    let network = Network {
        lab,
        left,
        right,
        router,
    };
    network.stream("Margay", "TCP, one connection, between TAPs", &|| plane_time(&plane))?;
    plane.stop().map(drop)
}

/// What the same sockets pass without a data plane between them.
fn bare_loop() -> Result<(), Error> {
    let network = Network::new(false)?;
    let program = std::env::current_exe().unwrap_or_default();
    let mac = network.right.mac("eth0")?;
    let mut bare = network.router.on_core(ROUTER_CORE).spawn([
        program.as_os_str(),
        bare::FLAG.as_ref(),
        "left0".as_ref(),
        "right0".as_ref(),
        mac.as_ref(),
    ])?;
    bare.wait_for_line(bare::READY, WINDOW)?;
    network.datagrams("bare loop", f64::INFINITY, &|| bare.cpu())?;
    network.datagrams("bare loop", BARE_LOOP, &|| bare.cpu())
}

/// Processor time used so far, in user mode and in the kernel.
type Used = (Duration, Duration);

fn plane_time(plane: &Margay) -> Result<Used, Error> {
    plane.cpu()
}

/// What the router's core has spent in software interrupts (proc(5), /proc/stat), where the kernel forwards.
fn softirq_time() -> Result<Used, Error> {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let prefix = format!("cpu{ROUTER_CORE} ");
    let fields = text.lines().find_map(|line| line.strip_prefix(&prefix));
    let ticks = fields.and_then(|fields| fields.split_ascii_whitespace().nth(6)?.parse::<u64>().ok());
    // A tick is 10 ms on every architecture (USER_HZ).
    Ok((Duration::ZERO, Duration::from_millis(10 * ticks.unwrap_or(0))))
}

struct Network {
    lab: Lab,
    left: Host,
    right: Host,
    router: Host,
}

impl Network {
    /// With `kernel`, the router is the kernel; else its devices are for a data plane to take.
    fn new(kernel: bool) -> Result<Self, Error> {
        let lab = Lab::new()?;
        let (left, right) = (
            lab.host("left")?.on_core(HOST_CORE),
            lab.host("right")?.on_core(HOST_CORE),
        );
        let router = lab.host("router")?;
        if kernel {
            lab.link((&left, "eth0", ["10.1.0.2/24"]), (&router, "left0", ["10.1.0.1/24"]))?;
            lab.link((&right, "eth0", ["10.2.0.2/24"]), (&router, "right0", ["10.2.0.1/24"]))?;
            let mask = 1 << ROUTER_CORE;
            let spread = format!(
                "echo 1 >/proc/sys/net/ipv4/ip_forward
                 for device in left0 right0; do echo {mask:x} >/sys/class/net/$device/queues/rx-0/rps_cpus; done"
            );
            router.run(["sh", "-ec", &spread])?;
            router.route("10.20.0.0/16", "10.2.0.2")?;
        } else {
            lab.link((&left, "eth0", ["10.1.0.2/24"]), (&router, "left0", []))?;
            lab.link((&right, "eth0", ["10.2.0.2/24"]), (&router, "right0", []))?;
        }
        left.route("default", "10.1.0.1")?;
        right.route("default", "10.2.0.1")?;
        Ok(Self {
            lab,
            left,
            right,
            router,
        })
    }

    fn measure(&self, who: &str, used: &dyn Fn() -> Result<Used, Error>) -> Result<(), Error> {
        self.latency(who)?;
        self.datagrams(who, f64::INFINITY, used)?;
        self.datagrams(who, BARE_LOOP, used)?;
        self.stream(who, "TCP, one connection, offloads off", used)
    }

    /// Round trips of single packets through an idle router.
    fn latency(&self, who: &str) -> Result<(), Error> {
        let output = self.left.run(["ping", "-c", "500", "-i", "0.005", "10.2.0.2"])?.stdout;
        let times = output
            .lines()
            .filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok());
        // The first waits for neighbours to be resolved.
        let times: Vec<f64> = times.skip(1).map(|milliseconds| milliseconds * 1000.0).collect();
        record(
            TABLE,
            "ping through an idle router",
            &format!("{who}, microseconds"),
            Spread::of(times),
        );
        Ok(())
    }

    /// So many small packets a second, or as many as one core can send.
    fn datagrams(&self, who: &str, rate: f64, used: &dyn Fn() -> Result<Used, Error>) -> Result<(), Error> {
        let program = std::env::current_exe().unwrap_or_default();
        let mac = self.router.mac("left0")?;
        let sender = self.left.spawn([
            program.as_os_str(),
            sender::FLAG.as_ref(),
            "eth0".as_ref(),
            mac.as_ref(),
            rate.to_string().as_ref(),
        ])?;
        std::thread::sleep(Duration::from_secs(1));
        let (mut offered, mut forwarded, mut user, mut system) = (vec![], vec![], vec![], vec![]);
        for _ in 0..RUNS {
            let reading = || -> Result<_, Error> {
                let (sent, received) = (self.left.counters("eth0")?, self.right.counters("eth0")?);
                Ok((Instant::now(), sent.tx_packets, received.rx_packets, used()?))
            };
            let before = reading()?;
            std::thread::sleep(WINDOW);
            let after = reading()?;
            let seconds = (after.0 - before.0).as_secs_f64();
            let packets = (after.2 - before.2) as f64;
            offered.push((after.1 - before.1) as f64 / seconds / 1e6);
            forwarded.push(packets / seconds / 1e6);
            user.push((after.3.0 - before.3.0).as_nanos() as f64 / packets);
            system.push((after.3.1 - before.3.1).as_nanos() as f64 / packets);
        }
        drop(sender);
        let scenario = if rate.is_finite() {
            &format!("60-byte UDP, {} M packets/s", rate / 1e6)
        } else {
            "60-byte UDP from one core"
        };
        record(
            TABLE,
            scenario,
            &format!("{who}, offered, M packets/s"),
            Spread::of(offered),
        );
        record(
            TABLE,
            scenario,
            &format!("{who}, forwarded, M packets/s"),
            Spread::of(forwarded),
        );
        record(TABLE, scenario, &format!("{who}, user ns a packet"), Spread::of(user));
        record(
            TABLE,
            scenario,
            &format!("{who}, kernel ns a packet"),
            Spread::of(system),
        );
        Ok(())
    }

    /// TCP of one connection.
    fn stream(&self, who: &str, scenario: &str, used: &dyn Fn() -> Result<Used, Error>) -> Result<(), Error> {
        let (mut rates, mut again, mut user, mut system) = (vec![], vec![], vec![], vec![]);
        for _ in 0..RUNS {
            let mut server = self.right.spawn(["iperf3", "--server", "--one-off", "--forceflush"])?;
            server.wait_for_line("Server listening", WINDOW)?;
            let before = (self.packets()?, used()?);
            let seconds = (WINDOW + WINDOW).as_secs().to_string();
            let output = self
                .left
                .run(["iperf3", "--client", "10.2.0.2", "--time", &seconds, "--json"])?;
            let after = (self.packets()?, used()?);
            let report: Value = serde_json::from_str(&output.stdout).map_err(|error| Error::Nonsense {
                command: "iperf3".to_owned(),
                reason: error.to_string(),
            })?;
            let figure = |group: &str, name: &str| report["end"][group][name].as_f64().unwrap_or(0.0);
            rates.push(figure("sum_received", "bits_per_second") / 1e9);
            again.push(figure("sum_sent", "retransmits"));
            let packets = (after.0 - before.0) as f64;
            user.push((after.1.0 - before.1.0).as_nanos() as f64 / packets);
            system.push((after.1.1 - before.1.1).as_nanos() as f64 / packets);
        }
        record(TABLE, scenario, &format!("{who}, Gbit/s"), Spread::of(rates));
        record(
            TABLE,
            scenario,
            &format!("{who}, retransmits in 4 s"),
            Spread::of(again),
        );
        record(TABLE, scenario, &format!("{who}, user ns a packet"), Spread::of(user));
        record(
            TABLE,
            scenario,
            &format!("{who}, kernel ns a packet"),
            Spread::of(system),
        );
        Ok(())
    }

    /// Packets that hosts have received: data one way, acknowledgements the other.
    fn packets(&self) -> Result<u64, Error> {
        Ok(self.left.counters("eth0")?.rx_packets + self.right.counters("eth0")?.rx_packets)
    }
}
