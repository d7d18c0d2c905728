//! A gateway with a tunnel in the product's whole graph: packets from inside to its peers, and sealed ones from its peers.

use crate::rig::{Connections, OUR_MAC, Tracked, Turner};
use crate::routes::Rng;
use crate::traffic::{Generator, PACKETS, udp_of};
use control::wiring::{self, Rings};
use fastpath::arena::{FrameIndex, HEADROOM};
use fastpath::events::Events;
use fastpath::fib::{self, Pages};
use fastpath::forwarding::{Forwarding, LinkState};
use fastpath::interfaces::{self, Interfaces, Listener};
use fastpath::meta::{PortId, VrfId};
use fastpath::pool::Frames;
use fastpath::port::Queue;
use fastpath::publish::Publisher;
use fastpath::qsbr::Qsbr;
use fastpath::rib::{Hop, Origin, Rib, Target};
use fastpath::ring::ring;
use fastpath::vector::{BATCH_MAX, Vector};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use wireguard::aead::{Aead, Key, Seal};
use wireguard::allowed_ips::AllowedIps;
use wireguard::interface::{Interface, Interfaces as Tunnels, Lookups};
use wireguard::mailbox::Mailbox;
use wireguard::message::{TAG, TRANSPORT, TRANSPORT_HEADER, TransportHeader};
use wireguard::outer::Outer;
use wireguard::peer::PeerId;
use wireguard::session::{Ends, Lookup, Session};
use wireguard::tunnel::{Action, Now, PeerConfig, SystemRandom, Tunnel};
use zerocopy::IntoBytes;

const PORT: u16 = 51820;
const INSIDE: PortId = PortId(0);
const OUTSIDE: PortId = PortId(1);
const TUNNEL: PortId = PortId(2);
const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The gateway.
pub struct Gateway {
    /// Its worker: packets from inside and from outside come in turn, a vector each.
    pub turner: Turner,
    // Workers hold readers of these.
    _kept: (Rib, Publisher<Interfaces>, Publisher<Tunnels>, Tunnel, AllowedIps),
}

impl Gateway {
    /// With this many peers that have sessions, and packets of `length` bytes from the IP header on, of peers in a random
    /// order.
    ///
    /// # Panics
    /// If there is no memory for it.
    pub fn new(peers: usize, length: usize) -> Self {
        let qsbr = Arc::new(Qsbr::new(1));
        let forwarding = Arc::new(Forwarding::default());
        let pool = |bytes, pages| fib::Pool::new(bytes, pages, qsbr.clone()).expect("address space");
        let mut rib = Rib::new(forwarding.clone(), qsbr.clone(), pool(1 << 30, Pages::Huge));
        let mut tables = pool(1 << 26, Pages::Huge);
        let mut allowed = AllowedIps::new(&tables);
        let mut tunnel = Tunnel::new(&[1; 32], peers, Box::new(SystemRandom));
        let spokes: Vec<Spoke> = (0..peers).map(|number| Spoke::new(&mut tunnel, number)).collect();
        for (number, spoke) in spokes.iter().enumerate() {
            let net = IpNet::from(IpAddr::from(host(number)));
            allowed.set(&mut tables, spoke.peer, &[net]).expect("room");
        }
        let interface = Interface {
            port: TUNNEL,
            vrf: VrfId(0),
            mtu: 1420,
            listen_port: PORT,
            clamp_mss: false,
            allowed: allowed.view(),
            lookups: Lookups::new(&tunnel.tables(), 1),
        };
        let tunnels = Publisher::new(Tunnels(vec![None, None, Some(Arc::new(interface))]));
        let interfaces = Publisher::new(interfaces());
        let connections = Connections::new(Tracked::default(), &qsbr);
        let shared = wiring::Shared {
            interfaces: &interfaces,
            rib: &rib,
            forwarding: &forwarding,
            events: &Events::new(|| {}),
            wireguard: &tunnels,
            mailbox: &Mailbox::new(|| {}),
            flows: connections.wiring(),
            policy: &connections.policy,
            workers: 1,
        };
        let rings = Rings {
            inject: ring(8).1,
            originate: ring(8).1,
            handoff: vec![],
        };
        let graph = wiring::graph(&shared, 0, rings).expect("the product's own wiring");
        write_routes(&mut rib);
        let inside = from_inside(peers, length);
        let outside = Wire::new(spokes, length);
        Self {
            turner: Turner::with_queues(graph, qsbr, [Box::new(inside), Box::new(outside)]),
            _kept: (rib, interfaces, tunnels, tunnel, allowed),
        }
    }
}

fn now() -> Now {
    Now {
        ns: 1,
        wall: Duration::from_secs(1_700_000_000),
    }
}

/// The host behind a peer.
fn host(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x1400_0000 + number as u32)
}

/// The host behind us.
fn near() -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, 2)
}

/// Where a peer is.
fn endpoint(number: usize) -> SocketAddr {
    SocketAddr::new([198, 51, (number >> 8) as u8, number as u8].into(), 4500)
}

/// A peer's own end of the tunnel.
struct Spoke {
    peer: PeerId,
    session: Arc<Session>,
    _tunnel: Tunnel,
}

impl Spoke {
    fn new(hub: &mut Tunnel, number: usize) -> Self {
        let mut private = [2; 32];
        // Not in the first byte, of which the curve ignores three bits.
        private[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        let mut tunnel = Tunnel::new(&private, 1, Box::new(SystemRandom));
        let config = |public_key, endpoint| PeerConfig {
            public_key,
            preshared_key: zeroize::Zeroizing::new([0; 32]),
            endpoint,
            persistent_keepalive_s: 0,
        };
        let peer = hub
            .add(&config(*tunnel.public_key(), Some(endpoint(number))), now())
            .expect("room");
        let of_hub = tunnel.add(&config(*hub.public_key(), None), now()).expect("room");
        // A wish for a keepalive makes the hub ask; once both have answered, each has a session.
        hub.set_persistent_keepalive(peer, 25, now());
        let (there, here) = (endpoint(number), SocketAddr::new(OURS.into(), PORT));
        let ends = |remote: SocketAddr, local: SocketAddr| Ends {
            remote,
            local: Some(local.ip()),
        };
        for _ in 0..2 {
            deliver(hub, &mut tunnel, ends(here, there));
            deliver(&mut tunnel, hub, ends(there, here));
        }
        hub.set_persistent_keepalive(peer, 0, now());
        while hub.poll().is_some() {}
        let mut lookup = Lookup::new(&hub.tables());
        let ours = lookup
            .peer(peer)
            .and_then(|outbound| outbound.session().cloned())
            .expect("a session");
        let notice = wireguard::session::Notice::Confirmed(ours.remote());
        tunnel.notice(notice, now());
        let mut lookup = Lookup::new(&tunnel.tables());
        let session = lookup
            .peer(of_hub)
            .and_then(|outbound| outbound.session().cloned())
            .expect("a session");
        Self {
            peer,
            session,
            _tunnel: tunnel,
        }
    }
}

/// Takes handshake messages from one to the other; packets are left out.
fn deliver(from: &mut Tunnel, to: &mut Tunnel, ends: Ends) {
    while let Some(action) = from.poll() {
        if let Action::Send { bytes, .. } = action {
            let _ = to.receive(&bytes, ends, 0, now());
        }
    }
}

fn write_routes(rib: &mut Rib) {
    let vrf = VrfId(0);
    let set = |rib: &mut Rib, net: &str, target: Target| {
        let net: IpNet = net.parse().expect("a prefix");
        rib.set(vrf, net, Origin::Static, &target).expect("room for the route");
    };
    let by = |port, address: Ipv4Addr| {
        Target::Hops(vec![Hop {
            port,
            address: address.into(),
            weight: 1,
        }])
    };
    let gateway = Ipv4Addr::new(192, 0, 2, 254);
    for (port, address) in [(INSIDE, near()), (OUTSIDE, gateway)] {
        rib.set_port(port, OUR_MAC, 1500);
        rib.set_link(port, address.into(), LinkState::Complete, [2, 0, 0, 0, 0, 9]);
    }
    set(rib, "20.0.0.0/8", Target::Tunnel(TUNNEL));
    set(rib, "198.51.0.0/16", by(OUTSIDE, gateway));
    set(rib, "10.1.0.2/32", by(INSIDE, near()));
    set(rib, "192.0.2.1/32", Target::Local);
}

fn interfaces() -> Interfaces {
    let port = |name: &str, mac, mtu, address: Ipv4Addr| {
        Some(interfaces::Interface {
            name: name.to_owned(),
            mac,
            mtu,
            vrf: VrfId(0),
            tracked: false,
            shared: false,
            addresses: vec![(address.into(), 24)],
            ..interfaces::Interface::default()
        })
    };
    Interfaces {
        ports: vec![
            port("inside", OUR_MAC, 1500, Ipv4Addr::new(10, 1, 0, 1)),
            port("outside", OUR_MAC, 1500, OURS),
            port("wg0", [0; 6], 1420, Ipv4Addr::new(10, 9, 0, 1)),
        ],
        listeners: vec![Listener {
            vrf: VrfId(0),
            udp_port: PORT,
            port: TUNNEL,
        }],
        ..Interfaces::default()
    }
}

/// Packets to hosts behind peers, in a random order.
fn from_inside(peers: usize, length: usize) -> Generator {
    let mut rng = Rng(3);
    let count = if peers == 1 { 1 } else { PACKETS };
    let packet = |_| {
        let target = host(rng.below(peers as u64) as usize);
        udp_of(14 + length, OUR_MAC, (near().into(), 1024), (target.into(), 4096))
    };
    Generator::new((0..count).map(packet).collect(), BATCH_MAX)
}

/// The other side of the wire: peers that seal packets as fast as they are asked for them, which no node's cycles count.
struct Wire {
    spokes: Vec<Spoke>,
    keys: Vec<Key>,
    outers: Vec<Outer>,
    texts: Vec<Vec<u8>>,
    rng: Rng,
}

impl Wire {
    fn new(spokes: Vec<Spoke>, length: usize) -> Self {
        let text =
            |number| udp_of(14 + length, OUR_MAC, (host(number).into(), 4096), (near().into(), 1024))[14..].to_vec();
        let outer = |number| {
            let ends = Ends {
                remote: SocketAddr::new(OURS.into(), PORT),
                local: Some(endpoint(number).ip()),
            };
            Outer::new((PortId(0), VrfId(0)), ends, endpoint(number).port()).expect("two addresses of one family")
        };
        Self {
            keys: spokes
                .iter()
                .map(|spoke| Key::from(*spoke.session.send_key().expect("a key")))
                .collect(),
            outers: (0..spokes.len()).map(outer).collect(),
            texts: (0..spokes.len()).map(text).collect(),
            spokes,
            rng: Rng(4),
        }
    }

    /// A message of a peer, sealed, as the payload of a frame.
    fn fill(&self, number: usize, packet: &mut fastpath::packet::Packet<'_>) {
        let session = &self.spokes[number].session;
        let counter = session.take(1, 1).expect("numbers").start;
        let header = TransportHeader {
            kind: TRANSPORT.into(),
            receiver: session.remote().into(),
            counter: counter.into(),
        };
        let mut text = self.texts[number].clone();
        text.resize(text.len().next_multiple_of(16).min(1420.max(text.len())), 0);
        let mut message = vec![0; TRANSPORT_HEADER + text.len() + TAG];
        message[..TRANSPORT_HEADER].copy_from_slice(header.as_bytes());
        let sealed = Seal::new(&self.keys[number], counter, &text, &mut message[TRANSPORT_HEADER..]);
        Aead::best().seal(&mut [sealed.expect("lengths that fit")]);
        packet.fill(HEADROOM, &message).expect("room");
        self.outers[number].wrap(packet, 0, counter as u16).expect("room");
        packet.data()[..6].copy_from_slice(&OUR_MAC);
    }
}

impl Queue for Wire {
    fn receive(&mut self, frames: &mut Frames, room: usize, into: &mut Vector) {
        for _ in 0..room {
            let Some(mut frame) = frames.take() else { return };
            let number = self.rng.below(self.spokes.len() as u64) as usize;
            self.fill(number, &mut frames.packet(&mut frame));
            into.push(frame);
        }
    }

    fn transmit(&mut self, frames: &mut Frames, from: &mut Vec<FrameIndex>) {
        from.drain(..).for_each(|frame| frames.give(frame));
    }

    fn close(self: Box<Self>, _: &mut Frames) {}
}
