//! Who spoke with whom, as the flow logs of the plane have it.

use std::time::Duration;

use control::flow_logs::{EndKind, FlowLog};
use testbed::packets::{frame, icmp, port_mac, udp};
use testbed::{Plane, Running};

use crate::{DATABASE, DB, NETWORK, PODS, WEB, WORLD, address, asks, passes, plane};

const STRICT: &str = "
{apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, metadata: {name: strict, namespace: shop},
 spec: {selector: app == 'db', types: [Ingress], order: 1, ingress: [{action: Deny}]}}
";

/// Bytes of a question.
const QUESTION: u64 = 29;

/// The windows that are over after so long.
fn logs(plane: &mut Plane, after: Duration) -> Vec<FlowLog> {
    let seen = plane.views().flow_logs().page(0).next;
    plane.advance(after);
    plane.turn();
    let page = plane.views().flow_logs().page(seen);
    page.logs.iter().map(|log| (**log).clone()).collect()
}

fn window(plane: &mut Plane) -> Vec<FlowLog> {
    logs(plane, Duration::from_secs(15))
}

#[test]
fn flows_are_told_with_their_ends_what_decided_and_what_staged_policy_would() {
    let mut plane = plane(&[DATABASE, STRICT]);
    window(&mut plane);
    for port in [4000, 4001] {
        for _ in 0..5 {
            assert!(asks(&mut plane, WEB, DB, (port, 5432)));
        }
        assert!(asks(&mut plane, DB, WEB, (5432, port)));
    }
    for _ in 0..3 {
        assert!(!asks(&mut plane, WORLD, DB, (4000, 5432)));
    }
    let logs = window(&mut plane);
    assert_eq!(logs.len(), 2, "{logs:#?}");
    let allowed = logs.iter().find(|log| log.verdict.action == "allow").unwrap();
    assert_eq!(
        (
            allowed.source.name.as_deref(),
            allowed.target.name.as_deref(),
            allowed.port
        ),
        (Some("shop/web"), Some("shop/db"), Some(5432))
    );
    assert_eq!((allowed.protocol.as_str(), allowed.started), ("udp", 2));
    assert_eq!((allowed.packets, allowed.bytes), (10, 10 * QUESTION));
    assert_eq!((allowed.reply_packets, allowed.reply_bytes), (2, 2 * QUESTION));
    let policies: Vec<_> = allowed
        .verdict
        .policies
        .iter()
        .map(|policy| {
            (
                policy.direction.as_str(),
                policy.policy.as_deref().unwrap(),
                policy.action.as_str(),
            )
        })
        .collect();
    assert_eq!(policies[0], ("egress", "Profile kns.shop", "allow"));
    assert_eq!((policies[1].0, policies[1].2), ("ingress", "allow"));
    let pending = allowed.pending.as_ref().unwrap();
    assert_eq!(pending.action, "deny");
    assert_eq!(
        pending.policies[1].policy.as_deref(),
        Some("StagedNetworkPolicy shop/strict")
    );
    let denied = logs.iter().find(|log| log.verdict.action == "deny").unwrap();
    let source = &denied.source;
    assert_eq!(
        (source.kind, source.address.as_deref()),
        (EndKind::Address, Some("192.0.2.9"))
    );
    assert_eq!((denied.packets, denied.bytes, denied.started), (3, 3 * QUESTION, 0));
}

#[test]
fn a_connection_is_completed_when_it_is_forgotten_and_nothing_it_carried_is_lost() {
    let mut plane = plane(&[]);
    window(&mut plane);
    assert!(asks(&mut plane, WEB, DB, (4000, 5432)));
    let first = window(&mut plane);
    assert_eq!((first[0].started, first[0].completed, first[0].packets), (1, 0, 1));
    for _ in 0..3 {
        assert!(asks(&mut plane, WEB, DB, (4000, 5432)));
    }
    let second = logs(&mut plane, Duration::from_secs(20));
    assert_eq!((second[0].started, second[0].completed, second[0].packets), (0, 0, 3));
    let rest = logs(&mut plane, Duration::from_secs(90));
    let completed: u64 = rest.iter().map(|log| log.completed).sum();
    let packets: u64 = rest.iter().map(|log| log.packets).sum();
    assert_eq!((completed, packets), (1, 0), "{rest:#?}");
    let policies = plane.views().policies();
    let profile = policies.iter().find(|policy| policy.name == "kns.shop").unwrap();
    let egress = profile.rules.iter().find(|rule| rule.direction == "egress").unwrap();
    assert_eq!(
        (egress.packets, egress.bytes),
        (4, 4 * QUESTION),
        "what it let through, too"
    );
}

#[test]
fn echoes_and_what_nobody_may_send_are_told() {
    let mut plane = plane(&[]);
    window(&mut plane);
    for _ in 0..2 {
        let ping = icmp(address(WEB), address(DB), 64, (8, 0), 7, b"?");
        assert!(passes(&mut plane, WEB, DB, &ping));
    }
    let to_host = icmp(address(WEB), "10.1.0.1".parse().unwrap(), 64, (8, 0), 7, b"?");
    assert!(!passes(&mut plane, WEB, DB, &to_host));
    let logs = window(&mut plane);
    let echo = logs.iter().find(|log| log.verdict.action == "allow").unwrap();
    assert_eq!(
        (echo.icmp.as_deref(), echo.port, echo.packets, echo.started),
        (Some("8/0"), None, 2, 1)
    );
    let barred = logs.iter().find(|log| log.verdict.action == "deny").unwrap();
    assert!(
        barred
            .verdict
            .reason
            .as_ref()
            .unwrap()
            .contains("DefaultEndpointToHostAction"),
        "{barred:?}"
    );
}

#[test]
fn the_file_has_the_window_that_the_end_of_the_plane_cuts_short() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flows.log");
    let plane = Running::new(&[NETWORK, PODS].join("---\n"), None).unwrap();
    plane.plane().write_flow_logs(&file).unwrap();
    let (web, db) = (plane.end("web"), plane.end("db"));
    let packet = udp((address(WEB), 4000), (address(DB), 5432), 64, b"?");
    let question = frame(port_mac(WEB.2), [2, 0, 0, 0, 0, WEB.2], &packet);
    for _ in 0..3 {
        web.send.send(question.clone()).unwrap();
    }
    let is_question = |bytes: &[u8]| bytes[12..14] == [8, 0];
    let mut came = 0;
    while came < 3 {
        let bytes = db.receive.recv_timeout(Duration::from_secs(30)).unwrap();
        came += usize::from(is_question(&bytes));
    }
    drop(plane);
    let text = std::fs::read_to_string(&file).unwrap();
    let [log] = &text
        .lines()
        .map(|line| serde_json::from_str::<FlowLog>(line).unwrap())
        .collect::<Vec<_>>()[..]
    else {
        panic!("{text}")
    };
    assert_eq!(
        (log.target.name.as_deref(), log.started, log.packets),
        (Some("shop/db"), 1, 3)
    );
}
