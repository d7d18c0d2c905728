//! `/metrics` of a plane with everything in it: every line as Prometheus' text format 0.0.4 has it, and nothing on the
//! dashboard that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use control::intent::Intent;
use control::keys::Secret;
use control::plane::DataPlane;
use control::resource::{Source, read};
use control::store::Request;
use serde_json::Value;

use super::{options, text};

const DASHBOARD: &str = "docs/grafana/margay.json";
/// What Prometheus adds, of where it reads.
const ADDED: [&str; 1] = ["instance"];

const RESOURCES: &str = "
{apiVersion: margay/v1, kind: Port, metadata: {name: left}, spec: {device: left, driver: memory, addresses: [10.1.0.1/24],
 qos: {ingressBandwidth: 1M, egressPacketRate: 1000}}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: world}, spec: {device: world, driver: memory, addresses: [192.0.2.1/24]}}
---
{apiVersion: margay/v1, kind: SourceNat, metadata: {name: out}, spec: {source: 10.1.0.0/16, address: 192.0.2.1, outPort: world}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: router}, spec: {port: world, address: 192.0.2.9, mac: '02:00:00:00:00:09'}}
---
{apiVersion: margay/v1, kind: WireguardInterface, metadata: {name: wg0}, spec: {privateKeyFile: KEY, addresses: [10.7.0.1/24]}}
---
{apiVersion: margay/v1, kind: WireguardPeer, metadata: {name: laptop}, spec: {interface: wg0, allowedIPs: [10.7.0.2/32],
 publicKey: 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo='}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {name: web-1, namespace: shop,
 labels: {kubernetes.io/service-name: web}}, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.1.0.2]}]}
";

/// A family of metrics: its type, and the labels of its samples.
#[derive(Default)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
    samples: usize,
}

/// The page of a plane that has forwarded a packet and dropped another.
fn page() -> String {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    Secret::new(&[1; 32]).write(&key).unwrap();
    let plane = Arc::new(DataPlane::start(&options()).unwrap());
    let intent = Intent::new(plane.clone());
    let resources = RESOURCES.replace("KEY", &key.display().to_string());
    let documents = read(&[Source::file("all.yaml", resources.as_str())]).unwrap();
    intent.carry_out(Request::Apply(documents)).unwrap();
    let (left, world) = (plane.memory_end("left").unwrap(), plane.memory_end("world").unwrap());
    let packet = testbed::packets::udp(
        ("10.1.0.2".parse().unwrap(), 1),
        ("192.0.2.9".parse().unwrap(), 2),
        64,
        b"x",
    );
    left.send.send(vec![0; 3]).unwrap();
    left.send
        .send(testbed::packets::frame(testbed::packets::port_mac(1), [2; 6], &packet))
        .unwrap();
    world.receive.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    control::metrics::text(&*plane)
}

/// Reads a page strictly: families one after the other, each with its help, its type, and samples of its own name, no
/// series twice.
fn families(page: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    let (mut current, mut helped, mut series) = (String::new(), String::new(), BTreeSet::new());
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && help.ends_with('.'), "{line}");
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, helped, "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            let family = Family {
                kind: kind.to_owned(),
                ..Family::default()
            };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} comes twice");
            current = name.to_owned();
        } else {
            let (name, labels, value) = sample(line);
            assert_eq!(name, current, "{line}");
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(series.insert(line.rsplit_once(' ').unwrap().0), "{line} comes twice");
            let family = families.get_mut(name).unwrap();
            family.samples += 1;
            family.labels.extend(labels);
        }
    }
    families
}

/// Name, names of labels, and value of a line.
fn sample(line: &str) -> (&str, Vec<String>, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = vec![];
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label) && !label.contains(':'), "{line}");
            labels.push(label.to_owned());
            rest = after_quote(after).unwrap_or_else(|| panic!("{line}"));
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').and_then(|value| value.parse().ok());
    (name, labels, value.unwrap_or_else(|| panic!("{line}")))
}

/// What follows the quote that closes a value: the first without an odd number of backslashes before it.
fn after_quote(text: &str) -> Option<&str> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => {
                assert!(matches!(byte, b'\\' | b'"' | b'n'), "{text}");
                escaped = false;
            }
            b'\\' => escaped = true,
            b'"' => return text.get(at + 1..),
            _ => {}
        }
    }
    None
}

fn is_name(text: &str) -> bool {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    text.bytes().all(right) && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// Each `margay_...` in an expression.
fn used(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with("margay_"))
}

/// The labels in a legend, as `{{port}}`.
fn legend(text: &str) -> impl Iterator<Item = &str> {
    text.split("{{").skip(1).filter_map(|rest| rest.split("}}").next())
}

#[test]
fn metrics_are_as_prometheus_reads_them() {
    let page = page();
    let families = families(&page);
    // What only a finished handshake brings, or a device.
    let empty: Vec<&String> = families
        .iter()
        .filter(|family| family.1.samples == 0)
        .map(|family| family.0)
        .collect();
    let later = |name: &&&String| !name.contains("_socket_") && !name.ends_with("handshake_age_seconds");
    assert_eq!(empty.iter().find(later), None, "{page}");
    assert!(families.len() > 30);
}

#[test]
fn the_dashboard_shows_what_there_is_and_all_of_it_that_grows() {
    let families = families(&page());
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            assert_eq!(
                expression.matches('(').count(),
                expression.matches(')').count(),
                "{expression}"
            );
            for name in used(expression) {
                let family = families
                    .get(name)
                    .unwrap_or_else(|| panic!("{title}: there is no {name}"));
                // A counter says something by its rate only, and a gauge has none.
                let rated = expression.contains(&format!("rate({name}{{"));
                assert_eq!(rated, family.kind == "counter", "{title}: {expression}");
                for label in legend(target["legendFormat"].as_str().unwrap()) {
                    let is_there = family.samples == 0 || family.labels.contains(label) || ADDED.contains(&label);
                    assert!(is_there, "{title}: {name} has no label {label}");
                }
                shown.insert(name);
            }
        }
    }
    // Losses are what an operator must not miss.
    for name in families
        .keys()
        .filter(|name| name.contains("drop") || name.contains("limited") || name.contains("evicted"))
    {
        assert!(shown.contains(name.as_str()), "{name} is on no panel");
    }
}
