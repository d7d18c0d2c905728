//! What somebody on the wire may try: messages again, cut short, with a bit changed, from elsewhere, and floods.

mod router;
mod tunnel;

use router::{drops, iperf, iperf_server, port, reaches, until};
use testbed::packets::{frame, udp};
use testbed::{Child, Host, golden, need};
use tunnel::{CLIENT, LAPTOP, LAPTOP_V4, MARGAY_V4, Net, asks, echoes_in, handshakes, peer};

/// Ethernet, IPv4 and UDP, before a WireGuard message.
const HEADERS: usize = 42;
/// The type of messages with packets in them.
const TRANSPORT: u8 = 4;
/// Sends the frames of a capture by a raw socket, at a pace that every queue on the way keeps.
const SEND: &str = "
import socket, struct, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0))
data = open(sys.argv[1], 'rb').read()[24:]
count = 0
while data:
    length = struct.unpack('<I', data[8:12])[0]
    s.send(data[16:16 + length]); data = data[16 + length:]
    count += 1
    if count % 100 == 0: time.sleep(0.01)
";
/// Initiations of nobody, half of them with a first MAC that is right (sections 5.4.2 and 5.4.4 of the whitepaper).
const FLOOD: &str = "
import base64, hashlib, os, socket, sys, time
label = hashlib.blake2s(b'mac1----' + base64.b64decode(sys.argv[1])).digest()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 51820))
end = time.time() + 30
print('flooding', flush=True)
while time.time() < end:
    for _ in range(50):
        body = b'\\x01\\0\\0\\0' + os.urandom(112)
        for mac in (hashlib.blake2s(body, key=label, digest_size=16).digest(), os.urandom(16)):
            try: s.send(body + mac + bytes(16))
            except OSError: pass
";

/// Frames with WireGuard messages that the laptop sends meanwhile.
fn captured(net: &Net, during: impl FnOnce()) -> Vec<Vec<u8>> {
    let file = net.lab.folder().join("wire.pcap");
    let path = file.to_string_lossy();
    let filter = [
        "--immediate-mode",
        "-U",
        "-Q",
        "out",
        "-w",
        &path,
        "udp",
        "port",
        "51820",
    ];
    let argv = [&["tcpdump", "-i", "eth0", "-Z", "root"], &filter[..]].concat();
    let mut tcpdump = net.laptop.spawn(argv).unwrap();
    tcpdump.wait_for_line("listening on", router::LIMIT).unwrap();
    during();
    tcpdump.stop().unwrap();
    golden::read(&file).unwrap()
}

/// Puts frames on the wire from the laptop's end, and returns when Margay has received them all.
fn send(net: &Net, margay: &testbed::Margay, frames: &[Vec<u8>]) {
    let file = net.lab.folder().join("hostile.pcap");
    golden::write(&file, frames).unwrap();
    let received = || port(margay, "wan")["rx_packets"].as_u64().unwrap();
    let before = received();
    net.laptop
        .run(["python3", "-c", SEND, &file.to_string_lossy()])
        .unwrap();
    until("the frames to be received", || {
        received() >= before + frames.len() as u64
    });
}

fn mac(host: &Host, device: &str) -> [u8; 6] {
    let text = host.mac(device).unwrap();
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

#[test]
fn nothing_repeated_or_changed_gets_in() {
    need!("ping", "python3", "tcpdump", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start(LAPTOP_V4);
    let _laptop = net.start_laptop(MARGAY_V4);
    let frames = captured(&net, || {
        // The first of them is an initiation.
        asks(&net.laptop, CLIENT[0]);
        net.laptop.run(["ping", "-c5", "-i0.1", CLIENT[0]]).unwrap();
    });
    let kinds: Vec<u8> = frames.iter().map(|frame| frame[HEADERS]).collect();
    assert!(
        kinds[0] == 1 && kinds[1..].iter().all(|kind| *kind == TRANSPORT),
        "{kinds:?}"
    );
    let before = echoes_in(&net.client);
    assert_eq!(before, 6);

    send(&net, &margay, &frames);
    until("all of it to be refused", || drops(&margay, "replayed") >= 6);
    let macs = (mac(&net.router, "wan0"), mac(&net.laptop, "eth0"));
    let again = |from: [u8; 4], message: &[u8]| {
        let ends = ((from.into(), 51820), ([192, 0, 2, 1].into(), 51820));
        frame(macs.0, macs.1, &udp(ends.0, ends.1, 64, message))
    };
    let mut hostile = vec![];
    for message in [&frames[0][HEADERS..], &frames[1][HEADERS..]] {
        for at in 0..message.len() {
            hostile.push(again([192, 0, 2, 2], &message[..at]));
            let mut changed = message.to_vec();
            if changed[0] == TRANSPORT {
                // A number that is still to come: a known one would be refused before anything is opened.
                changed[10] = 1;
            }
            changed[at] ^= 1 << (at % 8);
            hostile.push(again([192, 0, 2, 2], &changed));
        }
        // Whoever repeats it from elsewhere is not followed there.
        hostile.push(again([192, 0, 2, 99], message));
    }
    send(&net, &margay, &hostile);
    until("changed packets to be refused", || drops(&margay, "not-authentic") > 50);
    assert!(
        drops(&margay, "not-wireguard") > 100,
        "{}",
        margay.show("drops").unwrap()
    );
    assert_eq!(echoes_in(&net.client), before);
    assert_eq!(handshakes(&margay), 1);
    assert_eq!(peer(&margay, "laptop")["endpoint"], "192.0.2.2:51820");
    asks(&net.laptop, CLIENT[0]);
    asks(&net.client, LAPTOP[0]);
    assert_eq!(handshakes(&margay), 1);
    margay.stop().unwrap();
}

/// Somebody in a third network, who knows Margay's public key and nothing else.
fn flood(net: &Net) -> (Host, Child) {
    let stranger = net.lab.host("stranger").unwrap();
    net.lab
        .link((&stranger, "eth0", ["10.3.0.2/24"]), (&net.router, "flood0", []))
        .unwrap();
    stranger.route("default", "10.3.0.1").unwrap();
    let public = tunnel::public(1).to_string();
    let mut child = stranger.spawn(["python3", "-c", FLOOD, &public]).unwrap();
    child.wait_for_line("flooding", router::LIMIT).unwrap();
    (stranger, child)
}

#[test]
fn a_flood_of_handshakes_stops_nobody() {
    need!("ping", "iperf3", "python3", "wireguard-go", "wg");
    let net = Net::new();
    let margay = net.start(LAPTOP_V4);
    let mut laptop = net.start_laptop(MARGAY_V4);
    let port_of_stranger = "apiVersion: margay/v1\nkind: Port\nmetadata: { name: flood }\n\
                            spec: { device: flood0, addresses: [10.3.0.1/24] }\n";
    asks(&net.client, LAPTOP[0]);
    let _server = iperf_server(&net.laptop);
    let (_stranger, _flood) = flood(&net);
    margay.apply(port_of_stranger).unwrap();
    let flooded = || port(&margay, "flood")["rx_packets"].as_u64().unwrap();
    until("the flood", || flooded() > 1000);
    let report = iperf(&net.client, &format!("-c {} -t 2", LAPTOP[0]));
    assert!(
        report["end"]["sum_received"]["bytes"].as_f64().unwrap() > 1e6,
        "{}",
        report["end"]
    );
    // Whoever has a right to a session gets one, even now.
    laptop.child.kill();
    laptop = net.start_laptop(MARGAY_V4);
    reaches(&net.laptop, CLIENT[0]);
    reaches(&net.client, LAPTOP[0]);
    assert!(laptop.latest_handshake().unwrap() > 0 && handshakes(&margay) >= 2);
    let during = flooded();
    until("more of the flood", || flooded() > during + 1000);
    margay.stop().unwrap();
}
