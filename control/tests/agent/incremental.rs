//! However resources come and go, the plane ends up knowing what it would have been told of them all at once.

use proptest::prelude::*;

use crate::common::Cluster;

/// One resource of a small world, in one of a few shapes, or its removal.
#[derive(Clone, Debug)]
struct Step {
    kind: usize,
    name: usize,
    shape: usize,
    removed: bool,
}

const SELECTORS: &[&str] = &[
    "all()",
    "app == 'web'",
    "app != 'web'",
    "has(app) && !has(tier)",
    "app in {'web', 'db'} || tier == 'gold'",
    "app starts with 'w'",
    "pcns.team == 'blue'",
    "",
];
const LABELS: &[&str] = &[
    "{app: web}",
    "{app: db, tier: gold}",
    "{tier: gold}",
    "{}",
    "{app: web, team: blue}",
];
const NAMESPACES: &[&str] = &["red", "blue"];
const RULES: &[&str] = &[
    "[]",
    "[{action: Allow}]",
    "[{action: Allow, protocol: TCP, source: {selector: \"app == 'web'\"}, destination: {ports: [80, http]}}]",
    "[{action: Pass, source: {notSelector: \"has(tier)\"}}, {action: Deny, source: {namespaceSelector: \"team == 'blue'\"}}]",
    "[{action: Allow, source: {namespaceSelector: global(), nets: [10.0.0.0/8]}}]",
    "[{action: Allow, protocol: UDP, source: {selector: all(), notPorts: [dns, '1:9']}}]",
];

fn of<'a>(list: &[&'a str], at: usize) -> &'a str {
    list[at % list.len()]
}

impl Step {
    /// Everything but the body, and the body.
    fn yaml(&self) -> String {
        let (name, shape) = (self.name, self.shape);
        let (selector, labels) = (of(SELECTORS, shape), of(LABELS, shape / 2));
        let (namespace, rules) = (of(NAMESPACES, name), of(RULES, shape / 3));
        let order = ["", "order: 1, ", "order: 10, ", "order: -3.5, "][shape % 4];
        let calico = "projectcalico.org/v3";
        let policy = format!(
            "{{{order}selector: \"{selector}\", ingress: {rules}, egress: {}}}",
            of(RULES, shape / 5)
        );
        let tiered = policy.replacen('{', ["{", "{tier: t0, ", "{tier: t1, "][shape % 3], 1);
        let (version, kind, metadata, spec) = match self.kind % 12 {
            0 => (
                calico,
                "Tier",
                format!("name: t{}", name % 2),
                format!("{{{order} defaultAction: Pass}}"),
            ),
            1 => (calico, "GlobalNetworkPolicy", format!("name: g{name}"), tiered),
            2 => (
                calico,
                "NetworkPolicy",
                format!("name: n{name}, namespace: {namespace}"),
                tiered,
            ),
            3 => (
                calico,
                "StagedNetworkPolicy",
                format!("name: s{name}, namespace: {namespace}"),
                policy,
            ),
            4 => {
                let early = ["doNotTrack: true, applyOnForward: true, ", "applyOnForward: true, "][shape % 2];
                (
                    calico,
                    "GlobalNetworkPolicy",
                    format!("name: h{name}"),
                    policy.replacen('{', &format!("{{{early}"), 1),
                )
            }
            5..=7 => {
                let interface = if shape % 7 == 0 {
                    String::new()
                } else {
                    format!("interfaceName: if{name}, ")
                };
                let profiles = ["", "profiles: [kns.red], ", "profiles: [kns.blue, custom], "][shape % 3];
                let spec = format!(
                    "{{{interface}{profiles}ipNetworks: [10.0.0.{}, 'fd00::{}'], ports: [{{name: http, protocol: TCP, port: {}}}]}}",
                    name + shape % 2,
                    shape % 3,
                    80 + shape % 2
                );
                (
                    calico,
                    "WorkloadEndpoint",
                    format!("name: w{name}, namespace: {namespace}, labels: {labels}"),
                    spec,
                )
            }
            8 => {
                let spec = format!("{{interfaceName: eth{name}, expectedIPs: [192.0.2.{name}], profiles: [custom]}}");
                (calico, "HostEndpoint", format!("name: e{name}, labels: {labels}"), spec)
            }
            9 => {
                let nets = ["[]", "[10.9.0.0/16]", "[10.9.0.0/16, 'fd09::/32']"][shape % 3];
                (
                    calico,
                    "NetworkSet",
                    format!("name: x{name}, namespace: {namespace}, labels: {labels}"),
                    format!("{{nets: {nets}}}"),
                )
            }
            10 => (
                "v1",
                "Namespace",
                format!("name: {namespace}, labels: {{team: {}}}", ["blue", "green"][shape % 2]),
                "{}".to_owned(),
            ),
            _ => (
                calico,
                "Profile",
                "name: custom".to_owned(),
                format!("{{ingress: {rules}, labelsToApply: {labels}}}"),
            ),
        };
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {spec}\n")
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..12usize, 0..4usize, 0..60usize, prop::bool::weighted(0.25));
    let step = step.prop_map(|(kind, name, shape, removed)| Step {
        kind,
        name,
        shape,
        removed,
    });
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn a_history_ends_where_a_fresh_start_does(steps in steps()) {
        let mut cluster = Cluster::default();
        for step in &steps {
            let yaml = step.yaml();
            // What cannot be, such as a policy of a tier that is not there, was refused, and changed nothing.
            let _ = if step.removed { cluster.try_delete(&yaml) } else { cluster.try_apply(&yaml) };
        }
        prop_assert_eq!(&cluster.plane, &cluster.anew());
        let keys = cluster.keys();
        cluster.delete_all();
        prop_assert_eq!(&cluster.plane, &Default::default(), "something is left of {:?}", keys);
    }

    #[test]
    fn what_is_taken_back_leaves_nothing(steps in steps()) {
        let (before, after) = steps.split_at(steps.len() / 2);
        let mut cluster = Cluster::default();
        for step in before {
            let _ = cluster.try_apply(&step.yaml());
        }
        for step in after {
            cluster.try_in_vain(&step.yaml(), step.removed);
        }
        prop_assert_eq!(&cluster.plane, &cluster.anew());
    }
}
