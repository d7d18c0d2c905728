//! Peers come, change, take prefixes from one another and go, some at a time: the routes into tunnels are always those that
//! would be written from the start.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use control::keys::Secret;
use control::show::routes::RouteOrigin;
use proptest::prelude::*;
use testbed::plane::Plane;

const NETS: [&str; 7] = [
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.2.0.0/16",
    "0.0.0.0/0",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "10.3.0.7/32",
];
/// Tunnels, and the tables of their routes.
const INTERFACES: [(&str, &str); 3] = [("wg0", "default"), ("wg1", "default"), ("wg2", "red")];
const PEERS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    /// Peers, each with its interface and a bit for each of its prefixes.
    Set(Vec<(usize, usize, u8)>),
    Delete(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let peer = (0..PEERS, 0..INTERFACES.len(), 0..1u8 << NETS.len());
    let step = prop_oneof![
        3 => prop::collection::vec(peer, 1..3).prop_map(Step::Set),
        1 => (0..PEERS).prop_map(Step::Delete),
    ];
    prop::collection::vec(step, 1..20)
}

struct Keys {
    folder: tempfile::TempDir,
    public: Vec<String>,
}

impl Keys {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, _) in INTERFACES {
            Secret::private().write(&folder.path().join(name)).unwrap();
        }
        let public = (0..PEERS).map(|_| Secret::private().public().to_string()).collect();
        Self { folder, public }
    }

    fn interfaces(&self) -> String {
        let mut yaml = String::new();
        for (number, (name, vrf)) in INTERFACES.iter().enumerate() {
            let key = self.folder.path().join(name);
            writeln!(
                yaml,
                "---\n{{apiVersion: margay/v1, kind: WireguardInterface, metadata: {{name: {name}}}, spec: {{vrf: {vrf}, \
                 listenPort: {}, privateKeyFile: {}, addresses: [192.168.{number}.1/24]}}}}",
                51820 + number,
                key.display()
            )
            .unwrap();
        }
        yaml
    }

    fn peer(&self, peer: usize, interface: usize, nets: u8) -> String {
        let nets: Vec<&str> = (0..NETS.len())
            .filter(|net| nets >> net & 1 == 1)
            .map(|net| NETS[net])
            .collect();
        format!(
            "---\n{{apiVersion: margay/v1, kind: WireguardPeer, metadata: {{name: peer{peer}}}, spec: {{interface: {}, \
             publicKey: '{}', allowedIPs: ['{}']}}}}\n",
            INTERFACES[interface].0,
            self.public[peer],
            nets.join("', '")
        )
        .replace("['']", "[]")
    }
}

/// By table and prefix, the tunnel.
type Routes = BTreeMap<(String, String), String>;

fn written(plane: &mut Plane) -> Routes {
    let routes = plane.views().routes().into_iter();
    let allowed = routes.filter(|route| route.origin == RouteOrigin::Allowed);
    allowed
        .map(|route| ((route.vrf, route.destination), route.name))
        .collect()
}

/// Each prefix of each peer, where no tunnel before by name has it.
fn naive(plane: &mut Plane) -> Routes {
    let mut routes = Routes::new();
    for tunnel in plane.views().wireguard() {
        for net in tunnel.peers.into_iter().flat_map(|peer| peer.allowed_ips) {
            routes.entry((tunnel.vrf.clone(), net)).or_insert(tunnel.name.clone());
        }
    }
    routes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn routes_follow_whoever_has_a_prefix(steps in steps()) {
        let keys = Keys::new();
        let mut plane = Plane::new(&keys.interfaces()).unwrap();
        for step in steps {
            match step {
                Step::Set(mut peers) => {
                    peers.sort();
                    peers.dedup_by_key(|(peer, ..)| *peer);
                    let yaml: String = peers.iter().map(|(peer, to, nets)| keys.peer(*peer, *to, *nets)).collect();
                    // Two that are given one prefix at once are refused, and then nothing changes.
                    _ = plane.apply(&yaml);
                }
                Step::Delete(peer) => _ = plane.delete(&keys.peer(peer, 0, 0)),
            }
            prop_assert_eq!(written(&mut plane), naive(&mut plane));
        }
    }
}

#[test]
fn a_prefix_goes_to_the_next_tunnel_when_the_first_gives_it_up() {
    let keys = Keys::new();
    let mut plane = Plane::new(&keys.interfaces()).unwrap();
    let place = ("default".to_owned(), NETS[0].to_owned());
    let steps = [
        (keys.peer(0, 1, 1), Some("wg1")),
        (keys.peer(1, 0, 1), Some("wg0")),
        (keys.peer(1, 0, 4), Some("wg1")),
        (keys.peer(0, 1, 0), None),
    ];
    for (yaml, expected) in steps {
        plane.apply(&yaml).unwrap();
        assert_eq!(written(&mut plane).get(&place).map(String::as_str), expected, "{yaml}");
    }
}
