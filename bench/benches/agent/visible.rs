//! From the text of a change to the first packet that is judged by it, in a plane that runs: its worker on one core, who
//! changes on the other, at a rate.

use std::time::{Duration, Instant};

use fastpath::port::memory::MemoryEnd;
use testbed::Running;
use testbed::packets::{frame, open, port_mac, udp};

use super::{CHANGES, say};

/// Between two changes: 5,000 a second.
const PERIOD: Duration = Duration::from_micros(200);
/// Of which one is open, another after each change.
const EITHER: [u16; 2] = [101, 102];
/// How long a packet may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Two ends of their own beside all others.
const ENDS: &str = "
{apiVersion: margay/v1, kind: Port, metadata: {name: one}, spec: {device: one, driver: memory, addresses: [172.31.1.1/24]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: two}, spec: {device: two, driver: memory, addresses: [172.31.2.1/24]}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: two}, spec: {port: two, address: 172.31.2.2, mac: '02:00:00:00:00:02'}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: one, namespace: ns0, labels: {end: one}},
 spec: {pod: one, interfaceName: one, ipNetworks: [172.31.1.2], profiles: [kns.ns0]}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: two, namespace: ns0, labels: {end: two}},
 spec: {pod: two, interfaceName: two, ipNetworks: [172.31.2.2], profiles: [kns.ns0]}}
---
";

fn change(number: usize) -> String {
    let open = EITHER[number % 2];
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {{name: either, namespace: ns0}}, \
         spec: {{selector: end == 'two', types: [Ingress], \
         ingress: [{{action: Allow, protocol: UDP, destination: {{ports: [{open}]}}}}]}}}}\n"
    )
}

/// Measures it in a plane that has all of `text`, too.
pub fn measure(text: &str) {
    let documents = [ENDS, text, &change(0)].concat();
    let plane = Running::new(&documents, Some(0)).unwrap_or_else(|error| panic!("{error}"));
    let (one, two) = (plane.end("one"), plane.end("two"));
    let start = Instant::now();
    let mut due = start;
    let times = (1..=CHANGES).map(|number| {
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        due += PERIOD;
        let changing = Instant::now();
        let changed = plane.apply(&change(number));
        changed.unwrap_or_else(|error| panic!("{error}"));
        let applied = changing.elapsed();
        ask(&one, &two, number);
        (applied, changing.elapsed())
    });
    let times: Vec<_> = times.collect();
    let rate = CHANGES as f64 / start.elapsed().as_secs_f64();
    say("changes of a rule, each awaited, of 5,000 asked", "changes/s", [rate]);
    let micros = |time: &Duration| time.as_secs_f64() * 1e6;
    let mut seen: Vec<_> = times.iter().map(|(_, seen)| micros(seen)).collect();
    seen.sort_by(f64::total_cmp);
    let applied = times.iter().map(|(applied, _)| micros(applied));
    say("a rule changed at that rate, `apply` returned", "µs", applied);
    say(
        "a rule changed at that rate, seen by a packet",
        "µs",
        seen.iter().copied(),
    );
    say("the same, of 99 in 100 at most", "µs", [seen[seen.len() * 99 / 100]]);
}

/// Sends to what is closed and to what is open, until the latter came: as what was sent after `apply` returned is judged
/// by what it applied, that is the first.
fn ask(one: &MemoryEnd, two: &MemoryEnd, number: usize) {
    for port in [EITHER[(number + 1) % 2], EITHER[number % 2]] {
        let ends = ["172.31.1.2", "172.31.2.2"].map(|end| end.parse().expect("an address"));
        let packet = udp((ends[0], 4000), (ends[1], port), 64, b"?");
        let bytes = frame(port_mac(1), [2, 0, 0, 0, 0, 1], &packet);
        one.send.send(bytes).expect("the plane runs");
    }
    loop {
        let bytes = two.receive.recv_timeout(LIMIT).expect("the packet that is allowed");
        if bytes[12..14] != [8, 0] {
            continue;
        }
        let payload = open(&bytes).payload;
        let port = u16::from_be_bytes([payload[2], payload[3]]);
        assert_eq!(port, EITHER[number % 2], "judged by the policy before change {number}");
        return;
    }
}
