//! Refused connections: bytes in by a port, bytes out by the same.

use fastpath::arena::Arena;
use fastpath::batch::Batch;
use fastpath::builder::GraphBuilder;
use fastpath::clock::Clock;
use fastpath::forwarding::Forwarding;
use fastpath::interfaces::{Interface, Interfaces};
use fastpath::labels;
use fastpath::meta::{PortId, VrfId};
use fastpath::node::{Never, Node, Turn};
use fastpath::nodes::icmp_error::{self, Complaint, IcmpError};
use fastpath::nodes::parse::{self, Parse};
use fastpath::nodes::port_in::PortIn;
use fastpath::nodes::port_out::PortOut;
use fastpath::nodes::reject::{self, Reject};
use fastpath::nodes::undeliverable::NoLink;
use fastpath::pool::Pool;
use fastpath::port::memory::{MemoryEnd, memory};
use fastpath::publish::Publisher;
use fastpath::qsbr::Qsbr;
use fastpath::worker::{Command, Idle, ManualWorker, Parts, Waker};
use std::sync::Arc;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

labels! {
    /// One way.
    pub enum On { On = "on" }
}

/// Complains of everything.
struct Complain(Complaint);

impl Node for Complain {
    const NAME: &'static str = "complain";
    type Next = On;
    type Drop = Never;
    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        batch.each(|packet| {
            packet.meta.complaint = self.0 as u8;
            Ok(On::On)
        });
    }
}

/// Sends everything back to port 0.
struct Back;

impl Node for Back {
    const NAME: &'static str = "back";
    type Next = On;
    type Drop = Never;
    fn process(&mut self, _: &Turn, batch: &mut Batch<'_, Self>) {
        batch.each(|packet| {
            packet.meta.egress = PortId(0);
            Ok(On::On)
        });
    }
}

fn interfaces() -> Publisher<Interfaces> {
    let interface = Interface {
        name: "left".to_owned(),
        mac: MAC,
        mtu: 1500,
        tracked: false,
        shared: false,
        vrf: VrfId(0),
        addresses: vec![([10, 1, 0, 1].into(), 24), ("fd00::1".parse().unwrap(), 64)],
        ..Interface::default()
    };
    Publisher::new(Interfaces {
        ports: vec![Some(interface)],
        listeners: vec![],
        ..Interfaces::default()
    })
}

/// A worker whose every packet is refused, and its port.
fn refuse(complaint: Complaint) -> (ManualWorker, MemoryEnd) {
    let interfaces = interfaces();
    let mut graph = GraphBuilder::new();
    let parse = graph.node(Parse::new(interfaces.reader()));
    let complain = graph.node(Complain(complaint));
    let (reject, no_link) = (graph.node(Reject), graph.node(NoLink));
    let icmp_error = graph.node(IcmpError::new(interfaces.reader(), Arc::new(Forwarding::default())));
    let (back, out) = (graph.node(Back), graph.sink(PortOut));
    graph.source(PortIn, parse);
    graph.connect(parse, parse::Next::Route, complain);
    graph.connect(parse, parse::Next::Flows, complain);
    graph.connect(parse, parse::Next::Arp, no_link);
    graph.connect(parse, parse::Next::Ndp, no_link);
    graph.connect(parse, parse::Next::Check, no_link);
    graph.connect(parse, parse::Next::Police, no_link);
    graph.connect(parse, parse::Next::Punt, no_link);
    graph.connect(complain, On::On, reject);
    graph.connect(reject, reject::Next::Reset, back);
    graph.connect(reject, reject::Next::Tell, icmp_error);
    graph.connect(icmp_error, icmp_error::Next::Send, back);
    graph.connect(back, On::On, out);
    let (arena, frames) = Arena::new(256).unwrap();
    let (mut worker, commands) = ManualWorker::new(Parts {
        number: 0,
        core: None,
        idle: Idle::Adaptive,
        graph: graph.build().unwrap(),
        pool: Pool::new(arena, frames),
        qsbr: Arc::new(Qsbr::new(1)),
        clock: Clock::new(),
        waker: Arc::new(Waker::new().unwrap()),
        handoff: vec![],
    });
    let (queue, end) = memory();
    commands
        .send(Command::Attach(PortId(0), Box::new(queue), Arc::default()))
        .unwrap();
    worker.turn(0);
    (worker, end)
}

/// What comes back for a packet.
fn answer(complaint: Complaint, packet: &[u8]) -> Option<Vec<u8>> {
    let (mut worker, end) = refuse(complaint);
    end.send.send(packet.to_vec()).unwrap();
    worker.turn(1);
    end.receive.try_iter().next()
}

/// RFC 1071, as written there, over parts of even length but for the last.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for word in parts.concat().chunks(2) {
        sum += u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn frame(kind: u16, packet: &[u8]) -> Vec<u8> {
    [&MAC, &[2, 0, 0, 0, 0, 9][..], &kind.to_be_bytes(), packet].concat()
}

/// From 10.2.0.9 to 10.96.0.1.
fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut header = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 2, 0, 9, 10, 96, 0, 1];
    header[2..4].copy_from_slice(&length.to_be_bytes());
    let sum = sum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame(0x0800, &[&header, payload].concat())
}

/// From port 40,000 to port 80.
fn tcp(flags: u8, content: &[u8]) -> Vec<u8> {
    let mut header = [0; 20];
    header[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
    header[4..8].copy_from_slice(&0xffff_fff0u32.to_be_bytes());
    header[8..12].copy_from_slice(&77u32.to_be_bytes());
    (header[12], header[13]) = (5 << 4, flags);
    [&header, content].concat()
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

#[test]
fn tcp_is_reset_as_rfc_9293_says() {
    let cases: [(u8, &[u8], u32, u32, u8); 5] = [
        (SYN, b"", 0, 0xffff_fff1, RST | ACK),
        (SYN, b"early data", 0, 0xffff_fffb, RST | ACK),
        (FIN, b"0123456789abcdef", 0, 1, RST | ACK),
        (ACK, b"", 77, 0, RST),
        (SYN | ACK, b"", 77, 0, RST),
    ];
    for (flags, content, sequence, acknowledgment, wanted) in cases {
        let answer = answer(Complaint::PortClosed, &v4(6, &tcp(flags, content))).unwrap();
        let (ip, segment) = (&answer[14..34], &answer[34..]);
        assert_eq!(answer.len(), 54);
        assert_eq!(&ip[12..20], &[10, 96, 0, 1, 10, 2, 0, 9], "from whom it was sent to");
        assert_eq!((sum(&[ip]), ip[8], ip[9]), (0, 64, 6));
        assert_eq!(&segment[..4], &[0, 80, 0x9c, 0x40]);
        assert_eq!(&segment[4..8], &sequence.to_be_bytes(), "{flags}");
        assert_eq!(&segment[8..12], &acknowledgment.to_be_bytes(), "{flags}");
        assert_eq!((segment[12], segment[13]), (5 << 4, wanted), "{flags}");
        assert_eq!(sum(&[&ip[12..20], &[0, 6, 0, 20], segment]), 0);
    }
    assert_eq!(answer(Complaint::PortClosed, &v4(6, &tcp(RST, b""))), None);
}

#[test]
fn ipv6_with_extension_headers_is_reset_without_them() {
    let (source, target) = ([0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], {
        let mut target = [0; 16];
        (target[0], target[15]) = (0xfd, 7);
        target
    });
    // Destination options of eight bytes: one of padding.
    let payload = [&[6, 0, 1, 4, 0, 0, 0, 0][..], &tcp(SYN, b"")].concat();
    let mut header = [0x60, 0, 0, 0, 0, 0, 60, 64].to_vec();
    header[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    let packet = [&header[..], &source, &target, &payload].concat();
    let answer = answer(Complaint::PortClosed, &frame(0x86dd, &packet)).unwrap();
    let (ip, segment) = (&answer[14..54], &answer[54..]);
    assert_eq!((answer.len(), ip[4], ip[5], ip[6], ip[7]), (74, 0, 20, 6, 64));
    assert_eq!((&ip[8..24], &ip[24..40]), (&target[..], &source[..]));
    assert_eq!(segment[13], RST | ACK);
    assert_eq!(sum(&[&ip[8..40], &[0, 6, 0, 20], segment]), 0);
}

#[test]
fn others_are_told_by_icmp() {
    let datagram = [0x9c, 0x40, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];
    for (complaint, code) in [(Complaint::PortClosed, 3), (Complaint::Prohibited, 13)] {
        let packet = v4(17, &datagram);
        let answer = answer(complaint, &packet).unwrap();
        assert_eq!((answer[23], answer[34], answer[35]), (1, 3, code));
        assert_eq!(&answer[26..34], &[10, 1, 0, 1, 10, 2, 0, 9], "by us");
        assert_eq!(&answer[42..], &packet[14..], "about what was sent");
    }
}
