//! The packet that an ICMP error quotes: whose it is, and where its headers are.

use crate::key::Key;
use fastpath::meta::{Endpoint, Flags, Meta, VrfId};
use fastpath::wire::{icmp, ipv4, ipv6, protocol};
use zerocopy::FromBytes;

/// A packet inside an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    /// Bytes from the error's IP header to the quoted one.
    pub offset: usize,
    /// Bytes from the quoted IP header to its transport header.
    pub transport: usize,
    pub protocol: u8,
    pub source: Endpoint,
    pub target: Endpoint,
    pub is_v4: bool,
}

impl Quote {
    /// Of an error from its IP header on. None where too little is quoted to know the connection, and for fragments that
    /// have no ports (RFC 5508 section 4.2).
    pub fn read(network: &[u8], meta: &Meta) -> Option<Self> {
        let offset = usize::from(meta.transport_offset) + icmp::HEADER;
        let quoted = network.get(offset..)?;
        let is_v4 = meta.flags.has(Flags::IPV4);
        let (transport, protocol, source, target) = if is_v4 { read_v4(quoted)? } else { read_v6(quoted)? };
        let ports = ports(protocol, quoted.get(transport..)?)?;
        Some(Self {
            offset,
            transport,
            protocol,
            source: Endpoint {
                address: source,
                port: ports.0,
            },
            target: Endpoint {
                address: target,
                port: ports.1,
            },
            is_v4,
        })
    }

    /// The key of the quoted packet, as it was on the wire.
    pub fn key(&self, vrf: VrfId) -> Key {
        Key::new(
            &self.source,
            &self.target,
            self.protocol,
            vrf,
            Flags::IPV4.when(self.is_v4),
        )
    }
}

type Quoted = (usize, u8, [u8; 16], [u8; 16]);

fn read_v4(quoted: &[u8]) -> Option<Quoted> {
    let (header, _) = ipv4::Header::ref_from_prefix(quoted).ok()?;
    let length = header.header_length();
    let is_later = header.fragment.get() & ipv4::OFFSET != 0;
    if header.version_length >> 4 != 4 || length < ipv4::HEADER || is_later {
        return None;
    }
    let address = |bytes| Endpoint::v4(bytes, 0).address;
    Some((length, header.protocol, address(header.source), address(header.target)))
}

fn read_v6(quoted: &[u8]) -> Option<Quoted> {
    let (header, _) = ipv6::Header::ref_from_prefix(quoted).ok()?;
    if header.version_class_label.get() >> 28 != 6 {
        return None;
    }
    let found = ipv6::walk(quoted, header.next_header).ok()?;
    let length = usize::from(found.offset);
    (!found.later_fragment).then_some((length, found.protocol, header.source, header.target))
}

/// The ports of a connection's key. An echo has its identifier in both places.
fn ports(transport: u8, head: &[u8]) -> Option<(u16, u16)> {
    let word = |at: usize| Some(u16::from_be_bytes([*head.get(at)?, *head.get(at + 1)?]));
    Some(match transport {
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDP_LITE => (word(0)?, word(2)?),
        protocol::ICMP | protocol::ICMPV6 => {
            let kind = *head.first()?;
            let is_echo = match transport {
                protocol::ICMP => matches!(kind, icmp::v4::ECHO_REQUEST | icmp::v4::ECHO_REPLY),
                _ => matches!(kind, icmp::v6::ECHO_REQUEST | icmp::v6::ECHO_REPLY),
            };
            let identifier = word(4)?;
            return is_echo.then_some((identifier, identifier));
        }
        _ => (0, 0),
    })
}
