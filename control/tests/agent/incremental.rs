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
    "[{action: Allow, OTHER: {services: {name: s0, namespace: red}}}, {action: Allow, OTHER: {services: {name: s1, namespace: blue}}}]",
];

fn of<'a>(list: &[&'a str], at: usize) -> &'a str {
    list[at % list.len()]
}

const CALICO: &str = "projectcalico.org/v3";

/// `apiVersion`, `kind`, and the insides of `metadata` and of `spec`.
type Parts = (&'static str, &'static str, String, String);

impl Step {
    fn yaml(&self) -> String {
        if self.kind == 12 {
            return self.slice();
        }
        let (version, kind, metadata, spec) = match self.kind {
            0..=4 => self.policy(),
            5..=9 => self.item(),
            _ => self.profile(),
        };
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {{{spec}}}\n")
    }

    fn policy(&self) -> Parts {
        let (name, shape) = (self.name, self.shape);
        let (selector, namespace) = (of(SELECTORS, shape), of(NAMESPACES, name));
        let (ingress, egress) = (rules(shape / 3, "source"), rules(shape / 5, "destination"));
        let order = ["", "order: 1, ", "order: 10, ", "order: -3.5, "][shape % 4];
        let tier = ["", "tier: t0, ", "tier: t1, "][shape % 3];
        let early = ["doNotTrack: true, applyOnForward: true, ", "applyOnForward: true, "][shape % 2];
        let policy = format!("{order}selector: \"{selector}\", ingress: {ingress}, egress: {egress}");
        let within = |prefix: &str| format!("name: {prefix}{name}, namespace: {namespace}");
        match self.kind {
            0 => (
                CALICO,
                "Tier",
                format!("name: t{}", name % 2),
                format!("{order}defaultAction: Pass"),
            ),
            1 => (
                CALICO,
                "GlobalNetworkPolicy",
                format!("name: g{name}"),
                tier.to_owned() + &policy,
            ),
            2 => (CALICO, "NetworkPolicy", within("n"), tier.to_owned() + &policy),
            3 => (CALICO, "StagedNetworkPolicy", within("s"), policy),
            _ => (
                CALICO,
                "GlobalNetworkPolicy",
                format!("name: h{name}"),
                early.to_owned() + &policy,
            ),
        }
    }

    fn item(&self) -> Parts {
        let (name, shape) = (self.name, self.shape);
        let (labels, namespace) = (of(LABELS, shape / 2), of(NAMESPACES, name));
        let within = |prefix: &str| format!("name: {prefix}{name}, namespace: {namespace}, labels: {labels}");
        match self.kind {
            8 => {
                let spec = format!("interfaceName: eth{name}, expectedIPs: [192.0.2.{name}], profiles: [custom]");
                (CALICO, "HostEndpoint", format!("name: e{name}, labels: {labels}"), spec)
            }
            9 => {
                let nets = ["[]", "[10.9.0.0/16]", "[10.9.0.0/16, 'fd09::/32']"][shape % 3];
                (CALICO, "NetworkSet", within("x"), format!("nets: {nets}"))
            }
            _ => {
                let here = if shape % 7 == 0 {
                    String::new()
                } else {
                    format!("interfaceName: if{name}, ")
                };
                let profiles = ["", "profiles: [kns.red], ", "profiles: [kns.blue, custom], "][shape % 3];
                let (one, two, port) = (name + shape % 2, shape % 3, 80 + shape % 2);
                let addresses = format!("ipNetworks: [10.0.0.{one}, 'fd00::{two}']");
                let ports = format!("ports: [{{name: http, protocol: TCP, port: {port}}}]");
                (
                    CALICO,
                    "WorkloadEndpoint",
                    within("w"),
                    format!("{here}{profiles}{addresses}, {ports}"),
                )
            }
        }
    }

    /// Two slices in each namespace, which change addresses, ports and the service they belong to.
    fn slice(&self) -> String {
        let (name, shape, namespace) = (self.name, self.shape, of(NAMESPACES, self.name));
        let service = ["s0", "s1"][shape % 2];
        let addresses = ["[10.0.0.1]", "[10.0.0.1, 10.0.0.2]", "[10.0.0.3]"][shape % 3];
        let ports = [
            "[]",
            "[{port: 80}]",
            "[{name: a, port: 80}, {name: b, protocol: UDP, port: 53}]",
            "[{}]",
        ][shape % 4];
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: e{name}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {service}}}}}\n\
             endpoints: [{{addresses: {addresses}}}]\nports: {ports}\n"
        )
    }

    fn profile(&self) -> Parts {
        let (namespace, team) = (of(NAMESPACES, self.name), ["blue", "green"][self.shape % 2]);
        let (rules, labels) = (rules(self.shape / 3, "source"), of(LABELS, self.shape / 2));
        match self.kind {
            10 => (
                "v1",
                "Namespace",
                format!("name: {namespace}, labels: {{team: {team}}}"),
                String::new(),
            ),
            _ => {
                let spec = format!("ingress: {rules}, labelsToApply: {labels}");
                (CALICO, "Profile", "name: custom".to_owned(), spec)
            }
        }
    }
}

fn rules(at: usize, other: &str) -> String {
    of(RULES, at).replace("OTHER", other)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..13usize, 0..4usize, 0..60usize, prop::bool::weighted(0.25));
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
