//! Sessions come and go: packets wait for them, in bounds; control hears what it has to; both ends are followed.

use fastpath::held::PARKED_PER_PEER;
use testbed::packets::{frame, open};
use wireguard::peer::PeerId;

use super::World;
use super::gateway::{SECOND, Settings, inside, mac, outside};
use super::hostile::hear;
use super::paths::{hopped, message_at, packet, pass};

#[test]
fn packets_wait_for_the_session_and_come_in_order() {
    for inner in [true, false] {
        let mut world = World::pair(true);
        let sent: Vec<Vec<u8>> = (0..100).map(|n| packet(1, 2, inner, 60 + n)).collect();
        let received = pass(&mut world, 1, 2, &sent);
        let expected: Vec<Vec<u8>> = sent.into_iter().map(|packet| hopped(packet, 2)).collect();
        assert!(received == expected, "each has its hops once, {:?}", world.drops());
        assert_eq!(world.gateways[0].handled("wg-park"), 100);
    }
}

#[test]
fn only_so_many_wait_for_one_peer_and_in_all() {
    let most = usize::from(PARKED_PER_PEER);
    let mut world = World::of(1, Settings::default());
    for peer in 2..=10 {
        world.gateways[0].add(peer, Some(outside(2, true)), &[]);
    }
    for peer in 2..=10 {
        for n in 0..most + 3 {
            world.gateways[0].send(&packet(1, peer, true, 60 + n));
        }
        world.gateways[0].work(world.now);
    }
    let drops = world.gateways[0].drops();
    assert_eq!(drops.get("wg-park: peer-queue-full"), Some(&(7 * 3)), "{drops:?}");
    assert_eq!(
        drops.get("wg-park: sessions-waiting-room-full"),
        Some(&(most as u64 + 3 + 3)),
        "the room ends with the eighth peer"
    );
}

#[test]
fn a_peer_without_an_endpoint_is_unreachable_until_it_shows_up() {
    let mut world = World::pair(true);
    for inner in [true, false] {
        world.gateways[1].send(&packet(2, 1, inner, 100));
        world.settle();
        let told = open(&frame([0; 6], [0; 6], &world.gateways[1].received()[0]));
        assert_eq!(
            (told.icmp(), told.source),
            (if inner { (3, 1) } else { (1, 3) }, inside(2, inner))
        );
    }
    assert_eq!(world.gateways[1].drops().get("wg-peer: peer-unreachable"), Some(&2));
    assert_eq!(pass(&mut world, 1, 2, &[packet(1, 2, true, 100)]).len(), 1);
    assert_eq!(
        pass(&mut world, 2, 1, &[packet(2, 1, true, 100)]).len(),
        1,
        "{:?}",
        world.drops()
    );
}

#[test]
fn a_silent_peer_is_given_up_and_asked_again() {
    let mut world = World::of(1, Settings::default());
    world.gateways[0].add(2, Some(outside(2, true)), &[]);
    world.gateways[0].send(&packet(1, 2, true, 100));
    let mut asked = 0;
    for _ in 0..100 {
        world.gateways[0].turn(world.now);
        world.gateways[0].turn(world.now);
        asked += world.frames().len();
        world.now += SECOND;
    }
    assert!((15..=20).contains(&asked), "{asked} initiations in 90 seconds");
    let told = open(&frame([0; 6], [0; 6], &world.gateways[0].received()[0]));
    assert_eq!(told.icmp(), (3, 1), "the packet that waited");
    // The next packet is told at once, and asks again.
    world.gateways[0].send(&packet(1, 2, true, 100));
    for _ in 0..3 {
        world.gateways[0].turn(world.now);
    }
    assert_eq!((world.gateways[0].received().len(), world.frames().len()), (1, 1));
}

#[test]
fn sessions_are_renewed_under_traffic() {
    let mut world = World::established(true, Settings::default());
    for n in 0..400 {
        world.now += SECOND;
        let (from, to) = if n % 2 == 0 { (1, 2) } else { (2, 1) };
        let sent = packet(from, to, n % 3 == 0, 100 + n);
        assert_eq!(
            pass(&mut world, from, to, std::slice::from_ref(&sent)),
            [hopped(sent, 2)],
            "second {n}"
        );
    }
    let initiations = world.wire.iter().filter(|frame| frame[message_at(frame)] == 1).count();
    assert!((3..=4).contains(&initiations), "every two minutes: {initiations}");
}

#[test]
fn keepalives_end_here_and_count() {
    let mut world = World::pair(true);
    // The first packet under a session is one, when there is nothing to send.
    world.gateways[0]
        .tunnel
        .set_persistent_keepalive(PeerId(0), 25, super::gateway::at(world.now));
    world.gateways[0].control(world.now);
    world.settle();
    assert_eq!(
        (
            world.gateways[1].handled("wg-decrypt"),
            world.gateways[1].handled("consumed")
        ),
        (2, 2)
    );
    assert_eq!(world.gateways[1].handled("parse/inner"), 0);
    assert!(world.gateways[1].drops().is_empty());
    let status = world.gateways[1].tunnel.status(PeerId(0)).unwrap();
    assert_eq!(
        (status.received_packets, status.received_bytes),
        (2, 148 + 32),
        "the initiation, and the keepalive"
    );
    assert_eq!(
        pass(&mut world, 2, 1, &[packet(2, 1, true, 100)]).len(),
        1,
        "confirmed by it"
    );
}

#[test]
fn traffic_is_counted_for_each_peer() {
    let mut world = World::established(true, Settings::default());
    let before = [0, 1].map(|at| world.gateways[at].tunnel.status(PeerId(0)).unwrap());
    let sent: Vec<Vec<u8>> = (100..150).map(|length| packet(1, 2, true, length)).collect();
    pass(&mut world, 1, 2, &sent);
    let after = [0, 1].map(|at| world.gateways[at].tunnel.status(PeerId(0)).unwrap());
    let bytes: usize = (100..150usize).map(|length| length.next_multiple_of(16) + 32).sum();
    let ours = (
        after[0].sent_packets - before[0].sent_packets,
        after[0].sent_bytes - before[0].sent_bytes,
    );
    let theirs = (
        after[1].received_packets - before[1].received_packets,
        after[1].received_bytes - before[1].received_bytes,
    );
    assert_eq!((ours, theirs), ((50, bytes as u64), (50, bytes as u64)));
}

#[test]
fn answers_follow_both_ends() {
    let mut world = World::established(true, Settings::default());
    let seal = |world: &World, length: usize| {
        let mut lookup = wireguard::session::Lookup::new(&world.gateways[0].tunnel.tables());
        let session = lookup.peer(PeerId(0)).unwrap().session().cloned().unwrap();
        wireguard::session::single::seal(&session, &packet(1, 2, true, length), world.now)
            .unwrap()
            .0
    };
    // The peer moved: its packet comes from the address of gateway 3, and from another port.
    let message = seal(&world, 100);
    let moved = testbed::packets::udp(
        (outside(3, true), 7777),
        (outside(2, true), super::gateway::PORT),
        64,
        &message,
    );
    world.gateways[1].hear(&frame(mac(2, 1), mac(3, 1), &moved));
    // Control hears nothing of it, and need not.
    world.gateways[1].work(world.now);
    world.gateways[1].send(&packet(2, 1, true, 100));
    world.gateways[1].work(world.now);
    let answer = &world.frames()[0];
    assert_eq!((&answer[..6], &answer[30..34]), (&mac(3, 1)[..], &[192, 0, 2, 3][..]));
    assert_eq!(
        (&answer[26..30], &answer[34..38]),
        (&[192, 0, 2, 2][..], &[0xca, 0x6c, 0x1e, 0x61][..])
    );
    // It reaches us at another address of ours, that of IPv6, and is answered from there.
    let message = seal(&world, 101);
    let other = testbed::packets::udp((outside(1, false), 51820), (outside(2, false), 51820), 64, &message);
    world.gateways[1].hear(&frame(mac(2, 1), mac(1, 1), &other));
    world.gateways[1].work(world.now);
    world.gateways[1].send(&packet(2, 1, true, 102));
    world.gateways[1].work(world.now);
    let answer = open(&world.frames()[0]);
    assert_eq!((answer.source, answer.target), (outside(2, false), outside(1, false)));
    assert_eq!(world.gateways[1].received().len(), 2);
}

#[test]
fn what_does_not_open_moves_nobody() {
    let mut world = World::established(true, Settings::default());
    let forged = [&[4, 0, 0, 0][..], &[0; 60]].concat();
    hear(&world, 2, 3, &forged);
    world.settle();
    assert_eq!(pass(&mut world, 2, 1, &[packet(2, 1, true, 100)]).len(), 1);
}

#[test]
fn the_session_ends_with_its_peer() {
    let mut world = World::established(true, Settings::default());
    let now = super::gateway::at(world.now);
    world.gateways[0].tunnel.remove(PeerId(0), now);
    world.gateways[0].send(&packet(1, 2, true, 100));
    world.settle();
    assert_eq!(world.gateways[0].drops().get("wg-peer: no-peer"), Some(&1));
    assert_eq!(world.wire.len(), 0);
}
