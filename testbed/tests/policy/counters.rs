//! What each rule matched: counted by workers, kept when policies change around it.

use testbed::Plane;

use crate::{DB, WEB, WORLD, asks, plane};

/// One rule that allows, one that denies, one that nothing comes to; and one that only watches.
const POLICY: &str = "
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: db, namespace: shop},
 spec: {selector: app == 'db', types: [Ingress], order: 10, ingress: [
  {action: Allow, protocol: UDP, source: {selector: app == 'web'}, destination: {ports: [5432]}},
  {action: Deny, protocol: UDP},
  {action: Allow, protocol: TCP}]}}
---
{apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, metadata: {name: watch, namespace: shop},
 spec: {selector: app == 'db', types: [Ingress], order: 1, ingress: [{action: Log}, {action: Deny, source: {selector: app == 'web'}}]}}
";

/// Bytes of a question: IP, UDP, one character.
const QUESTION: u64 = 20 + 8 + 1;

/// Packets, bytes and whether ever matched, of each rule of a policy.
fn counts(plane: &mut Plane, name: &str) -> Vec<(u64, u64, bool)> {
    let policies = plane.views().policies();
    let policy = policies.iter().find(|policy| policy.name.ends_with(name)).unwrap();
    let rules = policy.rules.iter();
    rules
        .map(|rule| (rule.packets, rule.bytes, rule.idle_s.is_some()))
        .collect()
}

const NOTHING: (u64, u64, bool) = (0, 0, false);

fn some(packets: u64) -> (u64, u64, bool) {
    (packets, packets * QUESTION, packets > 0)
}

#[test]
fn rules_count_what_they_judge_and_known_connections_cost_them_nothing() {
    let mut plane = plane(&[POLICY]);
    assert_eq!(counts(&mut plane, "shop/db"), [NOTHING; 3]);
    for _ in 0..3 {
        assert!(asks(&mut plane, WEB, DB, (4000, 5432)), "{:?}", plane.drops());
    }
    for _ in 0..2 {
        assert!(!asks(&mut plane, WORLD, DB, (4000, 5432)));
    }
    assert_eq!(counts(&mut plane, "shop/db"), [some(1), some(2), NOTHING]);
    assert_eq!(
        counts(&mut plane, "shop/watch"),
        [NOTHING, some(1)],
        "as if it were in force, and logs nothing"
    );
    let profile = counts(&mut plane, "kns.shop");
    assert_eq!(profile[1], some(1), "the web's own egress");
}

#[test]
fn counts_stay_with_their_rule_whatever_happens_to_others() {
    let mut plane = plane(&[POLICY]);
    assert!(asks(&mut plane, WEB, DB, (4000, 5432)));
    assert!(!asks(&mut plane, WORLD, DB, (4000, 5432)));
    let another = POLICY.replace("name: db, namespace", "name: another, namespace");
    plane.apply(&another).unwrap();
    assert_eq!(counts(&mut plane, "shop/db"), [some(1), some(1), NOTHING]);
    let longer = POLICY.replace("ingress: [\n", "ingress: [{action: Deny, protocol: SCTP},\n");
    plane.apply(&longer).unwrap();
    assert_eq!(counts(&mut plane, "shop/db"), [NOTHING, some(1), some(1), NOTHING]);
    let shorter = longer.replace("{action: Deny, protocol: UDP},", "");
    plane.apply(&shorter).unwrap();
    assert_eq!(counts(&mut plane, "shop/db"), [NOTHING, some(1), NOTHING]);
    // A rule that comes again begins at nothing, even in a place among the counters that another had.
    plane.advance(std::time::Duration::from_secs(2));
    plane.apply(POLICY).unwrap();
    assert_eq!(counts(&mut plane, "shop/db"), [some(1), NOTHING, NOTHING]);
}

#[test]
fn several_workers_are_added_up_and_the_age_is_told() {
    let documents = [crate::NETWORK, crate::PODS, POLICY].join("---\n");
    let mut plane = Plane::with_workers(&documents, 3).unwrap();
    for port in 0..8 {
        assert!(asks(&mut plane, WEB, DB, (4000 + port, 5432)));
        assert!(!asks(&mut plane, WORLD, DB, (4000 + port, 5432)));
    }
    assert_eq!(counts(&mut plane, "shop/db"), [some(8), some(8), NOTHING]);
    plane.advance(std::time::Duration::from_secs(30));
    let policies = plane.views().policies();
    let unused = control::show::policies::unused(policies, std::time::Duration::from_secs(30));
    let db = unused.iter().find(|policy| policy.name == "shop/db").unwrap();
    assert!(
        db.rules
            .iter()
            .any(|rule| rule.rule == 2 && rule.idle_s.is_none() && rule.age_s >= 30)
    );
}
