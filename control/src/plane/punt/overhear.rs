//! What neighbours tell the kernel, the plane wants to know as well: on a port that shares its addresses with the kernel,
//! answers to the plane's own questions go there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use fastpath::events::{Event, Events};
use fastpath::interfaces::shares_prefix;
use fastpath::meta::PortId;
use fastpath::wire::{arp, ethernet, icmp, ipv6, ndp};
use ipnet::IpNet;
use pcap::{Active, BreakLoop, Capture, Direction};
use zerocopy::FromBytes;

/// ARP, and neighbour advertisements without extension headers.
const FILTER: &str = "arp or (icmp6 and ip6[6] = 58 and ip6[40] = 136)";
/// Bytes of a packet that are looked at: an advertisement with a few options.
const LENGTH: i32 = 256;

/// A thread that listens to what the kernel gets from a device.
pub(in crate::plane) struct Ear {
    shared: Arc<Shared>,
    wake: BreakLoop,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    /// The subnets in which neighbours are.
    near: Mutex<Vec<IpNet>>,
}

impl Ear {
    /// Listens on a device; nothing if that is not possible at the moment.
    pub fn open(port: PortId, device: &str, events: Events) -> Option<Ear> {
        let mut capture = open(device)
            .inspect_err(|error| tracing::warn!("cannot listen on {device}: {error}"))
            .ok()?;
        let wake = capture.breakloop_handle();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            near: Mutex::new(vec![]),
        });
        let theirs = shared.clone();
        let listen = move || listen(port, capture, &theirs, &events);
        let thread = std::thread::Builder::new()
            .name("overhear".to_owned())
            .spawn(listen)
            .ok();
        Some(Ear { shared, wake, thread })
    }

    /// Whether it still does; not once the device was down or gone.
    pub fn listens(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Says in which subnets neighbours are.
    pub fn set_addresses(&self, addresses: &[IpNet]) {
        let mut near = self.shared.near.lock().unwrap_or_else(PoisonError::into_inner);
        if near.as_slice() != addresses {
            *near = addresses.to_vec();
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.wake.breakloop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(device: &str) -> Result<Capture<Active>, pcap::Error> {
    let capture = Capture::from_device(device)?.snaplen(LENGTH).immediate_mode(true);
    let mut capture = capture.open()?;
    capture.direction(Direction::In)?;
    capture.filter(FILTER, true)?;
    Ok(capture)
}

fn listen(port: PortId, mut capture: Capture<Active>, shared: &Shared, events: &Events) {
    while !shared.stop.load(Ordering::Relaxed) {
        let heard = match capture.next_packet() {
            Ok(packet) => heard(packet.data),
            Err(pcap::Error::TimeoutExpired) => None,
            Err(_) => return,
        };
        let Some((address, mac, answer)) = heard else { continue };
        let near = shared.near.lock().unwrap_or_else(PoisonError::into_inner);
        if near
            .iter()
            .any(|net| net.addr() != address && shares_prefix(net.addr(), address, net.prefix_len()))
        {
            events.tell(Event::Neighbour {
                port,
                address,
                mac,
                answer,
            });
        }
    }
}

/// Who told its link address, and whether that was an answer (RFC 826, RFC 4861 section 7.1.2).
fn heard(frame: &[u8]) -> Option<(IpAddr, [u8; 6], bool)> {
    let (header, rest) = frame.split_at_checked(ethernet::HEADER)?;
    let (address, mac, answer) = match u16::from_be_bytes([header[12], header[13]]) {
        ethernet::ARP => {
            let (message, _) = arp::Packet::read_from_prefix(rest).ok()?;
            let sender = Ipv4Addr::from(message.sender);
            let is_told = message.is_ipv4_over_ethernet() && !sender.is_unspecified();
            let answer = message.operation.get() == arp::REPLY || message.sender == message.target;
            is_told.then_some((IpAddr::V4(sender), message.sender_mac, answer))?
        }
        ethernet::IPV6 => {
            let (header, message) = ipv6::Header::read_from_prefix(rest).ok()?;
            let message = message.get(..header.payload_length.get().into())?;
            let is_valid = header.hop_limit == ndp::HOP_LIMIT
                && message.first() == Some(&icmp::v6::NEIGHBOUR_ADVERTISEMENT)
                && ndp::checksum(header.source, header.target, message) == [0, 0];
            let about: [u8; 16] = message.get(8..ndp::MESSAGE_FIXED)?.try_into().ok()?;
            let link = ndp::link_address(&message[ndp::MESSAGE_FIXED..], ndp::TARGET_LINK)?;
            is_valid.then_some((IpAddr::V6(Ipv6Addr::from(about)), link, true))?
        }
        _ => return None,
    };
    (mac[0] & 1 == 0).then_some((address, mac, answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn frame(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xff; 12];
        frame.extend(kind.to_be_bytes());
        frame.extend(payload);
        frame
    }

    #[test]
    fn replies_and_announcements_are_answers_and_questions_are_not() {
        let told = |operation, target| {
            let packet = arp::Packet::new(operation, (MAC, [10, 0, 0, 9]), ([0; 6], target));
            heard(&frame(ethernet::ARP, packet.as_bytes()))
        };
        let neighbour = IpAddr::from([10, 0, 0, 9]);
        assert_eq!(told(arp::REPLY, [10, 0, 0, 1]), Some((neighbour, MAC, true)));
        assert_eq!(told(arp::REQUEST, [10, 0, 0, 9]), Some((neighbour, MAC, true)));
        assert_eq!(told(arp::REQUEST, [10, 0, 0, 1]), Some((neighbour, MAC, false)));
    }

    #[test]
    fn an_advertisement_counts_only_whole_and_from_the_link() {
        let about = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        let told = |hop_limit, change: fn(&mut Vec<u8>)| {
            let message = ndp::Message::new(
                icmp::v6::NEIGHBOUR_ADVERTISEMENT,
                ndp::SOLICITED,
                about,
                MAC,
                (about, about),
            );
            let header = ipv6::Header::new(about, about, 58, hop_limit, ndp::MESSAGE as u16);
            let mut bytes = frame(ethernet::IPV6, &[header.as_bytes(), message.as_bytes()].concat());
            change(&mut bytes);
            heard(&bytes)
        };
        assert_eq!(told(255, |_| {}), Some((IpAddr::from(about), MAC, true)));
        assert_eq!(told(254, |_| {}), None);
        assert_eq!(told(255, |bytes| bytes[70] ^= 1), None);
        assert_eq!(told(255, |bytes| bytes.truncate(80)), None);
    }
}
