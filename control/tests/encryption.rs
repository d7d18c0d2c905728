//! Felix's messages become a tunnel and its peers, each message just the difference.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use control::api::Plane;
use control::keys::{PublicKey, Secret};
use control::plane::{DataPlane, PlaneOptions};
use control::program::encryption::{Encryption, OwnKey};
use control::program::felix::{
    ConfigUpdate, HostMetadataRemove, HostMetadataUpdate, HostMetadataV4V6Update, IpVersion, RouteRemove, RouteType,
    RouteUpdate, ToDataplane, WireguardEndpointRemove, WireguardEndpointUpdate, WireguardEndpointV6Update,
    WireguardStatusUpdate,
};
use control::resource::{Resource, WireguardPeer};
use control::store::Plan;
use fastpath::worker::Idle;

struct Agent {
    encryption: Encryption,
    plane: Arc<DataPlane>,
    keys: [PublicKey; 2],
    _folder: tempfile::TempDir,
}

impl Agent {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = ["v4", "v6"].map(|file| OwnKey::keep(folder.path().join(file)).unwrap());
        let mode = std::fs::metadata(folder.path().join("v4")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let options = PlaneOptions {
            flows: 1 << 16,
            frames: 1024,
            cores: vec![None],
            idle: Idle::Adaptive,
            place: Default::default(),
        };
        Self {
            keys: [keys[0].secret.public(), keys[1].secret.public()],
            encryption: Encryption::new("here", keys),
            plane: Arc::new(DataPlane::start(&options).unwrap()),
            _folder: folder,
        }
    }

    /// Takes messages and has the plane do what follows: what changed, and what is reported.
    fn hear(&mut self, messages: impl IntoIterator<Item = ToDataplane>) -> (Plan, Vec<WireguardStatusUpdate>) {
        messages
            .into_iter()
            .for_each(|message| self.encryption.receive(message));
        let step = self.encryption.step();
        self.plane.apply(&step.plan).unwrap();
        self.encryption.done(&step.plan);
        (step.plan, step.status)
    }

    /// Names of what a plan touches.
    fn touched(&mut self, messages: impl IntoIterator<Item = ToDataplane>) -> Vec<String> {
        let (plan, _) = self.hear(messages);
        let touched = plan.changes.iter();
        touched
            .map(|planned| format!("{} {}", planned.key, planned.change.word()))
            .collect()
    }

    /// `name endpoint allowed IPs` of each peer, as the plane has them.
    fn peers(&self) -> Vec<String> {
        let tunnels = self.plane.wireguard();
        let peers = tunnels.iter().flat_map(|tunnel| &tunnel.peers);
        let shown = peers.map(|peer| {
            let endpoint = peer.endpoint.as_deref().unwrap_or("-");
            format!("{} {endpoint} {}", peer.name, peer.allowed_ips.join(" "))
        });
        shown.collect()
    }
}

fn settings(settings: &[(&str, &str)]) -> ToDataplane {
    let pairs = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let config: BTreeMap<String, String> = pairs.collect();
    ToDataplane::ConfigUpdate(ConfigUpdate { config })
}

fn on() -> ToDataplane {
    settings(&[("WireguardEnabled", "true")])
}

fn key(of: u8) -> String {
    Secret::new(&[of; 32]).public().to_string()
}

fn endpoint(node: &str, public_key: &str, tunnel: &str) -> ToDataplane {
    ToDataplane::WireguardEndpointUpdate(WireguardEndpointUpdate {
        hostname: node.to_owned(),
        public_key: public_key.to_owned(),
        interface_ipv4_addr: tunnel.to_owned(),
    })
}

fn host(node: &str, address: &str) -> ToDataplane {
    ToDataplane::HostMetadataUpdate(HostMetadataUpdate {
        hostname: node.to_owned(),
        ipv4_addr: address.to_owned(),
    })
}

fn route(r#type: RouteType, prefix: &str, node: &str) -> ToDataplane {
    ToDataplane::RouteUpdate(RouteUpdate {
        r#type,
        dst: prefix.to_owned(),
        dst_node_name: node.to_owned(),
    })
}

/// Two other nodes, one with two blocks of workloads.
fn cluster() -> Vec<ToDataplane> {
    vec![
        on(),
        host("here", "192.0.2.1"),
        host("left", "192.0.2.2"),
        host("right", "192.0.2.3"),
        endpoint("here", &key(1), "10.244.0.1"),
        endpoint("left", &key(2), "10.244.1.1"),
        endpoint("right", &key(3), "10.244.2.1"),
        route(RouteType::RemoteWorkload, "10.244.1.0/26", "left"),
        route(RouteType::RemoteWorkload, "10.244.1.64/26", "left"),
        route(RouteType::RemoteTunnel, "10.244.2.1/32", "right"),
        route(RouteType::LocalWorkload, "10.244.0.0/26", "here"),
        route(RouteType::CidrInfo, "10.244.0.0/16", ""),
    ]
}

#[test]
fn nothing_happens_before_the_snapshot_is_whole_then_all_of_it() {
    let mut agent = Agent::new();
    let (plan, status) = agent.hear(cluster());
    assert!(plan.changes.is_empty() && status.is_empty());
    let (plan, status) = agent.hear([ToDataplane::InSync]);
    assert_eq!(plan.changes.len(), 3);
    let expected = WireguardStatusUpdate {
        public_key: agent.keys[0].to_string(),
        ip_version: IpVersion::V4,
    };
    assert_eq!(status, [expected]);
    let tunnel = &agent.plane.wireguard()[0];
    assert_eq!(
        (
            tunnel.name.as_str(),
            tunnel.listen_port,
            tunnel.mtu,
            &tunnel.addresses[..]
        ),
        ("wireguard.cali", 51820, 1440, &["10.244.0.1/32".to_owned()][..])
    );
    assert_eq!(
        agent.peers(),
        [
            "left 192.0.2.2:51820 10.244.1.0/26 10.244.1.1/32 10.244.1.64/26",
            "right 192.0.2.3:51820 10.244.2.1/32"
        ]
    );
    assert_eq!(
        agent.touched(cluster()),
        Vec::<String>::new(),
        "what is known changes nothing"
    );
}

#[test]
fn a_change_of_one_node_touches_one_peer() {
    let mut agent = Agent::new();
    agent.hear(cluster().into_iter().chain([ToDataplane::InSync]));
    let left = ["WireguardPeer/left configured"];
    assert_eq!(agent.touched([endpoint("left", &key(4), "10.244.1.1")]), left);
    assert_eq!(agent.touched([host("left", "192.0.2.22")]), left);
    // A block moves: both nodes, and no other.
    let moved = agent.touched([route(RouteType::RemoteWorkload, "10.244.1.64/26", "right")]);
    assert_eq!(
        moved,
        ["WireguardPeer/left configured", "WireguardPeer/right configured"]
    );
    assert_eq!(
        agent.peers(),
        [
            "left 192.0.2.22:51820 10.244.1.0/26 10.244.1.1/32",
            "right 192.0.2.3:51820 10.244.1.64/26 10.244.2.1/32"
        ]
    );
    let dst = "10.244.1.0/26".to_owned();
    assert_eq!(agent.touched([ToDataplane::RouteRemove(RouteRemove { dst })]), left);
    // Without a key, or without an address, there is no peer: traffic goes unencrypted, as it did before.
    let hostname = "right".to_owned();
    let gone = [ToDataplane::WireguardEndpointRemove(WireguardEndpointRemove {
        hostname,
    })];
    assert_eq!(agent.touched(gone), ["WireguardPeer/right deleted"]);
    let hostname = "left".to_owned();
    let gone = [ToDataplane::HostMetadataRemove(HostMetadataRemove { hostname })];
    assert_eq!(agent.touched(gone), ["WireguardPeer/left deleted"]);
    let (plan, status) = agent.hear([settings(&[])]);
    assert_eq!((plan.changes.len(), status[0].public_key.as_str()), (1, ""));
    assert!(agent.plane.wireguard().is_empty() && agent.plane.ports().is_empty());
}

#[test]
fn settings_change_the_tunnel_in_place() {
    let mut agent = Agent::new();
    agent.hear(cluster().into_iter().chain([ToDataplane::InSync]));
    let (plan, _) = agent.hear([settings(&[
        ("WireguardEnabled", "true"),
        ("WireguardMTU", "1380"),
        ("WireguardListeningPort", "4500"),
        ("WireguardPersistentKeepAlive", "25"),
    ])]);
    assert_eq!(plan.changes.len(), 3);
    let tunnel = &agent.plane.wireguard()[0];
    assert_eq!((tunnel.listen_port, tunnel.mtu), (4500, 1380));
    assert_eq!(tunnel.peers[0].endpoint.as_deref(), Some("192.0.2.2:4500"));
    assert_eq!(tunnel.peers[0].persistent_keepalive_s, 25);
    let renamed = settings(&[("WireguardEnabled", "true"), ("WireguardInterfaceName", "wg9")]);
    agent.hear([renamed]);
    let tunnels = agent.plane.wireguard();
    assert_eq!(
        (tunnels.len(), tunnels[0].name.as_str(), tunnels[0].peers.len()),
        (1, "wg9", 2)
    );
}

#[test]
fn a_key_that_two_nodes_claim_is_used_for_none_of_them() {
    let mut agent = Agent::new();
    agent.hear(cluster().into_iter().chain([ToDataplane::InSync]));
    let (plan, _) = agent.hear([endpoint("right", &key(2), "10.244.2.1")]);
    assert!(
        plan.warnings[0].contains("claimed by left, right at once"),
        "{:?}",
        plan.warnings
    );
    assert_eq!(agent.peers(), Vec::<String>::new());
    let own = agent.keys[0].to_string();
    let (plan, _) = agent.hear([endpoint("right", &own, "10.244.2.1")]);
    assert!(!plan.warnings.is_empty());
    assert_eq!(agent.peers().len(), 1, "left is alone with its key again");
    // What is no key is none.
    agent.hear([endpoint("left", "nonsense", "10.244.1.1")]);
    assert!(agent.peers().is_empty());
}

#[test]
fn both_families_have_tunnels_of_their_own() {
    let mut agent = Agent::new();
    let both = ToDataplane::HostMetadataV4V6Update(HostMetadataV4V6Update {
        hostname: "left".to_owned(),
        ipv4_addr: "192.0.2.2".to_owned(),
        ipv6_addr: "2001:db8::2".to_owned(),
    });
    let v6 = ToDataplane::WireguardEndpointV6Update(WireguardEndpointV6Update {
        hostname: "left".to_owned(),
        public_key_v6: key(5),
        interface_ipv6_addr: "fd00:244:1::1".to_owned(),
    });
    let (plan, status) = agent.hear([
        settings(&[("WireguardEnabled", "true"), ("WireguardEnabledV6", "true")]),
        both,
        v6,
        endpoint("left", &key(2), "10.244.1.1"),
        route(RouteType::RemoteWorkload, "fd00:244:1::/64", "left"),
        ToDataplane::InSync,
    ]);
    assert_eq!((plan.changes.len(), status.len()), (4, 2));
    assert_eq!(
        agent.peers(),
        [
            "left.v6 [2001:db8::2]:51821 fd00:244:1::/64 fd00:244:1::1/128",
            "left 192.0.2.2:51820 10.244.1.1/32"
        ]
    );
    let of_peer = |planned: &control::store::Planned| match planned.after.as_deref() {
        Some(Resource::WireguardPeer(peer)) => Some(peer.body.clone()),
        _ => None,
    };
    let peers: Vec<WireguardPeer> = plan.changes.iter().filter_map(of_peer).collect();
    assert!(peers.iter().all(|peer| peer.address.is_some()));
}
