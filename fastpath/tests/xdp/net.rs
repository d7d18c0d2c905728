//! Namespaces with two hosts and the test between them.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Two hosts, `a` and `b`, each with one end `eth` of a veth pair whose other end, `left` and `right`, is in the
/// namespace that the test's thread has entered. Removed on drop.
pub struct Net {
    name: String,
}

impl Net {
    /// `None`, with a sentence, when not root.
    pub fn new() -> Option<Net> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // SAFETY: a plain system call.
        if unsafe { libc::geteuid() } != 0 {
            println!("skipped: AF_XDP needs root");
            return None;
        }
        let net = Net {
            name: format!("xdp{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)),
        };
        for part in ["m", "a", "b"] {
            ip(&format!("netns add {}", net.part(part)));
            ip(&format!("-n {} link set lo up", net.part(part)));
        }
        net.pair("left", "a", "10.0.0.1/24", 1);
        net.pair("right", "b", "10.0.0.2/24", 1);
        net.enter("m");
        Some(net)
    }

    /// The namespace of a part: `m`, `a` or `b`.
    pub fn part(&self, part: &str) -> String {
        format!("{}{part}", self.name)
    }

    /// Moves the calling thread, which belongs to the test, into a part's namespace.
    pub fn enter(&self, part: &str) {
        let namespace = File::open(format!("/run/netns/{}", self.part(part))).unwrap();
        // SAFETY: changes nothing but which network namespace this thread's later calls concern.
        assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
    }

    /// A veth pair from the middle to a host, both ends up.
    pub fn pair(&self, device: &str, host: &str, address: &str, queues: u32) {
        let (middle, host) = (self.part("m"), self.part(host));
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        let peer = format!("peer name eth netns {host} {queues}");
        ip(&format!("link add {device} netns {middle} {queues} type veth {peer}"));
        for (namespace, device) in [(&middle, device), (&host, "eth")] {
            // No router solicitations and the like between the packets that are counted.
            ip(&format!(
                "netns exec {namespace} sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1"
            ));
            ip(&format!("-n {namespace} link set {device} up"));
        }
        ip(&format!("-n {host} address add {address} dev eth"));
    }

    /// `ip` in the middle.
    pub fn middle(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.part("m")))
    }

    /// Starts pinging `b` from `a`.
    pub fn ping(&self, count: u32) -> Child {
        let arguments = format!(
            "netns exec {} ping -q -i 0.01 -W 1 -w 8 -c {count} 10.0.0.2",
            self.part("a")
        );
        Command::new("ip")
            .args(arguments.split(' '))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Whether a device of the middle has an XDP program.
    pub fn has_program(&self, device: &str) -> bool {
        self.middle(&format!("link show dev {device}")).contains("prog/xdp")
    }

    /// Packets host `a` has received.
    pub fn received(&self) -> u64 {
        let counters = ip(&format!("-n {} -s -j link show dev eth", self.part("a")));
        let (_, rest) = counters.split_once("\"rx\":").unwrap();
        let (_, rest) = rest.split_once("\"packets\":").unwrap();
        rest[..rest.find(',').unwrap()].parse().unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for part in ["m", "a", "b"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.part(part)]).status();
        }
    }
}

/// Runs `ip`; what it printed.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
