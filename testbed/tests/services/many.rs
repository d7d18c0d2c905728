//! A hundred thousand streams at a time, while backends come and go.

use std::net::IpAddr;

use testbed::Plane;
use testbed::packets::{frame, ip, open, port_mac};

use super::{BACKENDS, CLIENT, NETWORK, address, service, slice, virtual_address};

const STREAMS: u32 = 100_000;
/// Frames that fit the cables and the plane's memory at a time.
const BURST: usize = 1000;

const SYN: u8 = 2;
const ACK: u8 = 16;

/// The other end of a stream: 250 clients, and the ports of each.
fn client(stream: u32) -> (IpAddr, u16) {
    let (client, port) = (1 + stream % 250, 1024 + stream / 250);
    (IpAddr::from([10, 1, 1, client as u8]), port as u16)
}

fn stream_of(end: (IpAddr, u16)) -> u32 {
    let IpAddr::V4(address) = end.0 else { unreachable!() };
    u32::from(end.1 - 1024) * 250 + u32::from(address.octets()[3]) - 1
}

/// A segment without payload. Nobody here looks at its checksum.
fn segment(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8, [sequence, acknowledged]: [u32; 2]) -> Vec<u8> {
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    let numbers = [sequence.to_be_bytes(), acknowledged.to_be_bytes()].concat();
    let bytes = [ports, numbers, vec![0x50, flags, 4, 0, 0, 0, 0, 0]].concat();
    ip(from.0, to.0, 6, 64, &bytes)
}

/// Where a segment of each stream goes, in order of the streams.
fn backends(plane: &mut Plane, streams: impl Iterator<Item = u32>, flags: u8, numbers: [u32; 2]) -> Vec<IpAddr> {
    let streams: Vec<u32> = streams.collect();
    let mut chosen = vec![];
    for burst in streams.chunks(BURST) {
        let frames: Vec<_> = burst
            .iter()
            .map(|stream| {
                let segment = segment(client(*stream), (virtual_address(), 80), flags, numbers);
                frame(port_mac(1), CLIENT, &segment)
            })
            .collect();
        let [right] = plane.exchange("left", &frames, ["right"]);
        let mut places: Vec<_> = right
            .iter()
            .filter(|frame| frame[12..14] != [8, 6])
            .map(|frame| {
                let sent = open(frame);
                let port = u16::from_be_bytes([sent.payload[0], sent.payload[1]]);
                (stream_of((sent.source, port)), sent.target)
            })
            .collect();
        places.sort_unstable();
        assert!(
            places.iter().map(|(stream, _)| stream).eq(burst),
            "every segment arrives, once: {:?}",
            plane.drops()
        );
        chosen.extend(places.into_iter().map(|(_, target)| target));
    }
    chosen
}

/// Has each stream's backend answer.
fn answer(plane: &mut Plane, chosen: &[IpAddr]) {
    let numbered: Vec<_> = (0..STREAMS).zip(chosen).collect();
    for burst in numbered.chunks(BURST) {
        let frames: Vec<_> = burst
            .iter()
            .map(|(stream, backend)| {
                let segment = segment((**backend, 8080), client(*stream), SYN | ACK, [1000, 2]);
                frame(port_mac(2), BACKENDS, &segment)
            })
            .collect();
        let [left] = plane.exchange("right", &frames, ["left"]);
        assert_eq!(left.len(), frames.len(), "{:?}", plane.drops());
        assert!(left.iter().all(|frame| open(frame).source == virtual_address()));
    }
}

#[test]
fn no_stream_breaks_while_backends_come_and_go_and_new_ones_follow_those_there_are() {
    let yaml = |backends: &[u8]| format!("{NETWORK}---\n{}---\n{}", service(""), slice(backends));
    let mut plane = Plane::with_flows(&yaml(&[1, 2, 3, 4]), 1 << 18).unwrap();
    let chosen = backends(&mut plane, 0..STREAMS, SYN, [1, 0]);
    answer(&mut plane, &chosen);
    assert_eq!(backends(&mut plane, 0..STREAMS, ACK, [2, 1001]), chosen);
    for (round, there) in [[1, 2, 3, 4, 5, 6].as_slice(), &[3, 4, 5, 6], &[6, 7]]
        .into_iter()
        .enumerate()
    {
        plane.apply(&slice(there)).unwrap();
        // A part of them with each change, and all of them after the last.
        let part = |stream: &u32| round == 2 || *stream % 3 == round as u32;
        let same: Vec<_> = (0..STREAMS).filter(part).collect();
        let expected: Vec<_> = same.iter().map(|stream| chosen[*stream as usize]).collect();
        assert_eq!(backends(&mut plane, same.into_iter(), ACK, [2, 1001]), expected);
        let from = STREAMS + 1000 * round as u32;
        let news = backends(&mut plane, from..from + 1000, SYN, [1, 0]);
        // As on every node that has the same backends.
        let mut other = Plane::new(&yaml(there)).unwrap();
        let there_too = backends(&mut other, from..from + 1000, SYN, [1, 0]);
        let moved = news.iter().zip(&there_too).filter(|(one, other)| one != other).count();
        assert!(moved <= 10, "{moved} of 1,000 are chosen otherwise");
        let last = |address: &IpAddr| matches!(address, IpAddr::V4(v4) if there.contains(&v4.octets()[3]));
        assert!(news.iter().all(last));
    }
    assert!(
        chosen.contains(&address("10.3.0.1")),
        "one that has long gone still has streams"
    );
    assert_eq!(plane.views().connections().evicted(), 0);
}
