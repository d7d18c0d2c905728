//! Selectors beside an evaluator with no cleverness, and hostile text.

use std::collections::{BTreeMap, BTreeSet};

use control::agent::selector::{Expression, Labels, Selector};
use control::resource::{Source, read};
use proptest::prelude::*;

fn key() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("b"), Just("in"), Just("projectcalico.org/namespace")].prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![Just(""), Just("x"), Just("xy"), Just("yx"), Just("a \"b\"")].prop_map(str::to_owned)
}

fn values() -> impl Strategy<Value = BTreeSet<String>> {
    proptest::collection::btree_set(value(), 0..3)
}

fn labels() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map(key(), value(), 0..4)
}

fn expression() -> impl Strategy<Value = Expression> {
    let leaf = prop_oneof![
        Just(Expression::All),
        Just(Expression::Global),
        key().prop_map(Expression::Has),
        (key(), value()).prop_map(|(key, value)| Expression::Equal(key, value)),
        (key(), value()).prop_map(|(key, value)| Expression::NotEqual(key, value)),
        (key(), values()).prop_map(|(key, values)| Expression::In(key, values)),
        (key(), values()).prop_map(|(key, values)| Expression::NotIn(key, values)),
        (key(), value()).prop_map(|(key, value)| Expression::Contains(key, value)),
        (key(), value()).prop_map(|(key, value)| Expression::StartsWith(key, value)),
        (key(), value()).prop_map(|(key, value)| Expression::EndsWith(key, value)),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| match inner {
                // Two of them are none, and so they are read.
                Expression::Not(inner) => *inner,
                inner => Expression::Not(Box::new(inner)),
            }),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expression::And),
            proptest::collection::vec(inner, 2..4).prop_map(Expression::Or),
        ]
    })
}

/// Every label of the world, there or not, with its value: what a selector says is looked up in this table.
fn naive(expression: &Expression, labels: &Labels) -> bool {
    let found = |key: &String| {
        labels
            .iter()
            .find(|(label, _)| *label == key)
            .map(|(_, value)| value.clone())
    };
    match expression {
        Expression::All => true,
        Expression::Global => found(&"projectcalico.org/namespace".to_owned()).is_none(),
        Expression::Has(key) => found(key).is_some(),
        Expression::Equal(key, value) => found(key).as_ref() == Some(value),
        Expression::NotEqual(key, value) => !naive(&Expression::Equal(key.clone(), value.clone()), labels),
        Expression::In(key, values) => values.iter().any(|value| found(key).as_ref() == Some(value)),
        Expression::NotIn(key, values) => values.iter().all(|value| found(key).as_ref() != Some(value)),
        Expression::Contains(key, part) => found(key).is_some_and(|value| value.contains(part.as_str())),
        Expression::StartsWith(key, part) => {
            found(key).is_some_and(|value| value.strip_prefix(part.as_str()).is_some())
        }
        Expression::EndsWith(key, part) => found(key).is_some_and(|value| value.strip_suffix(part.as_str()).is_some()),
        Expression::Not(inner) => !naive(inner, labels),
        Expression::And(inner) => inner.iter().fold(true, |all, inner| all & naive(inner, labels)),
        Expression::Or(inner) => inner.iter().fold(false, |any, inner| any | naive(inner, labels)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn printed_and_read_again_it_is_the_same(expression in expression(), labels in labels()) {
        let text = expression.to_string();
        let again: Selector = text.parse().unwrap();
        prop_assert_eq!(again.expression(), &expression, "{}", text);
        prop_assert_eq!(again.expression().selects(&labels), naive(&expression, &labels), "{} of {:?}", text, labels);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}", tokens in proptest::collection::vec(0..TOKENS.len(), 0..20)) {
        let of_tokens: String = tokens.into_iter().map(|at| TOKENS[at]).collect();
        for text in [text, of_tokens] {
            if let Err(error) = text.parse::<Selector>() {
                prop_assert!((1..=text.chars().count() + 1).contains(&error.character), "{}: {}", text, error);
            }
        }
    }

    #[test]
    fn no_document_panics(kind in 0..KINDS.len(), text in "[-a-z0-9:{}\\[\\],' .\"]{0,60}") {
        let (version, kind) = KINDS[kind];
        let document = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{{text}}}");
        if let Err(refusal) = read(&[Source::file("a.yaml", document)]) {
            prop_assert!(refusal.error.starts_with("a.yaml document 1"), "{}", refusal);
        }
    }

    #[test]
    fn prefixes_move_labels_and_meaning(expression in expression(), labels in labels()) {
        let moved: BTreeMap<_, _> = labels.iter().map(|(key, value)| (format!("pcns.{key}"), value.clone())).collect();
        // What is global is said of the endpoint, not of its namespace.
        prop_assume!(!expression.to_string().contains("global()"));
        let prefixed = expression.prefixed("pcns.", &Expression::All);
        prop_assert_eq!(prefixed.selects(&moved), expression.selects(&labels));
    }
}

const TOKENS: &[&str] = &[
    "a",
    " ",
    "'",
    "\"",
    "(",
    ")",
    "{",
    "}",
    ",",
    "==",
    "!=",
    "!",
    "&&",
    "||",
    "has(",
    "all()",
    "global()",
    "in ",
    "not in",
    "contains",
    "starts with",
    "ends with",
    "'x'",
    "ä",
    "=",
    "&",
];

const KINDS: &[(&str, &str)] = &[
    ("projectcalico.org/v3", "Tier"),
    ("projectcalico.org/v3", "GlobalNetworkPolicy"),
    ("projectcalico.org/v3", "HostEndpoint"),
    ("projectcalico.org/v3", "WorkloadEndpoint"),
    ("projectcalico.org/v3", "IPPool"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
];
