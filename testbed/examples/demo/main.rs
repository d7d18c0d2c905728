//! `make demo`: Margay at work in namespaces, with real traffic across it, explained as it happens: as a router between
//! two hosts and between two TAPs, as a node of a cluster with a service and policy, and as two nodes that encrypt what
//! their pods say to each other.
//!
//! `--keep` leaves it running and says what to try; `--stop` ends what was kept.

mod cluster;
mod nodes;
mod router;
mod taps;

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use testbed::{Error, Host, Lab};

/// The lab's name, and so what its namespaces are called.
const NAME: &str = "demo";
/// How long the throughput is measured.
const SECONDS: &str = "5";
/// How long a program of the demo may run.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let flag = |name: &str| std::env::args().any(|argument| argument == name);
    let done = match testbed::need_root().or_else(|| testbed::need_programs(&["ip", "ethtool", "ping"])) {
        Some(reason) => Err(format!("the demo {reason}")),
        None if flag("--stop") => Lab::remove(NAME).map_err(|error| error.to_string()),
        None => demonstrate(flag("--keep")).map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("demo: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(keep: bool) -> Result<(), Error> {
    tidy_up_on_signals();
    let lab = Lab::named(NAME)?;
    let router = router::Router::demonstrate(&lab)?;
    let taps = taps::Taps::demonstrate(&lab)?;
    let cluster = cluster::Cluster::demonstrate(&lab)?;
    let nodes = nodes::Nodes::demonstrate(&lab)?;
    heading("So");
    say(
        "IPv4 and IPv6, TCP and ICMP crossed Margay over AF_XDP and TAP, ARP and neighbour discovery were answered by it,",
    );
    say(
        "any packet can be asked for its way, pods reach what policy lets them, and between nodes nobody but them can read what their pods say.",
    );
    if keep {
        heading("It runs on. Try, as root");
        router.keep();
        taps.keep();
        cluster.into_iter().for_each(cluster::Cluster::keep);
        nodes.keep();
        say("make demo STOP=1                       # end it");
        lab.keep();
    } else {
        router.stop()?;
        taps.stop()?;
        cluster.map_or(Ok(()), cluster::Cluster::stop)?;
        nodes.stop()?;
        say("All of it is gone again. `make demo KEEP=1` leaves it running.");
    }
    Ok(())
}

/// A lab with a name is not swept: an interrupted demo removes its own.
fn tidy_up_on_signals() {
    match signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) {
        Ok(mut signals) => drop(std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let _ = Lab::remove(NAME);
                std::process::exit(128 + signal);
            }
        })),
        Err(error) => eprintln!("demo: interrupted, it will leave its namespaces behind ({error})"),
    }
}

/// Pings in both families.
fn ping(from: &Host, to: [&str; 2]) -> Result<(), Error> {
    for (family, to) in ["IPv4", "IPv6"].into_iter().zip(to) {
        heading(format!("Ping over {family}: {} asks {to}", from.name()));
        let output = from.run(["ping", "-c5", "-i0.2", to])?.stdout;
        let last = output.lines().rev().take(2).collect::<Vec<_>>();
        last.iter().rev().for_each(say);
    }
    Ok(())
}

/// One TCP connection for a while: Gbit/s, and segments sent again. Says so where it cannot be had.
fn iperf(from: &Host, to: (&Host, &str)) -> Result<Option<(f64, u64)>, Error> {
    if let Some(reason) = testbed::need_programs(&["iperf3"]) {
        say(format!("Left out: it {reason}."));
        return Ok(None);
    }
    let mut server = to.0.spawn(["iperf3", "--server", "--one-off", "--forceflush"])?;
    server.wait_for_line("Server listening", LIMIT)?;
    let output = from.run_within(LIMIT, ["iperf3", "--client", to.1, "--time", SECONDS, "--json"])?;
    let report: Value = serde_json::from_str(&output.stdout).map_err(|error| Error::Nonsense {
        command: "iperf3".to_owned(),
        reason: error.to_string(),
    })?;
    let end = &report["end"];
    let rate = end["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e9;
    Ok(Some((rate, end["sum_sent"]["retransmits"].as_u64().unwrap_or(0))))
}

fn heading(text: impl Display) {
    println!("\n== {text}");
}

fn say(text: impl Display) {
    println!("   {text}");
}
