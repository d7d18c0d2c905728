//! Tunnels that are ports with neighbours: IP in IP and VXLAN. A snapshot, part of [`Interfaces`](crate::interfaces::Interfaces).
//!
//! A route leads to a neighbour behind such a port as to any other; what is special is that its adjacency is
//! [`Wrapped`](crate::forwarding::LinkState::Wrapped). `encapsulate` then asks here where the other end of the tunnel is.

use crate::meta::{PortId, VrfId};
use crate::port::QueueCounters;
use crate::wire::protocol;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// How packets are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// The IP packet behind another IP header (RFC 2003, RFC 4213).
    Ip,
    /// The frame behind a VXLAN header (RFC 7348).
    Vxlan {
        /// The network, of 24 bits.
        vni: u32,
        /// UDP port of both ends.
        udp_port: u16,
    },
}

/// One such port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The port: unwrapped packets come in by it.
    pub port: PortId,
    /// Table of routes for what is outside; what is inside takes that of the port.
    pub vrf: VrfId,
    /// How packets are wrapped.
    pub wrapping: Wrapping,
    /// Our end.
    pub local: IpAddr,
    /// The other end, where there is only one.
    pub remote: Option<IpAddr>,
    /// The other ends by the addresses of the neighbours behind them. One that is missing is behind [`Self::remote`];
    /// with IP in IP the neighbour is the other end itself.
    pub remotes: HashMap<IpAddr, IpAddr>,
    /// Who may send to us; empty: anybody.
    pub known: HashSet<IpAddr>,
    /// What comes and goes by it.
    pub traffic: Traffic,
}

/// The counters of a port without queues, of each worker.
#[derive(Clone, Debug, Default)]
pub struct Traffic(pub Vec<Arc<QueueCounters>>);

impl PartialEq for Traffic {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl Eq for Traffic {}

impl Traffic {
    /// Counts a packet that came out of the tunnel, of so many bytes from the Ethernet header on.
    #[inline]
    pub fn received(&self, worker: u16, bytes: u16) {
        if let Some(counters) = self.0.get(usize::from(worker)) {
            counters.rx_packets.add(1);
            counters.rx_bytes.add(bytes.into());
        }
    }

    /// The same for one that went into it.
    #[inline]
    pub fn sent(&self, worker: u16, bytes: u16) {
        if let Some(counters) = self.0.get(usize::from(worker)) {
            counters.tx_packets.add(1);
            counters.tx_bytes.add(bytes.into());
        }
    }
}

impl Overlay {
    /// The other end for packets to a neighbour.
    pub fn remote_of(&self, neighbour: IpAddr) -> Option<IpAddr> {
        match self.wrapping {
            Wrapping::Ip => Some(neighbour),
            Wrapping::Vxlan { .. } => self.remotes.get(&neighbour).copied().or(self.remote),
        }
    }

    /// Whether packets from there may come in.
    pub fn knows(&self, remote: IpAddr) -> bool {
        self.known.is_empty() || self.known.contains(&remote)
    }
}

/// All of them: few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlays(pub Vec<Overlay>);

impl Overlays {
    /// Whether a packet for us is wrapped, as far as its protocol tells, and its destination port if that is UDP.
    pub fn hear(&self, vrf: VrfId, transport: u8, port: u16) -> bool {
        let mut here = self.0.iter().filter(|overlay| overlay.vrf == vrf);
        here.any(|overlay| match overlay.wrapping {
            Wrapping::Ip => matches!(transport, protocol::IPV4 | protocol::IPV6),
            Wrapping::Vxlan { udp_port, .. } => transport == protocol::UDP && port == udp_port,
        })
    }

    /// The one behind a port.
    pub fn of_port(&self, port: PortId) -> Option<&Overlay> {
        self.0.iter().find(|overlay| overlay.port == port)
    }

    /// The one that a packet from `remote` to `local` is for: that between the two rather than one with many ends.
    pub fn between(&self, vrf: VrfId, wrapping: Wrapping, remote: IpAddr, local: IpAddr) -> Option<&Overlay> {
        let mut here = self
            .0
            .iter()
            .filter(|overlay| overlay.vrf == vrf && overlay.wrapping == wrapping && overlay.local == local);
        let exact = here.clone().find(|overlay| overlay.remote == Some(remote));
        exact.or_else(|| here.next())
    }
}
