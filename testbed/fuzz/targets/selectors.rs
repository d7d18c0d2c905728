//! Selectors: what is understood means the same when it is printed, and what is not is refused in one sentence.

use control::agent::selector::{Expression, Labels, NAMESPACE, Selector};

use super::Run;

/// Sets it up.
pub fn start() -> Run {
    let labels = [
        Labels::new(),
        labels(&[("a", "a"), ("b", "")]),
        labels(&[("a", "b"), (NAMESPACE, "shop")]),
        labels(&[("role", "web"), ("env", "dev"), ("a", "aab")]),
    ];
    Box::new(move |input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        match text.parse::<Selector>() {
            Ok(selector) => check(&selector, &labels),
            Err(error) => {
                let said = error.to_string();
                assert!(!said.contains('\n'), "{said:?}");
                assert!((1..=text.chars().count() + 1).contains(&error.character), "{said}");
            }
        }
    })
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    owned.collect()
}

fn check(selector: &Selector, labels: &[Labels]) {
    let expression = selector.expression();
    let printed = expression.to_string();
    let again = match printed.parse::<Selector>() {
        Ok(again) => again,
        // Brackets that go without saying are printed, too.
        Err(error) => return assert!(error.reason.contains("deep"), "{printed:?}: {error}"),
    };
    assert_eq!(again.expression().to_string(), printed);
    let prefixed = expression.prefixed("p.", &Expression::All);
    for labels in labels {
        let selects = expression.selects(labels);
        assert_eq!(again.expression().selects(labels), selects, "{printed}");
        assert_eq!(Expression::Not(Box::new(expression.clone())).selects(labels), !selects);
        // Nothing but the namespace keeps its name.
        let theirs: Labels = labels
            .iter()
            .map(|(key, value)| (format!("p.{key}"), value.clone()))
            .collect();
        if !selector.is_global() {
            assert_eq!(prefixed.selects(&theirs), selects, "{printed}");
        }
    }
}
