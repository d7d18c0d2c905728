//! What the tests of tunnels share: a host behind Margay, and a laptop with wireguard-go outside.
//!
//! ```text
//!  client ---- lan0 [ Margay ] wan0 ---- eth0 [ laptop ]
//!  10.1.0.2         192.0.2.1            192.0.2.2         outside
//!                   10.9.0.1             10.9.0.2          in the tunnel, wg0 at both ends
//! ```
//! IPv6 has the same ends: fd00:1::2, 2001:db8::1 and ::2, fd00:9::1 and ::2.
#![allow(dead_code)] // each test file uses its share

use control::keys::{PublicKey, Secret};
use serde_json::Value;
use testbed::wireguard_peer::{Tunnel, WIREGUARD_GO};
use testbed::{Host, Lab, Margay, WireguardPeer};

/// Where the laptop sends to, and where Margay does, over IPv4.
pub const MARGAY_V4: &str = "Endpoint = 192.0.2.1:51820";
pub const LAPTOP_V4: &str = "endpoint: '192.0.2.2:51820'";
/// Who is reached inside: the laptop from the client, in both families, and the other way round.
pub const LAPTOP: [&str; 2] = ["10.9.0.2", "fd00:9::2"];
pub const CLIENT: [&str; 2] = ["10.1.0.2", "fd00:1::2"];

pub const PORTS: &str = "\
apiVersion: margay/v1
kind: Port
metadata: { name: lan }
spec: { device: lan0, addresses: [10.1.0.1/24, 'fd00:1::1/64'] }
---
apiVersion: margay/v1
kind: Port
metadata: { name: wan }
spec: { device: wan0, addresses: [192.0.2.1/24, '2001:db8::1/64'] }
";

/// The hosts, and files of keys: Margay's is the first, the laptop's the second.
pub struct Net {
    pub client: Host,
    pub router: Host,
    pub laptop: Host,
    pub lab: Lab,
}

impl Net {
    pub fn new() -> Net {
        let lab = Lab::new().unwrap();
        let [client, router, laptop] = ["client", "router", "laptop"].map(|name| lab.host(name).unwrap());
        let lan = ["10.1.0.2/24", "fd00:1::2/64"];
        lab.link((&client, "eth0", lan), (&router, "lan0", [])).unwrap();
        let wan = ["192.0.2.2/24", "2001:db8::2/64"];
        lab.link((&laptop, "eth0", wan), (&router, "wan0", [])).unwrap();
        for gateway in ["10.1.0.1", "fd00:1::1"] {
            client.route("default", gateway).unwrap();
        }
        key(1).write(&lab.folder().join("margay.key")).unwrap();
        Net {
            client,
            router,
            laptop,
            lab,
        }
    }

    /// The program with ports, tunnel and the laptop as a peer of these further fields (YAML, each behind a comma).
    pub fn start(&self, peer: &str) -> Margay {
        let resources = [PORTS, &self.interface(), &laptop_peer(peer)].concat();
        self.lab.margay(&self.router, &resources, &[]).unwrap()
    }

    /// Margay's end of the tunnel.
    pub fn interface(&self) -> String {
        format!(
            "---\napiVersion: margay/v1\nkind: WireguardInterface\nmetadata: {{ name: wg0 }}\n\
             spec: {{ privateKeyFile: {}, addresses: [10.9.0.1/24, 'fd00:9::1/64'] }}\n",
            self.lab.folder().join("margay.key").display()
        )
    }

    /// wireguard-go on the laptop, with Margay as its peer of these further lines.
    pub fn start_laptop(&self, peer: &str) -> WireguardPeer {
        let settings = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = 51820\n[Peer]\nPublicKey = {}\n\
             AllowedIPs = 10.9.0.0/24, fd00:9::/64, 10.1.0.0/24, fd00:1::/64\n{peer}\n",
            *key(2).text(),
            public(1)
        );
        let tunnel = Tunnel {
            device: "wg0",
            settings: &settings,
            addresses: &["10.9.0.2/24", "fd00:9::2/64"],
            mtu: 1420,
        };
        self.lab.wireguard(&self.laptop, WIREGUARD_GO, tunnel).unwrap()
    }

    /// A file of the lab with a preshared key, and its text.
    pub fn preshared_key(&self, number: u8) -> (String, String) {
        let file = self.lab.folder().join(format!("{number}.psk"));
        key(number).write(&file).unwrap();
        (file.display().to_string(), key(number).text().to_string())
    }
}

/// The laptop as Margay's peer, with these further fields.
pub fn laptop_peer(fields: &str) -> String {
    let separator = if fields.is_empty() { "" } else { ", " };
    let allowed = "allowedIPs: [10.9.0.2/32, 'fd00:9::2/128']";
    let allowed = if fields.contains("allowedIPs") {
        String::new()
    } else {
        format!(", {allowed}")
    };
    format!(
        "---\napiVersion: margay/v1\nkind: WireguardPeer\nmetadata: {{ name: laptop }}\n\
         spec: {{ interface: wg0, publicKey: '{}'{allowed}{separator}{fields} }}\n",
        public(2)
    )
}

/// A private or preshared key that belongs to a number.
pub fn key(number: u8) -> Secret {
    // As X25519 uses it (RFC 7748 section 5), so that it reads the same everywhere.
    let mut bytes = [number; 32];
    (bytes[0], bytes[31]) = (bytes[0] & 0xf8, bytes[31] & 0x7f | 0x40);
    Secret::new(&bytes)
}

/// What others know the owner of that private key by.
pub fn public(number: u8) -> PublicKey {
    key(number).public()
}

/// One question, answered in time: the first packet may have to wait for a handshake.
pub fn asks(host: &Host, to: &str) {
    host.run(["ping", "-c1", "-W20", to]).unwrap();
}

/// What `show wireguard` tells of the first tunnel's peer of that name.
pub fn peer(margay: &Margay, name: &str) -> Value {
    let tunnels = margay.show("wireguard").unwrap();
    let peers = tunnels[0]["peers"]
        .as_array()
        .unwrap_or_else(|| panic!("no tunnel in {tunnels}"));
    let found = peers.iter().find(|peer| peer["name"] == name);
    found.unwrap_or_else(|| panic!("no peer {name} in {tunnels}")).clone()
}

/// Handshakes completed with the laptop.
pub fn handshakes(margay: &Margay) -> u64 {
    peer(margay, "laptop")["handshakes"].as_u64().unwrap()
}

/// Echo requests that a host's kernel has received: names in one line of /proc/net/snmp, numbers in the next.
pub fn echoes_in(host: &Host) -> u64 {
    let text = super::router::shell(host, "grep ^Icmp: /proc/net/snmp");
    let mut lines = text.lines().map(str::split_whitespace);
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let (_, number) = names.zip(numbers).find(|(name, _)| *name == "InEchos").unwrap();
    number.parse().unwrap()
}
