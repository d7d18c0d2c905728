//! From resources to messages, and to what workers see: 10,000 endpoints and 10,000 policies loaded, one label changed, one
//! policy changed, one member of a large set changed; and how soon packets see a change. `cargo bench -p bench --bench agent`

#[path = "agent/visible.rs"]
mod visible;

use std::hint::black_box;
use std::time::Instant;

use bench::report::record;
use bench::spread::Spread;
use control::agent::Agent;
use control::resource::{Resource, Source, read};
use testbed::Plane;

/// The table of the report.
const TABLE: &str = "Agent";
const ENDPOINTS: usize = 10_000;
const POLICIES: usize = 10_000;
const NAMESPACES: usize = 100;
const CHANGES: usize = 2_001;
/// Endpoints that have a port on this node.
const HERE: usize = 200;
const SET_MEMBERS: usize = 100_000;

fn main() {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    let text: String = (0..NAMESPACES).map(namespace).collect::<String>()
        + &(0..ENDPOINTS).map(|n| endpoint(n, n / NAMESPACES)).collect::<String>()
        + &(0..POLICIES).map(|n| policy(n, 80)).collect::<String>();
    let start = Instant::now();
    let resources = parsed(&text);
    say("10,000 endpoints and 10,000 policies: YAML read", "ms", [millis(start)]);
    let mut agent = Agent::default();
    let start = Instant::now();
    resources
        .iter()
        .for_each(|resource| agent.update(&resource.key(), None, Some(resource)));
    let messages = agent.flush();
    say("the same: made into messages", "ms", [millis(start)]);
    say("messages", "", [messages.len() as f64]);
    let old: Vec<_> = (0..CHANGES)
        .map(|n| parsed(&endpoint(n, n / NAMESPACES)).remove(0))
        .collect();
    let new: Vec<_> = (0..CHANGES)
        .map(|n| parsed(&endpoint(n, n / NAMESPACES + 1)).remove(0))
        .collect();
    say("a label changed", "µs", changes(&mut agent, &old, &new));
    let old: Vec<_> = (0..CHANGES).map(|n| parsed(&policy(n, 80)).remove(0)).collect();
    let new: Vec<_> = (0..CHANGES).map(|n| parsed(&policy(n, 81)).remove(0)).collect();
    say("a rule changed", "µs", changes(&mut agent, &old, &new));
    drop((agent, resources, old, new));
    in_force(&text);
    visible::measure(&text);
}

/// The same in a plane with ports, from YAML to what its worker sees with its next packet.
fn in_force(text: &str) {
    let before = resident_mib();
    let ports: String = (0..HERE).map(port).collect();
    let start = Instant::now();
    let mut plane = Plane::new(&(ports + text)).unwrap_or_else(|error| panic!("{error}"));
    say(
        "the same and 200 ports: YAML in, in force",
        "s",
        [start.elapsed().as_secs_f64()],
    );
    let start = Instant::now();
    apply(&mut plane, &set(SET_MEMBERS));
    apply(&mut plane, &set_policy());
    let many = format!("a set of {SET_MEMBERS} networks and its policy: YAML in, in force");
    say(&many, "s", [start.elapsed().as_secs_f64()]);
    say("memory for all that", "MiB", [resident_mib() - before]);
    let label = |n: usize| endpoint(n, n / NAMESPACES + 1);
    say("a label changed, in force", "µs", applied(&mut plane, label));
    say("a rule changed, in force", "µs", applied(&mut plane, |n| policy(n, 81)));
    let small = |n: usize| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {{name: more{}, labels: {{set: large}}}}, \
             spec: {{nets: [172.16.{}.{}/32]}}}}\n",
            n % 10,
            n / 250,
            n % 250
        )
    };
    say(
        "a member of that set changed, in force",
        "µs",
        applied(&mut plane, small),
    );
}

fn applied(plane: &mut Plane, document: impl Fn(usize) -> String) -> Vec<f64> {
    let micros = (0..CHANGES).map(|n| {
        let document = document(n);
        let start = Instant::now();
        apply(plane, &document);
        start.elapsed().as_secs_f64() * 1e6
    });
    micros.collect()
}

fn apply(plane: &mut Plane, document: &str) {
    plane.apply(document).unwrap_or_else(|error| panic!("{error}"));
}

/// What the process has in memory (`VmRSS` of proc_pid_status(5)).
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim_end_matches("kB").trim().parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn changes(agent: &mut Agent, old: &[Resource], new: &[Resource]) -> Vec<f64> {
    let pairs = old.iter().zip(new);
    let micros = pairs.map(|(old, new)| {
        let start = Instant::now();
        agent.update(&new.key(), Some(old), Some(new));
        black_box(agent.flush());
        start.elapsed().as_secs_f64() * 1e6
    });
    micros.collect()
}

fn say(what: &str, measure: &str, values: impl IntoIterator<Item = f64>) {
    record(TABLE, what, measure, Spread::of(values));
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn parsed(text: &str) -> Vec<Resource> {
    let documents = read(&[Source::file("bench.yaml", text)]).expect("documents that are right");
    documents.into_iter().map(|document| document.resource).collect()
}

fn namespace(n: usize) -> String {
    format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: ns{n}, labels: {{team: t{}}}}}}}\n---\n",
        n % 10
    )
}

/// An endpoint of one of a hundred applications of its namespace.
fn endpoint(n: usize, app: usize) -> String {
    let (namespace, high, low) = (n % NAMESPACES, n / 250, n % 250);
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, \
         metadata: {{name: pod{n}, namespace: ns{namespace}, labels: {{app: app{app}, tier: t{}, zone: z{}}}}}, \
         spec: {{pod: pod{n}, interfaceName: cali{n}, ipNetworks: [10.{}.{}.{low}], profiles: [kns.ns{namespace}]}}}}\n---\n",
        n % 3,
        n % 7,
        high / 250,
        high % 250,
    )
}

/// The port to an endpoint here.
fn port(n: usize) -> String {
    format!(
        "{{apiVersion: margay/v1, kind: Port, metadata: {{name: cali{n}}}, \
         spec: {{device: cali{n}, driver: memory, addresses: [192.168.{n}.1/24]}}}}\n---\n"
    )
}

fn set(members: usize) -> String {
    let nets = (0..members).map(|n| format!("11.{}.{}.{}/32", n >> 16, n >> 8 & 255, n & 255));
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {{name: large, labels: {{set: large}}}}, \
         spec: {{nets: [{}]}}}}\n",
        nets.collect::<Vec<_>>().join(", ")
    )
}

fn set_policy() -> String {
    "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: large}, \
     spec: {order: 1, selector: has(app), types: [Ingress], ingress: [{action: Deny, source: {selector: set == 'large'}}, {action: Pass}]}}\n"
        .to_owned()
}

/// Who may talk to an application of a namespace: one of its own, and a team's namespaces.
fn policy(n: usize, port: u16) -> String {
    let (namespace, app) = (n % NAMESPACES, n / NAMESPACES);
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p{n}, namespace: ns{namespace}}}, \
         spec: {{podSelector: {{matchLabels: {{app: app{app}}}}}, ingress: [\
         {{from: [{{podSelector: {{matchLabels: {{app: app{}}}}}}}], ports: [{{port: {port}}}]}}, \
         {{from: [{{namespaceSelector: {{matchLabels: {{team: t{}}}}}, podSelector: {{matchLabels: {{tier: t1}}}}}}]}}]}}}}\n---\n",
        (app + 1) % 100,
        n % 10,
    )
}
