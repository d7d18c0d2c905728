//! Two planes back to back, in simulated time: tunnels as resources ask for them, and changed while traffic runs.

use std::net::IpAddr;
use std::time::Duration;

use control::keys::Secret;
use control::show::wireguard::WireguardPeerView;
use testbed::packets::{echo, frame, port_mac};
use testbed::plane::Plane;

/// In every packet inside; nowhere on the wire.
const MARK: &[u8] = b"nobody may read this";
const SECOND: Duration = Duration::from_secs(1);
/// Turns in which two planes have to come to rest.
const TURNS_MAX: usize = 1_000;

/// Left and right, with a LAN each and a WAN between.
struct Pair {
    planes: [Plane; 2],
    keys: tempfile::TempDir,
    public: [String; 2],
    now: Duration,
    sequence: u16,
    /// Frames on the WAN.
    seen: Vec<Vec<u8>>,
}

const SIDES: [usize; 2] = [0, 1];

impl Pair {
    fn new() -> Self {
        let keys = tempfile::tempdir().unwrap();
        let public = ["0.key", "1.key"].map(|file| {
            let key = Secret::private();
            key.write(&keys.path().join(file)).unwrap();
            key.public().to_string()
        });
        let mut pair = Self {
            planes: SIDES.map(|side| Plane::new(&ground(side)).unwrap()),
            keys,
            public,
            now: Duration::ZERO,
            sequence: 0,
            seen: vec![],
        };
        for side in SIDES {
            let yaml = pair.interface(side, "") + &pair.peer(side, "");
            pair.planes[side].apply(&yaml).unwrap();
        }
        pair.settle();
        pair
    }

    fn interface(&self, side: usize, more: &str) -> String {
        let key = self.keys.path().join(format!("{side}.key"));
        format!(
            "---\n{{apiVersion: margay/v1, kind: WireguardInterface, metadata: {{name: wg0}}, spec: {{privateKeyFile: {}, \
             addresses: [10.9.0.{}/24] {more}}}}}\n",
            key.display(),
            side + 1
        )
    }

    /// The other side, as this one is told of it.
    fn peer(&self, side: usize, more: &str) -> String {
        let other = 1 - side;
        let allowed = format!("allowedIPs: [10.9.0.{}/32, 10.{other}.0.0/16]", other + 1);
        let more = if more.contains("allowedIPs") {
            more.to_owned()
        } else {
            format!("{allowed} {more}")
        };
        format!(
            "---\n{{apiVersion: margay/v1, kind: WireguardPeer, metadata: {{name: other}}, spec: {{interface: wg0, \
             publicKey: \"{}\", endpoint: \"192.0.2.{}:51820\", {more}}}}}\n",
            self.public[other],
            other + 1
        )
    }

    /// Lets both run until nothing moves, at the time it is.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..TURNS_MAX {
            let mut moved = 0;
            for side in SIDES {
                self.planes[side].set_time(self.now);
                moved += self.planes[side].turn();
                let frames = self.planes[side].take("wan");
                moved += frames.len();
                frames.iter().for_each(|frame| self.planes[1 - side].send("wan", frame));
                self.seen.extend(frames);
            }
            quiet = if moved == 0 { quiet + 1 } else { 0 };
            if quiet == 3 {
                return;
            }
        }
        panic!("packets still move after {TURNS_MAX} turns");
    }

    fn advance(&mut self, by: Duration, step: Duration) {
        let end = self.now + by;
        while self.now < end {
            self.now = end.min(self.now + step);
            self.settle();
        }
    }

    /// Sends an echo request from a host behind one side to one behind the other; whether it got there.
    fn send(&mut self, from: usize) -> bool {
        let to = 1 - from;
        self.sequence += 1;
        let request = frame(port_mac(1), HOST, &echo(host(from), host(to), self.sequence, MARK));
        self.planes[from].send("lan", &request);
        self.settle();
        // Not an error that quotes it.
        let is_it = |frame: &Vec<u8>| frame.len() == request.len() && frame.ends_with(MARK);
        self.planes[to].take("lan").iter().any(is_it)
    }

    /// Both ways.
    fn passes(&mut self) -> bool {
        self.send(0) && self.send(1)
    }

    fn view(&mut self, side: usize) -> WireguardPeerView {
        let mut tunnels = self.planes[side].views().wireguard();
        tunnels.remove(0).peers.remove(0)
    }

    fn handshakes(&mut self) -> [u64; 2] {
        SIDES.map(|side| self.view(side).handshakes)
    }
}

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn host(side: usize) -> IpAddr {
    [10, side as u8, 0, 2].into()
}

fn ground(side: usize) -> String {
    let (ours, theirs) = (side + 1, 2 - side);
    let mac = port_mac(2).map(|byte| format!("{byte:02x}")).join(":");
    format!(
        "{{apiVersion: margay/v1, kind: Port, metadata: {{name: lan}}, spec: {{driver: memory, device: lan, \
         addresses: [10.{side}.0.1/24]}}}}\n---\n\
         {{apiVersion: margay/v1, kind: Port, metadata: {{name: wan}}, spec: {{driver: memory, device: wan, \
         addresses: [192.0.2.{ours}/24]}}}}\n---\n\
         {{apiVersion: margay/v1, kind: Neighbor, metadata: {{name: host}}, spec: {{port: lan, address: 10.{side}.0.2, \
         mac: '02:00:00:00:00:09'}}}}\n---\n\
         {{apiVersion: margay/v1, kind: Neighbor, metadata: {{name: there}}, spec: {{port: wan, address: 192.0.2.{theirs}, \
         mac: '{mac}'}}}}\n"
    )
}

/// From a host through both planes to the other, and only ciphertext between.
#[test]
fn packets_wait_for_the_handshake_and_pass_encrypted() {
    let mut pair = Pair::new();
    assert_eq!(pair.handshakes(), [0, 0]);
    assert!(pair.send(0), "{:?}", pair.planes[0].drops());
    assert!(pair.send(1), "{:?}", pair.planes[1].drops());
    assert_eq!(pair.handshakes(), [1, 1]);
    for frame in &pair.seen {
        let is_udp = frame[12..14] == [8, 0] && frame[23] == 17;
        let ports = [&frame[34..36], &frame[36..38]].map(|port| u16::from_be_bytes([port[0], port[1]]));
        assert!(is_udp && ports == [51820; 2], "{frame:02x?}");
        assert!(!frame.windows(MARK.len()).any(|bytes| bytes == MARK), "{frame:02x?}");
    }
    let view = pair.view(0);
    assert_eq!(view.endpoint.as_deref(), Some("192.0.2.2:51820"));
    assert!(
        view.rx_packets >= 2 && view.tx_packets >= 2 && view.handshake_age_s == Some(0),
        "{view:?}"
    );
    let ports = pair.planes[0].views().ports();
    let tunnel = ports.iter().find(|port| port.name == "wg0").unwrap();
    assert_eq!(
        (tunnel.rx_packets, tunnel.tx_packets),
        (view.rx_packets, view.tx_packets)
    );
}

#[test]
fn a_peer_changes_in_place_while_traffic_runs() {
    let mut pair = Pair::new();
    assert!(pair.passes());
    Secret::preshared().write(&pair.keys.path().join("psk")).unwrap();
    let psk = format!(", presharedKeyFile: {}", pair.keys.path().join("psk").display());
    let changes = [
        ", persistentKeepalive: 25".to_owned(),
        "allowedIPs: [10.9.0.0/24, 10.0.0.0/15, 10.77.0.0/16]".to_owned(),
        String::new(),
        psk,
    ];
    for change in changes {
        for side in SIDES {
            let yaml = pair.peer(side, &change);
            pair.planes[side].apply(&yaml).unwrap();
            assert!(pair.passes(), "after `{change}` on side {side}");
        }
        assert_eq!(pair.handshakes(), [1, 1], "after `{change}`");
    }
    // The next handshake has the preshared key on both sides.
    for _ in 0..125 {
        pair.advance(SECOND, SECOND);
        assert!(pair.passes());
    }
    assert_eq!(pair.handshakes(), [2, 2]);
}

#[test]
fn an_address_of_ours_that_goes_is_no_longer_spoken_from() {
    let mut pair = Pair::new();
    assert!(pair.passes());
    let moved = ground(0).replace("192.0.2.1/24", "192.0.2.5/24");
    pair.planes[0].apply(&moved).unwrap();
    let neighbour = "{apiVersion: margay/v1, kind: Neighbor, metadata: {name: moved}, spec: {port: wan, \
                     address: 192.0.2.5, mac: 'MAC'}}";
    let mac = port_mac(2).map(|byte| format!("{byte:02x}")).join(":");
    pair.planes[1].apply(&neighbour.replace("MAC", &mac)).unwrap();
    pair.seen.clear();
    assert!(pair.passes(), "{:?}", pair.planes.each_mut().map(|plane| plane.drops()));
    assert_eq!(
        pair.view(1).endpoint.as_deref(),
        Some("192.0.2.5:51820"),
        "it has roamed"
    );
    assert_eq!(pair.handshakes(), [1, 1]);
    let old = [192, 0, 2, 1];
    assert!(
        pair.seen
            .iter()
            .all(|frame| frame[26..30] != old && frame[30..34] != old)
    );
}

#[test]
fn a_session_is_renewed_after_two_minutes_without_loss() {
    let mut pair = Pair::new();
    for second in 0..400 {
        assert!(pair.passes(), "second {second}: {:?}", pair.planes[0].drops());
        pair.advance(SECOND, SECOND);
    }
    let handshakes = pair.handshakes();
    assert!(handshakes.iter().all(|count| (3..=5).contains(count)), "{handshakes:?}");
}

#[test]
fn silence_for_hours_sends_nothing_and_ends_when_there_is_something_to_send() {
    let mut pair = Pair::new();
    assert!(pair.passes());
    // The last packet is answered by a keepalive; keys are wiped.
    pair.advance(600 * SECOND, SECOND);
    let before = pair.seen.len();
    pair.advance(3 * 3600 * SECOND, 10 * SECOND);
    assert_eq!(pair.seen.len(), before, "silent");
    assert!(pair.passes());
    assert_eq!(pair.handshakes(), [2, 2]);
}

#[test]
fn another_private_key_is_another_handshake() {
    let mut pair = Pair::new();
    assert!(pair.passes());
    let (path, key) = (pair.keys.path().join("0.key"), Secret::private());
    std::fs::remove_file(&path).unwrap();
    key.write(&path).unwrap();
    pair.public[0] = key.public().to_string();
    let (ours, theirs) = (pair.interface(0, ""), pair.peer(1, ""));
    pair.planes[0].apply(&ours).unwrap();
    pair.planes[1].apply(&theirs).unwrap();
    // Past the pause between two handshakes.
    pair.advance(6 * SECOND, SECOND / 10);
    assert!(
        pair.passes(),
        "{:?} {:?}",
        pair.planes[0].drops(),
        pair.planes[1].drops()
    );
    assert_eq!(pair.view(1).handshakes, 1, "another peer");
}

#[test]
fn a_peer_that_is_gone_gets_nothing() {
    let mut pair = Pair::new();
    assert!(pair.passes());
    let peer = pair.peer(0, "");
    pair.planes[0].delete(&peer).unwrap();
    assert!(!pair.send(0) && !pair.send(1));
    let other = pair.peer(0, "");
    pair.planes[0].apply(&other).unwrap();
    pair.advance(20 * SECOND, SECOND / 10);
    assert!(pair.passes());
}
