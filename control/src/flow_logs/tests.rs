use std::net::IpAddr;
use std::sync::Arc;

use super::aggregates::{Aggregates, Key};
use super::names::Names;
use super::*;
use crate::resource::{Source, read, read_keys};
use crate::store::{Request, Store};

fn end(name: &str) -> Arc<LogEnd> {
    Arc::new(LogEnd {
        kind: EndKind::Workload,
        name: Some(name.to_owned()),
        address: None,
    })
}

fn key(port: u16) -> Key {
    Key {
        source: end("shop/web"),
        target: end("shop/db"),
        protocol: 17,
        port,
        verdict: Arc::default(),
        pending: None,
    }
}

fn add(aggregates: &mut Aggregates, port: u16) -> u32 {
    let number = aggregates.number(key(port));
    aggregates.sums(number).unwrap().carried[0] += 1;
    number
}

#[test]
fn what_is_alike_is_added_up_and_beyond_all_room_the_rest_is_one() {
    let mut aggregates = Aggregates::new(2);
    for port in [1, 2, 1, 3, 4] {
        add(&mut aggregates, port);
    }
    let logs = aggregates.close(0, 15_000);
    let told: Vec<_> = logs
        .iter()
        .map(|log| (log.source.kind, log.port, log.packets))
        .collect();
    let one = |port, packets| (EndKind::Workload, Some(port), packets);
    assert_eq!(told, [(EndKind::Other, None, 2), one(1, 2), one(2, 1)]);
    assert_eq!((logs[0].start_ms, logs[0].end_ms), (0, 15_000));
    assert_eq!(aggregates.close(15_000, 30_000), []);
    // What nobody uses any more makes room.
    let kept = add(&mut aggregates, 5);
    aggregates.join(kept);
    aggregates.close(0, 0);
    add(&mut aggregates, 6);
    assert_eq!(add(&mut aggregates, 5), kept, "a connection still counts for it");
    let ports: Vec<_> = aggregates.close(0, 0).iter().map(|log| log.port).collect();
    assert_eq!(ports.len(), 2);
    aggregates.leave(kept);
    aggregates.close(0, 0);
    assert!(add(&mut aggregates, 7) != 0 && add(&mut aggregates, 8) != 0);
}

fn log(number: u64) -> Arc<FlowLog> {
    let mut aggregates = Aggregates::new(1);
    add(&mut aggregates, 80);
    let mut log = aggregates.close(0, 0).remove(0);
    log.packets = number;
    Arc::new(log)
}

#[test]
fn files_are_put_aside_when_they_are_large_and_the_oldest_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.log");
    let length = serde_json::to_vec(&*log(0)).unwrap().len() as u64 + 1;
    let limits = Limits {
        bytes: length * 2,
        older: 2,
    };
    // No more at once than may wait; who drops it waits for all of them.
    for part in [0..4, 4..8, 8..9] {
        let file = FileLog::open(&path, limits).unwrap();
        part.for_each(|number| file.write(&[log(number)]));
        assert_eq!(file.failures(), (0, None));
    }
    let numbers = |name: &str| {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        let number = |line: &str| serde_json::from_str::<FlowLog>(line).unwrap().packets;
        text.lines().map(number).collect::<Vec<_>>()
    };
    assert_eq!(
        ["flows.log.2", "flows.log.1", "flows.log"].map(numbers),
        [vec![4, 5], vec![6, 7], vec![8]]
    );
    assert!(!folder.path().join("flows.log.3").exists());
}

#[test]
fn a_full_disk_is_told_and_counted() {
    let file = FileLog::open(Path::new("/dev/full"), Limits::default()).unwrap();
    file.write(&[log(1)]);
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while file.failures().0 == 0 && std::time::Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (windows, error) = file.failures();
    let error = error.unwrap();
    assert!(
        windows == 1 && error.contains("/dev/full") && error.contains("make room"),
        "{error}"
    );
    assert!(FileLog::open(Path::new("/nowhere/flows.log"), Limits::default()).is_err());
}

#[test]
fn addresses_have_the_names_of_endpoints_then_of_the_narrowest_set() {
    let yaml = "
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: w, namespace: shop},
 spec: {pod: web, ipNetworks: [10.0.0.1/32, 'fd00::1']}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: wide}, spec: {nets: [10.0.0.0/8, 'fd00::/16']}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: narrow, namespace: shop}, spec: {nets: [10.0.0.0/24]}}
";
    let source = [Source::file("names.yaml", yaml)];
    let (mut store, mut names) = (Store::default(), Names::default());
    let plan = store.plan(Request::Apply(read(&source).unwrap())).unwrap();
    names.learn(&plan);
    store.commit(&plan);
    let addresses =
        ["10.0.0.1", "fd00::1", "10.0.0.2", "10.0.1.2", "192.0.2.1"].map(|text| text.parse::<IpAddr>().unwrap());
    let told = addresses.map(|address| {
        let end = names.of(address);
        end.name.clone().or_else(|| end.address.clone()).unwrap()
    });
    assert_eq!(told, ["shop/web", "shop/web", "shop/narrow", "wide", "192.0.2.1"]);
    let plan = store.plan(Request::Delete(read_keys(&source).unwrap())).unwrap();
    names.learn(&plan);
    assert!(
        addresses
            .iter()
            .all(|address| names.of(*address).kind == EndKind::Address)
    );
}
