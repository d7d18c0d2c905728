//! The program driven by Felix: a test says over real pipes what Felix would, in bytes that it writes itself.

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
/// Two workloads, a client and a server, and a port of the host.
const PORTS: &str = "
{apiVersion: margay/v1, kind: Port, metadata: {name: cali1}, spec: {driver: memory, device: m1, addresses: [169.254.1.1/32]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: cali2}, spec: {driver: memory, device: m2, addresses: [169.254.1.2/32]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: up0}, spec: {driver: memory, device: m3, addresses: [192.0.2.1/24]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: up1}, spec: {driver: memory, device: m4, addresses: [198.51.100.1/24]}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: a}, spec: {destination: 10.65.0.1/32, via: [{port: cali1}]}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: b}, spec: {destination: 10.65.0.2/32, via: [{port: cali2}]}}
";

/// `margay run --felix`.
struct Plane {
    process: Child,
    folder: tempfile::TempDir,
}

impl Plane {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        symlink(env!("CARGO_BIN_EXE_margay"), folder.path().join("margay-felix")).unwrap();
        std::fs::write(folder.path().join("ports.yaml"), PORTS).unwrap();
        let path = |name: &str| folder.path().join(name);
        let log = std::fs::File::create(path("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_margay"))
            .args(["run", "--frames", "4096", "--flows", "1024", "--node-name", "here"])
            .args([
                &PathBuf::from("--felix"),
                &path("felix.sock"),
                &PathBuf::from("--felix-keys"),
                &path("keys"),
            ])
            .args([
                &PathBuf::from("--socket"),
                &path("sock"),
                &PathBuf::from("-f"),
                &path("ports.yaml"),
            ])
            .stderr(log)
            .spawn()
            .unwrap();
        let plane = Self { process, folder };
        plane.wait_for_log("ready");
        plane
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn wait_for_log(&self, part: &str) {
        let start = Instant::now();
        while !self.log().contains(part) {
            assert!(start.elapsed() < LIMIT, "no `{part}` in {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What a command says, and whether it was carried out.
    fn margay(&self, arguments: &[&str]) -> (bool, String) {
        let socket = self.folder.path().join("sock");
        let output = Command::new(env!("CARGO_BIN_EXE_margay"))
            .args(arguments)
            .env("MARGAY_SOCKET", socket)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    /// What becomes of TCP to a port of the server, in full.
    fn explain(&self, from: &str, port: &str) -> String {
        let (_, said) = self.margay(&[
            "explain",
            "--from",
            from,
            "--to",
            "10.65.0.2",
            "--proto",
            "tcp",
            "--port",
            port,
        ]);
        said
    }

    /// `allow` or `deny`.
    fn verdict(&self, port: &str) -> String {
        self.explain("10.65.0.1", port)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Felix, with its driver as a child: descriptors 3 and 4 are pipes.
struct Felix {
    driver: Child,
    to_driver: Option<ChildStdin>,
    answers: Receiver<Vec<u8>>,
}

impl Felix {
    fn start(plane: &Plane) -> Self {
        let program = plane.folder.path().join("margay-felix");
        let mut driver = Command::new("sh")
            .args(["-c", "exec \"$0\" 3<&0 4>&1 </dev/null >/dev/null"])
            .arg(program)
            .env("MARGAY_FELIX", plane.folder.path().join("felix.sock"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut from_driver = driver.stdout.take().unwrap();
        let (send, answers) = channel();
        std::thread::spawn(move || {
            let mut head = [0; 8];
            while from_driver.read_exact(&mut head).is_ok() {
                let mut message = vec![0; u64::from_le_bytes(head) as usize];
                if from_driver.read_exact(&mut message).is_err() || send.send(message).is_err() {
                    break;
                }
            }
        });
        Self {
            to_driver: driver.stdin.take(),
            driver,
            answers,
        }
    }

    fn say(&mut self, messages: &[Vec<u8>]) {
        let frames = messages
            .iter()
            .map(|message| frame(message))
            .collect::<Vec<_>>()
            .concat();
        self.raw(&frames);
    }

    fn raw(&mut self, bytes: &[u8]) {
        // One that was cut off is seen by what it said at its end.
        let _ = self.to_driver.as_mut().unwrap().write_all(bytes);
    }

    /// Waits for an answer with a field of this number that holds `part`.
    fn wait_for(&self, field: u8, part: &str) -> Vec<u8> {
        let start = Instant::now();
        loop {
            let left = LIMIT.saturating_sub(start.elapsed());
            let answer = self.answers.recv_timeout(left).expect("no such answer");
            let holds = part.is_empty() || answer.windows(part.len()).any(|window| window == part.as_bytes());
            if answer.first() == Some(&(field << 3 | 2)) && holds {
                return answer;
            }
        }
    }

    /// Says that it was all, and waits until it is in force.
    fn sync(&mut self) {
        self.say(&[message(1, &[])]);
        // `DataplaneInSync` is empty; its number may stand before it.
        let start = Instant::now();
        let is_sync = |answer: &[u8]| answer.windows(2).any(|window| window == [10 << 3 | 2, 0]) && answer.len() < 16;
        while !is_sync(&self.answers.recv_timeout(LIMIT).expect("in sync")) {
            assert!(start.elapsed() < LIMIT);
        }
    }

    /// Felix ends. What its driver said, and its exit code.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.to_driver.take());
        let mut said = String::new();
        self.driver.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.driver.wait().unwrap().code(), said)
    }
}

impl Drop for Felix {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u64).to_le_bytes(), message].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A field with a length: a message, made of its fields.
fn message(field: u64, fields: &[Vec<u8>]) -> Vec<u8> {
    let body = fields.concat();
    [varint(field << 3 | 2), varint(body.len() as u64), body].concat()
}

fn text(field: u64, text: &str) -> Vec<u8> {
    message(field, &[text.as_bytes().to_vec()])
}

fn number(field: u64, number: u64) -> Vec<u8> {
    [varint(field << 3), varint(number)].concat()
}

fn setting(name: &str, value: &str) -> Vec<u8> {
    message(1, &[text(1, name), text(2, value)])
}

fn config(settings: &[Vec<u8>]) -> Vec<u8> {
    message(13, settings)
}

fn set(members: &[&str]) -> Vec<u8> {
    let members = members.iter().map(|member| text(2, member));
    message(2, &[vec![text(1, "s:clients")], members.collect()].concat())
}

fn policy_id(field: u64) -> Vec<u8> {
    message(field, &[text(2, "web"), text(3, "shop"), text(4, "NetworkPolicy")])
}

/// From the set, TCP to this port.
fn policy(port: u64) -> Vec<u8> {
    let ports = message(7, &[number(1, port), number(2, port)]);
    let rule = message(
        1,
        &[
            text(1, "allow"),
            message(3, &[text(2, "tcp")]),
            ports,
            text(10, "s:clients"),
        ],
    );
    message(7, &[policy_id(1), message(2, &[rule, text(8, "default")])])
}

/// Allows all, both ways.
fn profile() -> Vec<u8> {
    let allow = |field| message(field, &[text(1, "allow")]);
    message(
        5,
        &[message(1, &[text(1, "kns.shop")]), message(2, &[allow(1), allow(2)])],
    )
}

fn workload_id(name: &str) -> Vec<u8> {
    message(1, &[text(2, "k8s"), text(3, name), text(4, "eth0")])
}

fn workload(name: &str, interface: &str, address: &str, tiers: &[Vec<u8>]) -> Vec<u8> {
    let fields = [
        text(1, "active"),
        text(2, interface),
        text(4, "kns.shop"),
        text(5, address),
    ];
    let endpoint = message(5, &[&fields, tiers].concat());
    message(11, &[workload_id(name), endpoint])
}

fn client() -> Vec<u8> {
    workload("shop/client", "cali1", "10.65.0.1/32", &[])
}

fn server() -> Vec<u8> {
    let tier = message(7, &[text(1, "default"), policy_id(2), text(4, "Deny")]);
    workload("shop/web-0", "cali2", "10.65.0.2/32", &[tier])
}

/// All of a small node.
fn whole(port: u64) -> Vec<Vec<u8>> {
    let namespace = message(21, &[message(1, &[text(1, "shop")])]);
    vec![
        config(&[]),
        set(&["10.65.0.1"]),
        policy(port),
        profile(),
        namespace,
        client(),
        server(),
    ]
}

#[test]
fn felix_says_what_policy_there_is() {
    let plane = Plane::start();
    // Before Felix: workloads are closed, and nothing is forwarded between the host's ports either.
    assert_eq!(plane.verdict("80"), "deny");
    let through = [
        "explain",
        "--from",
        "192.0.2.9",
        "--to",
        "198.51.100.9",
        "--proto",
        "tcp",
        "--port",
        "80",
    ];
    assert!(
        plane.margay(&through).1.starts_with("deny"),
        "{}",
        plane.margay(&through).1
    );
    let mut felix = Felix::start(&plane);
    felix.wait_for(3, "20");
    felix.say(&whole(80));
    assert_eq!(plane.verdict("80"), "deny");
    felix.sync();
    assert_eq!([plane.verdict("80"), plane.verdict("81")], ["allow", "deny"]);
    assert!(
        plane.margay(&through).1.starts_with("allow"),
        "{}",
        plane.margay(&through).1
    );
    let explained = plane.explain("shop/client", "80");
    assert!(
        explained.contains("shop/web-0") && explained.contains("web"),
        "{explained}"
    );
    plane.wait_for_log("1 sets, 2 policies and profiles, 2 endpoints, 1 others; without use here: NamespaceUpdate 1");
    // One change after the other, known to be in force by the answer to the next: an endpoint's status.
    felix.say(&[policy(81), message(12, &[workload_id("shop/client")])]);
    felix.wait_for(7, "shop/client");
    felix.say(&[client()]);
    felix.wait_for(6, "up");
    assert_eq!([plane.verdict("80"), plane.verdict("81")], ["deny", "allow"]);
    let delta = message(3, &[text(1, "s:clients"), text(3, "10.65.0.1")]);
    felix.say(&[delta, workload("shop/other", "cali9", "10.65.0.9/32", &[])]);
    felix.wait_for(6, "down");
    assert_eq!(plane.verdict("81"), "deny");
    // Our own agent keeps out of it.
    let tier = plane.folder.path().join("tier.yaml");
    std::fs::write(
        &tier,
        "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: t}, spec: {order: 1}}",
    )
    .unwrap();
    let (done, said) = plane.margay(&["apply", "-f", tier.to_str().unwrap()]);
    assert!(!done && said.contains("policy comes from Felix here"), "{said}");
    assert_eq!(felix.end(), (Some(0), String::new()));
    plane.wait_for_log("Felix has gone");
}

#[test]
fn what_felix_said_outlives_it_and_the_next_one_changes_the_difference() {
    let plane = Plane::start();
    let mut felix = Felix::start(&plane);
    felix.say(&whole(80));
    felix.sync();
    assert_eq!(felix.end().0, Some(0));
    assert_eq!([plane.verdict("80"), plane.verdict("81")], ["allow", "deny"]);
    let mut next = Felix::start(&plane);
    next.say(&whole(81));
    assert_eq!([plane.verdict("80"), plane.verdict("81")], ["allow", "deny"]);
    next.sync();
    assert_eq!([plane.verdict("80"), plane.verdict("81")], ["deny", "allow"]);
    // Nonsense ends the conversation with a sentence, and what was in force stays.
    let nonsense: [(&[u8], &str); 3] = [
        (&[0xff; 64], "a message is announced with 18446744073709551615 bytes"),
        (&frame(&[0xff; 9]), "a message is none of Felix's"),
        (&frame(&policy(70_000)), "port 70000 of a rule is out of range"),
    ];
    for (bytes, sentence) in nonsense {
        let mut felix = Felix::start(&plane);
        felix.wait_for(3, "");
        felix.raw(bytes);
        plane.wait_for_log(sentence);
        let (code, said) = felix.end();
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(said, "error: the data plane ended the conversation; its log says why\n");
    }
    let mut cut = Felix::start(&plane);
    cut.raw(&frame(&policy(80))[..20]);
    cut.end();
    plane.wait_for_log("the stream ended within a message: 20 bytes of it came");
    assert_eq!([plane.verdict("80"), plane.verdict("81")], ["deny", "allow"]);
}

#[test]
fn nodes_get_tunnels_with_keys_that_the_plane_keeps() {
    let plane = Plane::start();
    let mut felix = Felix::start(&plane);
    let there = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
    let node = |name: &str, address: &str| message(14, &[text(1, name), text(2, address)]);
    let key = message(27, &[text(1, "there"), text(2, there), text(3, "10.66.0.5")]);
    let remote = [text(3, "10.66.0.0/26"), text(4, "there"), number(12, 1)];
    felix.say(&[
        config(&[setting("WireguardEnabled", "true")]),
        node("here", "192.0.2.1"),
        node("there", "192.0.2.9"),
        key,
        message(23, &remote),
        message(
            16,
            &[text(1, "pool"), message(2, &[text(1, "10.65.0.0/16"), number(2, 1)])],
        ),
        message(1, &[]),
    ]);
    let status = felix.wait_for(9, "");
    let kept = plane.folder.path().join("keys/felix-v4.key");
    let mode = std::os::unix::fs::MetadataExt::mode(&kept.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let (_, shown) = plane.margay(&["show", "wireguard"]);
    for part in [
        "wireguard.cali",
        "there",
        "192.0.2.9:51820",
        "10.66.0.0/26",
        "10.66.0.5/32",
    ] {
        assert!(shown.contains(part), "{part} in {shown}\n{}", plane.log());
    }
    // The key that Felix heard is the one that is used.
    let public = String::from_utf8_lossy(&status[4..48]).into_owned();
    assert!(
        plane
            .margay(&["get", "wireguardinterfaces", "-o", "yaml"])
            .1
            .contains(&public),
        "{public}"
    );
    // A Felix that comes again hears the same key, and the tunnel is not touched; then the other node goes.
    felix.end();
    let mut next = Felix::start(&plane);
    next.say(&[
        config(&[setting("WireguardEnabled", "true")]),
        node("here", "192.0.2.1"),
        message(1, &[]),
    ]);
    assert_eq!(next.wait_for(9, "")[4..48], status[4..48]);
    let (_, shown) = plane.margay(&["show", "wireguard"]);
    assert!(shown.contains("wireguard.cali") && !shown.contains("there"), "{shown}");
}

#[test]
fn a_driver_without_felix_or_plane_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let alone = |pipes: &str| {
        let output = Command::new("sh")
            .args([
                "-c",
                &format!("exec \"$0\" felix {pipes}"),
                env!("CARGO_BIN_EXE_margay"),
            ])
            .env("MARGAY_FELIX", folder.path().join("felix.sock"))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = alone("3<&- 4>&-");
    assert!(
        code == Some(1) && said.contains("/proc/self/fd/3 is not open"),
        "{said}"
    );
    let (code, said) = alone("3</dev/null 4>/dev/null");
    assert!(
        code == Some(1) && said.contains("is `margay run --felix` running"),
        "{said}"
    );
}
