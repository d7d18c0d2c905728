//! The lab itself: hosts reach each other, failures speak, and nothing stays behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use testbed::{Error, Host, Lab, need};

#[test]
fn two_hosts_reach_each_other() -> Result<(), Error> {
    if let Some(reason) = testbed::need_root().or_else(|| testbed::need_programs(&["ip", "ethtool", "ping"])) {
        testbed::skip!(return Ok(()), "{reason}");
    }
    let (_lab, left, right) = pair()?;
    left.run(["ping", "-c1", "-W5", "10.1.0.3"])?;
    right.run(["ping", "-c1", "-W5", "fd00:1::2"])?;
    let counted = left.counters("eth0")?;
    assert!(counted.tx_packets >= 2 && counted.rx_packets >= 2, "{counted:?}");
    let offload = left.run(["ethtool", "-k", "eth0"])?.stdout;
    assert!(offload.contains("tx-checksumming: off"), "{offload}");
    assert_ne!(left.mac("eth0")?, right.mac("eth0")?);
    left.run(["ping", "-c1", "-W5", "127.0.0.1"])?;
    Ok(())
}

#[test]
fn a_router_between_two_hosts_forwards() {
    need!("ping");
    let lab = Lab::new().unwrap();
    let [left, router, right] = ["left", "router", "right"].map(|name| lab.host(name).unwrap());
    lab.link(
        (&left, "eth0", ["10.1.0.2/24", "fd00:1::2/64"]),
        (&router, "left0", ["10.1.0.1/24", "fd00:1::1/64"]),
    )
    .unwrap();
    lab.link(
        (&right, "eth0", ["10.2.0.2/24", "fd00:2::2/64"]),
        (&router, "right0", ["10.2.0.1/24", "fd00:2::1/64"]),
    )
    .unwrap();
    for (host, net) in [(&left, 1), (&right, 2)] {
        host.route("default", &format!("10.{net}.0.1")).unwrap();
        host.route("default", &format!("fd00:{net}::1")).unwrap();
    }
    let ping = |to| left.run(["ping", "-c1", "-W1", to]);
    assert!(ping("10.2.0.2").is_err(), "a host forwards without being told to");
    let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
    router.run(["sh", "-ec", forward]).unwrap();
    ping("10.2.0.2").unwrap();
    ping("fd00:2::2").unwrap();
}

#[test]
fn a_link_without_addresses_carries_frames_only() {
    need!();
    let lab = Lab::new().unwrap();
    let (left, router) = (lab.host("left").unwrap(), lab.host("router").unwrap());
    lab.link((&left, "eth0", ["10.1.0.2/24"]), (&router, "left0", []))
        .unwrap();
    assert_eq!(
        router
            .run(["ip", "-o", "address", "show", "dev", "left0"])
            .unwrap()
            .stdout,
        ""
    );
    let offload = router.run(["ethtool", "-k", "left0"]).unwrap().stdout;
    assert!(offload.contains("tx-checksumming: on"), "{offload}");
}

#[test]
fn what_fails_says_so_in_a_sentence() {
    need!();
    let lab = Lab::new().unwrap();
    let left = lab.host("left").unwrap();
    let said = |result: Result<testbed::Output, Error>| result.unwrap_err().to_string();
    let error = said(left.run(["ip", "link", "show", "dev", "eth9"]));
    assert_eq!(
        error,
        "`ip link show dev eth9` on host `left` failed (exit status: 1): Device \"eth9\" does not exist."
    );
    let error = said(left.run(["no-such-program"]));
    assert!(
        error.contains("no-such-program") && error.contains("No such file or directory"),
        "{error}"
    );
    let error = said(left.run_within(Duration::from_millis(10), ["sleep", "1000"]));
    assert!(
        error.starts_with("`sleep 1000` on host `left` did not end within 10ms"),
        "{error}"
    );
    let error = lab.host("left").unwrap_err().to_string();
    assert!(error.contains("File exists"), "{error}");
}

#[test]
fn a_panic_leaves_nothing_behind() {
    need!();
    let (send, receive) = mpsc::channel();
    let result = std::thread::spawn(move || {
        let (lab, left, _right) = pair().unwrap();
        // Away from its parent and process group, as a daemon would be.
        let child = left.spawn(["setsid", "--fork", "sleep", "1000"]).unwrap();
        let found = || left.run(["ip", "netns", "pids", &left.namespace()]).unwrap().stdout;
        let deadline = Instant::now() + Duration::from_secs(30);
        let daemon = loop {
            let name = |id: &str| std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            if let Some(id) = found().lines().find(|id| name(id) == "sleep\n") {
                break id.to_owned();
            }
            assert!(Instant::now() < deadline, "the daemon never came up");
        };
        send.send((lab.folder(), left.namespace(), daemon)).unwrap();
        let _kept = child;
        panic!("on purpose");
    })
    .join();
    assert!(result.is_err());
    let (folder, namespace, daemon) = receive.recv().unwrap();
    assert!(!folder.exists(), "{} is left", folder.display());
    assert!(
        !Path::new("/run/netns").join(&namespace).exists(),
        "{namespace} is left"
    );
    let state = std::fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "the daemon lives: {state}");
}

#[test]
fn labs_side_by_side_do_not_disturb_each_other() {
    need!("ping");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (_lab, left, right) = pair().unwrap();
                left.run(["ping", "-c1", "-W5", "10.1.0.3"]).unwrap();
                right.run(["ping", "-c1", "-W5", "fd00:1::2"]).unwrap();
            });
        }
    });
}

#[test]
fn a_killed_process_is_swept_up_after() {
    need!();
    // No process has such an id: Linux stops at 4,194,304 (proc(5), pid_max).
    let namespace = format!("mg-{}-0-left", 5_000_000 + std::process::id());
    let ip = |arguments: &[&str]| std::process::Command::new("ip").args(arguments).status().unwrap();
    assert!(ip(&["netns", "add", &namespace]).success());
    // A process of its own sweeps: this one has swept already, or has not, as the order of the tests falls.
    let again = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_link_without_addresses_carries_frames_only"])
        .output()
        .unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(
        !Path::new("/run/netns").join(&namespace).exists(),
        "{namespace} is left"
    );
}

#[test]
fn a_program_is_pinned_to_its_core() {
    need!("taskset");
    let lab = Lab::new().unwrap();
    let left = lab.host("left").unwrap();
    let status = left
        .on_core(0)
        .run(["grep", "Cpus_allowed_list", "/proc/self/status"])
        .unwrap()
        .stdout;
    assert_eq!(status, "Cpus_allowed_list:\t0\n");
}

/// Stands in for the program: says `ready`, ends on SIGTERM, and answers as the commands do.
const STAND_IN: &str = r#"#!/bin/sh
case "$1" in
run)  grep -q "kind: Broken" "$3" && { echo "document 1: no such kind" >&2; exit 2; }
      trap 'rm -f "$5"; exit 0' TERM
      touch "$5" && mkdir -p /sys/fs/bpf/pinned && echo ready >&2
      while :; do sleep 0.01; done ;;
apply) cat "$3" ;;
show) echo "{\"view\": \"$2\", \"socket\": \"$6\"}" ;;
esac
"#;

#[test]
fn the_program_is_started_asked_and_stopped() {
    need!();
    let lab = Lab::new().unwrap();
    let router = lab.host("router").unwrap();
    let binary = lab.folder().join("margay");
    std::fs::write(&binary, STAND_IN).unwrap();
    std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).unwrap();

    let margay = lab
        .margay_from(&binary, &router, "kind: Port\n", &["--frames", "64"])
        .unwrap();
    let socket = margay.socket().to_owned();
    assert!(socket.exists());
    assert_eq!(margay.apply("kind: Route\n").unwrap(), "kind: Route\n");
    let ports = margay.show("ports").unwrap();
    assert_eq!(
        (ports["view"].as_str(), ports["socket"].as_str()),
        (Some("ports"), socket.to_str())
    );
    margay.cpu().unwrap();
    margay.stop().unwrap();
    assert!(!socket.exists(), "it was not asked");
    assert!(
        lab.folder().join("bpf/pinned").exists(),
        "the next one would not find what this one pinned"
    );

    let error = lab
        .margay_from(&binary, &router, "kind: Broken\n", &[])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("it ended and did not get ready: document 1: no such kind"),
        "{error}"
    );
}

/// Two hosts on one wire: 10.1.0.2 and fd00:1::2 on the left, 10.1.0.3 and fd00:1::3 on the right.
fn pair() -> Result<(Lab, Host, Host), Error> {
    let lab = Lab::new()?;
    let (left, right) = (lab.host("left")?, lab.host("right")?);
    lab.link(
        (&left, "eth0", ["10.1.0.2/24", "fd00:1::2/64"]),
        (&right, "eth0", ["10.1.0.3/24", "fd00:1::3/64"]),
    )?;
    Ok((lab, left, right))
}
