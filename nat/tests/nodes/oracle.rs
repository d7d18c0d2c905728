//! Random packets of random clients through source NAT, beside an oracle that only knows what a translation has to be:
//! the same for all packets of a connection, different for any two that a server could confuse, and undone for answers.

use crate::packets::{ECHO, End, Plain, SCTP, TCP, UDP};
use crate::plane::{INSIDE, OUTSIDE, Plane};
use crate::{PUBLIC, answer, end, masquerade};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Few enough of each that connections meet.
#[derive(Clone, Copy, Debug)]
struct Step {
    protocol: u8,
    is_v4: bool,
    client: u8,
    port: u8,
    server: u8,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A client sends.
    Send,
    /// A server answers.
    Answer,
    /// Somebody outside whom nobody asked sends to where a client is.
    Intrude,
    /// Every verdict becomes stale.
    Change,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![
        8 => Just(Kind::Send), 5 => Just(Kind::Answer), 2 => Just(Kind::Intrude), 1 => Just(Kind::Change)
    ];
    let protocol = prop_oneof![Just(TCP), Just(UDP), Just(ECHO), Just(SCTP)];
    let step = (protocol, any::<bool>(), 0..4u8, 0..3u8, 0..3u8, kind);
    let step = step.prop_map(|(protocol, is_v4, client, port, server, kind)| Step {
        protocol,
        is_v4,
        client,
        port,
        server,
        kind,
    });
    prop::collection::vec(step, 1..150)
}

impl Step {
    fn packet(&self) -> Plain {
        let (client, server) = if self.is_v4 {
            (
                format!("10.1.0.{}", 10 + self.client),
                format!("198.51.100.{}", self.server),
            )
        } else {
            (
                format!("fd00:1::{}", 10 + self.client),
                format!("2001:db8:ffff::{}", 1 + self.server),
            )
        };
        let port = 5000 + u16::from(self.port);
        let to = if self.protocol == ECHO { port } else { 80 };
        let mut packet = Plain::new(self.protocol, end(&client, port), end(&server, to));
        if self.protocol != SCTP {
            packet.data = vec![self.client, self.port, self.server];
        }
        packet
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn translation_is_a_bijection(steps in steps()) {
        // Sixteen ports for twelve clients' ends: they meet, and all fit.
        let mut plane = Plane::new(4096, masquerade(5000..=5015));
        // Protocol, client, server: source outside.
        let mut known: BTreeMap<(u8, End, End), End> = BTreeMap::new();
        for step in steps {
            let there = step.packet();
            let name = (there.protocol, there.source, there.target);
            match step.kind {
                Kind::Send => {
                    let sent = plane.pass(INSIDE, &there).expect("it goes on");
                    // An echo carries its identifier at both ends.
                    let server = if step.protocol == ECHO { (there.target.0, sent.source.1) } else { there.target };
                    prop_assert_eq!(&sent, &Plain { source: sent.source, target: server, ..there });
                    let public = PUBLIC[usize::from(!step.is_v4)];
                    prop_assert_eq!(sent.source.0, end(public, 0).0);
                    prop_assert!((5000..=5015).contains(&sent.source.1));
                    let before = *known.entry(name).or_insert(sent.source);
                    prop_assert_eq!(before, sent.source, "another source than before");
                    let others = known.iter().filter(|((protocol, _, server), source)| {
                        *protocol == name.0 && server.0 == name.2.0 && **source == sent.source
                    });
                    prop_assert_eq!(others.count(), 1, "a server would confuse them");
                }
                Kind::Answer => {
                    let Some(source) = known.get(&name) else { continue };
                    let server = if step.protocol == ECHO { (there.target.0, source.1) } else { there.target };
                    let outside = Plain { source: *source, target: server, ..there.clone() };
                    let got = plane.pass(OUTSIDE, &answer(&outside));
                    let wanted = answer(&there);
                    prop_assert_eq!(got.map(|got| (got.source, got.target)), Some((wanted.source, wanted.target)));
                }
                Kind::Intrude => {
                    let Some(source) = known.get(&name) else { continue };
                    let stranger = if step.is_v4 { "203.0.113.66" } else { "2001:db8:66::66" };
                    let mut packet = Plain { target: *source, ..answer(&there) };
                    packet.source.0 = end(stranger, 0).0;
                    prop_assert_eq!(plane.exchange(OUTSIDE, &[packet.frame(OUTSIDE)])[INSIDE].len(), 0);
                }
                Kind::Change => plane.tracking.generation.advance(),
            }
        }
        prop_assert_eq!(plane.dropped("admit/ports-exhausted"), 0);
    }
}
