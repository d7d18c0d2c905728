//! What an attacker on the wire, or a peer that lies, may try: nothing of it gets through, and each is counted.

use testbed::packets::{frame, udp};
use wireguard::mailbox::LETTERS;
use wireguard::peer::PeerId;
use wireguard::session::{Lookup, single};

use super::World;
use super::gateway::{PORT, SECOND, Settings, host, mac, outside};
use super::paths::{hopped, message_at, packet, pass};

/// Has a gateway hear a message that seems to come from another one, over IPv4.
pub fn hear(world: &World, number: u8, from: u8, message: &[u8]) {
    let datagram = udp((outside(from, true), PORT), (outside(number, true), PORT), 64, message);
    world.gateways[usize::from(number) - 1].hear(&frame(mac(number, 1), mac(from, 1), &datagram));
}

/// A message of gateway 1 to gateway 2 with this inside.
fn sealed(world: &World, text: &[u8]) -> Vec<u8> {
    let mut lookup = Lookup::new(&world.gateways[0].tunnel.tables());
    let session = lookup.peer(PeerId(0)).unwrap().session().cloned().unwrap();
    single::seal(&session, text, world.now).unwrap().0
}

/// What gateway 2 has dropped since, by name, after everything came to rest.
fn drops(world: &mut World) -> Vec<(String, u64)> {
    world.settle();
    world.gateways[1].drops().into_iter().collect()
}

fn named(name: &str, count: u64) -> Vec<(String, u64)> {
    vec![(format!("wg-decrypt: {name}"), count)]
}

#[test]
fn a_replayed_packet_passes_once() {
    let mut world = World::established(true, Settings::default());
    let sent: Vec<Vec<u8>> = (100..140).map(|length| packet(1, 2, true, length)).collect();
    assert_eq!(pass(&mut world, 1, 2, &sent).len(), 40);
    let recorded = world.wire.clone();
    // Twice in one vector, and again in a later one; the last in another order.
    for frames in [recorded.clone(), recorded.iter().rev().cloned().collect()] {
        frames
            .iter()
            .chain(&frames)
            .for_each(|frame| world.gateways[1].hear(frame));
        world.settle();
    }
    assert_eq!(world.gateways[1].received().len(), 0);
    assert_eq!(drops(&mut world), named("replayed", 160));
}

#[test]
fn a_new_packet_that_comes_twice_in_one_vector_passes_once() {
    let mut world = World::established(true, Settings::default());
    let message = sealed(&world, &packet(1, 2, true, 100));
    for _ in 0..200 {
        hear(&world, 2, 1, &message);
    }
    assert_eq!(drops(&mut world), named("replayed", 199));
    assert_eq!(world.gateways[1].received().len(), 1);
}

#[test]
fn packets_in_any_order_pass() {
    let mut world = World::established(true, Settings::default());
    let sent: Vec<Vec<u8>> = (100..300).map(|length| packet(1, 2, true, length)).collect();
    sent.iter().for_each(|packet| world.gateways[0].send(packet));
    world.gateways[0].turn(world.now);
    let frames = world.frames();
    frames.iter().rev().for_each(|frame| world.gateways[1].hear(frame));
    world.settle();
    let expected: Vec<Vec<u8>> = sent.into_iter().rev().map(|packet| hopped(packet, 2)).collect();
    assert!(world.gateways[1].received() == expected);
}

#[test]
fn a_flipped_bit_anywhere_is_not_let_in() {
    for outer in [true, false] {
        let mut world = World::established(outer, Settings::default());
        world.gateways[0].send(&packet(1, 2, true, 44));
        world.gateways[0].turn(world.now);
        let [whole] = world.frames().try_into().unwrap();
        let message = message_at(&whole);
        for bit in message * 8..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            world.gateways[1].hear(&flipped);
            if bit % 200 == 0 {
                world.settle();
            }
        }
        let drops: u64 = drops(&mut world).iter().map(|(_, count)| count).sum();
        // The type (four bytes) and the index lead elsewhere, the rest is not authentic; handshakes are the wrong length.
        assert_eq!(
            (drops, world.gateways[1].received().len()),
            ((whole.len() - message) as u64 * 8, 0)
        );
        world.gateways[1].hear(&whole);
        world.settle();
        assert_eq!(world.gateways[1].received().len(), 1, "the real one still passes");
    }
}

#[test]
fn a_message_cut_anywhere_is_not_let_in() {
    let mut world = World::established(true, Settings::default());
    let message = sealed(&world, &packet(1, 2, true, 100));
    for length in 0..message.len() {
        hear(&world, 2, 1, &message[..length]);
    }
    let found = drops(&mut world);
    let expected = [named("not-authentic", 112), named("not-wireguard", 32)].concat();
    assert_eq!((found, world.gateways[1].received().len()), (expected, 0));
}

#[test]
fn lengths_that_lie_are_dropped() {
    let mut world = World::established(true, Settings::default());
    let whole = udp(
        (outside(1, true), PORT),
        (outside(2, true), PORT),
        64,
        &sealed(&world, &packet(1, 2, true, 100)),
    );
    for length in [0u16, 7, 8, 39, 0xffff] {
        let mut lying = whole.clone();
        lying[24..26].copy_from_slice(&length.to_be_bytes());
        world.gateways[1].hear(&frame(mac(2, 1), mac(1, 1), &lying));
    }
    assert_eq!(drops(&mut world), named("not-wireguard", 5));
}

#[test]
fn a_peer_may_not_use_the_addresses_of_others() {
    for inner in [true, false] {
        let mut world = World::established(true, Settings::default());
        let stolen = testbed::packets::udp((host(3, inner), 1), (host(2, inner), 2), 64, b"not mine");
        world.gateways[0].send(&stolen);
        assert_eq!(drops(&mut world), named("foreign-source", 1));
        // An address of the same tunnel that is another peer's is as foreign as one of nobody.
        let third = world.gateways[1].add(3, None, &[]);
        assert_eq!(third, PeerId(1));
        world.gateways[0].send(&stolen);
        assert_eq!(drops(&mut world), named("foreign-source", 2));
        assert_eq!(world.gateways[1].received().len(), 0);
    }
}

#[test]
fn what_is_inside_has_to_be_an_ip_packet() {
    let mut world = World::established(true, Settings::default());
    let (v4, v6) = (packet(1, 2, true, 100), packet(1, 2, false, 100));
    let with = |packet: &[u8], at: usize, bytes: &[u8]| {
        let mut changed = packet.to_vec();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let bad = [
        vec![0; 64],
        vec![0xff; 64],
        v4[..19].to_vec(),
        v6[..39].to_vec(),
        with(&v4, 2, &[0, 19]),
        // 100 bytes are padded to 112: only what is longer than that is known to lie.
        with(&v4, 2, &[0, 113]),
        with(&v6, 4, &[0, 73]),
        with(&v6, 4, &[0xff, 0xff]),
        vec![0x45],
        vec![0x60],
    ];
    bad.iter().for_each(|text| hear(&world, 2, 1, &sealed(&world, text)));
    world.settle();
    assert_eq!(drops(&mut world), named("inner-not-ip", bad.len() as u64));
    assert_eq!(world.gateways[1].received().len(), 0);
}

#[test]
fn unknown_and_ended_sessions_are_told_apart() {
    let mut world = World::established(true, Settings::default());
    let message = sealed(&world, &packet(1, 2, true, 100));
    let mut other = message.clone();
    other[4..8].copy_from_slice(&0xdead_beef_u32.to_le_bytes());
    hear(&world, 2, 1, &other);
    assert_eq!(drops(&mut world), named("no-such-session", 1));
    world.now += 181 * SECOND;
    hear(&world, 2, 1, &message);
    world.gateways[1].work(world.now);
    let drops = world.gateways[1].drops();
    assert_eq!(drops.get("wg-decrypt: session-expired"), Some(&1), "{drops:?}");
}

#[test]
fn a_flood_of_handshakes_is_bounded_and_does_not_stop_packets() {
    let mut world = World::established(true, Settings::default());
    let mut initiation = [0x5a; 148];
    initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
    for n in 0..LETTERS as u32 + 1000 {
        initiation[4..8].copy_from_slice(&n.to_le_bytes());
        hear(&world, 2, 1, &initiation);
        if n % 200 == 199 {
            world.gateways[1].work(world.now);
        }
    }
    // Control has not looked yet; packets pass all the same.
    hear(&world, 2, 1, &sealed(&world, &packet(1, 2, true, 100)));
    for _ in 0..8 {
        world.gateways[1].work(world.now);
    }
    assert_eq!(world.gateways[1].mailbox.backlog(), LETTERS);
    assert_eq!(world.gateways[1].received().len(), 1);
    assert_eq!(drops(&mut world), named("handshakes-full", 1000));
    assert_eq!(world.gateways[1].mailbox.backlog(), 0);
}

#[test]
fn anything_at_all_may_come_to_the_port() {
    let mut world = World::established(true, Settings::default());
    let mut random = super::gateway::Seeded(1);
    for n in 0..3000 {
        let length = random.next() as usize % 300;
        let mut message: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        if let Some(kind) = message.first_chunk_mut() {
            *kind = [(n % 6) as u8, 0, 0, 0];
        }
        hear(&world, 2, 1, &message);
        if n % 200 == 0 {
            world.settle();
        }
    }
    world.settle();
    assert_eq!(world.gateways[1].received().len(), 0);
    assert_eq!(pass(&mut world, 1, 2, &[packet(1, 2, true, 100)]).len(), 1);
}
