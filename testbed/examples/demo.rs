//! `make demo`: two hosts in namespaces with Margay between them, and real traffic across it, explained as it happens.
//!
//! `--keep` leaves it running and says what to try; `--stop` ends what was kept.

use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use testbed::{Child, Error, Host, Lab, Margay};

/// The lab's name, and so what its namespaces are called.
const NAME: &str = "demo";
/// Bytes of the file that is fetched.
const FILE_BYTES: u64 = 100_000_000;
/// How long the throughput is measured.
const SECONDS: &str = "5";
/// How long a program of the demo may run.
const LIMIT: Duration = Duration::from_secs(120);

const RESOURCES: &str = "\
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

fn main() -> std::process::ExitCode {
    let flag = |name: &str| std::env::args().any(|argument| argument == name);
    let done = match testbed::need_root().or_else(|| testbed::need_programs(&["ip", "ethtool", "ping"])) {
        Some(reason) => Err(format!("the demo {reason}")),
        None if flag("--stop") => Lab::remove(NAME).map_err(|error| error.to_string()),
        None => demonstrate(flag("--keep")).map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("demo: {sentence}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn demonstrate(keep: bool) -> Result<(), Error> {
    tidy_up_on_signals();
    let lab = Lab::named(NAME)?;
    let (left, right) = (lab.host("left")?, lab.host("right")?);
    let router = lab.host("router")?;
    lab.link((&left, "eth0", ["10.1.0.2/24", "fd00:1::2/64"]), (&router, "left0", []))?;
    lab.link(
        (&right, "eth0", ["10.2.0.2/24", "fd00:2::2/64"]),
        (&router, "right0", []),
    )?;
    for (host, net) in [(&left, 1), (&right, 2)] {
        host.route("default", &format!("10.{net}.0.1"))?;
        host.route("default", &format!("fd00:{net}::1"))?;
    }
    heading(
        "Two hosts, left (10.1.0.2, fd00:1::2) and right (10.2.0.2, fd00:2::2), with Margay as the router between them",
    );
    let before = Instant::now();
    let margay = lab.margay(&router, RESOURCES, &[])?;
    say(format!("Margay was ready {:.0?} after its start.", before.elapsed()));
    say("The kernel of the router forwards nothing: whatever arrives went through Margay's graph.");

    ping(&left)?;
    fetch(&lab, &left, &right)?;
    measure(&left, &right, &margay)?;
    trace(&left, &margay)?;
    heading("What each node of the graph did (margay show runtime)");
    print!("{}", margay.command(["show", "runtime"])?.stdout);

    heading("So");
    say("IPv4 and IPv6, TCP and ICMP crossed Margay over AF_XDP, ARP and neighbour discovery were answered by it,");
    say("and any packet can be asked for its way.");
    if keep {
        what_to_try(&left, &router, &margay);
        margay.child.leave();
        lab.keep();
    } else {
        margay.stop()?;
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

fn ping(left: &Host) -> Result<(), Error> {
    for (family, to) in [("IPv4", "10.2.0.2"), ("IPv6", "fd00:2::2")] {
        heading(format!("Ping over {family}: left asks {to}"));
        let output = left.run(["ping", "-c5", "-i0.2", to])?.stdout;
        let last = output.lines().rev().take(2).collect::<Vec<_>>();
        last.iter().rev().for_each(say);
    }
    Ok(())
}

/// Fetches a file over HTTP; without nginx it says so and goes on.
fn fetch(lab: &Lab, left: &Host, right: &Host) -> Result<(), Error> {
    heading("A file of 100 MB over HTTP: left fetches it from right with curl");
    if let Some(reason) = testbed::need_programs(&["nginx", "curl"]) {
        say(format!("Left out: it {reason}."));
        return Ok(());
    }
    let _server = serve(lab, right)?;
    let format = "%{size_download} %{time_total}";
    let url = "http://10.2.0.2/file";
    let retry = [
        "--retry",
        "50",
        "--retry-delay",
        "0",
        "--retry-connrefused",
        "--retry-max-time",
        "10",
    ];
    let mut argv = vec![
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--output",
        "/dev/null",
        "--write-out",
        format,
    ];
    argv.extend(retry);
    argv.push(url);
    let output = left.run_within(LIMIT, argv)?.stdout;
    let numbers: Vec<f64> = output
        .split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers[..] {
        [bytes, seconds] if bytes == FILE_BYTES as f64 => {
            say(format!(
                "{bytes} bytes in {seconds:.2} s: {:.2} Gbit/s",
                bytes * 8e-9 / seconds
            ));
            Ok(())
        }
        _ => Err(Error::Nonsense {
            command: url.to_owned(),
            reason: format!("not {FILE_BYTES} bytes came: {output}"),
        }),
    }
}

fn serve(lab: &Lab, right: &Host) -> Result<Child, Error> {
    let folder = lab.folder();
    let write = |name: &str, act: &dyn Fn(&Path) -> std::io::Result<()>| {
        let path = folder.join(name);
        act(&path).map_err(|source| Error::File { path, source })
    };
    write("file", &|path| std::fs::File::create(path)?.set_len(FILE_BYTES))?;
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};"))
        .concat();
    let settings = format!(
        "user root; daemon off; pid {folder}/nginx.pid; error_log stderr; events {{}}
         http {{ access_log off; sendfile on; {temporary} server {{ listen 80; root {folder}; }} }}"
    );
    write("nginx.conf", &|path| std::fs::write(path, &settings))?;
    right.spawn([
        "nginx",
        "-p",
        &format!("{folder}"),
        "-c",
        &format!("{folder}/nginx.conf"),
    ])
}

fn measure(left: &Host, right: &Host, margay: &Margay) -> Result<(), Error> {
    heading(format!("TCP for {SECONDS} seconds: left sends to right with iperf3"));
    if let Some(reason) = testbed::need_programs(&["iperf3"]) {
        say(format!("Left out: it {reason}."));
        return Ok(());
    }
    let mut server = right.spawn(["iperf3", "--server", "--one-off", "--forceflush"])?;
    server.wait_for_line("Server listening", LIMIT)?;
    let before = margay.cpu()?;
    let output = left
        .run_within(LIMIT, ["iperf3", "--client", "10.2.0.2", "--time", SECONDS, "--json"])?
        .stdout;
    let after = margay.cpu()?;
    let report: Value = serde_json::from_str(&output).map_err(|error| Error::Nonsense {
        command: "iperf3".to_owned(),
        reason: error.to_string(),
    })?;
    let end = &report["end"];
    let rate = end["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e9;
    let again = end["sum_sent"]["retransmits"].as_u64().unwrap_or(0);
    say(format!(
        "{rate:.2} Gbit/s with segmentation offload off, {again} segments sent again"
    ));
    let (user, system) = (after.0 - before.0, after.1 - before.1);
    say(format!(
        "Margay used {user:.1?} of processor time in user mode and {system:.1?} in the kernel for it."
    ));
    Ok(())
}

fn trace(left: &Host, margay: &Margay) -> Result<(), Error> {
    heading("The way of one packet (margay trace): an echo request of left, and its reply");
    margay.command(["trace", "add", "--count", "2"])?;
    left.run(["ping", "-c1", "10.2.0.2"])?;
    print!("{}", margay.command(["trace", "show"])?.stdout);
    margay.command(["trace", "clear"]).map(drop)
}

fn what_to_try(left: &Host, router: &Host, margay: &Margay) {
    heading("It runs on. Try, as root");
    let (left, router) = (left.namespace(), router.namespace());
    say(format!("export MARGAY_SOCKET={}", margay.socket().display()));
    let program = margay.binary().display();
    for command in [
        "show ports",
        "show runtime",
        "show drops",
        "trace add --count 5",
        "trace show",
    ] {
        say(format!("{program} {command}"));
    }
    say(format!("ip netns exec {left} ping 10.2.0.2"));
    say(format!(
        "ip netns exec {left} bash             # a shell on the left host"
    ));
    say(format!(
        "ip netns exec {router} ip link        # the devices Margay has taken"
    ));
    say("make demo STOP=1                       # end it");
}

fn heading(text: impl Display) {
    println!("\n== {text}");
}

fn say(text: impl Display) {
    println!("   {text}");
}
