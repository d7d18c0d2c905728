use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const PORTS: Ports = (1000, 53);

fn datagram(n: u8) -> Datagram {
    let end = |last| Endpoint::v4([10, 0, 0, last], 0);
    Datagram::new(&end(n), &end(200), u32::from(n) * 3, 17, VrfId(0), Flags::IPV4)
}

fn piece(offset: u16, length: u16, more: bool) -> Fragment {
    Fragment {
        offset,
        length,
        more,
        ports: if offset == 0 { PORTS } else { (0, 0) },
    }
}

/// Fragments whose packets are numbers, and what came out.
struct Side {
    fragments: Fragments<u32>,
    out: Vec<(u32, Fate)>,
    next: u32,
}

impl Side {
    fn new(datagrams: usize) -> Self {
        Self {
            fragments: Fragments::new(datagrams, [1, 2]),
            out: vec![],
            next: 0,
        }
    }

    /// What comes out as the next packet is taken.
    fn take(&mut self, n: u8, fragment: Fragment, now: u32) -> Vec<(u32, Fate)> {
        let packet = self.next;
        self.next += 1;
        self.fragments
            .take(&datagram(n), &fragment, packet, Tick(now), |packet, fate| {
                self.out.push((packet, fate))
            });
        std::mem::take(&mut self.out)
    }

    fn expire(&mut self, now: u32) -> Vec<(u32, Fate)> {
        self.fragments
            .expire(Tick(now), usize::MAX, |packet, fate| self.out.push((packet, fate)));
        std::mem::take(&mut self.out)
    }
}

const PASS: Fate = Fate::Pass(PORTS);

#[test]
fn later_fragments_get_the_ports_of_the_first() {
    let mut side = Side::new(8);
    assert_eq!(side.take(1, piece(0, 800, true), 0), [(0, PASS)]);
    assert_eq!(side.take(1, piece(800, 800, true), 0), [(1, PASS)]);
    assert_eq!(side.take(2, piece(800, 800, true), 0), [], "another datagram");
    assert_eq!(side.take(1, piece(1600, 7, false), 0), [(3, PASS)]);
    // The datagram is whole and forgotten: the same number may come again.
    assert_eq!(side.take(1, piece(0, 800, true), 0), [(4, PASS)]);
    assert_eq!(
        side.take(9, piece(0, 800, false), 0),
        [(5, PASS)],
        "a fragment that is a whole datagram"
    );
}

#[test]
fn those_that_come_before_the_first_wait_for_it() {
    let mut side = Side::new(8);
    assert_eq!(side.take(1, piece(1600, 7, false), 0), []);
    assert_eq!(side.take(1, piece(800, 800, true), 1), []);
    assert_eq!(side.fragments.held(), 2);
    assert_eq!(side.take(1, piece(0, 800, true), 2), [(0, PASS), (1, PASS), (2, PASS)]);
    assert_eq!(side.fragments.held(), 0);
}

#[test]
fn but_not_for_long_and_not_many() {
    let mut side = Side::new(8);
    for n in 0..4 {
        assert_eq!(side.take(1, piece(800 + n * 8, 8, true), 0), []);
    }
    assert_eq!(side.take(1, piece(832, 8, true), 0), [(4, Fate::Drop(Why::Crowded))]);
    assert_eq!(side.expire(HOLD - 1), []);
    let dropped = side.expire(HOLD);
    assert_eq!(dropped.len(), 4);
    assert!(dropped.iter().all(|(_, fate)| *fate == Fate::Drop(Why::NoFirst)));
    assert_eq!(side.fragments.held(), 0);
    assert_eq!(
        side.take(1, piece(0, 800, true), HOLD),
        [(5, PASS)],
        "that one may begin again"
    );
    assert_eq!(side.expire(HOLD + LIFE - 1), []);
    assert_eq!(side.take(1, piece(840, 8, true), HOLD + LIFE - 1), [(6, PASS)]);
    assert_eq!(
        side.take(1, piece(848, 8, true), HOLD + LIFE),
        [],
        "the ports are forgotten"
    );
}

#[test]
fn a_datagram_with_an_overlap_is_dropped_as_a_whole() {
    let overlap = Fate::Drop(Why::Overlap);
    let mut side = Side::new(8);
    side.take(1, piece(0, 800, true), 0);
    assert_eq!(side.take(1, piece(792, 800, true), 0), [(1, overlap)]);
    assert_eq!(side.take(1, piece(1600, 800, true), 0), [(2, overlap)]);
    let mut side = Side::new(8);
    side.take(1, piece(800, 800, true), 0);
    assert_eq!(
        side.take(1, piece(1592, 16, true), 0),
        [(0, overlap), (1, overlap)],
        "those that waited, too"
    );
    assert_eq!(side.take(1, piece(0, 800, true), 0), [(2, overlap)]);
    let mut side = Side::new(8);
    side.take(1, piece(0, 800, true), 0);
    side.take(1, piece(1600, 8, false), 0);
    assert_eq!(side.take(1, piece(1608, 8, true), 0), [(2, overlap)], "behind the last");
    let mut side = Side::new(8);
    side.take(1, piece(0, 800, true), 0);
    assert_eq!(side.take(1, piece(0, 800, true), 0), [(1, Fate::Drop(Why::Repeated))]);
    assert_eq!(
        side.take(1, piece(800, 8, false), 0),
        [(2, PASS)],
        "a repetition spoils nothing"
    );
}

#[test]
fn a_flood_of_beginnings_is_bounded_and_pushes_out_the_oldest() {
    let mut side = Side::new(8);
    for n in 0..100 {
        for (packet, fate) in side.take(n, piece(8, 8, true), u32::from(n) % HOLD) {
            assert!(
                matches!(fate, Fate::Drop(Why::Forgotten | Why::NoFirst)),
                "{packet}: {fate:?}"
            );
        }
        assert!(side.fragments.held() <= 8);
    }
    assert_eq!(side.take(99, piece(0, 8, true), 99 % HOLD), [(99, PASS), (100, PASS)]);
}

/// Byte for byte: what a datagram has, and whether it is spoilt.
#[derive(Default)]
struct Naive {
    bytes: HashSet<u16>,
    end: Option<u16>,
    ports: Option<Ports>,
    spoilt: bool,
    waiting: Vec<u32>,
}

impl Naive {
    fn take(&mut self, fragment: &Fragment, packet: u32) -> Vec<(u32, Fate)> {
        let range = fragment.offset..fragment.offset + fragment.length;
        let known = range.clone().filter(|byte| self.bytes.contains(byte)).count();
        let whole = known == usize::from(fragment.length);
        let behind = self.end.is_some_and(|end| range.end > end || !fragment.more);
        let cut = !fragment.more && self.bytes.iter().any(|byte| *byte >= range.end);
        if self.spoilt || !whole && (known > 0 || behind || cut) {
            self.spoilt = true;
            let all = self.waiting.drain(..).chain([packet]);
            return all.map(|packet| (packet, Fate::Drop(Why::Overlap))).collect();
        }
        if whole {
            return vec![(packet, Fate::Drop(Why::Repeated))];
        }
        self.bytes.extend(range.clone());
        if !fragment.more {
            self.end = Some(range.end);
        }
        if fragment.offset == 0 {
            self.ports = Some(fragment.ports);
        }
        match self.ports {
            Some(ports) => {
                let all: Vec<u32> = self.waiting.drain(..).chain([packet]).collect();
                if self.end.is_some_and(|end| self.bytes.len() == usize::from(end)) {
                    *self = Self::default();
                }
                all.into_iter().map(|packet| (packet, Fate::Pass(ports))).collect()
            }
            None if self.waiting.len() < HELD_MAX => {
                self.waiting.push(packet);
                vec![]
            }
            None => vec![(packet, Fate::Drop(Why::Crowded))],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn it_agrees_with_counting_bytes(
        steps in prop::collection::vec((0u8..3, 0u16..14, 1u16..5, prop::bool::weighted(0.8)), 1..120),
    ) {
        // As many places as could be needed: one set may take all eight.
        let mut side = Side::new(8);
        let mut naive: HashMap<u8, Naive> = HashMap::new();
        for (n, offset, length, more) in steps {
            let fragment = piece(offset * 8, length * 8, more);
            if offset == 0 && !more {
                continue;
            }
            let expected = naive.entry(n).or_default().take(&fragment, side.next);
            prop_assert_eq!(side.take(n, fragment, 0), expected);
            prop_assert_eq!(side.fragments.held(), naive.values().map(|one| one.waiting.len()).sum::<usize>());
        }
    }

    /// Whatever comes, each packet comes out once, and what waits is bounded.
    #[test]
    fn no_packet_is_lost_or_doubled(
        steps in prop::collection::vec((any::<u8>(), any::<u16>(), any::<u16>(), any::<bool>(), 0u32..3), 1..400),
    ) {
        let mut side = Side::new(16);
        let (mut now, mut out) = (0, vec![]);
        for (n, offset, length, more, passed) in steps {
            now += passed;
            out.extend(side.take(n % 40, piece(offset & !7, length.max(1), more), now));
            prop_assert!(side.fragments.held() <= 16 * HELD_MAX);
            prop_assert_eq!(out.len() + side.fragments.held(), side.next as usize);
        }
        out.extend(side.expire(now + LIFE));
        let mut packets: Vec<u32> = out.into_iter().map(|(packet, _)| packet).collect();
        packets.sort_unstable();
        prop_assert!(packets.into_iter().eq(0..side.next));
    }
}
