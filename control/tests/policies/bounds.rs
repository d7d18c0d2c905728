//! What is too long, too many or no number.

use control::resource::calico::RULES_MAX;
use control::resource::{Source, read};

use crate::bad::{kubernetes, refused};
use crate::{calico, yaml};

#[test]
fn names_and_labels() {
    let of = |kind: &str, metadata: &str| {
        refused(&format!(
            "{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {metadata}, spec: {{}}}}"
        ))
    };
    assert!(
        of("Profile", "{name: kns.shop}")
            .error
            .contains("is the profile of a Namespace")
    );
    assert!(of("NetworkPolicy", "{name: A}").error.contains("is not a name"));
    assert!(
        of("GlobalNetworkPolicy", "{name: a, namespace: b}")
            .error
            .contains("has no namespace")
    );
    let huge = "x".repeat(1 << 20);
    let refusal = of("NetworkPolicy", &format!("{{name: a, labels: {{a: {huge}}}}}"));
    assert!(
        refusal.error.contains("is not the value of a label") && refusal.error.len() < 500,
        "{refusal}"
    );
    let refusal = of(
        "NetworkPolicy",
        &format!("{{name: a, labels: {{{}: a}}}}", "x".repeat(600)),
    );
    assert!(
        refusal.error.contains("is not the key of a label") && refusal.error.len() < 500,
        "{refusal}"
    );
    let refusal = refused(&calico("NetworkPolicy", &format!("{{selector: \"a == '{huge}'\"}}")));
    assert!(
        refusal.error.contains("longer than") && refusal.error.len() < 500,
        "{refusal}"
    );
    let tier = "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: default}, spec: {order: 1}}";
    assert!(refused(tier).error.contains("tier `default` has order 1000000"));
}

#[test]
fn orders_are_numbers() {
    for order in [".nan", ".inf", "-.inf"] {
        let refusal = refused(&calico("NetworkPolicy", &format!("{{order: {order}}}")));
        assert!(refusal.error.contains("non-finite"), "{refusal}");
    }
    let json = r#"{"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "a"}, "spec": {"order": 1e999}}"#;
    assert!(read(&[Source::file("a.json", json)]).is_err());
}

#[test]
fn too_many_rules() {
    let rules = |count: usize| {
        let rules = vec!["{action: Allow}"; count].join(",");
        read(&yaml(&calico("GlobalNetworkPolicy", &format!("{{egress: [{rules}]}}"))))
    };
    assert!(rules(RULES_MAX).is_ok());
    let refusal = rules(RULES_MAX + 1).unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("spec.egress"));
    assert!(
        refusal.error.contains("has 20001 rules; expected at most 20000"),
        "{refusal}"
    );
    let peers = vec!["{podSelector: {}}"; 200].join(",");
    let ports = vec!["{port: 1}"; 200].join(",");
    let refusal = refused(&kubernetes(
        "",
        &format!("{{ingress: [{{from: [{peers}], ports: [{ports}]}}]}}"),
    ));
    assert!(refusal.error.contains("makes 40000 rules"), "{refusal}");
}
