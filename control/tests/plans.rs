//! What a request would change, and what it may not.

mod common;

use common::{PORTS, TestPlane};
use control::intent::Intent;
use control::refusal::Refusal;
use control::resource::{Kind, Source, read, read_keys};
use control::store::{Change, Request};
use std::sync::Arc;
use std::sync::atomic::Ordering;

struct Fixture {
    plane: Arc<TestPlane>,
    intent: Intent,
}

impl Fixture {
    fn new() -> Self {
        let plane = Arc::new(TestPlane::default());
        let fixture = Self {
            intent: Intent::new(plane.clone()),
            plane,
        };
        fixture.apply(PORTS).unwrap();
        fixture
    }

    fn apply(&self, yaml: &str) -> Result<Vec<Change>, Refusal> {
        let documents = read(&[Source::file("b.yaml", yaml)]).unwrap();
        Ok(self
            .intent
            .carry_out(Request::Apply(documents))?
            .results
            .into_iter()
            .map(|applied| applied.change)
            .collect())
    }

    fn delete(&self, yaml: &str) -> Result<Vec<Change>, Refusal> {
        let named = read_keys(&[Source::file("b.yaml", yaml)]).unwrap();
        Ok(self
            .intent
            .carry_out(Request::Delete(named))?
            .results
            .into_iter()
            .map(|applied| applied.change)
            .collect())
    }

    fn keys(&self) -> Vec<String> {
        self.intent.store().all().map(|(key, _)| key.to_string()).collect()
    }
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("{{apiVersion: margay/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {spec}}}\n---\n")
}

fn route(name: &str, spec: &str) -> String {
    document("Route", name, spec)
}

#[test]
fn created_configured_unchanged_deleted() {
    let fixture = Fixture::new();
    let first = route("r", "{destination: 10.9.0.0/16, via: [{gateway: 10.2.0.2}]}");
    assert_eq!(fixture.apply(&first).unwrap(), [Change::Created]);
    assert_eq!(fixture.apply(&first).unwrap(), [Change::Unchanged]);
    assert_eq!(
        fixture.plane.plans.lock().unwrap().len(),
        2,
        "nothing changed, so the plane is not asked"
    );
    let same = route(
        "r",
        "{vrf: default, via: [{weight: 1, gateway: 10.2.0.2}], destination: 10.9.0.0/16}",
    );
    assert_eq!(fixture.apply(&same).unwrap(), [Change::Unchanged]);
    let other = route("r", "{destination: 10.9.0.0/16, via: [{gateway: 10.2.0.3}]}") + PORTS;
    assert_eq!(
        fixture.apply(&other).unwrap(),
        [Change::Configured, Change::Unchanged, Change::Unchanged]
    );
    let plans = fixture.plane.plans.lock().unwrap().clone();
    let planned: Vec<_> = plans[2].of_kind(Kind::Route).collect();
    assert!(planned[0].before.is_some() && planned[0].after.is_some() && planned[0].before != planned[0].after);
    assert_eq!(plans[2].of_kind(Kind::Port).count(), 0);
    assert_eq!(fixture.delete(&first).unwrap(), [Change::Deleted]);
    assert_eq!(fixture.keys(), ["Port/left", "Port/right"]);
    let refusal = fixture.delete(&first).unwrap_err();
    assert_eq!(
        refusal.error,
        "b.yaml document 1, Route/r: Route/r does not exist, so it cannot be deleted"
    );
}

#[test]
fn what_a_plane_refuses_is_not_kept() {
    let fixture = Fixture::new();
    fixture.plane.refuse.store(true, Ordering::Relaxed);
    let text = route("r", "{destination: 10.9.0.0/16, via: [{drop: true}]}");
    assert!(fixture.apply(&text).unwrap_err().error.contains("left0 does not exist"));
    assert!(fixture.delete(PORTS).is_err());
    assert_eq!(fixture.keys(), ["Port/left", "Port/right"]);
    fixture.plane.refuse.store(false, Ordering::Relaxed);
    assert_eq!(fixture.apply(&text).unwrap(), [Change::Created]);
}

fn refused(cases: &[(String, &str)]) {
    let fixture = Fixture::new();
    for (text, part) in cases {
        let refusal = fixture.apply(text).unwrap_err();
        assert!(refusal.error.contains(part), "{text}\nexpected: {part}\nis: {refusal}");
        assert_eq!(fixture.keys(), ["Port/left", "Port/right"], "nothing is half applied");
    }
}

#[test]
fn ports_that_do_not_go_together_are_refused() {
    let third = |spec: &str| document("Port", "third", spec);
    refused(&[
        (
            third("{device: left0}"),
            "Port/third, field spec.device: network device left0 already belongs to Port/left",
        ),
        (
            third("{device: left0, driver: tap}"),
            "network device left0 already belongs to Port/left",
        ),
        (
            third("{device: c, addresses: [10.1.0.1/32]}"),
            "field spec.addresses[0]: address 10.1.0.1 in vrf default already belongs to Port/left",
        ),
        (
            third("{device: c, addresses: [10.1.0.9/24]}"),
            "10.1.0.0/24 overlaps 10.1.0.0/24 of Port/left in vrf default",
        ),
        (
            third("{device: c, addresses: [10.5.0.1/24, 10.1.0.200/28]}"),
            "field spec.addresses[1]: 10.1.0.192/28 overlaps 10.1.0.0/24 of Port/left",
        ),
        (
            third("{device: c, addresses: ['fd00:1::2/48']}"),
            "fd00:1::/48 overlaps fd00:1::/64 of Port/left",
        ),
        (
            third("{device: c}") + &third("{device: d}"),
            "b.yaml document 2, Port/third: Port/third was already given in b.yaml document 1, Port/third",
        ),
        (
            third("{device: c}") + &document("Port", "fourth", "{device: c}"),
            "document 2, Port/fourth, field spec.device: network device c already belongs to Port/third",
        ),
    ]);
}

#[test]
fn a_vlan_needs_its_link_whole() {
    let fixture = Fixture::new();
    let uplink = |punt: &str| document("Port", "up", &format!("{{device: up0, punt: {punt}}}"));
    let vlan = document("Port", "blue", "{device: up0, vlan: 7}");
    fixture.apply(&uplink("kernel")).unwrap();
    let refusal = fixture.apply(&vlan).unwrap_err();
    let sentence = "vlan 7 is on the link of Port/up, which leaves what is tagged to the kernel";
    assert!(refusal.error.contains(sentence), "{refusal}");
    fixture.apply(&uplink("none")).unwrap();
    fixture.apply(&vlan).unwrap();
    let refusal = fixture.apply(&uplink("kernel")).unwrap_err();
    assert!(refusal.error.contains(sentence), "{refusal}");
}

#[test]
fn routes_and_neighbors_that_lead_nowhere_or_twice_are_refused() {
    refused(&[
        (
            route("r", "{destination: 10.9.0.0/16, via: [{port: up}]}"),
            "Route/r, field spec.via[0].port: there is no Port/up",
        ),
        (
            route("r", "{destination: 10.9.0.0/16, via: [{vrf: red}]}"),
            "Route/r, field spec.via[0].vrf: no Port is in vrf red; apply one first",
        ),
        (
            route("r", "{destination: 10.9.0.0/16, via: [{gateway: 10.9.0.1, port: up}]}"),
            "Route/r, field spec.via[0].port: there is no Port/up",
        ),
        (
            route("r", "{destination: 10.9.0.0/16, via: [{gateway: 10.1.0.2, vrf: red}]}"),
            "field spec.via[0].gateway: 10.1.0.2 is on no connected prefix of vrf red",
        ),
        (
            route("r", "{destination: 10.9.0.0/16, via: [{gateway: 10.3.0.1}]}"),
            "field spec.via[0].gateway: 10.3.0.1 is on no connected prefix of vrf default",
        ),
        (
            route("r", "{destination: 10.9.0.0/16, vrf: red, via: [{gateway: 10.2.0.2}]}"),
            "on no connected prefix of vrf red",
        ),
        (
            route("r", "{destination: 10.9.0.0/16, via: [{gateway: 10.2.0.1}]}"),
            "the data plane's own address on Port/right",
        ),
        (
            route("r", "{destination: 10.9.0.0/16, via: [{drop: true}]}")
                + &route("s", "{destination: 10.9.0.0/16, via: [{gateway: 10.2.0.2}]}"),
            "Route/s, field spec.destination: destination 10.9.0.0/16 in vrf default already belongs to Route/r",
        ),
        (
            document(
                "Neighbor",
                "n",
                "{port: up, address: 10.1.0.2, mac: '02:00:00:00:00:02'}",
            ),
            "field spec.port: there is no Port/up",
        ),
        (
            document(
                "Neighbor",
                "n",
                "{port: left, address: 10.1.0.1, mac: '02:00:00:00:00:02'}",
            ),
            "the data plane's own address on Port/left",
        ),
        (
            document(
                "Neighbor",
                "n",
                "{port: left, address: 10.1.0.2, mac: '02:00:00:00:00:02'}",
            ) + &document(
                "Neighbor",
                "m",
                "{port: left, address: 10.1.0.2, mac: '02:00:00:00:00:03'}",
            ),
            "neighbour 10.1.0.2 on port left already belongs to Neighbor/n",
        ),
    ]);
}

#[test]
fn what_stands_on_a_port_is_checked_when_the_port_changes() {
    let fixture = Fixture::new();
    let on_link = route("on-link", "{destination: 10.9.0.0/16, via: [{port: right}]}");
    let gateway = route("gateway", "{destination: 10.8.0.0/16, via: [{gateway: 10.1.0.2}]}");
    let neighbor = document(
        "Neighbor",
        "n",
        "{port: right, address: 10.2.0.2, mac: '02:00:00:00:00:02'}",
    );
    fixture.apply(&(on_link.clone() + &gateway + &neighbor)).unwrap();
    let (left, right) = (
        document("Port", "left", "{device: left0}"),
        document("Port", "right", "{device: right0}"),
    );
    let refusal = fixture.delete(&right).unwrap_err();
    assert!(
        refusal
            .error
            .starts_with("b.yaml document 1, Port/right: Port/right cannot be deleted: "),
        "{refusal}"
    );
    assert!(refusal.error.contains("still names it in spec."), "{refusal}");
    let refusal = fixture.delete(&left).unwrap_err();
    assert!(
        refusal
            .error
            .starts_with("Route/gateway, field spec.via[0].gateway: 10.1.0.2 is on no"),
        "{refusal}"
    );
    let refusal = fixture.apply(&left).unwrap_err();
    assert_eq!(refusal.document.as_deref(), Some("Route/gateway"));
    // A port may take its place in another table: routes onto its link lead there from everywhere.
    let red = document("Port", "right", "{device: right0, vrf: red}");
    assert_eq!(fixture.apply(&red).unwrap(), [Change::Configured]);
    let leak = document("Route", "leak", "{destination: 10.7.0.0/16, via: [{vrf: red}]}");
    assert_eq!(fixture.apply(&leak).unwrap(), [Change::Created]);
    let refusal = fixture.apply(&right).unwrap_err().error;
    assert!(
        refusal.contains("Route/leak, field spec.via[0].vrf: no Port is in vrf red"),
        "{refusal}"
    );
    assert_eq!(fixture.delete(&leak).unwrap(), [Change::Deleted]);
    let all = [right, left, on_link, gateway, neighbor].concat();
    assert_eq!(fixture.delete(&all).unwrap(), [Change::Deleted; 5]);
    assert!(fixture.keys().is_empty());
}

#[test]
fn claims_move_with_a_plan_and_are_given_back() {
    let fixture = Fixture::new();
    let swapped = document("Port", "left", "{device: right0, addresses: [10.2.0.1/24]}")
        + &document("Port", "right", "{device: left0, addresses: [10.1.0.1/24]}");
    assert_eq!(
        fixture.apply(&swapped).unwrap(),
        [Change::Configured, Change::Configured]
    );
    let taken = document("Port", "third", "{device: left0}");
    assert!(
        fixture
            .apply(&taken)
            .unwrap_err()
            .error
            .contains("already belongs to Port/right")
    );
    fixture.delete(&document("Port", "right", "{}")).unwrap();
    assert_eq!(fixture.apply(&taken).unwrap(), [Change::Created]);
}

#[test]
fn the_same_in_two_vrfs_is_allowed() {
    let fixture = Fixture::new();
    let red = document("Port", "red", "{device: red0, vrf: red, addresses: [10.1.0.1/24]}")
        + &route("a", "{destination: 10.9.0.0/16, vrf: red, via: [{gateway: 10.1.0.2}]}")
        + &route("b", "{destination: 10.9.0.0/16, via: [{gateway: 10.1.0.2}]}");
    assert_eq!(fixture.apply(&red).unwrap(), [Change::Created; 3]);
}
