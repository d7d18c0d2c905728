//! Policies made of what was seen: enforced, they let it through, and nothing else.

use std::time::Duration;

use control::recommend::{Form, Recommendation, recommend};
use control::resource::{Source, read};
use control::store::{Request, Store};
use testbed::Plane;
use testbed::packets::{icmp, tcp};

use crate::{DB, NETWORK, PODS, WEB, WORLD, address, asks, passes, plane};

/// What the flows of a plane with these documents recommend.
fn recommended(plane: &mut Plane, documents: &str) -> Recommendation {
    recommended_as(plane, documents, Form::Calico)
}

fn recommended_as(plane: &mut Plane, documents: &str, form: Form) -> Recommendation {
    plane.advance(Duration::from_secs(15));
    plane.turn();
    let mut store = Store::default();
    let plan = store
        .plan(Request::Apply(read(&[Source::file("all.yaml", documents)]).unwrap()))
        .unwrap();
    store.commit(&plan);
    recommend(&plane.views().flow_logs().view().logs, &store, None, form)
}

fn yaml(made: &Recommendation) -> String {
    let documents = made
        .policies
        .iter()
        .map(|policy| serde_json::to_string(policy).unwrap());
    documents.collect::<Vec<_>>().join("\n---\n")
}

/// What staged policy would do with the latest flow to a port.
fn pending(plane: &mut Plane, port: u16) -> Option<String> {
    plane.advance(Duration::from_secs(15));
    plane.turn();
    let logs = plane.views().flow_logs().view().logs;
    let log = logs
        .iter()
        .rev()
        .find(|log| log.port == Some(port) && log.pending.is_some())?;
    Some(log.pending.clone()?.action)
}

#[test]
fn what_was_seen_passes_and_nothing_else_once_it_is_enforced() {
    let mut plane = plane(&[]);
    let seen = [(WEB, DB, 5432), (WORLD, WEB, 80), (WORLD, WEB, 81), (DB, WORLD, 53)];
    let talk =
        |plane: &mut Plane, from: u16| seen.map(|(source, target, port)| asks(plane, source, target, (from, port)));
    assert_eq!(talk(&mut plane, 4000), [true; 4]);
    let ping = icmp(address(WEB), address(DB), 64, (8, 0), 7, b"?");
    assert!(passes(&mut plane, WEB, DB, &ping));

    let made = recommended(&mut plane, &[NETWORK, PODS].join("---\n"));
    assert_eq!(made.notes, [] as [&str; 0]);
    let names: Vec<_> = made
        .policies
        .iter()
        .map(|policy| policy["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["recommended-db", "recommended-web"]);
    let web = &made.policies[1]["spec"];
    assert_eq!(web["selector"], "app == 'web'");
    let rule = &web["ingress"][0];
    assert_eq!(
        (&rule["protocol"], &rule["source"]["nets"][0]),
        (&"UDP".into(), &"192.0.2.9/32".into())
    );
    assert_eq!(rule["destination"]["ports"], serde_json::json!(["80:81"]));

    // Staged it changes nothing, and flow logs would say that it denies nothing.
    let staged = yaml(&made);
    plane.apply(&staged).unwrap();
    assert_eq!(talk(&mut plane, 4001), [true; 4]);
    assert!(asks(&mut plane, WEB, WORLD, (4001, 443)));
    assert_eq!(
        [5432, 443].map(|port| pending(&mut plane, port)),
        [Some("allow".to_owned()), Some("deny".to_owned())]
    );

    plane.delete(&staged).unwrap();
    plane
        .apply(&staged.replace("StagedNetworkPolicy", "NetworkPolicy"))
        .unwrap();
    assert_eq!(talk(&mut plane, 4002), [true; 4], "{staged}\n{:?}", plane.drops());
    assert!(passes(&mut plane, WEB, DB, &ping));
    let others = [
        (WEB, DB, 5433),
        (DB, WEB, 80),
        (WEB, WORLD, 53),
        (WORLD, DB, 5432),
        (WORLD, WEB, 82),
    ];
    for (source, target, port) in others {
        assert!(
            !asks(&mut plane, source, target, (4002, port)),
            "{} to {} {port}",
            source.0,
            target.0
        );
    }
    let opening = tcp((address(WEB), 4000), (address(DB), 5432), 64);
    assert!(!passes(&mut plane, WEB, DB, &opening), "another protocol");
}

#[test]
fn what_cannot_be_selected_is_said_and_sets_are_their_prefixes() {
    let unlabelled = PODS.replace(", labels: {app: db}", "");
    let set = "
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: world}, spec: {nets: [192.0.2.0/28, 'fd00:9::/64']}}
";
    let documents = [NETWORK, &unlabelled, set].join("---\n");
    let mut plane = Plane::new(&documents).unwrap();
    assert!(asks(&mut plane, WEB, DB, (4000, 5432)));
    assert!(asks(&mut plane, WEB, WORLD, (4000, 53)));
    let made = recommended(&mut plane, &documents);
    assert_eq!(made.policies.len(), 1);
    assert!(
        made.notes[0].starts_with("shop/db is gone, or has none of the labels app,"),
        "{:?}",
        made.notes
    );
    let egress = made.policies[0]["spec"]["egress"].as_array().unwrap();
    let nets: Vec<_> = egress.iter().map(|rule| rule["destination"]["nets"].clone()).collect();
    assert!(
        nets.contains(&serde_json::json!(["192.0.2.0/28", "fd00:9::/64"])),
        "{nets:?}"
    );
    assert!(nets.contains(&serde_json::json!(["10.2.0.2/32"])), "{nets:?}");
}

#[test]
fn in_the_words_of_kubernetes_it_is_the_same_but_for_what_those_cannot_say() {
    let documents = [NETWORK, PODS].join("---\n");
    let mut plane = plane(&[]);
    let seen = [(WEB, DB, 5432), (WORLD, WEB, 80), (WORLD, WEB, 81), (DB, WORLD, 53)];
    for (source, target, port) in seen {
        assert!(asks(&mut plane, source, target, (4000, port)));
    }
    let ping = icmp(address(WEB), address(DB), 64, (8, 0), 7, b"?");
    assert!(passes(&mut plane, WEB, DB, &ping));
    let made = recommended_as(&mut plane, &documents, Form::Kubernetes);
    let told = ["db", "web"].map(|app| {
        format!("shop/{app}: ICMP was seen and is not allowed, for Kubernetes' NetworkPolicy has no word for it")
    });
    assert_eq!(made.notes, told);
    let staged = yaml(&made);
    plane.apply(&staged).unwrap();
    assert!(asks(&mut plane, WEB, WORLD, (4001, 443)), "staged, it decides nothing");
    plane.delete(&staged).unwrap();
    let enforced = staged
        .replace("projectcalico.org/v3", "networking.k8s.io/v1")
        .replace("StagedKubernetesNetworkPolicy", "NetworkPolicy");
    plane.apply(&enforced).unwrap();
    for (source, target, port) in seen {
        assert!(asks(&mut plane, source, target, (4002, port)), "{enforced}");
    }
    assert!(!passes(&mut plane, WEB, DB, &ping));
    for (source, target, port) in [(WEB, DB, 5433), (DB, WEB, 80), (WEB, WORLD, 53), (WORLD, WEB, 82)] {
        assert!(
            !asks(&mut plane, source, target, (4002, port)),
            "{} to {}",
            source.0,
            target.0
        );
    }
}
