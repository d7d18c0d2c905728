//! Tunnels as a user asks for them: what is refused, what is told, what changes, and that keys stay where they are.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use control::api::Plane;
use control::intent::{Intent, Outcome};
use control::keys::Secret;
use control::plane::{DataPlane, PlaneOptions};
use control::refusal::Refusal;
use control::resource::{Kind, Source, read, read_keys};
use control::store::{Change, Request};
use fastpath::worker::Idle;

const HUB: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
const LAPTOP: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";

struct Fixture {
    plane: Arc<DataPlane>,
    intent: Intent,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let options = PlaneOptions {
            flows: 1 << 16,
            frames: 1024,
            cores: vec![None],
            idle: Idle::Adaptive,
            place: Default::default(),
        };
        let plane = Arc::new(DataPlane::start(&options).unwrap());
        let fixture = Self {
            intent: Intent::new(plane.clone()),
            plane,
            folder: tempfile::tempdir().unwrap(),
        };
        for file in ["a.key", "b.key", "psk"] {
            Secret::private().write(&fixture.path(file)).unwrap();
        }
        fixture
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// A file in which @DIR stands for the folder of keys.
    fn source(&self, yaml: &str) -> Source {
        let folder = self.folder.path().display().to_string();
        Source::file("wg.yaml", yaml.replace("@DIR", &folder))
    }

    fn carry_out(&self, yaml: &str) -> Result<Outcome, Refusal> {
        let documents = read(&[self.source(yaml)])?;
        self.intent.carry_out(Request::Apply(documents))
    }

    fn apply(&self, yaml: &str) -> (Vec<Change>, Vec<String>) {
        let outcome = self.carry_out(yaml).unwrap_or_else(|refusal| panic!("{refusal}"));
        let changes = outcome.results.into_iter().map(|applied| applied.change).collect();
        (changes, outcome.warnings)
    }

    fn delete(&self, yaml: &str) -> Result<Outcome, Refusal> {
        let named = read_keys(&[self.source(yaml)])?;
        self.intent.carry_out(Request::Delete(named))
    }

    /// Everything a plan can change, as the socket tells it.
    fn state(&self) -> String {
        let plane = &self.plane;
        serde_json::to_string_pretty(&(plane.ports(), plane.routes(), plane.wireguard())).unwrap()
    }

    fn routes(&self) -> Vec<String> {
        let routes = self.plane.routes().into_iter();
        let shown = routes.map(|route| {
            let port = route.via.first().map_or("", |hop| &hop.port).to_owned();
            format!("{} {:?} {} {port}", route.destination, route.origin, route.name)
        });
        shown.collect()
    }
}

fn interface(name: &str, spec: &str) -> String {
    format!("{{apiVersion: margay/v1, kind: WireguardInterface, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n")
}

fn peer(name: &str, key: &str, spec: &str) -> String {
    let spec = format!("interface: wg0, publicKey: \"{key}\", {spec}");
    format!("{{apiVersion: margay/v1, kind: WireguardPeer, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n")
}

fn wg0() -> String {
    interface(
        "wg0",
        "privateKeyFile: @DIR/a.key, addresses: [10.9.0.1/24, 'fd00:9::1/64']",
    )
}

#[test]
fn a_tunnel_is_a_port_with_routes_and_goes_with_them() {
    let fixture = Fixture::new();
    let laptop = peer("laptop", LAPTOP, "allowedIPs: [10.9.0.2, 192.168.7.9/24]");
    assert_eq!(fixture.apply(&(wg0() + &laptop)), (vec![Change::Created; 2], vec![]));
    let ports = fixture.plane.ports();
    let [port] = &ports[..] else { panic!("{ports:?}") };
    assert_eq!(
        (port.name.as_str(), port.driver.as_str(), port.mtu),
        ("wg0", "wireguard", 1420)
    );
    assert_eq!(
        fixture.routes(),
        [
            "10.9.0.0/24 Connected wg0 wg0",
            "10.9.0.1/32 Local wg0 ",
            "10.9.0.2/32 Allowed wg0 wg0",
            "192.168.7.0/24 Allowed wg0 wg0",
            "fd00:9::/64 Connected wg0 wg0",
            "fd00:9::1/128 Local wg0 ",
        ]
    );
    let view = &fixture.plane.wireguard()[0];
    assert_eq!(view.peers[0].allowed_ips, ["10.9.0.2/32", "192.168.7.0/24"]);
    assert_eq!(view.peers[0].handshake_age_s, None);
    // A peer stands on its interface.
    let refusal = fixture.delete(&wg0()).unwrap_err();
    assert!(
        refusal.error.contains("WireguardPeer/laptop still names it"),
        "{refusal}"
    );
    fixture.delete(&(wg0() + &laptop)).unwrap();
    assert_eq!(fixture.state(), Fixture::new().state());
}

#[test]
fn keys_are_read_again_and_never_shown() {
    let fixture = Fixture::new();
    let all = wg0() + &peer("laptop", LAPTOP, "presharedKeyFile: @DIR/psk");
    fixture.apply(&all);
    let secret = |file: &str| Secret::read(&fixture.path(file), "genkey").unwrap().0;
    let shown = || {
        let resources: Vec<_> = fixture
            .intent
            .store()
            .all()
            .map(|(_, resource)| resource.clone())
            .collect();
        let debug = format!("{resources:?}");
        debug
            + &serde_json::to_string(&resources.iter().map(|one| &**one).collect::<Vec<_>>()).unwrap()
            + &fixture.state()
            + &control::metrics::text(&*fixture.plane)
    };
    let before = secret("a.key");
    assert!(shown().contains(&before.public().to_string()));
    assert!(!shown().contains(before.text().as_str()) && !shown().contains(secret("psk").text().as_str()));
    assert_eq!(fixture.apply(&all).0, [Change::Unchanged; 2]);
    std::fs::rename(fixture.path("b.key"), fixture.path("a.key")).unwrap();
    assert_eq!(fixture.apply(&all).0, [Change::Configured, Change::Unchanged]);
    let after = secret("a.key").public().to_string();
    assert_eq!(fixture.plane.wireguard()[0].public_key, after);
    assert_eq!(fixture.plane.wireguard()[0].peers.len(), 1, "peers stay");
    // What `get` prints can be applied.
    let printed: Vec<String> = [Kind::WireguardInterface, Kind::WireguardPeer]
        .into_iter()
        .flat_map(|kind| {
            let store = fixture.intent.store();
            let texts: Vec<_> = store
                .of_kind(kind)
                .map(|(_, one)| serde_json::to_string(&**one).unwrap())
                .collect();
            texts
        })
        .collect();
    assert!(printed[0].contains(&after), "{printed:?}");
    assert_eq!(fixture.apply(&printed.join("\n---\n")).0, [Change::Unchanged; 2]);
}

#[test]
fn the_last_claim_wins_and_is_said_aloud() {
    let fixture = Fixture::new();
    let both = "allowedIPs: [10.9.0.2/32, 10.9.0.3/32]";
    let (laptop, hub) = (
        peer("laptop", LAPTOP, both),
        peer("hub", HUB, "allowedIPs: [10.9.0.3/32]"),
    );
    let (_, warnings) = fixture.apply(&(wg0() + &laptop + &hub));
    assert_eq!(
        warnings,
        ["WireguardPeer/hub takes allowed IP 10.9.0.3/32 of wg0 from WireguardPeer/laptop"]
    );
    let has = |name: &str| {
        let view = fixture.plane.wireguard().remove(0);
        let peer = view.peers.into_iter().find(|peer| peer.name == name).unwrap();
        peer.allowed_ips.join(" ")
    };
    assert_eq!(
        (has("laptop"), has("hub")),
        ("10.9.0.2/32".into(), "10.9.0.3/32".into())
    );
    // Who is applied again takes it back.
    let (changes, warnings) = fixture.apply(&laptop);
    assert_eq!((changes, warnings.len()), (vec![Change::Configured], 1));
    assert_eq!(
        (has("laptop"), has("hub")),
        ("10.9.0.2/32 10.9.0.3/32".into(), String::new())
    );
    assert_eq!(fixture.apply(&laptop), (vec![Change::Unchanged], vec![]));
    // Two interfaces of one table: the first by name has the route.
    let other = interface("wg1", "privateKeyFile: @DIR/b.key, listenPort: 51821");
    let theirs = peer("theirs", HUB, "allowedIPs: [10.9.0.2/32]").replace("wg0", "wg1");
    let (_, warnings) = fixture.apply(&(other + &theirs));
    assert!(
        warnings[0].contains("10.9.0.2/32 leads to wg1 and wg0: packets go to wg0"),
        "{warnings:?}"
    );
    assert!(fixture.routes().contains(&"10.9.0.2/32 Allowed wg0 wg0".to_owned()));
    fixture.delete(&laptop).unwrap();
    assert!(fixture.routes().contains(&"10.9.0.2/32 Allowed wg1 wg1".to_owned()));
}

#[test]
fn open_key_files_are_warned_of() {
    let fixture = Fixture::new();
    std::fs::set_permissions(fixture.path("a.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (_, warnings) = fixture.apply(&wg0());
    assert!(
        warnings[0].starts_with("wg.yaml document 1, WireguardInterface/wg0: ") && warnings[0].contains("chmod 600"),
        "{warnings:?}"
    );
}

/// A document, in which @DIR is the folder of keys, OWN the interface's public key and ZEROS one of zeros; the path of the
/// field at fault, and a part of the sentence.
type Case = (String, &'static str, &'static str);

/// A spec, the field, and a part of the sentence.
type SpecCase = (&'static str, &'static str, &'static str);

const INTERFACES: &[SpecCase] = &[
    (
        "listenPort: 1, privateKeyFile: @DIR/none",
        "spec.privateKeyFile",
        "cannot read",
    ),
    (
        "listenPort: 1, privateKeyFile: @DIR/short",
        "spec.privateKeyFile",
        "short holds no key; expected a key: 44",
    ),
    (
        "listenPort: 1, privateKeyFile: @DIR/zeros",
        "spec.privateKeyFile",
        "a key of zeros",
    ),
    (
        "listenPort: 1, privateKeyFile: /dev/zero",
        "spec.privateKeyFile",
        "is not a file",
    ),
    (
        "listenPort: 1, privateKeyFile: a.key",
        "spec.privateKeyFile",
        "not an absolute path",
    ),
    (
        "privateKeyFile: @DIR/b.key",
        "spec.listenPort",
        "UDP port 51820 in vrf default already belongs",
    ),
    ("GOOD, mtu: 1695", "spec.mtu", "from 68 to 1694"),
    (
        "GOOD, addresses: [10.1.0.1/32]",
        "spec.addresses[0]",
        "already belongs to Port/left",
    ),
    ("GOOD, addresses: [10.1.0.7/16]", "spec.addresses[0]", "overlaps"),
    (
        "GOOD, addresses: [10.7.0.0/16]",
        "spec.addresses[0]",
        "address of the network itself",
    ),
    ("GOOD, transportVRF: A", "spec.transportVRF", "is not a name"),
    ("GOOD, fwMark: 7", "spec.fwMark", "unknown field"),
];

const PEERS: &[SpecCase] = &[
    (
        "interface: wg0, publicKey: hunter2",
        "spec.publicKey",
        "expected a key: 44 characters",
    ),
    (
        "interface: wg0, publicKey: 'SDwCYkwp1R0i33ctD73Wg2'",
        "spec.publicKey",
        "expected a key",
    ),
    ("interface: wg0, publicKey: 'ZEROS'", "spec.publicKey", "low order"),
    (
        "interface: wg0, publicKey: 'OWN'",
        "spec.publicKey",
        "of WireguardInterface/wg0 itself",
    ),
    (
        "interface: wg0, publicKey: 'LAPTOP'",
        "spec.publicKey",
        "on interface wg0 already belongs to WireguardPeer/laptop",
    ),
    (
        "interface: wg7, publicKey: 'HUB'",
        "spec.interface",
        "there is no WireguardInterface/wg7",
    ),
    (
        "PEER, endpoint: '192.0.2.9'",
        "spec.endpoint",
        "expected an address or host name and a port",
    ),
    (
        "PEER, endpoint: '2001:db8::1:5'",
        "spec.endpoint",
        "[2001:db8::9]:51820",
    ),
    (
        "PEER, endpoint: 'nobody.invalid:1'",
        "spec.endpoint",
        "nobody.invalid does not resolve",
    ),
    (
        "PEER, endpoint: '255.255.255.255:1'",
        "spec.endpoint",
        "not the address of one host",
    ),
    (
        "PEER, allowedIPs: [10.0.0.0/33]",
        "spec.allowedIPs[0]",
        "a prefix, such as",
    ),
    (
        "PEER, persistentKeepalive: 65536",
        "spec.persistentKeepalive",
        "from 0 to 65535",
    ),
    (
        "PEER, presharedKeyFile: @DIR/none",
        "spec.presharedKeyFile",
        "cannot read",
    ),
];

const LEFT: &str = "{apiVersion: margay/v1, kind: Port, metadata: {name: left}, spec: {driver: memory, device: m, \
                    addresses: [10.1.0.1/24]}}\n---\n";

/// What others say of tunnels.
fn other_cases() -> Vec<Case> {
    let route = |via: &str| {
        let spec = format!("destination: 10.50.0.0/16, via: [{via}]");
        format!("{{apiVersion: margay/v1, kind: Route, metadata: {{name: r}}, spec: {{{spec}}}}}")
    };
    let neighbor = "{apiVersion: margay/v1, kind: Neighbor, metadata: {name: n}, spec: {port: wg0, address: 10.9.0.9, \
                    mac: '02:00:00:00:00:02'}}";
    let namesake = LEFT.replace("left", "wg0").replace("10.1", "10.2").replace("m,", "x,");
    let named_left = interface("left", "privateKeyFile: @DIR/b.key, listenPort: 1");
    vec![
        (named_left, "metadata.name", "Port/left has this name already"),
        (namesake, "metadata.name", "WireguardInterface/wg0 has this name"),
        (route("{gateway: 10.9.0.2}"), "spec.via[0].gateway", "write `port: wg0`"),
        (route("{port: wg9}"), "spec.via[0].port", "there is no Port/wg9"),
        (neighbor.to_owned(), "spec.port", "there is no Port/wg0"),
    ]
}

#[test]
fn bad_input_changes_nothing_and_says_why() {
    let fixture = Fixture::new();
    let zeros = "A".repeat(43) + "=";
    std::fs::write(fixture.path("short"), "c2hvcnQ=\n").unwrap();
    std::fs::write(fixture.path("zeros"), &zeros).unwrap();
    let own = Secret::read(&fixture.path("a.key"), "genkey")
        .unwrap()
        .0
        .public()
        .to_string();
    fixture.apply(&(LEFT.to_owned() + &wg0() + &peer("laptop", LAPTOP, "allowedIPs: [10.9.0.2/32]")));
    let before = fixture.state();
    let document = |kind: &str, name: &str, spec: &str| {
        let spec = spec
            .replace("GOOD", "listenPort: 1, privateKeyFile: @DIR/b.key")
            .replace("PEER", "interface: wg0, publicKey: 'HUB'")
            .replace("ZEROS", &zeros)
            .replace("LAPTOP", LAPTOP)
            .replace("HUB", HUB)
            .replace("OWN", &own);
        format!("{{apiVersion: margay/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}}}}}")
    };
    let of = |kind: &'static str, name: &'static str, cases: &[SpecCase]| -> Vec<Case> {
        let one = |(spec, field, part): &SpecCase| (document(kind, name, spec), *field, *part);
        cases.iter().map(one).collect()
    };
    let cases = [
        of("WireguardInterface", "wg1", INTERFACES),
        of("WireguardPeer", "p", PEERS),
        other_cases(),
    ];
    for (document, field, part) in cases.into_iter().flatten() {
        // Beside something good, which is not done either.
        let good = peer(
            "good",
            &Secret::private().public().to_string(),
            "allowedIPs: [10.60.0.0/16]",
        );
        let refusal = fixture.carry_out(&(good + &document)).expect_err(&document);
        assert_eq!(refusal.field.as_deref(), Some(field), "{document}: {refusal}");
        assert!(
            refusal.error.contains(part),
            "{document}\nexpected: {part}\nis: {refusal}"
        );
        assert!(refusal.document.unwrap().starts_with("wg.yaml document 2"));
        assert!(
            !refusal.error.contains("hunter2"),
            "what stands in the place of a key is not repeated"
        );
        assert_eq!(fixture.state(), before, "{document}");
    }
}

#[test]
fn a_route_may_lead_into_a_tunnel() {
    let fixture = Fixture::new();
    let route = "{apiVersion: margay/v1, kind: Route, metadata: {name: r}, spec: {destination: 10.50.0.0/16, via: [{port: wg0}]}}";
    fixture.apply(&(wg0() + route));
    assert!(fixture.routes().contains(&"10.50.0.0/16 Static r wg0".to_owned()));
    let refusal = fixture.delete(&wg0()).unwrap_err();
    assert!(refusal.error.contains("Route/r still names it"), "{refusal}");
}

#[test]
fn more_peers_than_fit_are_refused_and_leave_nothing_behind() {
    let fixture = Fixture::new();
    fixture.apply(&wg0());
    let before = fixture.state();
    let mut key = *Secret::private().bytes();
    let mut peers = String::new();
    for number in 0..8193_u32 {
        // Any 32 bytes but a few are a key.
        key[..4].copy_from_slice(&number.to_be_bytes());
        let key = control::keys::PublicKey(key).to_string();
        peers += &peer(&format!("p{number}"), &key, "");
    }
    let refusal = fixture.carry_out(&peers).unwrap_err();
    assert!(refusal.error.contains("has 8192 peers already"), "{refusal}");
    assert_eq!(fixture.state(), before);
}

#[test]
fn a_tunnel_and_a_vxlan_do_not_listen_on_one_udp_port() {
    let fixture = Fixture::new();
    let vxlan = |port: u16| {
        format!(
            "---\n{{apiVersion: margay/v1, kind: Port, metadata: {{name: under}}, spec: {{driver: memory, device: under, \
             addresses: [192.0.2.1/24]}}}}\n---\n\
             {{apiVersion: margay/v1, kind: Port, metadata: {{name: vx}}, spec: {{driver: vxlan, device: vx, local: 192.0.2.1, \
             udpPort: {port}}}}}\n"
        )
    };
    fixture.apply(&wg0());
    let refusal = fixture.carry_out(&vxlan(51820)).unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("spec.udpPort"), "{refusal}");
    let expected = "UDP port 51820 in vrf default already belongs to WireguardInterface/wg0";
    assert!(refusal.error.contains(expected), "{refusal}");
    fixture.apply(&vxlan(4789));
    let moved = wg0().replace("spec: {", "spec: {listenPort: 4789, ");
    let refusal = fixture.carry_out(&moved).unwrap_err();
    assert!(
        refusal.error.contains("already belongs to WireguardInterface/wg0"),
        "{refusal}"
    );
}
