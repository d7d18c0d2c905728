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

#[test]
fn a_host_endpoint_that_does_not_protect_its_host_is_told() {
    let port = |name: &str, punt: &str| {
        format!(
            "{{apiVersion: margay/v1, kind: Port, metadata: {{name: {name}}}, \
             spec: {{device: {name}0, punt: {punt}, addresses: [192.0.2.1/24]}}}}"
        )
    };
    let endpoint = |spec: &str| calico("HostEndpoint", spec);
    let told = |store: &Store, documents: &[String]| {
        let documents = read(&yaml(&documents.join("\n---\n"))).unwrap();
        store.plan(Request::Apply(documents)).unwrap()
    };
    let by_device = endpoint("{node: here, interfaceName: shared0}");
    let mut store = Store::on_node("here");
    let plan = told(&store, &[port("shared", "kernel"), by_device.clone()]);
    let [warning] = &plan.warnings[..] else {
        panic!("{:?}", plan.warnings)
    };
    assert!(
        warning.starts_with("HostEndpoint/a does not protect the host itself on Port/shared, which has `punt: kernel`"),
        "{warning}"
    );
    // Once is enough, until one of the two is another.
    store.commit(&plan);
    assert_eq!(told(&store, &[by_device]).warnings, [""; 0]);
    assert_eq!(
        told(&store, &[endpoint("{node: here, interfaceName: shared}")])
            .warnings
            .len(),
        1
    );
    let moved = port("shared", "kernel").replace("192.0.2.1", "192.0.2.2");
    assert_eq!(told(&store, &[moved]).warnings.len(), 1);

    for (spec, warnings) in [
        ("{interfaceName: '*'}", 1),
        ("{expectedIPs: [192.0.2.1]}", 1),
        ("{expectedIPs: [192.0.2.9]}", 0),
        ("{interfaceName: other0, expectedIPs: [192.0.2.1]}", 0),
        ("{node: there, interfaceName: shared0}", 0),
    ] {
        assert_eq!(told(&store, &[endpoint(spec)]).warnings.len(), warnings, "{spec}");
    }
    let own = told(
        &Store::default(),
        &[port("own", "none"), endpoint("{interfaceName: own0}")],
    );
    assert_eq!(own.warnings, [""; 0]);
}
