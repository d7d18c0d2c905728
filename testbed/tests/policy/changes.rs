//! A plane that runs, and policy that changes hundreds of times while packets are on their way: each is judged by the
//! policy before a change or by that after it, and what is sent after an `apply` returned by nothing older.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use fastpath::port::memory::MemoryEnd;
use testbed::Running;
use testbed::packets::{frame, open, port_mac, udp};

use crate::{DB, NETWORK, PODS, WEB, address};

const CHANGES: usize = 500;
/// Sets of three packets that are on their way at a time.
const UNDER_WAY: usize = 64;
/// The port that is always allowed, and the two of which one is.
const ALWAYS: u16 = 100;
const EITHER: [u16; 2] = [101, 102];
/// How long any one packet may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The policy after so many changes.
fn policy(changes: usize) -> String {
    let open = EITHER[changes % 2];
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {{name: either, namespace: shop}},
          spec: {{selector: app == 'db', types: [Ingress],
          ingress: [{{action: Allow, protocol: UDP, destination: {{ports: [{ALWAYS}, {open}]}}}}]}}}}\n"
    )
}

/// Sets of packets that are numbered: one to either port, then one to the port that is always open.
#[derive(Default)]
struct Traffic {
    /// Sets that were sent whole.
    sent: AtomicUsize,
    /// Sets of which the last packet came, so that all of them were judged.
    judged: AtomicUsize,
    stop: AtomicBool,
}

impl Traffic {
    /// Sends and receives until it is stopped and everything came. Of each set, which of the two came.
    fn run(&self, web: &MemoryEnd, db: &MemoryEnd) -> Vec<[bool; 2]> {
        let mut came: Vec<[bool; 2]> = vec![];
        let mut last = Instant::now();
        loop {
            let (sent, judged) = (self.sent.load(SeqCst), self.judged.load(SeqCst));
            let stopped = self.stop.load(SeqCst);
            if stopped && sent == judged {
                // What came in one vector may leave in another order: whatever is left is there by now, or soon.
                while let Ok(bytes) = db.receive.recv_timeout(Duration::from_millis(100)) {
                    self.note(&bytes, &mut came);
                }
                return came;
            }
            if !stopped && sent - judged < UNDER_WAY {
                came.push([false; 2]);
                for port in [EITHER[0], EITHER[1], ALWAYS] {
                    send(web, port, sent);
                }
                self.sent.store(sent + 1, SeqCst);
            }
            if sent - judged >= UNDER_WAY || stopped {
                let bytes = db.receive.recv_timeout(Duration::from_millis(1)).ok();
                bytes.into_iter().for_each(|bytes| self.note(&bytes, &mut came));
            }
            for bytes in db.receive.try_iter() {
                self.note(&bytes, &mut came);
                last = Instant::now();
            }
            assert!(last.elapsed() < LIMIT, "set {judged} of {sent} was lost");
        }
    }

    fn note(&self, bytes: &[u8], came: &mut [[bool; 2]]) {
        if bytes[12..14] != [8, 0] {
            return;
        }
        let payload = open(bytes).payload;
        let port = u16::from_be_bytes([payload[2], payload[3]]);
        let number = u64::from_be_bytes(payload[8..16].try_into().unwrap()) as usize;
        match EITHER.iter().position(|either| *either == port) {
            Some(which) => assert!(!std::mem::replace(&mut came[number][which], true), "one came twice"),
            None => assert_eq!(
                self.judged.fetch_add(1, SeqCst),
                number,
                "of what is always allowed, each and in order"
            ),
        }
    }
}

fn send(web: &MemoryEnd, port: u16, number: usize) {
    let tag = (number as u64).to_be_bytes();
    let packet = udp((address(WEB), 4000), (address(DB), port), 64, &tag);
    let bytes = frame(port_mac(WEB.2), [2, 0, 0, 0, 0, WEB.2], &packet);
    web.send.send_timeout(bytes, LIMIT).unwrap();
}

/// Makes the changes; of each, how many sets were judged before it began, and how many sent when it was made.
fn change(plane: &Running, traffic: &Traffic) -> Vec<(usize, usize)> {
    let one = |number| {
        let judged = traffic.judged.load(SeqCst);
        plane.apply(&policy(number)).unwrap();
        let sent = traffic.sent.load(SeqCst);
        // At least one set is sent, and judged, between this change and the next.
        let deadline = Instant::now() + LIMIT;
        while traffic.judged.load(SeqCst) < sent + 2 {
            assert!(Instant::now() < deadline, "nothing moves after change {number}");
            std::thread::yield_now();
        }
        (judged, sent)
    };
    let changes = (1..=CHANGES).map(one).collect();
    traffic.stop.store(true, SeqCst);
    changes
}

#[test]
fn every_packet_is_judged_by_the_policy_before_a_change_or_by_that_after_it() {
    let plane = Running::new(&[NETWORK, PODS, &policy(0)].join("---\n"), None).unwrap();
    let (web, db) = (plane.end("web"), plane.end("db"));
    let traffic = Traffic::default();
    let (changes, came) = std::thread::scope(|scope| {
        let running = scope.spawn(|| traffic.run(&web, &db));
        (change(&plane, &traffic), running.join().unwrap())
    });

    let mut certain = 0;
    for (set, came) in came.iter().enumerate() {
        // The set being sent when a change was made may have been sent before it in part.
        let oldest = changes.partition_point(|(_, sent)| *sent < set);
        let newest = changes.partition_point(|(judged, _)| *judged <= set);
        certain += usize::from(oldest == newest);
        for which in 0..2 {
            let judged_so = |changes: usize| (changes % 2 == which) == came[which];
            assert!(
                (oldest..=newest).any(judged_so),
                "set {set} to port {}, judged after {oldest} to {newest} changes: {}",
                EITHER[which],
                if came[which] { "came" } else { "did not" }
            );
        }
    }
    assert!(certain >= CHANGES, "{certain} sets of {} had one policy", came.len());
}
