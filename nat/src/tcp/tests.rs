use super::*;
use proptest::prelude::*;

const CLIENT: u32 = 0xffff_ff00;
const SERVER: u32 = 5000;

/// Both sides, followed as two legs are.
#[derive(Clone, Copy, Debug)]
struct Path([Mark; 2]);

fn segment(flags: u8, sequence: u32, acknowledgment: u32, length: u16) -> Segment {
    Segment {
        sequence,
        acknowledgment,
        window: 8000,
        flags,
        length,
        scale: None,
    }
}

impl Path {
    fn opened() -> Self {
        Self([opens(&segment(flag::SYN, CLIENT, 0, 0)).unwrap(), Mark::default()])
    }

    fn established() -> Self {
        let mut path = Self::opened();
        path.see(1, segment(flag::SYN | flag::ACK, SERVER, CLIENT.wrapping_add(1), 0));
        assert_eq!(path.phase(), Phase::Opening);
        path.see(0, segment(flag::ACK, CLIENT.wrapping_add(1), SERVER + 1, 0));
        assert_eq!(path.phase(), Phase::Established);
        path
    }

    fn see(&mut self, side: usize, segment: Segment) -> Outcome {
        let outcome = follow(self.0[side], || self.0[1 - side], &segment);
        if let Outcome::Becomes(mark) = outcome {
            self.0[side] = mark;
        }
        outcome
    }

    fn phase(&self) -> Phase {
        phase(self.0[0], self.0[1])
    }
}

#[test]
fn one_side_alone_is_enough() {
    let path = || Path([Path::opened().0[0], UNHEARD]);
    let (client, server) = (CLIENT.wrapping_add(1), SERVER + 1);
    let mut one = path();
    assert_eq!(one.phase(), Phase::Opening);
    // Another attempt of the client, from another number, is the one that counts.
    one.see(0, segment(flag::SYN, 77_000, 0, 0));
    assert_eq!((one.phase(), one.0[0].number), (Phase::Opening, 77_001));
    one = path();
    one.see(0, segment(flag::ACK, client, server, 10));
    assert_eq!(one.phase(), Phase::Established);
    assert!(is_confirmed(one.0[0], one.0[1]));
    let client = client.wrapping_add(10);
    // Neither a reset from far away nor a handshake begun anew is believed; data that jumps ahead is.
    one.see(0, segment(flag::RST, client.wrapping_add(NEAR + 1), 0, 0));
    one.see(0, segment(flag::SYN, 77_000, 0, 0));
    assert_eq!((one.phase(), one.0[0].number), (Phase::Established, client));
    one.see(0, segment(flag::ACK, client.wrapping_add(3 * NEAR), server, 1000));
    let client = client.wrapping_add(3 * NEAR + 1000);
    assert_eq!(one.0[0].number, client);
    let mut reset = one;
    reset.see(0, segment(flag::RST, client, 0, 0));
    assert_eq!(reset.phase(), Phase::Reset);
    one.see(0, segment(flag::FIN | flag::ACK, client, server, 0));
    assert_eq!(one.phase(), Phase::Closing);
    let again = one.see(0, segment(flag::SYN, 99, 0, 0));
    assert_eq!(again, Outcome::Reopens);
}

#[test]
fn a_connection_lives_and_ends() {
    let mut path = Path::established();
    let (client, server) = (CLIENT.wrapping_add(1), SERVER + 1);
    // Over the wrap of sequence numbers.
    path.see(0, segment(flag::ACK, client, server, 1000));
    let client = client.wrapping_add(1000);
    assert_eq!(path.0[0].number, client);
    assert_eq!(
        path.see(0, segment(flag::ACK, client.wrapping_sub(500), server, 500)),
        Outcome::Same
    );
    path.see(0, segment(flag::ACK | flag::FIN, client, server, 0));
    assert_eq!(path.phase(), Phase::Established, "the server may go on");
    path.see(1, segment(flag::ACK, server, client.wrapping_add(1), 1400));
    path.see(
        1,
        segment(flag::ACK | flag::FIN, server + 1400, client.wrapping_add(1), 0),
    );
    assert_eq!(path.phase(), Phase::Closing);
    assert!(is_confirmed(path.0[0], path.0[1]));
    assert_eq!(path.see(0, segment(flag::SYN, 77, 0, 0)), Outcome::Reopens);
}

#[test]
fn only_a_syn_alone_opens() {
    for flags in 0..64 {
        let expected = flags & (flag::SYN | flag::ACK | flag::FIN | flag::RST) == flag::SYN;
        assert_eq!(opens(&segment(flags, 1, 2, 3)).is_some(), expected, "{flags:#x}");
    }
}

#[test]
fn an_answer_has_to_acknowledge_the_syn() {
    let mut path = Path::opened();
    let wrong = [CLIENT, CLIENT.wrapping_add(2), SERVER].map(|ack| segment(flag::SYN | flag::ACK, SERVER, ack, 0));
    // One before is what fast open allows for.
    for answer in &wrong[1..] {
        assert_eq!(path.see(1, *answer), Outcome::Same);
    }
    for flags in [flag::ACK, flag::ACK | flag::FIN, flag::RST, flag::RST | flag::ACK] {
        assert_eq!(
            path.see(1, segment(flags, SERVER, SERVER, 0)),
            Outcome::Same,
            "mid-stream or made up"
        );
    }
    assert_eq!(path.phase(), Phase::Opening);
    path.see(1, segment(flag::RST | flag::ACK, 0, CLIENT.wrapping_add(1), 0));
    assert_eq!(path.phase(), Phase::Reset, "refused");
}

#[test]
fn both_may_open_at_the_same_time() {
    let mut path = Path::opened();
    path.see(1, segment(flag::SYN, SERVER, 0, 0));
    assert_eq!(path.phase(), Phase::Opening);
    path.see(0, segment(flag::SYN | flag::ACK, CLIENT, SERVER + 1, 0));
    path.see(1, segment(flag::SYN | flag::ACK, SERVER, CLIENT.wrapping_add(1), 0));
    assert_eq!(path.phase(), Phase::Established);
}

#[test]
fn a_host_that_forgot_may_begin_anew() {
    let mut path = Path::opened();
    path.see(0, segment(flag::SYN, 4242, 0, 0));
    path.see(1, segment(flag::SYN | flag::ACK, SERVER, 4243, 0));
    path.see(0, segment(flag::ACK, 4243, SERVER + 1, 0));
    assert_eq!(path.phase(), Phase::Established);
    assert_eq!(
        path.see(0, segment(flag::SYN, 1, 0, 0)),
        Outcome::Same,
        "the server will ask it"
    );
}

#[test]
fn who_goes_on_sending_was_not_reset() {
    let mut path = Path::established();
    path.see(0, segment(flag::RST, CLIENT.wrapping_add(1), 0, 0));
    assert_eq!(path.phase(), Phase::Reset);
    path.see(0, segment(flag::ACK, CLIENT.wrapping_add(1), SERVER + 1, 100));
    assert_eq!(path.phase(), Phase::Established);
}

#[test]
fn windows_are_scaled_only_if_both_sides_say_so() {
    for (scale, reach) in [(None, 13), (Some(7), 20)] {
        let mut path = Path([
            opens(&Segment {
                scale: Some(7),
                ..segment(flag::SYN, CLIENT, 0, 0)
            })
            .unwrap(),
            Mark::default(),
        ]);
        path.see(
            1,
            Segment {
                scale,
                ..segment(flag::SYN | flag::ACK, SERVER, CLIENT.wrapping_add(1), 0)
            },
        );
        path.see(0, segment(flag::ACK, CLIENT.wrapping_add(1), SERVER + 1, 0));
        path.see(0, segment(flag::ACK, CLIENT.wrapping_add(1), SERVER + 1, 10));
        assert_eq!(
            path.0[0].bits >> REACH_SHIFT & 31,
            reach,
            "8,000 bytes, times 128 or not"
        );
    }
}

#[test]
fn headers_are_read_and_nonsense_is_not() {
    let mut bytes = vec![0; 20];
    bytes[3] = 80;
    bytes[4..8].copy_from_slice(&7u32.to_be_bytes());
    bytes[13] = flag::SYN;
    for (options, scale) in [
        (&[][..], None),
        (&[2, 4, 5, 180, 1, 3, 3, 9], Some(9)),
        (&[3, 3, 200, 0], Some(SCALE_MAX)),
        (&[0, 3, 3, 9], None),
        (&[2, 0, 3, 3], None),
        (&[2, 1, 3, 3], None),
        (&[1, 1, 1, 3], None),
        (&[2, 200, 3, 3], None),
    ] {
        let mut packet = bytes.clone();
        packet[12] = ((20 + options.len()) / 4) as u8 * 16;
        packet.extend_from_slice(options);
        packet.extend_from_slice(&[9; 5]);
        let read = Segment::read(&packet).unwrap();
        assert_eq!((read.sequence, read.length, read.scale), (7, 5, scale), "{options:?}");
    }
    for (length, offset) in [(19, 5), (20, 4), (20, 6), (20, 15), (0, 5)] {
        let mut packet = vec![0; length];
        if let Some(byte) = packet.get_mut(12) {
            *byte = offset << 4;
        }
        assert_eq!(Segment::read(&packet), None, "{length} bytes, offset {offset}");
    }
}

proptest! {
    /// Nobody who does not see the packets can close a connection or move it: of random guesses a window in 2^32 hits.
    #[test]
    fn what_is_out_of_window_does_nothing(
        flags in 0u8..64, sequence: u32, acknowledgment: u32, length in 0u16..1461, side in 0usize..2,
    ) {
        let before = Path::established();
        let made_up = segment(flags, sequence, acknowledgment, length);
        let from = sequence.wrapping_sub(before.0[side].number).cast_signed();
        prop_assume!(!(-0x1_0000..=0x1_0000).contains(&i64::from(from)));
        let mut path = before;
        prop_assert_eq!(path.see(side, made_up), Outcome::Same);
        prop_assert_eq!(path.phase(), Phase::Established);
    }

    /// Against the sequence numbers themselves, in 64 bits: the end that is kept is the end of what was sent.
    #[test]
    fn the_end_follows_the_stream(
        first: u32,
        steps in prop::collection::vec((0u16..1461, 0u32..4, any::<bool>()), 1..200),
    ) {
        let mut path = Path([opens(&segment(flag::SYN, first, 0, 0)).unwrap(), Mark::default()]);
        path.see(1, segment(flag::SYN | flag::ACK, SERVER, first.wrapping_add(1), 0));
        path.see(0, segment(flag::ACK, first.wrapping_add(1), SERVER + 1, 0));
        let (mut end, at) = (1u64, |offset: u64| first.wrapping_add(offset as u32));
        for (length, gap, repeat) in steps {
            // Lost before it came here, sent again, or in order.
            let from = if repeat { end.saturating_sub(u64::from(length)).max(1) } else { end + u64::from(gap * 1000) };
            path.see(0, segment(flag::ACK, at(from), SERVER + 1, length));
            end = end.max(from + u64::from(length));
            prop_assert_eq!(path.0[0].number, at(end));
        }
        path.see(0, segment(flag::RST, at(end), 0, 0));
        prop_assert_eq!(path.phase(), Phase::Reset);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Some(segment) = Segment::read(&bytes) {
            let mut path = Path::established();
            path.see(0, segment);
            path.see(1, segment);
        }
    }
}
