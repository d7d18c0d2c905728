//! Cutting and joining, against packets built one by one.

use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder, TcpHeader, TcpOptionElement, ip_number};
use fastpath::port::tap::{Bundle, Cut, JOINED_MAX, Joint, Uncuttable, VNET_HEADER, VnetHeader};
use proptest::prelude::*;

/// A flow's bundle, before it is written down.
#[derive(Clone, Debug)]
struct Flow {
    v4: bool,
    tcp: bool,
    options: bool,
    dont_fragment: bool,
    push: bool,
    fin: bool,
    sequence: u32,
    identification: u16,
    traffic_class: u8,
    hop_limit: u8,
    window: u16,
    acknowledgement: u32,
    timestamp: u32,
    size: usize,
    payload: Vec<u8>,
}

fn flow() -> impl Strategy<Value = Flow> {
    let kinds = any::<[bool; 6]>();
    let numbers = (
        any::<u32>(),
        any::<u16>(),
        any::<u8>(),
        1u8..=255,
        any::<u16>(),
        any::<u32>(),
    );
    let payload = (48usize..=1448, 1usize..=60_000, any::<u8>());
    (kinds, numbers, payload).prop_map(|(kinds, numbers, (size, length, seed))| {
        let [v4, tcp, options, dont_fragment, push, fin] = kinds;
        let (sequence, identification, traffic_class, hop_limit, window, acknowledgement) = numbers;
        // As many packets as may be joined, and no IP packet above 64 KiB.
        let length = length.min(size * JOINED_MAX);
        let byte = |at: usize| (at as u8).wrapping_mul(31).wrapping_add(seed) ^ (at >> 8) as u8;
        Flow {
            v4,
            tcp,
            options,
            dont_fragment,
            push,
            fin,
            sequence,
            identification,
            traffic_class,
            hop_limit,
            window,
            acknowledgement,
            timestamp: acknowledgement ^ sequence,
            size,
            payload: (0..length).map(byte).collect(),
        }
    })
}

impl Flow {
    /// The oracle: the packet with these bytes of the payload, from scratch.
    fn packet(&self, number: usize, offset: usize, payload: &[u8], is_last: bool) -> Vec<u8> {
        let ip = match self.v4 {
            true => {
                let mut header =
                    Ipv4Header::new(0, self.hop_limit, ip_number::TCP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
                header.identification = self.identification.wrapping_add(number as u16);
                header.dont_fragment = self.dont_fragment;
                header.dscp = (self.traffic_class >> 2).try_into().unwrap();
                header.ecn = (self.traffic_class & 3).try_into().unwrap();
                IpHeaders::Ipv4(header, Default::default())
            }
            false => {
                let header = Ipv6Header {
                    traffic_class: self.traffic_class,
                    hop_limit: self.hop_limit,
                    source: [0xfd; 16],
                    destination: [0xfc; 16],
                    ..Default::default()
                };
                IpHeaders::Ipv6(header, Default::default())
            }
        };
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ip(ip);
        let mut bytes = vec![];
        if self.tcp {
            let mut tcp = TcpHeader::new(1000, 2000, self.sequence.wrapping_add(offset as u32), self.window);
            (tcp.ack, tcp.acknowledgment_number) = (true, self.acknowledgement);
            (tcp.psh, tcp.fin) = (self.push && is_last, self.fin && is_last);
            if self.options {
                let options = [
                    TcpOptionElement::Noop,
                    TcpOptionElement::Noop,
                    TcpOptionElement::Timestamp(self.timestamp, 7),
                ];
                tcp.set_options(&options).unwrap();
            }
            builder.tcp_header(tcp).write(&mut bytes, payload).unwrap();
        } else {
            builder.udp(1000, 2000).write(&mut bytes, payload).unwrap();
        }
        bytes
    }

    fn packets(&self) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(self.size);
        let chunks = self.payload.chunks(self.size).enumerate();
        let packet = |(number, chunk)| self.packet(number, number * self.size, chunk, number + 1 == count);
        chunks.map(packet).collect()
    }

    fn header(&self) -> VnetHeader {
        let network = 14;
        let start = network + if self.v4 { 20 } else { 40 };
        VnetHeader {
            needs_checksum: true,
            bundle: match (self.tcp, self.v4) {
                (true, true) => Bundle::Tcp4,
                (true, false) => Bundle::Tcp6,
                (false, _) => Bundle::Udp,
            },
            headers: 0,
            size: self.size as u16,
            checksum_start: start as u16,
            checksum_offset: if self.tcp { 16 } else { 6 },
        }
    }
}

fn cut(header: &VnetHeader, packet: &[u8]) -> Result<Vec<Vec<u8>>, Uncuttable> {
    let mut cut = Cut::new(header, packet)?;
    let mut pieces = vec![];
    while let Some(length) = cut.length() {
        let mut piece = vec![0xa5; length];
        cut.write(packet, &mut piece);
        pieces.push(piece);
    }
    Ok(pieces)
}

/// Joins as many packets as follow on the first: what goes before them, them as one, and how many they were.
fn join(packets: &[Vec<u8>]) -> Option<(VnetHeader, Vec<u8>, usize)> {
    let mut joint = Joint::start(&packets[0], true)?;
    for packet in &packets[1..] {
        match Joint::start(packet, true) {
            Some(other) if joint.join(&packets[0], packet, &other) => {}
            _ => break,
        }
    }
    let mut first = packets[0].clone();
    let header = joint.finish(&mut first);
    let rest = packets[1..joint.count()]
        .iter()
        .flat_map(|packet| packet[joint.payload()..].to_vec());
    let whole = first.into_iter().chain(rest).collect();
    Some((header, whole, joint.count()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_bundle_is_cut_into_the_packets_a_sender_would_have_made(flow in flow()) {
        let whole = flow.packet(0, 0, &flow.payload, true);
        prop_assert_eq!(cut(&flow.header(), &whole), Ok(flow.packets()));
    }

    #[test]
    fn what_was_joined_is_cut_into_the_same_packets(flow in flow()) {
        let flow = Flow { fin: false, ..flow };
        let packets = flow.packets();
        let (header, whole, count) = join(&packets).unwrap();
        prop_assert_eq!(count, packets.len());
        prop_assert!(whole.len() <= 14 + 65_535);
        prop_assert_eq!(VnetHeader::read(&header.bytes()), Some(header));
        prop_assert_eq!(cut(&header, &whole), Ok(packets));
    }

    #[test]
    fn what_differs_is_not_joined(flow in flow(), change in 0usize..9) {
        let flow = Flow { fin: false, push: false, tcp: true, v4: true, dont_fragment: false, options: true, ..flow };
        let other = match change {
            0 => Flow { traffic_class: flow.traffic_class ^ 1, ..flow.clone() },
            1 => Flow { hop_limit: flow.hop_limit ^ 128 | 1, ..flow.clone() },
            2 => Flow { acknowledgement: flow.acknowledgement ^ 1, ..flow.clone() },
            3 => Flow { timestamp: flow.timestamp ^ 1, ..flow.clone() },
            4 => Flow { window: flow.window ^ 1, ..flow.clone() },
            5 => Flow { sequence: flow.sequence.wrapping_add(1), ..flow.clone() },
            6 => Flow { identification: flow.identification.wrapping_add(1), ..flow.clone() },
            7 => Flow { fin: true, ..flow.clone() },
            _ => Flow { options: false, ..flow.clone() },
        };
        let first = flow.packet(0, 0, &flow.payload[..1], false);
        let good = flow.packet(1, 1, &flow.payload[..1], true);
        let bad = other.packet(1, 1, &flow.payload[..1], true);
        prop_assert_eq!(join(&[first.clone(), good]).unwrap().2, 2);
        prop_assert_eq!(join(&[first, bad]).unwrap().2, 1);
    }

    #[test]
    fn a_wrong_checksum_is_not_joined(flow in flow(), at in any::<prop::sample::Index>(), which in 0usize..2) {
        let flow = Flow { fin: false, push: false, ..flow };
        let payload = &flow.payload[..flow.payload.len().min(flow.size)];
        let mut packets = [flow.packet(0, 0, payload, false), flow.packet(1, payload.len(), payload, true)];
        prop_assert_eq!(join(&packets).unwrap().2, 2);
        let from = packets[which].len() - payload.len();
        packets[which][from + at.index(payload.len())] ^= 0x10;
        prop_assert_eq!(join(&packets).unwrap().2, 1);
    }

    #[test]
    fn anything_may_come_from_a_host(header in any::<[u8; VNET_HEADER]>(), packet in prop::collection::vec(any::<u8>(), 0..200),
                                     kind in prop::sample::select(vec![0u8, 1, 4, 5, 0x81]), start in 0u16..80,
                                     types in prop::sample::select(vec![0x0800u16, 0x86dd, 0x8100, 0x0806])) {
        let (mut header, mut packet) = (header, packet);
        header[1] = kind;
        header[6..8].copy_from_slice(&start.to_ne_bytes());
        if packet.len() > 14 {
            packet[12..14].copy_from_slice(&types.to_be_bytes());
        }
        if let Some(header) = VnetHeader::read(&header) {
            for piece in cut(&header, &packet).unwrap_or_default() {
                prop_assert!(piece.len() <= packet.len());
            }
        }
        let _ = join(&[packet.clone(), packet]);
    }
}

#[test]
fn a_push_ends_what_is_joined() {
    let flow = Flow {
        v4: true,
        tcp: true,
        options: true,
        dont_fragment: true,
        push: true,
        fin: false,
        sequence: u32::MAX - 50,
        identification: 0,
        traffic_class: 0,
        hop_limit: 64,
        window: 500,
        acknowledgement: 1,
        timestamp: 2,
        size: 100,
        payload: vec![7; 300],
    };
    let mut packets = flow.packets();
    let next = flow.packet(3, 300, &[7; 100], false);
    packets.push(next);
    assert_eq!(join(&packets).unwrap().2, 3);
    // And a short one does.
    let short = [
        flow.packet(0, 0, &[1; 100], false),
        flow.packet(1, 100, &[1; 99], false),
        flow.packet(2, 199, &[1; 99], false),
    ];
    assert_eq!(join(&short).unwrap().2, 2);
    let longer = [
        flow.packet(0, 0, &[1; 100], false),
        flow.packet(1, 100, &[1; 101], false),
    ];
    assert_eq!(join(&longer).unwrap().2, 1);
}
