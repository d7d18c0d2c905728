//! What stands around a message on the wire: UDP and IP headers, written for a way and filled in for each packet.

use crate::session::Ends;
use fastpath::meta::{Endpoint, PortId, VrfId};
use fastpath::nodes::local::HOP_LIMIT;
use fastpath::packet::{NoRoom, Packet};
use fastpath::wire::checksum::Sum;
use fastpath::wire::{ethernet, ipv4, ipv6, protocol};
use std::net::IpAddr;

/// Bytes of a UDP header (RFC 768).
pub const UDP_HEADER: usize = 8;
/// Traffic class of handshake messages: AF41, as Linux marks them (drivers/net/wireguard/messages.h, HANDSHAKE_DSCP).
pub const HANDSHAKE_CLASS: u8 = 0x88;

/// The headers of one way.
pub struct Outer {
    vrf: VrfId,
    tunnel: PortId,
    source: Endpoint,
    target: Endpoint,
    headers: Headers,
}

enum Headers {
    /// With the sum of its words, less those that differ from packet to packet.
    V4([u8; ipv4::HEADER + UDP_HEADER], u32),
    V6([u8; ipv6::HEADER + UDP_HEADER]),
}

impl Outer {
    /// Of a tunnel and in the table outside it, between both ends, from our UDP port `port`; none while our address is not
    /// known, or of another family.
    pub fn new((tunnel, vrf): (PortId, VrfId), ends: Ends, port: u16) -> Option<Self> {
        let ports = (u32::from(port) << 16 | u32::from(ends.remote.port())).to_be_bytes();
        let (source, target, headers) = match (ends.local?, ends.remote.ip()) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let mut bytes = [0; ipv4::HEADER + UDP_HEADER];
                (bytes[0], bytes[8], bytes[9]) = (0x45, HOP_LIMIT, protocol::UDP);
                bytes[12..16].copy_from_slice(&source.octets());
                bytes[16..20].copy_from_slice(&target.octets());
                bytes[20..24].copy_from_slice(&ports);
                let words = bytes[..ipv4::HEADER].as_chunks().0.iter();
                let sum = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
                let end = |address: std::net::Ipv4Addr, port| Endpoint::v4(address.octets(), port);
                (
                    end(source, port),
                    end(target, ends.remote.port()),
                    Headers::V4(bytes, sum),
                )
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let mut bytes = [0; ipv6::HEADER + UDP_HEADER];
                (bytes[6], bytes[7]) = (protocol::UDP, HOP_LIMIT);
                bytes[8..24].copy_from_slice(&source.octets());
                bytes[24..40].copy_from_slice(&target.octets());
                bytes[40..44].copy_from_slice(&ports);
                let end = |address: std::net::Ipv6Addr, port| Endpoint {
                    address: address.octets(),
                    port,
                };
                (end(source, port), end(target, ends.remote.port()), Headers::V6(bytes))
            }
            _ => return None,
        };
        Some(Self {
            vrf,
            tunnel,
            source,
            target,
            headers,
        })
    }

    /// Puts the headers in front of a packet that is a message so far, with an Ethernet header still to be addressed,
    /// and makes it one of ours that is to be routed. `class` is DSCP and ECN; packets may be fragmented on their way,
    /// so `identification` differs from that of the last ones (RFC 6864 section 4.1; IPv6 has none).
    ///
    /// # Errors
    /// There is no room for the headers; the packet is as it was.
    #[inline]
    pub fn wrap(&self, packet: &mut Packet<'_>, class: u8, identification: u16) -> Result<(), NoRoom> {
        let length = packet.meta.length() + UDP_HEADER as u16;
        let is_v4 = match &self.headers {
            Headers::V4(template, sum) => {
                let front = packet.push((ethernet::HEADER + ipv4::HEADER + UDP_HEADER) as u16)?;
                let (link, headers) = front.split_at_mut(ethernet::HEADER);
                link[12..].copy_from_slice(&ethernet::IPV4.to_be_bytes());
                headers.copy_from_slice(template);
                let total = length + ipv4::HEADER as u16;
                let sum = sum + u32::from(class) + u32::from(total) + u32::from(identification);
                let sum = (sum & 0xffff) + (sum >> 16);
                let sum = (sum & 0xffff) + (sum >> 16);
                headers[1] = class;
                headers[2..4].copy_from_slice(&total.to_be_bytes());
                headers[4..6].copy_from_slice(&identification.to_be_bytes());
                headers[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
                headers[24..26].copy_from_slice(&length.to_be_bytes());
                true
            }
            Headers::V6(template) => {
                let front = packet.push((ethernet::HEADER + ipv6::HEADER + UDP_HEADER) as u16)?;
                let (link, headers) = front.split_at_mut(ethernet::HEADER);
                link[12..].copy_from_slice(&ethernet::IPV6.to_be_bytes());
                headers.copy_from_slice(template);
                headers[..4].copy_from_slice(&(6 << 28 | u32::from(class) << 20).to_be_bytes());
                headers[4..6].copy_from_slice(&length.to_be_bytes());
                headers[44..46].copy_from_slice(&length.to_be_bytes());
                let data = &mut packet.data()[ethernet::HEADER..];
                let sum = v6_checksum(data);
                data[46..48].copy_from_slice(&sum);
                false
            }
        };
        packet.originate(self.vrf, protocol::UDP, self.source, self.target, is_v4);
        packet.meta.seal_by(self.tunnel);
        Ok(())
    }
}

/// The checksum of an IPv6 packet that is one UDP datagram, its field being zeros. It must not be zero (RFC 8200
/// section 8.1), whereas over IPv4 none is needed: the tag covers what counts (RFC 768).
fn v6_checksum(packet: &[u8]) -> [u8; 2] {
    let (header, datagram) = packet.split_at(ipv6::HEADER);
    let pseudo = [header[4], header[5], 0, protocol::UDP];
    match Sum::default().with(&header[8..]).with(&pseudo).with(datagram).finish() {
        [0, 0] => [0xff, 0xff],
        sum => sum,
    }
}

/// Makes a packet of `message`, of a tunnel and in the table outside it, between both ends, from our UDP port: for control, to put into an `originate` ring.
/// Whether it could: our address has to be known, and the message has to fit.
pub fn datagram(
    packet: &mut Packet<'_>,
    tunnel: (PortId, VrfId),
    (ends, port): (Ends, u16),
    (message, class): (&[u8], u8),
    identification: u16,
) -> bool {
    let Some(outer) = Outer::new(tunnel, ends, port) else {
        return false;
    };
    *packet.meta = Default::default();
    packet.fill(fastpath::arena::HEADROOM, message).is_ok() && outer.wrap(packet, class, identification).is_ok()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use fastpath::arena::Arena;
    use fastpath::pool::Pool;
    use fastpath::wire::checksum;

    /// The packet around a message of this length, from its Ethernet header on.
    fn wrapped(local: &str, remote: &str, length: usize) -> Vec<u8> {
        let (arena, frames) = Arena::new(1).unwrap();
        let mut frames = Pool::new(arena, frames).frames();
        let mut frame = frames.take().unwrap();
        let mut packet = frames.packet(&mut frame);
        let ends = Ends {
            remote: remote.parse().unwrap(),
            local: Some(local.parse().unwrap()),
        };
        let message: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let tunnel = (PortId(3), VrfId(7));
        assert!(datagram(&mut packet, tunnel, (ends, 51820), (&message, 0x8a), 0xfedc));
        assert!(packet.meta.is_sealed_by(PortId(3)) && !packet.meta.is_sealed_by(PortId(0)));
        assert_eq!((packet.meta.vrf, packet.meta.target.ip()), (VrfId(7), ends.remote.ip()));
        let bytes = packet.data().to_vec();
        assert!(bytes.ends_with(&message));
        frames.give(frame);
        bytes
    }

    #[test]
    fn headers_sum_up() {
        for length in [0, 1, 16, 147, 1471] {
            let v4 = wrapped("192.0.2.1", "198.51.100.2:4500", length);
            assert!(checksum::is_valid(&v4[14..34]), "{length}");
            assert_eq!(
                (v4[15], &v4[16..18], &v4[18..20], v4[20]),
                (0x8a, &(28 + length as u16).to_be_bytes()[..], &[0xfe, 0xdc][..], 0)
            );
            assert_eq!([&v4[34..38], &v4[40..42]].concat(), [0xca, 0x6c, 0x11, 0x94, 0, 0]);
            let v6 = wrapped("2001:db8::1", "[2001:db8::2]:4500", length);
            let pseudo = [&v6[22..54], &[0, 0, v6[18], v6[19], 0, 0, 0, 17], &v6[54..]].concat();
            assert!(checksum::is_valid(&pseudo), "{length}");
            assert_eq!(
                (&v6[14..18], &v6[18..20]),
                (&[0x68, 0xa0, 0, 0][..], &(8 + length as u16).to_be_bytes()[..])
            );
        }
    }

    #[test]
    fn ends_of_two_families_do_not_meet() {
        let remote = "192.0.2.1:1".parse().unwrap();
        for local in [None, Some("2001:db8::1".parse().unwrap())] {
            assert!(Outer::new((PortId(0), VrfId(0)), Ends { remote, local }, 1).is_none());
        }
    }
}
