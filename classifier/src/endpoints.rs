//! Who is behind each port, and which policies stand between two ends.
//!
//! A workload has its own policy. A port of this host may have policy for what the host itself says and hears, and other
//! policy for what it forwards. Nothing comes from, or goes to, a port that nobody described.

use crate::packet::Packet;
use crate::program::{ChainId, Slots};
use crate::rule::IpVersion;
use fastpath::meta::{Endpoint as Transport, PortId};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Chains in the order in which packets meet them; nothing where there is no policy.
pub type Chains = [Option<ChainId>; 2];

/// The most chains that stand between two ends.
pub const CHAINS_MAX: usize = 4;

/// Chains between two ends, in the order in which packets meet them, without gaps.
pub type Passage = [Option<ChainId>; CHAINS_MAX];

/// VXLAN's UDP port (RFC 7348).
const VXLAN: u16 = 4789;
const UDP: u8 = 17;
/// IPv4 within IP (RFC 2003).
const IPIP: u8 = 4;

/// One end of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Whoever is behind a port.
    Port(PortId),
    /// This host.
    Host,
}

/// What is behind a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Only for a workload, which is no part of the host.
    pub workload: Option<Workload>,
    /// For what comes from it and is forwarded.
    pub sends: Chains,
    /// For what is forwarded to it.
    pub receives: Chains,
    /// For what comes from it to the host.
    pub to_host: Option<ChainId>,
    /// For what the host sends to it. No workload has any: the host may always speak to its own workloads.
    pub from_host: Option<ChainId>,
    /// For what comes from it, before services are translated: denies, or decides nothing.
    pub before_services: Option<ChainId>,
    /// For what comes from it, before connections are tracked. What it allows has no connection.
    pub untracked: Option<ChainId>,
}

/// What only workloads have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Not administratively down.
    pub up: bool,
    /// Where it may send from.
    pub sources: Sources,
}

/// Addresses: few, as ranges in order of which none overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Sources {
    /// Those of prefixes.
    pub fn new(prefixes: &[IpNet]) -> Sources {
        let (mut v4, mut v6) = (vec![], vec![]);
        for prefix in prefixes {
            match (prefix.network(), prefix.broadcast()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                (IpAddr::V6(first), IpAddr::V6(last)) => v6.push((first.to_bits(), last.to_bits())),
                _ => {}
            }
        }
        Sources {
            v4: joined(v4),
            v6: joined(v6),
        }
    }

    /// Whether an address is among them.
    #[inline(always)]
    pub fn contain(&self, end: &Transport, version: IpVersion) -> bool {
        match version {
            IpVersion::V4 => holds(&self.v4, end.v4_bits()),
            IpVersion::V6 => holds(&self.v6, end.v6_bits()),
        }
    }
}

/// In order, and those that overlap as one: prefixes either nest or are apart.
fn joined<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut joined: Vec<(T, T)> = vec![];
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined.into()
}

#[inline(always)]
fn holds<T: Ord + Copy>(ranges: &[(T, T)], wanted: T) -> bool {
    if let [(first, last)] = ranges {
        return *first <= wanted && wanted <= *last;
    }
    let after = ranges.partition_point(|(first, _)| *first <= wanted);
    after > 0 && wanted <= ranges[after - 1].1
}

/// A port of the host that policy cannot close, so that nobody locks himself out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failsafe {
    /// IP protocol number.
    pub protocol: u8,
    /// The server's port; every one where there is none.
    pub port: Option<u16>,
    /// The other host has to be in this prefix; any where there is none.
    pub network: Option<IpNet>,
}

impl Failsafe {
    fn means(&self, packet: &Packet, server: &Transport, peer: &Transport) -> bool {
        self.protocol == packet.protocol
            && self.port.is_none_or(|port| port == server.port)
            && self.network.is_none_or(|network| network.contains(&peer.ip()))
    }
}

/// The ports that policy of the host cannot close.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failsafes {
    /// Of this host.
    pub inbound: Vec<Failsafe>,
    /// Of others, for this host.
    pub outbound: Vec<Failsafe>,
}

impl Failsafes {
    fn inbound(&self, packet: &Packet) -> bool {
        let means = |failsafe: &Failsafe| failsafe.means(packet, &packet.target, &packet.source);
        self.inbound.iter().any(means)
    }

    fn outbound(&self, packet: &Packet) -> bool {
        let means = |failsafe: &Failsafe| failsafe.means(packet, &packet.target, &packet.target);
        self.outbound.iter().any(means)
    }

    /// An answer to what the host asked for by an outbound one.
    fn answers(&self, packet: &Packet) -> bool {
        let means = |failsafe: &Failsafe| failsafe.means(packet, &packet.source, &packet.source);
        self.outbound.iter().any(means)
    }
}

/// What holds for all endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Somebody has policy. Where nobody has, every packet passes.
    pub in_force: bool,
    /// What becomes of packets from workloads to this host that their own policy allows.
    pub workload_to_host: ToHost,
    /// Whether senders are told that they were denied.
    pub reject: bool,
    /// What host endpoints cannot close.
    pub failsafes: Arc<Failsafes>,
    /// Workloads may send VXLAN themselves.
    pub vxlan_from_workloads: bool,
    /// Workloads may send IP within IP themselves.
    pub ipip_from_workloads: bool,
}

/// What happens to packets from workloads to this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToHost {
    /// Dropped.
    #[default]
    Drop,
    /// Accepted.
    Accept,
}

/// Why a packet goes nowhere, whatever rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Barred {
    /// Nobody described the port at one end.
    Undescribed,
    /// The workload at one end is administratively down.
    Down,
    /// From a workload to this host.
    ToHost,
    /// A workload wraps packets itself.
    Encapsulated,
}

/// What is asked of packets from one port before connections are tracked.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The port.
    pub port: PortId,
    workload: Option<&'a Workload>,
    untracked: Option<ChainId>,
    failsafes: &'a Failsafes,
}

impl Sender<'_> {
    /// Nothing is asked of any packet.
    #[inline(always)]
    pub fn is_free(&self) -> bool {
        self.workload.is_none() && self.untracked.is_none()
    }

    /// Whether whoever is behind the port may send from an address. Link-local ones never leave the link.
    #[inline(always)]
    pub fn may_send_from(&self, source: &Transport, version: IpVersion) -> bool {
        let link_local = || version == IpVersion::V6 && source.v6_bits() >> 118 == 0xfe80 >> 6;
        self.workload
            .is_none_or(|workload| workload.sources.contain(source, version) || link_local())
    }

    /// Whether there is policy for packets that have no connection.
    #[inline(always)]
    pub fn has_untracked(&self) -> bool {
        self.untracked.is_some()
    }

    /// The chain of that policy, if it is to be asked about this packet.
    pub fn untracked(&self, packet: &Packet) -> Option<ChainId> {
        let open = || self.failsafes.inbound(packet) || self.failsafes.answers(packet);
        self.untracked.filter(|_| !open())
    }
}

/// Everything workers know of endpoints.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    pub(crate) ports: Slots<Endpoint>,
    pub(crate) settings: Settings,
}

impl Endpoints {
    /// What holds for all.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is behind a port, if somebody said.
    #[inline]
    pub fn get(&self, port: PortId) -> Option<&Endpoint> {
        self.ports.get(u32::from(port.0))
    }

    /// The chains that a packet has to pass from one end to the other; none where it may go without.
    ///
    /// # Errors
    /// Why it may not go at all.
    pub fn passage(&self, from: Side, to: Side, packet: &Packet) -> Result<Passage, Barred> {
        if !self.settings.in_force {
            return Ok(Passage::default());
        }
        let (from, to) = (self.side(from)?, self.side(to)?);
        match (from, to) {
            (None, None) => Ok(Passage::default()),
            (Some(from), Some(to)) => {
                self.check_sender(from, packet)?;
                Ok(gapless([from.sends[0], from.sends[1], to.receives[0], to.receives[1]]))
            }
            (Some(from), None) => {
                self.check_sender(from, packet)?;
                let barred = from.workload.is_some() && self.settings.workload_to_host == ToHost::Drop;
                let open = from.workload.is_none() && self.settings.failsafes.inbound(packet);
                match (barred, open) {
                    (true, _) => Err(Barred::ToHost),
                    (false, true) => Ok(Passage::default()),
                    (false, false) => Ok([from.to_host, None, None, None]),
                }
            }
            (None, Some(to)) => {
                let open = to.workload.is_none() && self.settings.failsafes.outbound(packet);
                Ok([to.from_host.filter(|_| !open), None, None, None])
            }
        }
    }

    /// What is asked of packets that come from a port, before connections are tracked.
    #[inline(always)]
    pub fn sender(&self, port: PortId) -> Sender<'_> {
        let endpoint = self.get(port);
        Sender {
            port,
            workload: endpoint.and_then(|endpoint| endpoint.workload.as_ref()),
            untracked: endpoint.and_then(|endpoint| endpoint.untracked),
            failsafes: &self.settings.failsafes,
        }
    }

    /// The chain for what comes from a port before services are translated, if it is to be asked about this packet.
    pub fn before_services(&self, port: PortId, packet: &Packet) -> Option<ChainId> {
        let chain = self.get(port)?.before_services?;
        (!self.settings.failsafes.inbound(packet)).then_some(chain)
    }

    fn side(&self, side: Side) -> Result<Option<&Endpoint>, Barred> {
        let Side::Port(port) = side else { return Ok(None) };
        let endpoint = self.get(port).ok_or(Barred::Undescribed)?;
        match &endpoint.workload {
            Some(workload) if !workload.up => Err(Barred::Down),
            _ => Ok(Some(endpoint)),
        }
    }

    fn check_sender(&self, from: &Endpoint, packet: &Packet) -> Result<(), Barred> {
        let vxlan = packet.protocol == UDP && packet.target.port == VXLAN && !self.settings.vxlan_from_workloads;
        let ipip = packet.protocol == IPIP && !self.settings.ipip_from_workloads;
        match from.workload.is_some() && (vxlan || ipip) {
            true => Err(Barred::Encapsulated),
            false => Ok(()),
        }
    }
}

/// Chains first, nothing behind them.
fn gapless(chains: Passage) -> Passage {
    let mut passage = Passage::default();
    let there = chains.into_iter().flatten();
    for (place, chain) in passage.iter_mut().zip(there) {
        *place = Some(chain);
    }
    passage
}
