//! One tunnel: the protocol, the peers by the names of their resources, and whose the addresses are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fastpath::fib;
use fastpath::interfaces::Listener;
use fastpath::meta::{PortId, VrfId};
use ipnet::IpNet;
use wireguard::allowed_ips::AllowedIps;
use wireguard::interface::{Interface, Lookups};
use wireguard::peer::PeerId;
use wireguard::session::Ends;
use wireguard::tunnel::{NotAdded, Now, PeerConfig, Status, SystemRandom, Tunnel};
use zeroize::Zeroizing;

use crate::resource::{WireguardInterface, WireguardPeer};

/// Most peers of one interface. Tables for all of them are made with it, about 400 bytes each.
pub(in crate::plane) const PEERS_MAX: usize = 8192;

/// A tunnel.
pub(in crate::plane) struct Running {
    pub port: PortId,
    /// Table of routes of the packets outside.
    pub outside: VrfId,
    pub body: WireguardInterface,
    pub tunnel: Tunnel,
    pub peers: BTreeMap<String, Member>,
    names: HashMap<PeerId, String>,
    allowed: AllowedIps,
    lookups: Arc<Lookups>,
    workers: usize,
}

/// A peer of it.
pub(in crate::plane) struct Member {
    pub id: PeerId,
    pub body: WireguardPeer,
    /// Sessions that came into use.
    pub handshakes: u64,
}

impl Running {
    pub fn new(
        body: &WireguardInterface,
        (port, outside): (PortId, VrfId),
        pool: &fib::Pool,
        workers: usize,
    ) -> Result<Self, String> {
        let key = body.private_key.as_ref().ok_or("its private key was not read")?;
        let tunnel = Tunnel::new(key.bytes(), PEERS_MAX, Box::new(SystemRandom));
        Ok(Self {
            port,
            outside,
            body: body.clone(),
            lookups: Lookups::new(&tunnel.tables(), workers),
            tunnel,
            peers: BTreeMap::new(),
            names: HashMap::new(),
            allowed: AllowedIps::new(pool),
            workers,
        })
    }

    /// Makes it what `body` says. Another private key ends all sessions; nothing else does.
    pub fn change(
        &mut self,
        body: &WireguardInterface,
        outside: VrfId,
        pool: &mut fib::Pool,
        now: Now,
    ) -> Result<(), String> {
        if body.private_key != self.body.private_key {
            let mut other = Self::new(body, (self.port, outside), pool, self.workers)?;
            for (name, member) in &self.peers {
                let mut peer = member.body.clone();
                // Where it was last, it can be found again.
                let seen = self.tunnel.status(member.id).and_then(|status| status.endpoint);
                peer.address = seen.or(peer.address);
                let added = other.set_peer(name, &peer, pool, now);
                if let Err(reason) = added {
                    other.clear(pool, now);
                    return Err(reason);
                }
                if let Some(added) = other.peers.get_mut(name) {
                    (added.body, added.handshakes) = (member.body.clone(), member.handshakes);
                }
            }
            std::mem::replace(self, other).clear(pool, now);
        }
        self.body = body.clone();
        self.outside = outside;
        Ok(())
    }

    /// Adds a peer, or makes it what `body` says, in place.
    pub fn set_peer(&mut self, name: &str, body: &WireguardPeer, pool: &mut fib::Pool, now: Now) -> Result<(), String> {
        let no_key = Zeroizing::new([0; 32]);
        let psk = body.preshared_key.as_ref().map_or(&*no_key, |key| key.bytes());
        let known = self.peers.get(name).map(|member| member.id);
        let id = match known {
            Some(id) => id,
            None => {
                let config = PeerConfig {
                    public_key: body.spec.public_key.0,
                    preshared_key: Zeroizing::new(*psk),
                    endpoint: body.address,
                    // Once its addresses are known to be its own.
                    persistent_keepalive_s: 0,
                };
                self.tunnel.add(&config, now).map_err(not_added)?
            }
        };
        if let Err(full) = self.allowed.set(pool, id, &body.spec.allowed_ips) {
            if known.is_none() {
                self.tunnel.remove(id, now);
            }
            return Err(format!("there is no room for its allowed IPs: {full}"));
        }
        let before = self.peers.get(name).map(|member| &member.body);
        if let Some(before) = before {
            if before.preshared_key != body.preshared_key {
                self.tunnel.set_preshared_key(id, psk, now);
            }
            if let Some(address) = body.address.filter(|address| before.address != Some(*address)) {
                self.tunnel.set_endpoint(id, Ends::to(address), now);
            }
        }
        let every_s = body.spec.persistent_keepalive;
        if before.map_or(0, |before| before.spec.persistent_keepalive) != every_s {
            self.tunnel.set_persistent_keepalive(id, every_s, now);
        }
        let handshakes = self.peers.get(name).map_or(0, |member| member.handshakes);
        let body = body.clone();
        self.names.insert(id, name.to_owned());
        self.peers.insert(name.to_owned(), Member { id, body, handshakes });
        Ok(())
    }

    /// Ends everything with a peer.
    pub fn remove_peer(&mut self, name: &str, pool: &mut fib::Pool, now: Now) {
        let Some(member) = self.peers.remove(name) else { return };
        self.names.remove(&member.id);
        if let Err(full) = self.allowed.forget(pool, member.id) {
            // They lead to a peer that is not there: closed, not open. Whoever gets its number is given its own, or refused.
            tracing::warn!("cannot take back the allowed IPs of {name}: {full}");
        }
        self.tunnel.remove(member.id, now);
    }

    /// Ends everything, and gives its memory back.
    pub fn clear(&mut self, pool: &mut fib::Pool, now: Now) {
        let names: Vec<String> = self.peers.keys().cloned().collect();
        names.iter().for_each(|name| self.remove_peer(name, pool, now));
    }

    /// As workers see it.
    pub fn published(&self) -> Arc<Interface> {
        let spec = &self.body.spec;
        Arc::new(Interface {
            port: self.port,
            vrf: self.outside,
            mtu: spec.mtu,
            listen_port: spec.listen_port,
            clamp_mss: spec.clamp_mss,
            allowed: self.allowed.view(),
            lookups: self.lookups.clone(),
        })
    }

    /// Where it listens.
    pub fn listener(&self) -> Listener {
        Listener {
            vrf: self.outside,
            udp_port: self.body.spec.listen_port,
            port: self.port,
        }
    }

    /// What a peer has of what it was given, in order.
    pub fn allowed_of(&self, name: &str) -> Vec<IpNet> {
        let Some(member) = self.peers.get(name) else {
            return vec![];
        };
        let mut nets: Vec<IpNet> = self.allowed.of(member.id).collect();
        nets.sort();
        nets
    }

    /// The peer that has just this prefix.
    pub fn owner_of(&self, net: &IpNet) -> Option<&str> {
        let owner = self.allowed.owner(net)?;
        self.names.get(&owner).map(String::as_str)
    }

    /// A session of a peer came into use.
    pub fn established(&mut self, id: PeerId) {
        let name = self.names.get(&id);
        if let Some(member) = name.and_then(|name| self.peers.get_mut(name)) {
            member.handshakes += 1;
        }
    }

    /// What there is to say of a peer.
    pub fn status(&self, member: &Member) -> Option<Status> {
        self.tunnel.status(member.id)
    }

    /// Messages and bytes of all peers, received and sent.
    pub fn traffic(&self) -> [(u64, u64); 2] {
        let mut sums = [(0, 0); 2];
        for status in self.peers.values().filter_map(|member| self.status(member)) {
            let one = [
                (status.received_packets, status.received_bytes),
                (status.sent_packets, status.sent_bytes),
            ];
            for (sum, (packets, bytes)) in sums.iter_mut().zip(one) {
                *sum = (sum.0 + packets, sum.1 + bytes);
            }
        }
        sums
    }
}

fn not_added(error: NotAdded) -> String {
    match error {
        NotAdded::Full => format!("its interface has {PEERS_MAX} peers already; add another interface for more"),
        other => other.to_string(),
    }
}
