//! What an operator does: apply, look, trace, measure.

mod router;

use std::time::{Duration, Instant};

use router::{LIMIT, Net, drops, iperf_server, ping, reaches, shell, until};
use testbed::{Margay, need};

/// Every view of `margay show` that this version has.
const VIEWS: [&str; 8] = [
    "ports",
    "routes",
    "neighbors",
    "runtime",
    "drops",
    "graph",
    "workers",
    "memory",
];

/// What a command prints when it fails: exit code 1 and one sentence.
fn failed(margay: &Margay, net: &Net, arguments: &str) -> String {
    let socket = margay.socket().display();
    let line = format!("exec {} {arguments} --socket {socket}", margay.binary().display());
    let mut child = net.router.spawn(["sh", "-c", &line]).unwrap();
    let status = child.wait_for_end(LIMIT).unwrap();
    let said = child.stderr();
    assert_eq!(status.code(), Some(1), "{arguments}: {said}");
    let sentence = said
        .strip_prefix("error: ")
        .unwrap_or_else(|| panic!("{arguments}: {said}"));
    assert_eq!(sentence.trim_end().lines().count(), 1, "{arguments}: {said}");
    sentence.trim_end().to_owned()
}

/// All that a plan may change.
fn state(margay: &Margay) -> [serde_json::Value; 2] {
    let mut ports = margay.show("ports").unwrap();
    for port in ports.as_array_mut().unwrap() {
        for counter in ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "socket"] {
            port.as_object_mut().unwrap().remove(counter);
        }
    }
    [ports, margay.show("routes").unwrap()]
}

#[test]
fn a_request_is_carried_out_as_a_whole_or_not_at_all() {
    need!("ping");
    let net = Net::new();
    net.lab
        .link(
            (&net.lab.host("extra").unwrap(), "eth0", ["10.3.0.2/24"]),
            (&net.router, "extra0", []),
        )
        .unwrap();
    let margay = net.start(&[]);
    net.both_families_pass();
    let (before, devices) = (state(&margay), net.devices());
    let resources = margay.command(["get", "ports", "-o", "yaml"]).unwrap().stdout;
    let plan = "apiVersion: margay/v1\nkind: Port\nmetadata: { name: extra }\n\
                spec: { device: extra0, addresses: [10.3.0.1/24] }\n---\n\
                apiVersion: margay/v1\nkind: Route\nmetadata: { name: far }\n\
                spec: { destination: 192.0.2.0/24, via: [{ gateway: 10.3.0.2 }] }\n---\n\
                apiVersion: margay/v1\nkind: Port\nmetadata: { name: left }\n\
                spec: { device: left0, mode: generic, addresses: [10.1.0.1/24, 'fd00:1::1/64'] }\n---\n\
                apiVersion: margay/v1\nkind: Port\nmetadata: { name: missing }\n\
                spec: { device: missing0, addresses: [10.4.0.1/24] }\n";
    let file = net.lab.folder().join("plan.yaml");
    std::fs::write(&file, plan).unwrap();
    let sentence = failed(&margay, &net, &format!("apply -f {}", file.display()));
    assert!(
        sentence.contains("document 4, Port/missing, field spec.device"),
        "{sentence}"
    );
    assert!(sentence.contains("there is no network device `missing0`"), "{sentence}");
    until("everything to be as before", || state(&margay) == before);
    assert_eq!(
        margay.command(["get", "ports", "-o", "yaml"]).unwrap().stdout,
        resources
    );
    assert_eq!(xdp(&net.devices()), xdp(&devices));
    net.both_families_pass();
    // Without the last document it can be done, and undone.
    let plan = &plan[..plan.rfind("---").unwrap()];
    margay.apply(plan).unwrap();
    assert!(
        margay
            .command(["show", "routes"])
            .unwrap()
            .stdout
            .contains("192.0.2.0/24")
    );
    net.both_families_pass();
    margay.stop().unwrap();
}

/// Which devices run a program, and how.
fn xdp(devices: &str) -> Vec<&str> {
    let ids = |line: &&str| line.contains("xdp") && !line.contains("prog/xdp id");
    devices.lines().filter(ids).collect()
}

#[test]
fn what_get_prints_apply_finds_unchanged() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    margay
        .apply(
            "apiVersion: margay/v1\nkind: Route\nmetadata: { name: far }\n\
             spec: { destination: 192.0.2.0/24, via: [{ gateway: 10.2.0.2 }, { gateway: 10.2.0.3, weight: 2 }] }\n---\n\
             apiVersion: margay/v1\nkind: Neighbor\nmetadata: { name: third }\n\
             spec: { port: right, address: 10.2.0.3, mac: '02:00:00:00:00:03' }\n",
        )
        .unwrap();
    for kind in ["ports", "routes", "neighbors"] {
        let yaml = margay.command(["get", kind, "-o", "yaml"]).unwrap().stdout;
        let said = margay.apply(&yaml).unwrap();
        assert!(!said.trim().is_empty(), "get {kind} printed nothing");
        assert!(said.lines().all(|line| line.ends_with("unchanged")), "{said}");
    }
    // As one line of shell, as people write it.
    let program = format!("{} ", margay.binary().display());
    let socket = margay.socket().display();
    let line = format!("{program} get ports -o yaml --socket {socket} | {program} apply -f - --socket {socket}");
    assert_eq!(shell(&net.router, &line).matches("unchanged").count(), 2);
    net.both_families_pass();
    margay.stop().unwrap();
}

#[test]
fn every_view_is_shown_while_traffic_runs() {
    need!("iperf3", "ping");
    let net = Net::new();
    let margay = net.start(&[]);
    let _server = iperf_server(&net.right);
    let mut client = net.left.spawn(["iperf3", "-c", "10.2.0.2", "-t", "4"]).unwrap();
    for view in VIEWS {
        let json = margay.show(view).unwrap();
        assert!(json.is_array() || json.is_object(), "{view}: {json}");
        let table = margay.command(["show", view]).unwrap();
        assert!(
            !table.stdout.trim().is_empty() && table.stderr.is_empty(),
            "{view}: {table:?}"
        );
        assert!(!table.stdout.contains('\u{1b}'), "{view}: colours for a program");
        let yaml = margay.command(["show", view, "-o", "yaml"]).unwrap().stdout;
        assert!(!yaml.trim().is_empty(), "{view}");
    }
    let watch = format!(
        "exec {} show ports --watch -o json --socket {}",
        margay.binary().display(),
        margay.socket().display()
    );
    let mut watching = net.router.spawn(["sh", "-c", &watch]).unwrap();
    until("three looks", || {
        let seen = watching.stdout();
        serde_json::Deserializer::from_str(&seen)
            .into_iter::<serde_json::Value>()
            .flatten()
            .count()
            >= 3
    });
    let seen = watching.stdout();
    watching.kill();
    let counts: Vec<u64> = serde_json::Deserializer::from_str(&seen)
        .into_iter::<serde_json::Value>()
        .flatten()
        .map(|ports| ports[0]["rx_packets"].as_u64().unwrap())
        .collect();
    assert!(counts.windows(2).all(|pair| pair[0] <= pair[1]), "{counts:?}");
    assert!(counts.first() < counts.last(), "{counts:?}");
    client.wait(LIMIT).unwrap();
    let runtime = margay.command(["show", "runtime"]).unwrap().stdout;
    assert!(
        runtime.contains("CYCLES/PACKET") && runtime.contains("parse"),
        "{runtime}"
    );
    margay.stop().unwrap();
}

#[test]
fn drops_have_names_and_sentences() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    assert!(!ping(&net.left, "10.77.0.1"));
    assert!(net.left.run(["ping", "-c1", "-W1", "-t1", "10.2.0.2"]).is_err());
    let table = margay.command(["show", "drops"]).unwrap().stdout;
    for part in [
        "no-route",
        "There is no route to the destination",
        "hop-limit-expired",
        "The hop limit ran out",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(drops(&margay, "no-route") >= 1 && drops(&margay, "hop-limit-expired") >= 1);
    margay.stop().unwrap();
}

#[test]
fn a_trace_tells_the_story_of_a_packet() {
    need!("ping");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    margay
        .command(["trace", "add", "--count", "3", "icmp and host 10.2.0.2"])
        .unwrap();
    // Neither the other family nor the router's own address match.
    assert!(ping(&net.left, "fd00:2::2") && ping(&net.left, "10.1.0.1"));
    net.left.run(["ping", "-c2", "-i0.01", "10.2.0.2"]).unwrap();
    let story = margay.command(["trace", "show"]).unwrap().stdout;
    assert_eq!(story.matches("Packet ").count(), 3, "{story}");
    assert!(!story.contains("fd00"), "{story}");
    let first = story.split("\n\n").next().unwrap();
    assert!(first.contains("in by left, 98 bytes"), "{first}");
    let mut rest = first;
    for node in ["port-in", "parse", "route", "adjacency", "port-out"] {
        let at = rest
            .find(node)
            .unwrap_or_else(|| panic!("no {node} in its place in {first}"));
        rest = &rest[at..];
    }
    for decision in [
        "forward",
        "transmit",
        "10.1.0.2",
        "10.2.0.2",
        &net.right.mac("eth0").unwrap(),
    ] {
        assert!(first.contains(decision), "no {decision} in {first}");
    }
    let second = story.split("\n\n").nth(1).unwrap();
    assert!(second.contains("in by right"), "the reply: {second}");
    margay.command(["trace", "clear"]).unwrap();
    assert!(
        margay
            .command(["trace", "show"])
            .unwrap()
            .stdout
            .contains("no packet traced yet")
    );
    // A packet that is dropped says why.
    margay
        .command(["trace", "add", "--count", "1", "host", "10.77.0.1"])
        .unwrap();
    assert!(!ping(&net.left, "10.77.0.1"));
    let story = margay.command(["trace", "show"]).unwrap().stdout;
    assert!(story.contains("no-route"), "{story}");
    for filter in ["'no such filter'", "'host'", "'port ninety'"] {
        let sentence = failed(&margay, &net, &format!("trace add --count 1 {filter}"));
        assert!(sentence.contains("cannot read the filter"), "{sentence}");
    }
    margay.stop().unwrap();
}

#[test]
fn metrics_are_lines_of_numbers_that_grow() {
    need!("ping", "curl");
    let net = Net::new();
    let margay = net.start(&["--metrics", "127.0.0.1:9477"]);
    net.both_families_pass();
    let read = || shell(&net.router, "curl -sf http://127.0.0.1:9477/metrics");
    let before = numbers(&read());
    net.left.run(["ping", "-c20", "-i0.01", "10.2.0.2"]).unwrap();
    let after = numbers(&read());
    let grew = |name: &str| {
        let sum = |all: &[(String, f64)]| -> f64 {
            all.iter()
                .filter(|(series, _)| series.starts_with(name))
                .map(|(_, value)| value)
                .sum()
        };
        sum(&after) - sum(&before)
    };
    assert!(grew("margay_port_rx_packets_total") >= 30.0, "{after:?}");
    assert!(grew("margay_port_tx_packets_total") >= 30.0, "{after:?}");
    for (series, value) in before.iter().filter(|(series, _)| series.contains("_total")) {
        let now = after.iter().find(|(other, _)| other == series);
        assert!(now.is_some_and(|(_, now)| now >= value), "{series} went back");
    }
    margay.stop().unwrap();
}

/// Series and values of the Prometheus text format, every line of which is checked.
fn numbers(text: &str) -> Vec<(String, f64)> {
    let mut all = vec![];
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            assert!(comment.starts_with("HELP ") || comment.starts_with("TYPE "), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(series.starts_with("margay_"), "{line}");
        all.push((series.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}"))));
    }
    assert!(all.len() > 10, "{text}");
    all
}

#[test]
fn an_idle_worker_leaves_the_core_to_others() {
    need!();
    let net = Net::new();
    let margay = net.start(&["--idle", "adaptive"]);
    // The hosts' own questions are over by then.
    std::thread::sleep(Duration::from_secs(1));
    let (before, began) = (margay.cpu().unwrap(), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let (after, passed) = (margay.cpu().unwrap(), began.elapsed());
    let used = (after.0 + after.1).saturating_sub(before.0 + before.1);
    let percent = 100.0 * used.as_secs_f64() / passed.as_secs_f64();
    println!("idle: {percent:.1} % of a core");
    assert!(percent < 30.0, "{percent} % of a core for nothing");
    margay.stop().unwrap();
}

/// Median time there and back of 50 pings, in microseconds.
fn median_us(net: &Net) -> f64 {
    reaches(&net.left, "10.2.0.2");
    let said = net.left.run(["ping", "-c51", "-i0.05", "10.2.0.2"]).unwrap().stdout;
    let time = |line: &str| line.split_once("time=")?.1.split_once(' ')?.0.parse::<f64>().ok();
    let mut times: Vec<f64> = said.lines().filter_map(time).skip(1).collect();
    times.sort_by(f64::total_cmp);
    assert!(times.len() > 40, "{said}");
    times[times.len() / 2] * 1000.0
}

#[test]
fn an_idle_worker_answers_soon() {
    need!("ping");
    let net = Net::new();
    let began = Instant::now();
    let margay = net.start(&[]);
    let ready = began.elapsed();
    let ours = median_us(&net);
    margay.stop().unwrap();
    shell(
        &net.router,
        "echo 1 >/proc/sys/net/ipv4/ip_forward; ip address add 10.1.0.1/24 dev left0; \
         ip address add 10.2.0.1/24 dev right0; ethtool -K left0 tx off >/dev/null; ethtool -K right0 tx off >/dev/null",
    );
    for host in [&net.left, &net.right] {
        router::forget_neighbours(host);
    }
    let kernels = median_us(&net);
    // Figures for people: nothing is asserted of time here but that both ways carry packets.
    println!("ready after {ready:.0?}; ping through Margay {ours:.0} us, through the kernel {kernels:.0} us");
}
