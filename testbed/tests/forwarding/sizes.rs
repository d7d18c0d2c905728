//! MTU: packets that are too large are cut where they allow it, and refused in words where they do not.

use testbed::Plane;
use testbed::packets::*;

use crate::*;

/// The right port takes packets of at most this many bytes.
fn narrow(mtu: u16) -> Plane {
    let left = port("left", "10.1.0.1/24, \"fd00:1::1/64\"", "");
    let right = port("right", "10.2.0.1/24, \"fd00:2::1/64\"", &format!(", mtu: {mtu}"));
    Plane::new(&(left + &right + &hosts())).unwrap()
}

/// An IPv4 packet of this many bytes in all, which may be cut.
fn large(length: usize) -> Vec<u8> {
    let (left, right) = pairs()[0];
    let payload: Vec<u8> = (0..length - 28).map(|place| (place % 251) as u8).collect();
    udp((left, 1000), (right, 2000), 64, &payload)
}

/// Puts pieces together: the payload, and whether the last one says that more follow. Each piece starts where the one
/// before ended.
fn reassemble(pieces: &[Received], from: usize) -> (Vec<u8>, bool) {
    let (mut payload, mut more) = (vec![], true);
    for piece in pieces {
        assert!(more, "a piece follows the last");
        let fragment = u16::from_be_bytes([piece.packet[6], piece.packet[7]]);
        assert_eq!(usize::from(fragment & 0x1fff) * 8, from + payload.len());
        assert_eq!(fragment & 0x4000, 0);
        more = fragment & 0x2000 != 0;
        assert!(!more || piece.payload.len().is_multiple_of(8));
        payload.extend(&piece.payload);
    }
    (payload, more)
}

#[test]
fn a_large_packet_is_cut_into_pieces_that_fit() {
    for mtu in [1400, 1280, 576, 100, 68] {
        let mut plane = narrow(mtu);
        let original = large(1500);
        let pieces = across(&mut plane, &original);
        assert!(pieces.len() > 1);
        for piece in &pieces {
            assert!(piece.packet.len() <= usize::from(mtu));
            assert_eq!((piece.hop_limit, piece.to, piece.protocol), (63, RIGHT, 17));
            assert_eq!(piece.packet[4..6], original[4..6], "the identification");
            assert_eq!(piece.packet[12..20], original[12..20], "the addresses");
        }
        assert_eq!(reassemble(&pieces, 0), (original[20..].to_vec(), false));
    }
}

#[test]
fn what_fits_exactly_is_not_cut() {
    let mut plane = narrow(1400);
    assert_eq!(across(&mut plane, &large(1400)).len(), 1);
    assert_eq!(across(&mut plane, &large(1401)).len(), 2);
    let (left, right) = pairs()[1];
    assert_eq!(
        across(&mut plane, &udp((left, 1), (right, 2), 64, &[0; 1400 - 48])).len(),
        1
    );
    assert!(across(&mut plane, &udp((left, 1), (right, 2), 64, &[0; 1401 - 48])).is_empty());
}

#[test]
fn a_piece_of_a_packet_is_cut_again() {
    let mut plane = narrow(600);
    for (flags, last) in [(0x2000, true), (0, false)] {
        let payload: Vec<u8> = (0..1200).map(|place| (place % 253) as u8).collect();
        let (left, right) = pairs()[0];
        let middle = with_fragment(ip(left, right, 17, 64, &payload), flags, 2400);
        let pieces = across(&mut plane, &middle);
        assert_eq!(pieces.len(), 3);
        assert_eq!(reassemble(&pieces, 2400), (payload, last));
    }
}

#[test]
fn options_that_are_to_be_copied_stand_in_every_piece_and_others_in_the_first() {
    let mut plane = narrow(600);
    // Router alert (148) is copied, record route (7) is not (RFC 791 section 3.1).
    let options = [148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0];
    let original = with_options(&large(1480), &options);
    let pieces = across(&mut plane, &original);
    assert_eq!(reassemble(&pieces, 0), (original[32..].to_vec(), false));
    assert_eq!(pieces[0].packet[20..32], options);
    for piece in &pieces[1..] {
        let header = usize::from(piece.packet[0] & 15) * 4;
        assert_eq!(piece.packet[20..24], options[..4]);
        assert!(
            piece.packet[24..header].iter().all(|byte| *byte <= 1),
            "record route was copied"
        );
    }
}

#[test]
fn what_must_not_be_cut_is_refused_with_the_mtu() {
    let mut plane = narrow(1280);
    let (left, right) = pairs()[0];
    let packet = with_fragment(large(1500), 0x4000, 0);
    let told = answer(&mut plane, &packet);
    assert_eq!((told.icmp(), told.word()), ((3, 4), 1280));
    assert_eq!((told.source, told.target), (own(left).0, left));
    assert!(packet.starts_with(told.quote()) && told.quote().len() >= 28);
    let (left, right_v6) = (pairs()[1].0, pairs()[1].1);
    let packet = udp((left, 1), (right_v6, 2), 64, &[1; 1400]);
    let told = answer(&mut plane, &packet);
    assert_eq!((told.icmp(), told.word()), ((2, 0), 1280));
    assert!(packet.starts_with(told.quote()));
    assert_eq!(plane.dropped("adjacency/too-big"), 2);
    assert!(plane.take("right").is_empty());
    assert!(right.is_ipv4());
}

#[test]
fn an_ipv6_fragment_is_not_cut_again() {
    let mut plane = narrow(1280);
    let (left, right) = pairs()[1];
    let piece = ip(
        left,
        right,
        44,
        64,
        &[&[17, 0, 0, 1, 0, 0, 0, 9], [0; 1400].as_slice()].concat(),
    );
    assert_eq!(answer(&mut plane, &piece).icmp(), (2, 0));
}

#[test]
fn the_pieces_of_many_packets_wait_within_a_bound_and_leave_in_order() {
    let mut plane = narrow(68);
    let original = large(1500);
    let many = vec![frame(LEFT_PORT, LEFT, &original); 256];
    let [pieces] = plane.exchange("left", &many, ["right"]);
    // 1,480 bytes in steps of 48 are 31 pieces; at most 1,024 wait, 33 packets' worth.
    assert_eq!(pieces.len(), 33 * 31);
    assert_eq!(plane.dropped("fragment/fragment-full"), 256 - 33);
    for packet in open_all(&pieces).chunks(31) {
        assert_eq!(reassemble(packet, 0), (original[20..].to_vec(), false));
    }
}

#[test]
fn pieces_wait_for_a_neighbour_like_any_packet() {
    let left = port("left", "10.1.0.1/24", "");
    let right = port("right", "10.2.0.1/24", ", mtu: 600");
    let mut plane = Plane::new(&(left + &right)).unwrap();
    let original = large(1500);
    plane.exchange("left", &[frame(LEFT_PORT, LEFT, &original)], ["right"]);
    let told = arp(
        RIGHT_PORT,
        2,
        (RIGHT, [10, 2, 0, 2].into()),
        (RIGHT_PORT, [10, 2, 0, 1].into()),
    );
    let [pieces] = plane.exchange("right", &[told], ["right"]);
    assert_eq!(reassemble(&open_all(&pieces), 0), (original[20..].to_vec(), false));
}

#[test]
fn a_packet_to_the_narrow_side_is_answered_within_its_mtu() {
    // An echo request larger than the way back: the answer of IPv4 is cut, that of IPv6 is dropped by name.
    let mut plane = narrow(1280);
    let (_, right) = pairs()[0];
    let request = frame(RIGHT_PORT, RIGHT, &echo(right, own(right).1, 1, &[9; 1400]));
    let [came] = plane.exchange("right", &[request], ["right"]);
    let came = open_all(&came);
    assert_eq!(reassemble(&came, 0).0.len(), 1408);
    let (_, right) = pairs()[1];
    let request = frame(RIGHT_PORT, RIGHT, &echo(right, own(right).1, 1, &[9; 1400]));
    assert_eq!(plane.exchange("right", &[request], ["right"]), [Vec::<Vec<u8>>::new()]);
    assert_eq!(plane.dropped("adjacency/own/own-too-big"), 1);
}
