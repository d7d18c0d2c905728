//! The process: it starts or says why not, stops when told, and leaves every device as it was found.

mod router;

use std::time::{Duration, Instant};

use router::{LIMIT, Net, PORTS, ip, shell, until};
use rustix::process::Signal;
use testbed::{Child, need};

/// How long a stop may take; the contract says a second, a busy machine gets more.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Starts the program on the router with these arguments, by way of the words of `wrapper`.
fn spawn(net: &Net, wrapper: &str, arguments: &str) -> Child {
    let binary = testbed::margay::find_binary().unwrap();
    let socket = net.lab.folder().join("wrong.sock");
    let line = format!(
        "exec {wrapper} {} run {arguments} --socket {}",
        binary.display(),
        socket.display()
    );
    net.router.spawn(["sh", "-ec", &line]).unwrap()
}

/// Expects a refusal: exit code 2, and one sentence, which is returned.
fn refused(net: &Net, wrapper: &str, arguments: &str) -> String {
    let mut child = spawn(net, wrapper, arguments);
    let status = child.wait_for_end(LIMIT).unwrap();
    let said = child.stderr();
    assert_eq!(status.code(), Some(2), "{arguments}: {said}");
    assert_eq!(child.stdout(), "", "{arguments}");
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{said}");
    // Usage and logs may stand beside it.
    let sentences: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert_eq!(sentences.len(), 1, "{arguments}: {said}");
    sentences[0].to_owned()
}

/// Writes a file into the lab and returns its path.
fn file(net: &Net, name: &str, text: &str) -> String {
    let path = net.lab.folder().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_wrong_start_is_refused_in_a_sentence_and_changes_nothing() {
    need!();
    let net = Net::new();
    let before = net.devices();
    let ports = file(&net, "ports.yaml", PORTS);
    let missing = file(&net, "missing.yaml", &PORTS.replace("right0", "right9"));
    let field = file(&net, "field.yaml", &PORTS.replace("device: right0", "devise: right0"));
    let broken = file(&net, "broken.yaml", "kind: [Port");
    let many = file(
        &net,
        "many.yaml",
        &PORTS.replace("device: right0", "device: right0, queues: 9"),
    );
    let large = file(
        &net,
        "large.yaml",
        &PORTS.replace("device: right0", "device: right0, mtu: 1700"),
    );
    for (arguments, expected) in [
        ("--wrong".to_owned(), "'--wrong'"),
        ("--cores 4095".to_owned(), "there is no core 4095"),
        ("--cores 0,0".to_owned(), "core 0 stands twice"),
        ("--cores some".to_owned(), "'some'"),
        ("--frames 3".to_owned(), "3 is not in"),
        ("--idle never".to_owned(), "'never'"),
        ("--metrics nowhere".to_owned(), "'nowhere'"),
        ("-f /no/such/file.yaml".to_owned(), "/no/such/file.yaml"),
        (format!("-f {missing}"), "there is no network device `right9`"),
        (format!("-f {field}"), "devise"),
        (format!("-f {broken}"), "broken.yaml"),
        (format!("-f {many}"), "has 1 queues, not 9"),
        (format!("-f {large}"), "mtu"),
        (
            format!("--metrics 192.0.2.1:9 -f {ports}"),
            "cannot listen on 192.0.2.1:9",
        ),
    ] {
        let sentence = refused(&net, "", &arguments);
        assert!(sentence.contains(expected), "{arguments}: {sentence}");
        assert_eq!(net.devices(), before, "{arguments}");
    }
    assert!(!net.lab.folder().join("wrong.sock").exists(), "a socket is left behind");
}

#[test]
fn without_its_capabilities_it_is_refused() {
    need!("setpriv");
    let net = Net::new();
    let before = net.devices();
    let arguments = format!("-f {}", file(&net, "ports.yaml", PORTS));
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    shell(&net.router, &format!("chmod 0777 {}", net.lab.folder().display()));
    for wrapper in ["setpriv --bounding-set=-all", "setpriv --bounding-set=-net_raw", nobody] {
        let sentence = refused(&net, wrapper, &arguments);
        assert!(
            sentence.contains("is not permitted: run as root"),
            "{wrapper}: {sentence}"
        );
        assert_eq!(net.devices(), before, "{wrapper}");
    }
}

#[test]
fn a_foreign_program_on_the_device_is_left_alone() {
    need!("clang");
    let net = Net::new();
    let code = "__attribute__((section(\"xdp\"), used)) int foreign(void *packet) { return 2; }\n\
                char terms[] __attribute__((section(\"license\"), used)) = \"GPL\";\n";
    let source = file(&net, "foreign.c", code);
    let object = source.replace(".c", ".o");
    shell(
        &net.router,
        &format!("clang -O2 -g -target bpf -c {source} -o {object}"),
    );
    let arguments = format!("-f {}", file(&net, "ports.yaml", PORTS));
    for mode in ["xdpgeneric", "xdpdrv"] {
        ip(&net.router, &format!("link set dev right0 {mode} obj {object} sec xdp"));
        let before = net.devices();
        let sentence = refused(&net, "", &arguments);
        assert!(
            sentence.contains("already runs the XDP program `foreign`"),
            "{sentence}"
        );
        assert!(
            sentence.contains(&format!("ip link set dev right0 {mode} off")),
            "{sentence}"
        );
        assert_eq!(net.devices(), before);
        ip(&net.router, &format!("link set dev right0 {mode} off"));
    }
    net.start(&[]).stop().unwrap();
}

#[test]
fn a_second_instance_is_refused_and_the_first_does_not_notice() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    let socket = margay.socket().display().to_string();
    let binary = margay.binary().display().to_string();
    let mut second = net.router.spawn([binary.as_str(), "run", "--socket", &socket]).unwrap();
    assert_eq!(second.wait_for_end(LIMIT).unwrap().code(), Some(2));
    let said = second.stderr();
    assert!(
        said.contains(&format!("another instance answers on {socket}")),
        "{said}"
    );
    let other_socket = refused(&net, "", &format!("-f {}", file(&net, "ports.yaml", PORTS)));
    assert!(
        other_socket.contains("in use by another AF_XDP socket"),
        "{other_socket}"
    );
    net.both_families_pass();
    margay.stop().unwrap();
}

#[test]
fn a_signal_stops_it_and_the_devices_are_as_before() {
    need!("ping");
    let net = Net::new();
    // One device is down before: it is so afterwards.
    ip(&net.router, "link set right0 down");
    let before = net.devices();
    for signal in [Signal::TERM, Signal::INT] {
        let mut margay = net.start(&[]);
        assert_eq!(margay.child.stdout(), "");
        assert_eq!(margay.child.stderr().lines().filter(|line| *line == "ready").count(), 1);
        net.both_families_pass();
        assert!(net.devices().contains("xdp"), "the test sees no XDP programs");
        let asked = Instant::now();
        margay.child.signal(signal).unwrap();
        let status = margay.child.wait_for_end(STOP_LIMIT).unwrap();
        println!("stopped {:.0?} after {signal:?}", asked.elapsed());
        assert!(status.success(), "{signal:?}: {status}");
        assert!(!margay.socket().exists(), "the socket is left behind");
        until("the devices to be as before", || net.devices() == before);
    }
}

#[test]
fn killed_it_starts_again_at_once() {
    need!("ping");
    let net = Net::new();
    let arguments = format!("-f {}", file(&net, "ports.yaml", PORTS));
    for _ in 0..3 {
        let mut killed = spawn(&net, "", &arguments);
        killed.wait_for("get ready", LIMIT, |line| line == "ready").unwrap();
        net.both_families_pass();
        killed.kill();
        assert!(net.lab.folder().join("wrong.sock").exists(), "it had time to tidy up");
    }
    let mut last = spawn(&net, "", &arguments);
    last.wait_for("get ready", LIMIT, |line| line == "ready").unwrap();
    net.both_families_pass();
    last.stop().unwrap();
    assert!(!net.devices().contains("xdp"), "{}", net.devices());
}

#[test]
fn environment_variables_stand_for_flags() {
    need!("curl");
    let net = Net::new();
    let ports = file(&net, "ports.yaml", PORTS);
    let socket = net.lab.folder().join("environment.sock").display().to_string();
    let binary = testbed::margay::find_binary().unwrap().display().to_string();
    let set = format!(
        "export MARGAY_CORES=0 MARGAY_SOCKET={socket} MARGAY_FRAMES=8192 MARGAY_FLOWS=2048 MARGAY_IDLE=spin \
         MARGAY_METRICS=127.0.0.1:9477"
    );
    let line = format!("{set}; MARGAY_FILE={ports} exec {binary} run");
    let mut margay = net.router.spawn(["sh", "-ec", &line]).unwrap();
    margay.wait_for("get ready", LIMIT, |line| line == "ready").unwrap();
    let runtime = shell(&net.router, &format!("{set}; {binary} show runtime"));
    assert!(runtime.contains("(core 0, spins when idle)"), "{runtime}");
    let memory = shell(&net.router, &format!("{set}; {binary} show memory"));
    assert!(memory.contains("8,192") || memory.contains("8192"), "{memory}");
    let metrics = shell(&net.router, "curl -sf http://127.0.0.1:9477/metrics");
    assert!(metrics.contains("margay_"), "{metrics}");
    assert!(shell(&net.router, &format!("{set}; {binary} show ports")).contains("right0"));
    margay.stop().unwrap();
}

#[test]
fn closed_outputs_do_not_matter() {
    need!("ping", "curl");
    let net = Net::new();
    let arguments = format!("-f {}", file(&net, "ports.yaml", PORTS));
    let socket = net.lab.folder().join("wrong.sock");
    let health = format!("curl -sf --unix-socket {} http://localhost/v1/health", socket.display());
    // What is logged has nowhere to go.
    for outputs in [">&- 2>&- <&-", ">/dev/full 2>/dev/full"] {
        let mut margay = spawn(&net, "", &format!("{arguments} {outputs}"));
        until("the socket to say it is ready", || {
            net.router.run(["sh", "-c", &health]).is_ok()
        });
        net.both_families_pass();
        margay.stop().unwrap();
        assert!(!socket.exists());
    }
}

#[test]
fn twenty_quick_starts_leave_nothing_behind() {
    need!("bpftool");
    let net = Net::new();
    let before = net.devices();
    let arguments = format!("-f {}", file(&net, "ports.yaml", PORTS));
    for round in 0..20 {
        let mut margay = spawn(&net, "", &arguments);
        if round % 2 == 0 {
            margay.wait_for("get ready", LIMIT, |line| line == "ready").unwrap();
        } else {
            // In the middle of its start, at another moment each time; before it listens to signals it just ends.
            std::thread::sleep(Duration::from_millis(round * 4));
        }
        margay.signal(Signal::TERM).unwrap();
        margay.wait_for_end(STOP_LIMIT).unwrap();
    }
    until("the devices to be as before", || net.devices() == before);
    let xdp = shell(&net.router, "bpftool net show");
    assert!(!xdp.contains("left0") && !xdp.contains("right0"), "{xdp}");
    let sockets = shell(&net.router, "cat /proc/net/xdp 2>/dev/null || ss --xdp -H");
    assert_eq!(sockets.trim(), "");
}
