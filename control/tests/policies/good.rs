//! Every good document about policy comes back as Calico and Kubernetes write it.

use control::resource::{Kind, Resource, read};

use crate::yaml;

/// Documents in every field, as `kubectl` and `calicoctl` print them.
const GOOD: &str = include_str!("good.yaml");

#[test]
fn good_documents_come_back_as_written() {
    let documents = read(&yaml(GOOD)).unwrap();
    let written: Vec<serde_json::Value> = GOOD
        .split("\n---\n")
        .map(|text| serde_saphyr::from_str(text).unwrap())
        .collect();
    assert_eq!(documents.len(), written.len());
    for (document, written) in documents.iter().zip(&written) {
        let printed = serde_json::to_value(&document.resource).unwrap();
        assert_eq!(&printed, written, "{}", document.origin);
        assert_eq!(Resource::from_value(printed).unwrap(), document.resource);
    }
    let kinds: std::collections::HashSet<_> = documents.iter().map(|document| document.resource.kind()).collect();
    assert_eq!(kinds.len(), 15, "one of each kind that policy is about");
}

#[test]
fn of_two_kinds_with_one_name_calicos_is_short() {
    let cases = [
        ("networkpolicy", Kind::NetworkPolicy),
        ("NetworkPolicies", Kind::NetworkPolicy),
        ("networkpolicies.projectcalico.org", Kind::NetworkPolicy),
        ("networkpolicies.networking.k8s.io", Kind::KubernetesNetworkPolicy),
        ("networkpolicy.networking.k8s.io", Kind::KubernetesNetworkPolicy),
        ("ippool", Kind::IpPool),
        ("namespaces", Kind::Namespace),
    ];
    for (text, kind) in cases {
        assert_eq!(Kind::from_text(text), Some(kind), "{text}");
    }
    assert_eq!(Kind::from_text("networkpolicies.example.org"), None);
    for kind in Kind::ALL {
        assert_eq!(
            Kind::from_text(kind.plural()),
            Some(*kind),
            "every kind has a path of its own"
        );
    }
}
