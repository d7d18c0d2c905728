//! Connections as the socket shows them.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;

use common::{Running, TestPlane, ask, connect, exchange, get, wait_for};
use control::api::Plane;
use control::connections::{Connections, Filter, Hands, Sort};
use control::server::Limits;
use control::show::View;
use control::show::flows::FlowView;
use fastpath::meta::{Endpoint, Flags, VrfId};
use fastpath::qsbr::Qsbr;
use nat::journal::{Journal, Pen};
use nat::key::Key;
use nat::leg::Start;
use nat::table::{New, Shape, Table, Writer};
use nat::time::Tick;
use serde_json::json;

const UDP: u8 = 17;

/// Client `n` of a server, who takes it for somebody else.
fn connection(n: u32) -> New {
    let [_, _, c, d] = n.to_be_bytes();
    let server = Endpoint::v4([198, 51, 100, 7], 53);
    let client = Endpoint::v4([10, 1, c, d], 40_000);
    let public = Endpoint::v4([192, 0, 2, 1], 1024 + n as u16);
    let key = |from: &Endpoint, to: &Endpoint| Key::new(from, to, UDP, VrfId(0), Flags::IPV4);
    New {
        keys: [key(&client, &server), key(&server, &public)],
        starts: [Start::default(); 2],
    }
}

/// The lines of an answer that comes in pieces.
fn lines(running: &Running, query: &str) -> Vec<FlowView> {
    let request = format!("GET /v1/flows{query} HTTP/1.1\r\nHost: margay\r\nConnection: close\r\n\r\n");
    let (status, head, body) = exchange(connect(&running.socket), request.as_bytes());
    assert_eq!(status, 200, "{body}");
    assert!(head.contains("content-type: application/x-ndjson"), "{head}");
    let lines = body.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_connection_is_a_line() {
    let running = Running::start(Limits::default());
    assert_eq!(lines(&running, ""), []);
    *running.plane.connections.lock().unwrap() = (0..18_000).map(connection).collect();
    assert_eq!(lines(&running, "").len(), 18_000, "over several pages");
    let found = lines(&running, "?where=host%2010.1.1.2%20and%20udp");
    let expected = json!({
        "protocol": "udp", "vrf": "default",
        "source": {"address": "10.1.1.2", "port": 40_000},
        "target": {"address": "198.51.100.7", "port": 53},
        "translated_source": {"address": "192.0.2.1", "port": 1024 + 258},
        "state": "opening", "packets": 1, "bytes": 1500, "reply_packets": 0, "reply_bytes": 0, "idle_s": 5,
    });
    assert_eq!(serde_json::to_value(found).unwrap(), json!([expected]));
    assert_eq!(lines(&running, "?where=port%201282").len(), 1, "by what it became");
    assert_eq!(lines(&running, "?where=net%2010.1.1.0/24").len(), 256);
    assert_eq!(lines(&running, "?where=tcp"), []);
    assert_eq!(lines(&running, "?where=vrf%20red"), []);
    let (status, answer) = get(&running.socket, "/v1/flows?where=hst");
    assert_eq!(status, 422);
    let error = answer["error"].as_str().unwrap();
    assert!(error.starts_with("`hst` is not understood; expected"), "{error}");
}

#[test]
fn the_largest_are_shown() {
    let plane = TestPlane::default();
    *plane.connections.lock().unwrap() = (0..1_200).map(connection).collect();
    let view = plane.flows();
    assert_eq!((view.live, view.capacity, view.flows.len()), (1_200, 20_000, 1_000));
    *plane.connections.lock().unwrap() = (0..2).map(connection).collect();
    let json = serde_json::to_vec(&View::Flows.look(&plane)).unwrap();
    let text = anstream::adapter::strip_str(&View::Flows.table(&json).unwrap()).to_string();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1..3].sort_unstable();
    let expected = [
        "PROTOCOL  SOURCE          TARGET           AS SOURCE       AS TARGET  STATE    PACKETS     SENT  RECEIVED  IDLE",
        "udp       10.1.0.0:40000  198.51.100.7:53  192.0.2.1:1024  -          opening        1  1.5 KiB       0 B   5 s",
        "udp       10.1.0.1:40000  198.51.100.7:53  192.0.2.1:1025  -          opening        1  1.5 KiB       0 B   5 s",
        "2 connections of at most 20,000",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn those_asked_for_are_shown_in_the_order_asked_for() {
    let running = Running::start(Limits::default());
    *running.plane.connections.lock().unwrap() = (0..3_000).map(connection).collect();
    let (status, view) = get(&running.socket, "/v1/show/flows?where=net%2010.1.1.0/24&sort=idle");
    assert_eq!(status, 200, "{view}");
    assert_eq!((&view["live"], &view["matched"]), (&json!(3_000), &json!(256)));
    assert_eq!(view["flows"].as_array().unwrap().len(), 256);
    for (query, sentence) in [
        (
            "/v1/show/ports?where=tcp",
            "`where` and `sort` are for the view `flows`; `ports` is shown whole",
        ),
        ("/v1/show/flows?where=hst", "`hst` is not understood; expected"),
        ("/v1/show/flows?sort=age", "unknown variant `age`"),
    ] {
        let (status, answer) = get(&running.socket, query);
        assert!(status == 422 || status == 400, "{query}: {status}");
        assert!(answer["error"].as_str().unwrap().contains(sentence), "{answer}");
    }
}

#[test]
fn what_carried_more_or_was_silent_for_longer_comes_first() {
    let (table, hands) = table(1);
    let mut writer = Writer::new();
    for n in 0..4 {
        let leg = table.insert(&mut writer, &connection(n), Tick(10)).unwrap();
        table.leg(leg).count(1000 * n, Tick(40 - n));
        // The first has most packets and least bytes.
        for _ in n..3 {
            table.leg(leg + 1).count(1, Tick(40 - n));
        }
    }
    let connections = Connections::new(table, hands, Tick(100), [].into());
    let ports = |sort| -> Vec<u16> {
        let view = connections.first(&Filter::parse("port 53").unwrap(), sort);
        let as_source = |flow: &FlowView| flow.translated_source.as_ref().unwrap().port.unwrap() - 1024;
        view.flows.iter().map(as_source).collect()
    };
    assert_eq!(ports(Sort::Bytes), [3, 2, 1, 0]);
    assert_eq!(ports(Sort::Packets), [0, 1, 2, 3]);
    assert_eq!(ports(Sort::Idle), [3, 2, 1, 0]);
}

/// A table for 20,000 in which one worker is in the middle of a turn, and what removes from it beside that worker.
fn table(writers: usize) -> (Arc<Table>, Arc<Hands>) {
    let qsbr = Arc::new(Qsbr::new(2));
    let shape = Shape {
        connections: 20_000,
        writers: writers + 1,
        seed: 1,
    };
    let table = Arc::new(Table::new(&shape, qsbr.clone()).unwrap());
    qsbr.online(0);
    (table, Hands::new(&Journal::default(), qsbr, 1))
}

#[test]
fn connections_are_deleted_by_filter_or_all_of_them() {
    let running = Running::start(Limits::default());
    *running.plane.connections.lock().unwrap() = (0..18_000).map(connection).collect();
    let delete = |query: &str| ask(&running.socket, "DELETE", &format!("/v1/flows{query}"), "", "");
    let deleted = |number: u32| (200, json!({ "deleted": number }));
    assert_eq!(delete("?where=net%2010.1.1.0/24%20and%20udp"), deleted(256));
    assert_eq!(delete("?where=tcp"), deleted(0));
    assert_eq!(delete("?all=true"), deleted(18_000));
    for (query, sentence) in [
        ("", "which connections are to end? expected a filter"),
        ("?where=", "which connections are to end? expected a filter"),
        ("?where=udp&all=true", "expected a filter or `all`, not both"),
        ("?where=hst", "`hst` is not understood"),
    ] {
        let (status, answer) = delete(query);
        assert_eq!(status, 422, "{query}");
        assert!(answer["error"].as_str().unwrap().starts_with(sentence), "{answer}");
    }
}

#[test]
fn a_worker_that_lets_go_of_nothing_is_not_waited_for_for_ever() {
    let (table, hands) = table(1);
    let mut writer = Writer::new();
    for n in 0..5_000 {
        table.insert(&mut writer, &connection(n), Tick(10)).unwrap();
    }
    let connections = Connections::new(table.clone(), hands, Tick(100), [].into());
    let refusal = connections.delete(&Filter::default()).unwrap_err();
    let deleted = 5_000 - table.len();
    let expected = format!("{deleted} connections were deleted, and others that match are left");
    assert!(refusal.error.starts_with(&expected), "{}", refusal.error);
    assert!(deleted > 0 && deleted < 5_000);
}

/// Connections of whose first 30 everything is told by the pen.
fn told(journal: &Journal) -> (Arc<Table>, Pen, Writer) {
    let qsbr = Arc::new(Qsbr::new(0));
    let shape = Shape {
        connections: 100,
        writers: 2,
        seed: 1,
    };
    let (table, pen, mut writer) = (
        Arc::new(Table::new(&shape, qsbr).unwrap()),
        journal.pen(),
        Writer::new(),
    );
    for n in 0..30 {
        table.insert(&mut writer, &connection(n), Tick(1)).unwrap();
    }
    (table, pen, writer)
}

#[test]
fn what_becomes_of_connections_is_told_to_who_follows() {
    let running = Running::start(Limits::default());
    let (table, pen, mut writer) = told(&running.plane.journal);
    let mut stream = connect(&running.socket);
    let request = "GET /v1/flows?follow=true&where=host%2010.1.0.7 HTTP/1.1\r\nHost: margay\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(answer.next().unwrap().contains("200 OK"));
    let mut event = || -> serde_json::Value {
        let line = answer.find(|line| line.starts_with('{')).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    // The head comes after it was agreed to follow; what is told from here on is told.
    for n in 0..30 {
        let leg = table.find(&connection(n).keys[0]).unwrap();
        pen.begins(&table.connection(leg), Tick(1));
        table.leg(leg).count(1500, Tick(1));
        assert!(table.remove_seen(&mut writer, leg, connection(n).keys));
    }
    pen.reclaim(&table, &mut writer, Tick(51));
    let (mut create, mut end) = (event(), event());
    for event in [&mut create, &mut end] {
        let time_ms = event.as_object_mut().unwrap().remove("time_ms");
        assert!(time_ms.unwrap().as_u64().unwrap() > 1_700_000_000_000);
    }
    let flow = json!({
        "event": "create", "protocol": "udp", "vrf": "default",
        "source": {"address": "10.1.0.7", "port": 40_000},
        "target": {"address": "198.51.100.7", "port": 53},
        "translated_source": {"address": "192.0.2.1", "port": 1024 + 7},
        "state": "opening", "packets": 0, "bytes": 0, "reply_packets": 0, "reply_bytes": 0, "idle_s": 0,
    });
    assert_eq!(create, flow);
    let mut ended = flow;
    (ended["event"], ended["reason"]) = ("end".into(), "deleted".into());
    (ended["packets"], ended["bytes"], ended["idle_s"]) = (1.into(), 1500.into(), 5.into());
    assert_eq!(end, ended);
}

#[tokio::test]
async fn who_reads_too_slowly_is_cut_off_and_told() {
    let journal = Journal::default();
    let (table, pen, _) = told(&journal);
    let connections = Connections::new(
        table.clone(),
        Hands::new(&journal, Arc::new(Qsbr::new(1)), 0),
        Tick(100),
        [].into(),
    );
    let mut slow = connections.follow(Filter::default()).unwrap();
    let mut quick = connections.follow(Filter::parse("tcp").unwrap()).unwrap();
    wait_for("one to be cut off", || {
        (0..2_000).for_each(|_| pen.begins(&table.connection(0), Tick(1)));
        connections.followed().cut_off == 1
    });
    assert_eq!(connections.followed().followers, 1, "the other goes on");
    let mut last = vec![];
    while let Some(lines) = slow.next().await {
        assert!(lines.ends_with(b"\n"), "whole lines");
        last = lines;
    }
    assert_eq!(last, b"{\"event\":\"cut-off\"}\n");
    // Workers are not waited for, either.
    (0..20_000).for_each(|_| pen.begins(&table.connection(0), Tick(1)));
    let lines = quick.next().await.unwrap();
    assert!(lines.starts_with(b"{\"event\":\"lost\",\"events\":"), "{lines:?}");
    assert!(connections.followed().lost > 0);
    drop(quick);
    wait_for("nobody to follow", || connections.followed().followers == 0);
}

#[test]
fn not_everybody_can_follow() {
    let (table, hands) = table(1);
    let connections = Connections::new(table, hands, Tick(100), [].into());
    let mut all: Vec<_> = (0..16)
        .map(|_| connections.follow(Filter::default()).unwrap())
        .collect();
    let refusal = connections.follow(Filter::default()).err().unwrap();
    assert_eq!(refusal.error, "16 clients follow connections already; end one of them");
    all.pop();
    assert!(connections.follow(Filter::default()).is_ok());
}

#[test]
fn use_of_the_table_is_measured() {
    let plane = TestPlane::default();
    *plane.connections.lock().unwrap() = (0..3).map(connection).collect();
    let text = control::metrics::text(&plane);
    assert!(
        text.contains("\nmargay_flows 3\nmargay") || text.contains("\nmargay_flows 3\n#"),
        "{text}"
    );
    assert!(text.contains("\nmargay_flows_capacity 20000\n"), "{text}");
    assert!(text.contains("\nmargay_flows_evicted_total 0\n"), "{text}");
    let labels =
        r#"namespace="shop",service="web",type="ClusterIP",port="80/TCP",policy="Cluster",backend="10.1.0.5:8080""#;
    for line in [
        format!("margay_service_backend_connections_total{{{labels}}} 1204"),
        format!("margay_service_backend_bytes{{{labels}}} 0"),
        format!("margay_service_backend_state{{{labels},state=\"draining\"}} 1"),
        "margay_service_backends_unlisted 7".to_owned(),
    ] {
        assert!(text.lines().any(|given| given == line), "{line}: {text}");
    }
}
