//! The real plane under plans: what it carries out, and what it leaves alone when it cannot.

use control::api::Plane;
use control::intent::Intent;
use control::plane::{DataPlane, PlaneOptions};
use control::refusal::Refusal;
use control::resource::{Source, read, read_keys};
use control::show::neighbors::NeighborState;
use control::show::ports::PortState;
use control::store::Request;
use fastpath::worker::Idle;
use std::sync::Arc;

const PORTS: &str = "
apiVersion: margay/v1
kind: Port
metadata: { name: left }
spec: { device: left, driver: memory, addresses: [10.0.0.1/8, 'fd00:1::1/64'] }
---
apiVersion: margay/v1
kind: Port
metadata: { name: right }
spec: { device: right, driver: memory, addresses: [192.0.2.1/24] }
";

struct Fixture {
    plane: Arc<DataPlane>,
    intent: Intent,
}

impl Fixture {
    fn new() -> Self {
        let options = PlaneOptions {
            flows: 1 << 16,
            frames: 4096,
            cores: vec![None, None],
            idle: Idle::Adaptive,
            place: Default::default(),
        };
        let plane = Arc::new(DataPlane::start(&options).unwrap());
        let fixture = Self {
            intent: Intent::new(plane.clone()),
            plane,
        };
        fixture.apply(PORTS).unwrap();
        fixture
    }

    fn apply(&self, yaml: &str) -> Result<(), Refusal> {
        let documents = read(&[Source::file("plane.yaml", yaml)])?;
        self.intent.carry_out(Request::Apply(documents)).map(|_| ())
    }

    fn delete(&self, yaml: &str) -> Result<(), Refusal> {
        let named = read_keys(&[Source::file("plane.yaml", yaml)])?;
        self.intent.carry_out(Request::Delete(named)).map(|_| ())
    }

    /// Everything that a plan can change, as the socket tells it.
    fn state(&self) -> String {
        let (ports, routes, neighbors) = (self.plane.ports(), self.plane.routes(), self.plane.neighbors());
        serde_json::to_string_pretty(&(ports, routes, neighbors)).unwrap()
    }
}

fn route(name: &str, destination: &str, via: &str) -> String {
    format!(
        "---\napiVersion: margay/v1\nkind: Route\nmetadata: {{ name: {name} }}\n\
         spec: {{ destination: {destination}, via: [{via}] }}\n"
    )
}

fn destinations(fixture: &Fixture) -> Vec<String> {
    fixture
        .plane
        .routes()
        .into_iter()
        .map(|route| route.destination)
        .collect()
}

#[test]
fn addresses_become_routes_and_go_with_their_port() {
    let fixture = Fixture::new();
    let found = destinations(&fixture);
    for expected in [
        "10.0.0.0/8",
        "10.0.0.1/32",
        "192.0.2.0/24",
        "fd00:1::/64",
        "fd00:1::1/128",
    ] {
        assert!(found.iter().any(|found| found == expected), "{expected} of {found:?}");
    }
    let moved = PORTS.replace("192.0.2.1/24", "198.51.100.1/24");
    fixture.apply(&moved).unwrap();
    let found = destinations(&fixture);
    assert!(
        found.contains(&"198.51.100.0/24".to_owned()) && !found.contains(&"192.0.2.0/24".to_owned()),
        "{found:?}"
    );
    fixture.delete(PORTS).unwrap();
    assert_eq!(destinations(&fixture), Vec::<String>::new());
    assert!(fixture.plane.ports().is_empty());
}

#[test]
fn a_missing_device_refuses_the_whole_request() {
    let fixture = Fixture::new();
    let before = fixture.state();
    let mut request = route("to-there", "198.51.100.0/24", "{ gateway: 192.0.2.2 }");
    request +=
        "---\napiVersion: margay/v1\nkind: Port\nmetadata: { name: new }\nspec: { device: new, driver: memory }\n";
    request += "---\napiVersion: margay/v1\nkind: Port\nmetadata: { name: lost }\nspec: { device: mg-absent }\n";
    let refusal = fixture.apply(&request).unwrap_err();
    assert!(
        refusal.error.contains("mg-absent") && refusal.field.as_deref() == Some("spec.device"),
        "{refusal:?}"
    );
    assert_eq!(fixture.state(), before);
    fixture
        .apply(&route("to-there", "198.51.100.0/24", "{ gateway: 192.0.2.2 }"))
        .unwrap();
    assert!(destinations(&fixture).contains(&"198.51.100.0/24".to_owned()));
}

#[test]
fn a_request_that_fills_a_table_is_refused_and_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let mut few = route("kept", "198.51.100.0/24", "{ gateway: 192.0.2.2 }");
    few += "---\napiVersion: margay/v1\nkind: Neighbor\nmetadata: { name: kept }\n";
    few += "spec: { port: right, address: 192.0.2.2, mac: '02:00:00:00:00:02' }\n";
    fixture.apply(&few).unwrap();
    let before = fixture.state();
    let mut many = route("kept", "198.51.100.0/24", "{ drop: true }");
    for n in 0..40 {
        // Weights with nothing in common: each group takes some 4,000 of the 131,072 slots.
        let hop = |last: u32| {
            let weight = if last == 2 { 129 + 2 * n } else { 256 };
            format!("{{ gateway: 10.0.0.{last}, weight: {weight} }}")
        };
        let hops: Vec<String> = (2..66).map(hop).collect();
        many += &route(&format!("r{n}"), &format!("172.16.{n}.0/24"), &hops.join(", "));
    }
    let refusal = fixture.apply(&many).unwrap_err();
    assert!(refusal.error.contains("slots"), "{refusal:?}");
    assert_eq!(fixture.state(), before);
}

#[test]
fn ports_of_files_say_what_is_wrong_with_them() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.pcap");
    std::fs::write(&broken, "this is no capture").unwrap();
    let port = |path: &std::path::Path| {
        format!(
            "apiVersion: margay/v1\nkind: Port\nmetadata: {{ name: file }}\n\
             spec: {{ driver: pcap, device: {} }}\n",
            path.display()
        )
    };
    let refusal = fixture.apply(&port(&broken)).unwrap_err();
    assert!(refusal.error.contains("broken.pcap"), "{refusal:?}");
    let refusal = fixture
        .apply(&port(&folder.path().join("no/such/folder.pcap")))
        .unwrap_err();
    assert!(refusal.error.contains("cannot write"), "{refusal:?}");
    // A port without a file to read only sends.
    fixture.apply(&port(&folder.path().join("sends.pcap"))).unwrap();
    let ports = fixture.plane.ports();
    assert!(ports.iter().all(|port| port.state == PortState::Up), "{ports:?}");
}

#[test]
fn a_neighbour_that_is_written_down_is_permanent_until_it_is_deleted() {
    let fixture = Fixture::new();
    let neighbour = "apiVersion: margay/v1\nkind: Neighbor\nmetadata: { name: n }\n\
                     spec: { port: right, address: 192.0.2.2, mac: '02:00:00:00:00:02' }\n";
    fixture.apply(neighbour).unwrap();
    let known = fixture.plane.neighbors();
    assert_eq!(
        (known[0].state, known[0].mac.as_deref()),
        (NeighborState::Permanent, Some("02:00:00:00:00:02"))
    );
    fixture.apply(&neighbour.replace(":02'", ":03'")).unwrap();
    assert_eq!(fixture.plane.neighbors()[0].mac.as_deref(), Some("02:00:00:00:00:03"));
    fixture.delete(neighbour).unwrap();
    assert!(fixture.plane.neighbors().is_empty());
}
