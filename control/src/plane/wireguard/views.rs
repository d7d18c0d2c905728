//! What the tunnels tell of themselves.

use wireguard::tunnel::Now;

use super::interface::Member;
use super::{PEERS_MAX, Running};
use crate::keys::PublicKey;
use crate::plane::State;
use crate::plane::views::Views;
use crate::show::memory::MemoryView;
use crate::show::wireguard::{WireguardPeerView, WireguardView};

impl Views<'_> {
    /// See [`Plane::wireguard`](crate::api::Plane::wireguard).
    pub fn wireguard(&self) -> Vec<WireguardView> {
        let now = self.0.moment();
        let inner = self.0.tunnels.lock();
        inner
            .list
            .iter()
            .map(|(name, running)| view(name, running, now))
            .collect()
    }
}

impl State {
    /// Room for peers, and what they and their allowed IPs take.
    pub(in crate::plane) fn tunnel_memory(&self) -> MemoryView {
        let inner = self.tunnels.lock();
        let peers: usize = inner.list.values().map(|running| running.peers.len()).sum();
        MemoryView {
            what: "wireguard peers".to_owned(),
            capacity: (inner.list.len() * PEERS_MAX) as u64,
            used: peers as u64,
            bytes: inner.pool.used_bytes() as u64,
        }
    }
}

fn view(name: &str, running: &Running, now: Now) -> WireguardView {
    let spec = &running.body.spec;
    WireguardView {
        name: name.to_owned(),
        public_key: PublicKey(*running.tunnel.public_key()).to_string(),
        listen_port: spec.listen_port,
        mtu: spec.mtu,
        vrf: spec.vrf.clone(),
        transport_vrf: spec.transport_vrf.clone(),
        addresses: spec.addresses.iter().map(ToString::to_string).collect(),
        peers: running
            .peers
            .iter()
            .filter_map(|(name, member)| peer(name, member, running, now))
            .collect(),
    }
}

fn peer(name: &str, member: &Member, running: &Running, now: Now) -> Option<WireguardPeerView> {
    let status = running.status(member)?;
    let allowed = running.allowed_of(name);
    Some(WireguardPeerView {
        name: name.to_owned(),
        public_key: PublicKey(status.public_key).to_string(),
        preshared_key: member.body.preshared_key.is_some(),
        endpoint: status.endpoint.map(|endpoint| endpoint.to_string()),
        allowed_ips: allowed.iter().map(ToString::to_string).collect(),
        // The wall clock may have been set back.
        handshake_age_s: status.last_handshake.map(|at| now.wall.saturating_sub(at).as_secs()),
        handshakes: member.handshakes,
        rx_packets: status.received_packets,
        rx_bytes: status.received_bytes,
        tx_packets: status.sent_packets,
        tx_bytes: status.sent_bytes,
        persistent_keepalive_s: member.body.spec.persistent_keepalive,
    })
}
