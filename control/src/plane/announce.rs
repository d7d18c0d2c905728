//! A port that comes up, or gets an address, tells its link: others may still know who had the address before
//! (RFC 5227 section 2.3, RFC 4861 section 7.2.6).

use std::collections::BTreeSet;
use std::net::IpAddr;

use fastpath::meta::PortId;
use fastpath::wire::{arp, ethernet, icmp, ipv6, ndp, protocol};
use zerocopy::IntoBytes;

use super::State;

/// What was announced and holds: on which port, at which link address.
pub(super) type Announced = BTreeSet<(PortId, [u8; 6], IpAddr)>;

/// All nodes of the link (RFC 4291 section 2.7.1).
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

impl State {
    /// Announces what is new. Captures and memory have nobody to be told.
    pub(super) fn announce_addresses(&mut self) {
        let links = self
            .ports
            .iter()
            .filter(|port| port.is_up() && port.spec.driver.is_network_device());
        let addresses = links.flat_map(|port| {
            let own = port.spec.addresses.iter().map(|net| net.addr());
            let all = own.chain(port.aliases.iter().copied());
            all.map(|address| (port.id, port.mac, address))
        });
        let now: Announced = addresses.collect();
        let new: Vec<_> = now.difference(&self.ports.announced).copied().collect();
        self.ports.announced = now;
        for (port, mac, address) in new {
            self.send_from(port, &announcement(mac, address));
        }
    }
}

/// An ARP request for an address by itself, or an advertisement that nobody asked for.
fn announcement(mac: [u8; 6], address: IpAddr) -> Vec<u8> {
    let (target, ether_type) = match address {
        IpAddr::V4(_) => (ethernet::BROADCAST, ethernet::ARP),
        IpAddr::V6(_) => (ethernet::multicast(ALL_NODES), ethernet::IPV6),
    };
    let link = ethernet::Header {
        target,
        source: mac,
        ether_type: ether_type.into(),
    };
    let mut packet = link.as_bytes().to_vec();
    match address {
        IpAddr::V4(address) => {
            let ours = address.octets();
            packet.extend_from_slice(arp::Packet::new(arp::REQUEST, (mac, ours), ([0; 6], ours)).as_bytes());
        }
        IpAddr::V6(address) => {
            let (ours, kind) = (address.octets(), icmp::v6::NEIGHBOUR_ADVERTISEMENT);
            let flags = ndp::ROUTER_SOLICITED_OVERRIDE & !ndp::SOLICITED;
            let ip = ipv6::Header::new(ours, ALL_NODES, protocol::ICMPV6, ndp::HOP_LIMIT, ndp::MESSAGE as u16);
            packet.extend_from_slice(ip.as_bytes());
            packet.extend_from_slice(ndp::Message::new(kind, flags, ours, mac, (ours, ALL_NODES)).as_bytes());
        }
    }
    packet
}
