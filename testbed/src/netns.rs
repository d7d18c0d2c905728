//! Networks of hosts: each host a network namespace, each link a veth pair, all of it gone when the lab goes.
//!
//! Namespaces are called `mg-PID-N-HOST` after the process that made them, so that labs run side by side, and so that
//! the first lab of any later process finds and removes what a killed one left behind.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::process::{Child, Output, TIME_LIMIT, spelled, words};
use crate::{Error, at};

/// Where `ip netns` keeps its names (ip-netns(8)).
const NAMES: &str = "/run/netns";

static LABS: AtomicU32 = AtomicU32::new(0);
static PROGRAMS: AtomicU32 = AtomicU32::new(0);

/// A network that lives as long as this value. Dropping it ends every program in it and deletes its namespaces.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
}

/// A host of a lab: a network namespace with `lo` up, forwarding off and no duplicate address detection.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    lab: String,
    core: Option<usize>,
}

/// One end of a link: host, device name (at most 15 bytes) and addresses with prefix length.
///
/// An end with addresses is the kernel's: its transmit checksum offload is turned off, for what leaves it is read by
/// programs that see unfinished checksums otherwise. An end without is for a data plane to take: the kernel gives it no
/// address of its own either, and so sends nothing there.
pub type End<'a, const N: usize> = (&'a Host, &'a str, [&'a str; N]);

/// What a device has counted since it was made (`ip -s link`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets dropped on receipt.
    pub rx_dropped: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets dropped on sending.
    pub tx_dropped: u64,
}

impl Lab {
    /// An empty lab of this process, removed with it. Needs root.
    pub fn new() -> Result<Lab, Error> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        Lab::with_prefix(format!("mg-{}-{number}", std::process::id()))
    }

    /// A lab that no sweep removes, for demonstrations that stay (`keep`). Replaces an earlier one of the same name,
    /// which has letters only.
    pub fn named(name: &str) -> Result<Lab, Error> {
        assert!(
            name.chars().all(char::is_alphabetic) && !name.is_empty(),
            "{name:?} would be taken for a process id"
        );
        let prefix = format!("mg-{name}");
        tear_down(&prefix);
        Lab::with_prefix(prefix)
    }

    fn with_prefix(prefix: String) -> Result<Lab, Error> {
        let folder = folder_of(&prefix);
        std::fs::create_dir(&folder).map_err(at(&folder))?;
        Ok(Lab { prefix })
    }

    /// Adds a host. Its name is part of a file name and unique in the lab.
    pub fn host(&self, name: &str) -> Result<Host, Error> {
        let host = Host {
            name: name.to_owned(),
            lab: self.prefix.clone(),
            core: None,
        };
        tool(&["ip", "netns", "add", &host.namespace()])?;
        // Captures stay quiet, addresses are usable at once, and nothing is inherited from the machine: a new namespace
        // copies its IPv4 settings (Documentation/networking/ip-sysctl.rst, devconf_inherit_init_net).
        let settings = "cd /proc/sys/net; echo 0 >ipv4/ip_forward; for of in default all; do \
                        echo 0 >ipv4/conf/$of/rp_filter; \
                        echo 0 >ipv6/conf/$of/accept_dad; \
                        echo 0 >ipv6/conf/$of/router_solicitations; done; ip link set lo up";
        host.run(["sh", "-ec", settings])?;
        Ok(host)
    }

    /// Joins two hosts by a veth pair, gives each end its addresses, and returns when both are ready to carry packets.
    pub fn link<const A: usize, const B: usize>(&self, left: End<'_, A>, right: End<'_, B>) -> Result<(), Error> {
        let (one, other) = (left.0.namespace(), right.0.namespace());
        tool(&[
            "ip", "link", "add", left.1, "netns", &one, "type", "veth", "peer", "name", right.1, "netns", &other,
        ])?;
        set_up(left.0, left.1, &left.2)?;
        set_up(right.0, right.1, &right.2)?;
        wait_until_ready(left.0, left.1, &left.2)?;
        wait_until_ready(right.0, right.1, &right.2)
    }

    /// The folder of the lab's files, removed with it.
    pub fn folder(&self) -> PathBuf {
        folder_of(&self.prefix)
    }

    /// Leaves everything as it is when this process ends; only a lab with a name survives the next sweep.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// Removes the lab of that name, if there is one.
    pub fn remove(name: &str) -> Result<(), Error> {
        Lab::named(name).map(drop)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        tear_down(&self.prefix);
    }
}

impl Host {
    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its namespace, as `ip netns` knows it.
    pub fn namespace(&self) -> String {
        format!("{}-{}", self.lab, self.name)
    }

    /// The same host, whose programs run on one core only.
    pub fn on_core(&self, core: usize) -> Host {
        Host {
            core: Some(core),
            ..self.clone()
        }
    }

    /// Adds a route to `destination` (a prefix, or `default`) through a gateway, whose family it takes.
    pub fn route(&self, destination: &str, gateway: &str) -> Result<(), Error> {
        let family = if gateway.contains(':') { "-6" } else { "-4" };
        tool(&[
            "ip",
            family,
            "-n",
            &self.namespace(),
            "route",
            "add",
            destination,
            "via",
            gateway,
        ])
        .map(drop)
    }

    /// Runs a program to its end, for at most 30 seconds; a failure is an error that quotes its last line.
    pub fn run(&self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output, Error> {
        self.run_within(TIME_LIMIT, argv)
    }

    /// Runs a program to its end, for at most `limit`.
    pub fn run_within(
        &self,
        limit: Duration,
        argv: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Output, Error> {
        self.spawn(argv)?.wait(limit)
    }

    /// Starts a program that runs until it ends, is dropped, or the lab goes.
    pub fn spawn(&self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Child, Error> {
        self.spawn_within(&[], argv)
    }

    /// Starts a program by way of `wrapper`, words that run the words behind them.
    pub(crate) fn spawn_within(
        &self,
        wrapper: &[&str],
        argv: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Child, Error> {
        let argv = words(argv);
        let command = format!("{}` on host `{}", spelled(&argv), self.name);
        let namespace = self.namespace();
        let mut all = words(["ip", "netns", "exec", &namespace]);
        if let Some(core) = self.core {
            all.extend(words(["taskset", "--cpu-list", &core.to_string()]));
        }
        all.extend(words(wrapper));
        all.extend(argv);
        let number = PROGRAMS.fetch_add(1, Ordering::Relaxed);
        Child::start(
            &all,
            command,
            &folder_of(&self.lab).join(format!("{}-{number}", self.name)),
        )
    }

    /// What a device has counted.
    pub fn counters(&self, device: &str) -> Result<Counters, Error> {
        let link = self.query(&["-s", "link", "show", "dev", device])?;
        let count = |way: &str, what: &str| link["stats64"][way][what].as_u64().unwrap_or(0);
        Ok(Counters {
            rx_packets: count("rx", "packets"),
            rx_bytes: count("rx", "bytes"),
            rx_dropped: count("rx", "dropped"),
            tx_packets: count("tx", "packets"),
            tx_bytes: count("tx", "bytes"),
            tx_dropped: count("tx", "dropped"),
        })
    }

    /// The hardware address of a device, as in `02:00:00:00:00:01`.
    pub fn mac(&self, device: &str) -> Result<String, Error> {
        let link = self.query(&["link", "show", "dev", device])?;
        link["address"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::Nonsense {
                command: format!("ip link show dev {device}"),
                reason: "it has no hardware address".to_owned(),
            })
    }

    /// The folder of the lab's files.
    pub(crate) fn folder(&self) -> PathBuf {
        folder_of(&self.lab)
    }

    /// The first thing `ip -j` says to a question in this namespace.
    fn query(&self, question: &[&str]) -> Result<serde_json::Value, Error> {
        let namespace = self.namespace();
        let argv = [&["ip", "-j", "-n", &namespace], question].concat();
        let mut answer: serde_json::Value = serde_json::from_str(&tool(&argv)?).map_err(|error| Error::Nonsense {
            command: argv.join(" "),
            reason: error.to_string(),
        })?;
        Ok(answer[0].take())
    }
}

/// Removes every lab whose process is gone. Called before a process makes its first lab, so that one of its own id
/// is a dead namesake's.
fn sweep() {
    let namespaces = names_in(Path::new(NAMES));
    let folders = names_in(&std::env::temp_dir());
    let mut stale: Vec<String> = namespaces
        .iter()
        .chain(&folders)
        .filter_map(|name| stale_prefix(name))
        .collect();
    stale.sort();
    stale.dedup();
    stale.iter().for_each(|prefix| tear_down(prefix));
}

/// `mg-PID-N` of a name that starts so, when no such process lives or it is this one.
fn stale_prefix(name: &str) -> Option<String> {
    let mut parts = name.strip_prefix("mg-")?.split('-');
    let process: u32 = parts.next()?.parse().ok()?;
    let number: u32 = parts.next()?.parse().ok()?;
    let lives = process != std::process::id() && Path::new(&format!("/proc/{process}")).exists();
    (!lives).then(|| format!("mg-{process}-{number}"))
}

/// Ends and deletes what carries the prefix. Goes on where something fails: it runs in `drop`, perhaps of a panic.
fn tear_down(prefix: &str) {
    let own = format!("{prefix}-");
    for namespace in names_in(Path::new(NAMES)).iter().filter(|name| name.starts_with(&own)) {
        end_programs(namespace);
        let _ = tool(&["ip", "netns", "delete", namespace]);
    }
    let folder = folder_of(prefix);
    let programs = folder.join("bpf");
    if programs.exists() {
        let _ = tool(&["umount", &programs.to_string_lossy()]);
    }
    let _ = std::fs::remove_dir_all(folder);
}

/// Kills the programs of a namespace by their ids, again until none is left: one may start another meanwhile.
fn end_programs(namespace: &str) {
    for _ in 0..100 {
        let listed = tool(&["ip", "netns", "pids", namespace]).unwrap_or_default();
        let programs: Vec<Pid> = listed
            .split_ascii_whitespace()
            .filter_map(|id| id.parse().ok())
            .filter_map(Pid::from_raw)
            .collect();
        if programs.is_empty() {
            return;
        }
        for id in programs {
            // It may have ended since it was listed.
            let _ = rustix::process::kill_process(id, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn set_up(host: &Host, device: &str, addresses: &[&str]) -> Result<(), Error> {
    let namespace = host.namespace();
    for address in addresses {
        tool(&["ip", "-n", &namespace, "address", "add", address, "dev", device])?;
    }
    match addresses.is_empty() {
        true => tool(&["ip", "-n", &namespace, "link", "set", device, "addrgenmode", "none"])?,
        false => tool(&["ip", "netns", "exec", &namespace, "ethtool", "-K", device, "tx", "off"])?,
    };
    tool(&["ip", "-n", &namespace, "link", "set", device, "up"]).map(drop)
}

/// Waits for the carrier and, at the kernel's ends, for the link-local address: neighbour discovery starts from it.
fn wait_until_ready(host: &Host, device: &str, given: &[&str]) -> Result<(), Error> {
    let deadline = Instant::now() + TIME_LIMIT;
    loop {
        let link = host.query(&["address", "show", "dev", device])?;
        let addresses = link["addr_info"].as_array().map(Vec::as_slice).unwrap_or_default();
        let tentative = addresses.iter().any(|address| address["tentative"] == true);
        let local = given.is_empty() || addresses.iter().any(|address| address["scope"] == "link");
        if link["operstate"] == "UP" && local && !tentative {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let (command, what) = (format!("{device}` on host `{}", host.name), "come up".to_owned());
            return Err(Error::Late {
                command,
                what,
                limit: TIME_LIMIT,
                says: link.to_string(),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn folder_of(prefix: &str) -> PathBuf {
    std::env::temp_dir().join(prefix)
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Runs one of the system's own tools and returns what it prints.
pub(crate) fn tool(argv: &[&str]) -> Result<String, Error> {
    let command = || argv.join(" ");
    let output = Command::new(argv[0]).args(&argv[1..]).output();
    let output = output.map_err(|source| Error::Start {
        command: command(),
        source,
    })?;
    if !output.status.success() {
        let says = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Failed {
            command: command(),
            status: output.status,
            says,
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labs_of_the_dead_are_stale() {
        let own = std::process::id();
        assert_eq!(stale_prefix("mg-1-0-left"), None);
        assert_eq!(stale_prefix("mg-4294967295-2-left"), Some("mg-4294967295-2".to_owned()));
        assert_eq!(stale_prefix(&format!("mg-{own}-7")), Some(format!("mg-{own}-7")));
        assert_eq!(stale_prefix("mg-demo-left"), None);
        assert_eq!(stale_prefix("another"), None);
    }
}
