//! Documents: what is taken says the same when it is printed, and can be taken back until nothing is left.

use control::resource::{Document, Resource, Source, read};
use serde_json::json;
use testbed::Plane;

use super::Run;
use super::text::{documents, keys, stays_inside};

/// Ports for others to lean on.
const GIVEN: &str = "
{apiVersion: margay/v1, kind: Port, metadata: {name: left}, spec: {device: left, driver: memory, addresses: [10.1.0.1/24, 'fd00:1::1/64']}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: right}, spec: {device: right, driver: memory, addresses: [10.2.0.1/24, 'fd00:2::1/64']}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: uplink}, spec: {device: uplink, driver: memory, addresses: [192.0.2.1/24, '2001:db8::1/64']}}
";

/// Sets it up.
pub fn start() -> Run {
    let mut plane = Plane::new(GIVEN).unwrap();
    let given = keys(GIVEN);
    let before = there_is(&mut plane);
    Box::new(move |input| {
        let Some((text, documents)) = documents(input) else {
            return;
        };
        printed(&documents);
        let is_new = |document: &Document| stays_inside(document) && !given.contains(&document.resource.key());
        if documents.is_empty() || !documents.iter().all(is_new) {
            return;
        }
        if plane.apply(text).is_ok() {
            plane.apply(text).unwrap();
            plane.settle();
            plane.delete(text).unwrap();
        }
        plane.settle();
        assert_eq!(there_is(&mut plane), before);
    })
}

/// Ports, routes, neighbours, services and policies, as JSON.
fn there_is(plane: &mut Plane) -> String {
    let views = plane.views();
    let routes = views.routes();
    json!([
        views.ports(),
        routes,
        views.neighbors(),
        views.services(),
        views.policies()
    ])
    .to_string()
}

/// Every answer of `get` can be applied again.
fn printed(documents: &[Document]) {
    let resources: Vec<&Resource> = documents.iter().map(|document| &document.resource).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": resources}).to_string();
    let again = read(&[Source::file("b.json", list.as_str())]).unwrap_or_else(|error| panic!("{error}\n{list}"));
    let again: Vec<&Resource> = again.iter().map(|document| &document.resource).collect();
    assert_eq!(again, resources);
}
