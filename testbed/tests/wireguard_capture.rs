//! What the running program puts on the wire, held against Wireshark's dissector. It needs an ephemeral key of the
//! handshake, and Margay gives none away: the other end is ours, in this test, and tells its own.

mod router;
mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use control::keys::Secret;
use router::until;
use testbed::packets::{frame, icmp, udp};
use testbed::{golden, need};
use tunnel::{CLIENT, LAPTOP, Net, handshakes, key, public};
use wireguard::handshake::Identity;
use wireguard::session::{Ends, Lookup, Notice, single};
use wireguard::tunnel::{Action, Now, PeerConfig, Random, SystemRandom, Tunnel};

/// Ethernet, IPv4 and UDP, before a WireGuard message.
const HEADERS: usize = 42;
const LAPTOP_AT: [u8; 4] = [192, 0, 2, 2];
const MARGAY_AT: [u8; 4] = [192, 0, 2, 1];
const PORT: u16 = 51820;
/// The time of the laptop's end, which is sealed into its initiation.
const NOW: Now = Now {
    ns: 1_000_000_000,
    wall: Duration::from_secs(1_700_000_000),
};
/// Sends the frames of a capture by a raw socket.
const SEND: &str = "
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0))
data = open(sys.argv[1], 'rb').read()[24:]
while data:
    length = struct.unpack('<I', data[8:12])[0]
    s.send(data[16:16 + length]); data = data[16 + length:]
";

/// Random numbers, each piece of which is kept.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

impl Random for Kept {
    fn fill(&mut self, bytes: &mut [u8]) {
        SystemRandom.fill(bytes);
        self.0.lock().unwrap().push(bytes.to_vec());
    }
}

impl Kept {
    /// The private half of the ephemeral key in an initiation.
    fn ephemeral(&self, initiation: &[u8]) -> Secret {
        let pieces = self.0.lock().unwrap();
        let mut keys = pieces.iter().filter_map(|piece| <[u8; 32]>::try_from(&piece[..]).ok());
        let found = keys.find(|key| Identity::new(key).public()[..] == initiation[8..40]);
        Secret::new(&found.expect("it was drawn from these numbers"))
    }
}

/// The laptop's end of the tunnel, of which nothing is hidden, and the wire.
struct Laptop<'a> {
    net: &'a Net,
    tunnel: Tunnel,
    kept: Kept,
    wire: PathBuf,
}

impl Laptop<'_> {
    fn new(net: &Net) -> Laptop<'_> {
        let kept = Kept::default();
        let tunnel = Tunnel::new(key(2).bytes(), 1, Box::new(kept.clone()));
        let wire = net.lab.folder().join("wire.pcap");
        Laptop {
            net,
            tunnel,
            kept,
            wire,
        }
    }

    /// Puts messages on the wire.
    fn send(&self, messages: &[Vec<u8>]) {
        let mac = |text: String| -> [u8; 6] {
            let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
            bytes.collect::<Vec<u8>>().try_into().unwrap()
        };
        let macs = [
            mac(self.net.router.mac("wan0").unwrap()),
            mac(self.net.laptop.mac("eth0").unwrap()),
        ];
        let around = |message: &Vec<u8>| {
            let ends = [(LAPTOP_AT.into(), PORT), (MARGAY_AT.into(), PORT)];
            frame(macs[0], macs[1], &udp(ends[0], ends[1], 64, message))
        };
        let frames: Vec<Vec<u8>> = messages.iter().map(around).collect();
        let file = self.net.lab.folder().join("sent.pcap");
        golden::write(&file, &frames).unwrap();
        let path = file.to_string_lossy();
        self.net.laptop.run(["python3", "-c", SEND, &path]).unwrap();
    }

    /// Messages of that kind that Margay has sent so far.
    fn heard(&self, kind: u8) -> Vec<Vec<u8>> {
        // The last record may still be being written.
        let frames = golden::read(&self.wire).unwrap_or_default();
        let from_margay = frames.iter().filter(|frame| frame.get(26..30) == Some(&MARGAY_AT));
        let messages = from_margay.filter_map(|frame| frame.get(HEADERS..));
        messages
            .filter(|message| message.first() == Some(&kind))
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// A handshake that the laptop begins; its initiation.
    fn shake_hands(&mut self) -> Vec<u8> {
        let margay = SocketAddr::new(MARGAY_AT.into(), PORT);
        let config = PeerConfig {
            public_key: public(1).0,
            preshared_key: zeroize::Zeroizing::new([0; 32]),
            endpoint: Some(margay),
            persistent_keepalive_s: 0,
        };
        let peer = self.tunnel.add(&config, NOW).unwrap();
        self.tunnel.notice(Notice::Wanted(peer), NOW);
        let Some(Action::Send { bytes, .. }) = self.tunnel.poll() else {
            panic!("no initiation");
        };
        self.send(std::slice::from_ref(&bytes));
        until("the response", || !self.heard(2).is_empty());
        let response = &self.heard(2)[0];
        self.tunnel.receive(response, Ends::to(margay), 0, NOW).unwrap();
        bytes
    }

    /// These packets, sealed.
    fn seal(&self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut lookup = Lookup::new(&self.tunnel.tables());
        let outbound = lookup.peer(wireguard::peer::PeerId(0)).unwrap();
        let session = outbound.session().unwrap();
        let sealed = packets.iter().map(|packet| single::seal(session, packet, NOW.ns));
        sealed.map(|sealed| sealed.unwrap().0).collect()
    }
}

/// Source and kind of each echo that Wireshark finds inside the messages of a capture, in order.
fn echoes_inside(capture: &Path, keys: &Path) -> Vec<String> {
    let keys = format!("wg.keylog_file:{}", keys.display());
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(capture).args(["-o", &keys, "-T", "fields"]);
    tshark.args(["-Y", "wg.type == 4 && (icmp || icmpv6)"]);
    for field in ["ip.src", "ipv6.src", "icmp.type", "icmpv6.type"] {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn wireshark_decrypts_what_the_program_seals() {
    need!("python3", "tcpdump", "tshark");
    let net = Net::new();
    let margay = net.start("");
    let mut laptop = Laptop::new(&net);
    let path = laptop.wire.to_string_lossy().into_owned();
    let argv = "tcpdump -i eth0 -Z root --immediate-mode -U udp port 51820 -w".split(' ');
    let mut tcpdump = net.laptop.spawn(argv.chain([path.as_str()])).unwrap();
    tcpdump.wait_for_line("listening on", router::LIMIT).unwrap();
    let initiation = laptop.shake_hands();
    let asked: Vec<Vec<u8>> = LAPTOP
        .into_iter()
        .zip(CLIENT)
        .map(|(from, to)| {
            let [from, to]: [IpAddr; 2] = [from, to].map(|address| address.parse().unwrap());
            let kind = if from.is_ipv4() { 8 } else { 128 };
            icmp(from, to, 64, (kind, 0), 0, b"what was asked")
        })
        .collect();
    for (number, packet) in asked.iter().enumerate() {
        laptop.send(&laptop.seal(std::slice::from_ref(packet)));
        // Keepalives, which have nothing inside, are the shortest.
        let answers = || laptop.heard(4).iter().filter(|message| message.len() > 32).count();
        until("the answer", || answers() > number);
    }
    tcpdump.stop().unwrap();
    let keys = net.lab.folder().join("keys");
    let log = format!(
        "LOCAL_STATIC_PRIVATE_KEY = {}\nREMOTE_STATIC_PUBLIC_KEY = {}\nLOCAL_EPHEMERAL_PRIVATE_KEY = {}\n",
        *key(2).text(),
        public(1),
        *laptop.kept.ephemeral(&initiation).text()
    );
    std::fs::write(&keys, log).unwrap();
    let expected = [
        "192.0.2.2,10.9.0.2 8",
        "192.0.2.1,10.1.0.2 0",
        "192.0.2.2 fd00:9::2 128",
        "192.0.2.1 fd00:1::2 129",
    ];
    assert_eq!(echoes_inside(&laptop.wire, &keys), expected);
    assert_eq!(handshakes(&margay), 1);
    margay.stop().unwrap();
}
