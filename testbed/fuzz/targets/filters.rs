//! Filters of captures: what is taken can be negated, and the two never match the same packet.
//!
//! An input is a row of words, by number, and packets after it: written out, most inputs would be names, which libpcap asks
//! the network for.

use std::borrow::Cow;

use control::capture::{CaptureRequest, Where};
use pcap_file::pcapng::{Block, PcapNgReader};
use testbed::Plane;

use super::Run;

const PORTS: &str = "{apiVersion: margay/v1, kind: Port, metadata: {name: left}, spec: {device: left, driver: memory, addresses: [10.1.0.1/24]}}";

/// The words of pcap-filter(7), and what stands between them.
const WORDS: &str = "host net port portrange src dst ether ip ip6 arp tcp udp icmp icmp6 sctp proto and or not ( ) [ ] : = != < > <= >= + - * / % & | ^ << >> \
    len less greater broadcast multicast gateway mask vlan mpls pppoed pppoes protochain 10.1.0.1 10.1.0.0/24 fd00:1::1 ::/0 02:00:00:00:00:01 80 0 1 2 4 0xffff \
    tcpflags tcp-syn icmptype icmp-echo igmp vrrp ah esp iso stp ipx geneve wlan link inbound ifname \
    \\tcp \\ip && || ! == 6-80 1.2 255.255.255.0 4294967295 -1";

/// Words of a filter, at most.
const WORDS_MAX: usize = 24;

/// Sets it up.
pub fn start() -> Run {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut plane = Plane::new(PORTS).unwrap();
    Box::new(move |input| {
        let Some((count, rest)) = input.split_first() else {
            return;
        };
        let (numbers, rest) = rest.split_at((usize::from(*count) % WORDS_MAX).min(rest.len()));
        let filter: Vec<Cow<'_, str>> = numbers.iter().map(|number| word(&words, *number)).collect();
        let filter = filter.join(" ");
        let packets: Vec<&[u8]> = rest.chunks(128).take(16).collect();
        let Some(matched) = caught(&mut plane, &filter, &packets) else {
            return;
        };
        // A filter that reads past a packet does not match it, nor does its negation.
        if !filter.is_empty() {
            let others = caught(&mut plane, &format!("not ({filter})"), &packets).unwrap_or_default();
            assert!(matched + others <= packets.len(), "{filter}");
        }
    })
}

/// Numbers beyond the list stand for themselves.
fn word<'a>(words: &[&'a str], number: u8) -> Cow<'a, str> {
    match words.get(usize::from(number)) {
        Some(word) => Cow::Borrowed(word),
        None => Cow::Owned(number.to_string()),
    }
}

/// How many of the packets a capture has; none where the filter is refused.
fn caught(plane: &mut Plane, filter: &str, packets: &[&[u8]]) -> Option<usize> {
    let request = CaptureRequest {
        place: Where::Rx,
        count: None,
        filter: filter.to_owned(),
    };
    let mut capturing = match plane.views().capture(&request) {
        Ok(capturing) => capturing,
        Err(refusal) => {
            assert!(
                refusal.error.contains(filter) && !refusal.error.contains('\n'),
                "{refusal}"
            );
            return None;
        }
    };
    packets.iter().for_each(|packet| plane.send("left", packet));
    plane.settle();
    plane.take("left");
    let file = capturing.next_piece().unwrap();
    let mut reader = PcapNgReader::new(&file[..]).unwrap();
    let mut found = 0;
    while let Some(block) = reader.next_block() {
        found += usize::from(matches!(block.unwrap(), Block::EnhancedPacket(_)));
    }
    Some(found)
}
