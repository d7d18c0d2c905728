//! Golden messages of small clusters.

use control::program::felix::ToDataplane;

use crate::common::Cluster;

const TWO_PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { team: blue } }
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: { name: web, namespace: shop, labels: { app: web } }
spec: { pod: web, ipNetworks: [10.0.0.1/32], interfaceName: web0, profiles: [kns.shop], ports: [{name: http, protocol: TCP, port: 8080}] }
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: { name: db, namespace: shop, labels: { app: db } }
spec: { pod: db, ipNetworks: [10.0.0.2, 'fd00::2'], interfaceName: db0, profiles: [kns.shop] }
";

/// Each message on a line, as much of it as tells it apart.
fn told(messages: &[ToDataplane]) -> Vec<String> {
    messages.iter().map(line).collect()
}

fn line(message: &ToDataplane) -> String {
    match message {
        ToDataplane::IpSetUpdate(set) => format!("set {:?} {}", set.r#type, set.members.join(" ")),
        ToDataplane::IpSetDeltaUpdate(delta) => {
            let signed = |sign: &str, members: &[String]| -> String {
                members.iter().map(|member| format!(" {sign}{member}")).collect()
            };
            let (added, removed) = (signed("+", &delta.added_members), signed("-", &delta.removed_members));
            format!("delta{added}{removed}")
        }
        ToDataplane::IpSetRemove(_) => "set goes".to_owned(),
        ToDataplane::ActivePolicyUpdate(update) => format!("policy {}", update.id.name),
        ToDataplane::ActivePolicyRemove(id) => format!("policy {} goes", id.name),
        ToDataplane::ActiveProfileUpdate(update) => format!("profile {}", update.id),
        ToDataplane::ActiveProfileRemove(id) => format!("profile {id} goes"),
        ToDataplane::WorkloadEndpointUpdate(update) => {
            let tiers = update.endpoint.tiers.iter().map(|tier| {
                let names = |of: &[control::program::felix::PolicyId]| -> Vec<String> {
                    of.iter().map(|id| id.name.clone()).collect()
                };
                let (ingress, egress) = (names(&tier.ingress_policies), names(&tier.egress_policies));
                format!(" {}[in {} out {}]", tier.name, ingress.join(","), egress.join(","))
            });
            format!("workload {}{}", update.id.workload_id, tiers.collect::<String>())
        }
        ToDataplane::WorkloadEndpointRemove(id) => format!("workload {} goes", id.workload_id),
        ToDataplane::HostEndpointUpdate(update) => format!("host {}", update.endpoint_id),
        ToDataplane::HostEndpointRemove(id) => format!("host {id} goes"),
        other => panic!("not about policy: {other:?}"),
    }
}

const DB_FROM_WEB: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: db, namespace: shop }
spec:
  podSelector: { matchLabels: { app: db } }
  ingress: [{ from: [{ podSelector: { matchLabels: { app: web } } }], ports: [{ port: 5432 }] }]
";

#[test]
fn references_come_first_and_go_last() {
    let mut cluster = Cluster::default();
    assert_eq!(
        told(&cluster.apply(TWO_PODS)),
        ["profile kns.shop", "workload shop/web", "workload shop/db"]
    );
    assert_eq!(
        told(&cluster.apply(DB_FROM_WEB)),
        [
            "set Net 10.0.0.1/32",
            "policy knp.default.db",
            "workload shop/db default[in knp.default.db out ]"
        ]
    );
    assert_eq!(
        told(&cluster.delete(DB_FROM_WEB)),
        ["workload shop/db", "policy knp.default.db goes", "set goes"]
    );
}

#[test]
fn a_label_touches_what_selects_it() {
    let mut cluster = Cluster::of(&format!("{TWO_PODS}\n---\n{DB_FROM_WEB}"));
    let relabelled = TWO_PODS.replace("labels: { app: db }", "labels: { app: web }");
    assert_eq!(
        told(&cluster.apply(&relabelled)),
        ["workload shop/db", "policy knp.default.db goes", "set goes"],
        "web is not told of again"
    );
    assert_eq!(cluster.plane, cluster.anew());
}
