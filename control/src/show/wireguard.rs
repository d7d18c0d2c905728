//! `show wireguard`: what wg(8) shows.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::{Table, bytes, heading, number};

/// A tunnel and its peers. Secrets are not in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WireguardView {
    /// The name of the WireguardInterface.
    pub name: String,
    /// What peers know it by.
    pub public_key: String,
    /// The UDP port that peers send to.
    pub listen_port: u16,
    /// The largest packet inside, in bytes.
    pub mtu: u16,
    /// The routing table of the packets inside.
    pub vrf: String,
    /// The routing table of the packets outside.
    pub transport_vrf: String,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<String>,
    /// Its peers, by name.
    pub peers: Vec<WireguardPeerView>,
}

/// A peer, and what has passed between it and us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WireguardPeerView {
    /// The name of the WireguardPeer.
    pub name: String,
    /// What it is known by.
    pub public_key: String,
    /// Whether there is a preshared key beside.
    pub preshared_key: bool,
    /// Where we send to: where it was last heard, or what was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The prefixes it has.
    pub allowed_ips: Vec<String>,
    /// Seconds since the last handshake was completed; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_age_s: Option<u64>,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Messages received from it, handshakes and keepalives included.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Messages sent to it.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Seconds after which something is sent at the latest; 0 for off.
    pub persistent_keepalive_s: u16,
}

/// The view as text.
pub fn table(tunnels: &[WireguardView]) -> String {
    if tunnels.is_empty() {
        return "no tunnels; apply a resource of kind WireguardInterface\n".to_owned();
    }
    let mut text = String::new();
    for (at, tunnel) in tunnels.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        text.push_str(&heading(format_args!("interface {}", tunnel.name)));
        // Writing to a text does not fail.
        let _ = writeln!(text, "  public key: {}", tunnel.public_key);
        let _ = writeln!(text, "  listening port: {}", tunnel.listen_port);
        if tunnel.peers.is_empty() {
            text.push_str("  no peers; apply a resource of kind WireguardPeer\n");
        } else {
            let _ = write!(text, "\n{}", peers(&tunnel.peers));
        }
    }
    text
}

fn peers(peers: &[WireguardPeerView]) -> Table {
    let mut table = Table::new(&[
        "PEER",
        "PUBLIC KEY",
        "ENDPOINT",
        "ALLOWED IPS",
        ">LATEST HANDSHAKE",
        ">RECEIVED",
        ">SENT",
        ">KEEPALIVE",
    ]);
    for peer in peers {
        let or_none = |texts: &[String]| match texts {
            [] => "(none)".to_owned(),
            texts => texts.join(", "),
        };
        table.row([
            peer.name.as_str().into(),
            peer.public_key.as_str().into(),
            peer.endpoint.as_deref().unwrap_or("-").into(),
            or_none(&peer.allowed_ips).into(),
            peer.handshake_age_s.map_or_else(|| "never".to_owned(), age).into(),
            bytes(peer.rx_bytes).into(),
            bytes(peer.tx_bytes).into(),
            match peer.persistent_keepalive_s {
                0 => "off".into(),
                every_s => format!("{} s", number(every_s.into())).into(),
            },
        ]);
    }
    table
}

/// `2 h 3 min ago`, `1 min 5 s ago`, `5 s ago`.
fn age(age_s: u64) -> String {
    let (days, hours, minutes, seconds) = (age_s / 86_400, age_s / 3_600 % 24, age_s / 60 % 60, age_s % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s ago"),
        (0, 0, _) => format!("{minutes} min {seconds} s ago"),
        (0, _, _) => format!("{hours} h {minutes} min ago"),
        _ => format!("{} d {hours} h ago", number(days)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units() {
        assert_eq!(
            [0, 65, 7_380, 90_000].map(age),
            ["0 s ago", "1 min 5 s ago", "2 h 3 min ago", "1 d 1 h ago"]
        );
    }
}
