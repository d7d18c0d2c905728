//! What does not fit or has no way: its sender is told, and why is counted.

use testbed::packets::{Received, frame, open, with_fragment};

use super::World;
use super::gateway::{LINK_MTU, MTU, Settings, TUNNEL, host, inside, outside};
use super::paths::{hopped, packet, pass};

/// The one packet that came to the host behind a gateway.
fn answer(world: &World, number: u8) -> Received {
    let received = world.gateways[usize::from(number) - 1].received();
    assert_eq!(received.len(), 1, "{:?}", world.drops());
    open(&frame([0; 6], [0; 6], &received[0]))
}

fn count(world: &World, number: u8, reason: &str) -> u64 {
    let drops = world.gateways[usize::from(number) - 1].drops();
    drops.get(reason).copied().unwrap_or_default()
}

#[test]
fn too_big_packets_are_told_the_mtu_of_the_tunnel() {
    for inner in [true, false] {
        let mut world = World::established(true, Settings::default());
        let mut sent = packet(1, 2, inner, usize::from(MTU) + 1);
        if inner {
            sent = with_fragment(sent, 0x4000, 0);
        }
        world.gateways[0].send(&sent);
        world.settle();
        let told = answer(&world, 1);
        assert_eq!(told.icmp(), if inner { (3, 4) } else { (2, 0) });
        assert_eq!((told.word(), told.source), (u32::from(MTU), inside(1, inner)));
        assert_eq!((count(&world, 1, "wg-peer: too-big"), world.wire.len()), (1, 0));
    }
}

#[test]
fn packets_that_may_be_cut_are_cut_to_the_mtu_of_the_tunnel() {
    let mut world = World::established(true, Settings::default());
    let sent = packet(1, 2, true, 1500);
    let received = pass(&mut world, 1, 2, std::slice::from_ref(&sent));
    assert_eq!(received.iter().map(Vec::len).collect::<Vec<_>>(), [20 + 1400, 20 + 80]);
    let whole: Vec<u8> = received.iter().flat_map(|piece| piece[20..].to_vec()).collect();
    assert_eq!(whole, sent[20..]);
    assert_eq!((received[0][6], received[1][6..8].to_vec()), (0x20, vec![0, 175]));
}

/// A tunnel whose MTU leaves no room for what comes around its packets.
#[test]
fn what_is_too_large_outside_is_cut_over_ipv4_alone_and_not_put_together() {
    for outer in [true, false] {
        let around = if outer { 60 } else { 80 };
        let settings = Settings {
            mtu: LINK_MTU,
            ..Settings::default()
        };
        let mut world = World::established(outer, settings);
        // Messages are filled up to 16 bytes: what just fits is less than the MTU without what comes around it.
        let fits = packet(1, 2, true, usize::from(LINK_MTU - around) / 16 * 16);
        let received = pass(&mut world, 1, 2, std::slice::from_ref(&fits));
        assert_eq!((received.len(), world.wire.len()), (1, 1));
        world.wire.clear();
        world.gateways[0].send(&packet(1, 2, true, usize::from(LINK_MTU)));
        world.settle();
        assert_eq!(world.gateways[1].received().len(), 0);
        if outer {
            let pieces: Vec<&[u8]> = world.wire.iter().map(|frame| &frame[14..]).collect();
            let data: usize = pieces.iter().map(|piece| piece.len() - 20).sum();
            // UDP, the message's header, the packet, which is not filled up beyond the MTU, and the tag.
            let message = 8 + 16 + usize::from(LINK_MTU) + 16;
            assert_eq!((pieces.len(), data), (2, message));
            assert_eq!((pieces[0][6] >> 5, pieces[1][6] >> 5), (1, 0), "more, then the last");
            assert_eq!(count(&world, 2, "local: fragment-for-us"), 2);
        } else {
            assert_eq!(world.wire.len(), 0);
            assert_eq!(
                count(&world, 1, "adjacency/outer: own-too-big"),
                1,
                "{:?}",
                world.drops()
            );
        }
    }
}

#[test]
fn hop_limits_end_before_the_tunnel_and_behind_it() {
    for inner in [true, false] {
        let mut world = World::established(true, Settings::default());
        for (hops, expired_at) in [(1, 1), (2, 2)] {
            let sent = hopped(packet(1, 2, inner, 100), 64 - hops);
            world.gateways[0].send(&sent);
            world.settle();
            let told = answer(&world, 1);
            assert_eq!(told.icmp(), if inner { (11, 0) } else { (3, 0) });
            let source = match expired_at {
                1 => inside(1, inner),
                _ => super::gateway::within(2, inner),
            };
            assert_eq!(told.source, source);
        }
        assert_eq!(count(&world, 1, "wg-peer: hop-limit-expired"), 1);
        assert_eq!(count(&world, 2, "adjacency: hop-limit-expired"), 1);
    }
}

#[test]
fn an_address_without_a_peer_is_unreachable() {
    for inner in [true, false] {
        let mut world = World::established(true, Settings::default());
        world.gateways[0].route_into_tunnel(if inner { "10.7.0.0/16" } else { "fd00:7::/64" });
        world.gateways[0].send(&packet(1, 7, inner, 100));
        world.settle();
        let told = answer(&world, 1);
        assert_eq!(told.icmp(), if inner { (3, 1) } else { (1, 3) });
        assert_eq!((count(&world, 1, "wg-peer: no-peer"), world.wire.len()), (1, 0));
    }
}

#[test]
fn errors_about_packets_in_the_tunnel_go_back_through_it() {
    for inner in [true, false] {
        let mut world = World::established(true, Settings::default());
        let sent = testbed::packets::udp((host(1, inner), 1), (inside(2, inner), 9), 64, b"nobody listens");
        world.gateways[0].send(&sent);
        world.settle();
        assert_eq!(answer(&world, 1).icmp(), if inner { (3, 3) } else { (1, 4) });
        assert_eq!(world.wire.len(), 2);
    }
}

#[test]
fn a_tunnel_in_a_tunnel_is_dropped_by_name() {
    let mut world = World::established(true, Settings::default());
    let inside_a_tunnel = testbed::packets::udp((host(1, true), 51820), (inside(2, true), 51820), 64, &[4; 64]);
    world.gateways[0].send(&inside_a_tunnel);
    world.settle();
    assert_eq!(count(&world, 2, "nested-tunnel: nested-tunnel"), 1);
    // And out of the gateway: the way to the other end leads into the tunnel itself.
    world.gateways[0].route_into_tunnel("192.0.2.2/32");
    let peer = wireguard::peer::PeerId(0);
    world.gateways[0].allow(peer, &["192.0.2.2/32".parse().unwrap(), "10.2.0.0/24".parse().unwrap()]);
    world.gateways[0].send(&packet(1, 2, true, 100));
    world.gateways[0].turn(world.now);
    assert_eq!(count(&world, 1, "nested-tunnel: nested-tunnel"), 1);
    assert_eq!(world.frames().len(), 0, "nothing leaves");
}

#[test]
fn discovery_makes_no_sense_in_a_tunnel() {
    let mut world = World::established(true, Settings::default());
    let mut solicitation = testbed::packets::icmp(host(1, false), host(2, false), 255, (135, 0), 0, &[0; 16]);
    solicitation[7] = 255;
    // The gateway would lower its hop limit; a peer that sends it by itself would not.
    world.gateways[0].allow(wireguard::peer::PeerId(0), &["fd00:2::/64".parse().unwrap()]);
    let session = world.gateways[0].tunnel.tables();
    let mut lookup = wireguard::session::Lookup::new(&session);
    let session = lookup
        .peer(wireguard::peer::PeerId(0))
        .unwrap()
        .session()
        .cloned()
        .unwrap();
    let (message, _) = wireguard::session::single::seal(&session, &solicitation, world.now).unwrap();
    super::hostile::hear(&world, 2, 1, &message);
    world.settle();
    assert_eq!(count(&world, 2, "no-link: no-link"), 1, "{:?}", world.drops());
    assert_eq!(world.gateways[1].received().len(), 0);
}

#[test]
fn a_trace_tells_peer_session_and_number() {
    let mut world = World::established(true, Settings::default());
    for gateway in &mut world.gateways {
        gateway.trace(1);
    }
    world.gateways[0].send(&packet(1, 2, true, 100));
    world.settle();
    let [one, two] = [0, 1].map(|at| world.gateways[at].story().join("\n"));
    assert!(
        one.contains(&format!("wg-peer: {} is of peer 0 of port {}", host(2, true), TUNNEL.0)),
        "{one}"
    );
    assert!(
        one.contains(&format!("wg-encrypt: peer 0 at {}, its session ", outside(2, true))),
        "{one}"
    );
    assert!(two.contains("parse/inner: 10.1.0.2 > 10.2.0.2, protocol 17"), "{two}");
}
