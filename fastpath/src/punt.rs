//! What is for the host behind a port whose device the host has a TAP in place of (`punt: tap`).

use crate::meta::{Flags, PortId};
use crate::packet::Packet;
use crate::wire::{icmp, ipv6, protocol};
use std::net::{IpAddr, Ipv6Addr};

/// The UDP ports of DHCP servers and clients (RFC 2131 section 4.1).
const DHCP: (u16, u16) = (67, 68);
/// From an ICMP error to the packet that it quotes.
const QUOTE: usize = 8;

/// With whom a port shares its link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Crossing {
    /// With nobody.
    #[default]
    Nobody,
    /// With a host, who gets this.
    Host(Punt),
    /// It is the host's TAP: what comes in leaves by this port as it is.
    Wire(PortId),
}

/// Which packets are the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Punt {
    tap: PortId,
    /// Sorted.
    addresses: Vec<IpAddr>,
    /// Sorted; no two of them overlap.
    ours: Vec<Ports>,
}

/// Ports of an address, `first` to `last`. Identifiers of ICMP echo are ports, too; protocols without ports have port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The address.
    pub address: IpAddr,
    /// The IP protocol.
    pub protocol: u8,
    /// The first of them.
    pub first: u16,
    /// The last of them.
    pub last: u16,
}

impl Punt {
    /// What is sent to `addresses` goes to the port `tap`, but for the ports that are `ours`, of which no two overlap.
    pub fn new(tap: PortId, mut addresses: Vec<IpAddr>, mut ours: Vec<Ports>) -> Self {
        addresses.sort_unstable();
        ours.sort_unstable();
        Self { tap, addresses, ours }
    }

    /// The port of the host's TAP.
    pub fn tap(&self) -> PortId {
        self.tap
    }

    /// Whether an IP packet to one address, parsed, is for the host. Fragments to it always are: only the first tells
    /// ports.
    pub fn is_for_host(&self, packet: &mut Packet<'_>) -> bool {
        let meta = *packet.meta;
        if (meta.protocol, meta.source.port, meta.target.port) == (protocol::UDP, DHCP.0, DHCP.1) {
            // An offer is sent to the address that it offers.
            return true;
        }
        let address = meta.target.ip();
        if self.addresses.binary_search(&address).is_err() {
            return false;
        }
        if meta.flags.has(Flags::FRAGMENT) {
            return true;
        }
        let kind = (meta.target.port >> 8) as u8;
        let (answers, complains) = match meta.protocol {
            protocol::ICMP => (kind == icmp::v4::ECHO_REPLY, icmp::v4::is_error(kind)),
            protocol::ICMPV6 => (kind == icmp::v6::ECHO_REPLY, icmp::v6::is_error(kind)),
            _ => return !self.is_ours(address, meta.protocol, meta.target.port),
        };
        if complains {
            let quoted = packet.network().get(usize::from(meta.transport_offset) + QUOTE..);
            let sent = quoted.and_then(sent);
            return !sent.is_some_and(|(from, protocol, port)| from == address && self.is_ours(from, protocol, port));
        }
        !(answers && self.is_ours(address, meta.protocol, meta.source.port))
    }

    fn is_ours(&self, address: IpAddr, protocol: u8, port: u16) -> bool {
        let from = |ports: &Ports| (ports.address, ports.protocol, ports.first) <= (address, protocol, port);
        let behind = self.ours.partition_point(from);
        let near = behind.checked_sub(1).and_then(|at| self.ours.get(at));
        near.is_some_and(|ports| (ports.address, ports.protocol) == (address, protocol) && port <= ports.last)
    }
}

/// Of a packet that an ICMP error quotes: its source, protocol, and the port that it was sent from. None where too little is
/// quoted.
fn sent(quoted: &[u8]) -> Option<(IpAddr, u8, u16)> {
    let first = *quoted.first()?;
    let (source, protocol, transport) = match first >> 4 {
        4 => {
            let source: [u8; 4] = quoted.get(12..16)?.try_into().ok()?;
            (source.into(), *quoted.get(9)?, usize::from(first & 15) * 4)
        }
        6 => {
            let source: [u8; 16] = quoted.get(8..24)?.try_into().ok()?;
            (IpAddr::V6(Ipv6Addr::from(source)), *quoted.get(6)?, ipv6::HEADER)
        }
        _ => return None,
    };
    // What was sent of ICMP is an echo request; its identifier stands behind the checksum.
    let at = match protocol {
        protocol::ICMP | protocol::ICMPV6 => transport + 4,
        _ => transport,
    };
    let port = quoted.get(at..at + 2)?;
    Some((source, protocol, u16::from_be_bytes([port[0], port[1]])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{Endpoint, Meta};
    use std::net::Ipv4Addr;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 1);

    fn punt() -> Punt {
        let ports = |protocol, first, last| Ports {
            address: HOST.into(),
            protocol,
            first,
            last,
        };
        let ours = [
            (protocol::UDP, 4789, 4789),
            (protocol::TCP, 40_000, 49_999),
            (protocol::TCP, 30_080, 30_080),
            (protocol::ICMP, 100, 199),
        ];
        Punt::new(
            PortId(7),
            vec![HOST.into()],
            ours.map(|(protocol, first, last)| ports(protocol, first, last)).into(),
        )
    }

    fn is_for_host(protocol: u8, source: u16, target: (Ipv4Addr, u16), more: &[u8]) -> bool {
        let mut frame = [&[0; 34], more].concat();
        let mut meta = Meta {
            protocol,
            source: Endpoint::v4([10, 4, 0, 2], source),
            target: Endpoint::v4(target.0.octets(), target.1),
            data_offset: 0,
            data_length: frame.len() as u16,
            network_offset: 14,
            transport_offset: 20,
            ..Meta::default()
        };
        meta.flags.set(Flags::IPV4);
        punt().is_for_host(&mut Packet {
            meta: &mut meta,
            frame: &mut frame,
        })
    }

    #[test]
    fn the_host_gets_its_ports_and_we_keep_ours() {
        for (protocol, port, expected) in [
            (protocol::TCP, 22, true),
            (protocol::TCP, 30_079, true),
            (protocol::TCP, 30_080, false),
            (protocol::TCP, 39_999, true),
            (protocol::TCP, 40_000, false),
            (protocol::TCP, 49_999, false),
            (protocol::TCP, 50_000, true),
            (protocol::UDP, 45_000, true),
            (protocol::UDP, 4789, false),
            (protocol::IPV4, 0, true),
            (89, 0, true),
        ] {
            let there = is_for_host(protocol, 1, (HOST, port), &[]);
            assert_eq!(there, expected, "protocol {protocol}, port {port}");
        }
        let elsewhere = Ipv4Addr::new(10, 1, 0, 2);
        assert!(!is_for_host(protocol::TCP, 1, (elsewhere, 22), &[]));
        assert!(is_for_host(protocol::UDP, DHCP.0, (elsewhere, DHCP.1), &[]));
    }

    #[test]
    fn icmp_goes_to_who_asked() {
        let kind = |kind: u8| (HOST, u16::from(kind) << 8);
        assert!(is_for_host(protocol::ICMP, 150, kind(icmp::v4::ECHO_REQUEST), &[]));
        assert!(is_for_host(protocol::ICMP, 99, kind(icmp::v4::ECHO_REPLY), &[]));
        assert!(!is_for_host(protocol::ICMP, 150, kind(icmp::v4::ECHO_REPLY), &[]));
        // Destination unreachable, about TCP that was sent from a port.
        for (port, expected) in [(22u16, true), (40_001, false)] {
            let mut message = [0; 8 + 28];
            (message[8], message[17]) = (0x45, protocol::TCP);
            message[20..24].copy_from_slice(&HOST.octets());
            message[28..30].copy_from_slice(&port.to_be_bytes());
            assert_eq!(is_for_host(protocol::ICMP, 0, kind(3), &message), expected, "{port}");
            for short in 0..message.len() - 6 {
                assert!(is_for_host(protocol::ICMP, 0, kind(3), &message[..short]));
            }
        }
    }
}
