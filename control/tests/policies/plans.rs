//! What holds between resources of policy.

use control::resource::read;
use control::store::{Request, Store};

use crate::{calico, yaml};

#[test]
fn a_tier_has_to_be_there_and_stays_while_named() {
    let mut store = Store::default();
    let policy = calico("GlobalNetworkPolicy", "{tier: security}");
    let tier = "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}}";
    let apply = |text: &str| Request::Apply(read(&yaml(text)).unwrap());
    let refusal = store.plan(apply(&policy)).unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("spec.tier"));
    assert!(refusal.error.contains("there is no Tier/security"), "{refusal}");
    let plan = store.plan(apply(&format!("{policy}\n---\n{tier}"))).unwrap();
    store.commit(&plan);
    let delete = Request::Delete(control::resource::read_keys(&yaml(tier)).unwrap());
    let refusal = store.plan(delete).unwrap_err();
    assert!(refusal.error.contains("still names it in spec.tier"), "{refusal}");
}

#[test]
fn two_workloads_cannot_be_one() {
    let pod = |name: &str, interface: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {{name: {name}}}, \
             spec: {{pod: p, ipNetworks: [10.0.0.1], interfaceName: {interface}}}}}"
        )
    };
    let store = Store::default();
    for (two, part) in [
        (
            pod("a", "if0") + "\n---\n" + &pod("b", "if1"),
            "k8s endpoint eth0 of default/p already belongs to",
        ),
        (
            pod("a", "if0") + "\n---\n" + &pod("b", "if0").replace("pod: p", "pod: q"),
            "interface if0",
        ),
    ] {
        let refusal = store.plan(Request::Apply(read(&yaml(&two)).unwrap())).unwrap_err();
        assert!(refusal.error.contains(part), "{refusal}");
    }
}
