//! Kubernetes' own language of selectors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::agent::selector::Expression;
use crate::resource::Invalid;
use crate::resource::metadata::{check_label_key, check_label_value};

/// What labels have to be; an empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabelSelector {
    /// These labels with these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// And all of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

/// What one label has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What of it.
    pub operator: Operator,
    /// The values `In` and `NotIn` speak of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What a requirement says of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// It is there, with one of the values.
    In,
    /// It is not there, or with none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// The same in Calico's language.
    pub fn expression(&self) -> Expression {
        let labels = self.match_labels.iter();
        let labels = labels.map(|(key, value)| Expression::Equal(key.clone(), value.clone()));
        let requirements = self.match_expressions.iter().map(|requirement| {
            let key = requirement.key.clone();
            let values = requirement.values.iter().cloned().collect();
            match requirement.operator {
                Operator::In => Expression::In(key, values),
                Operator::NotIn => Expression::NotIn(key, values),
                Operator::Exists => Expression::Has(key),
                Operator::DoesNotExist => Expression::Not(Box::new(Expression::Has(key))),
            }
        });
        Expression::all_of(labels.chain(requirements))
    }

    /// Whether it is one; it stands at `field`.
    pub(super) fn check(&self, field: &str) -> Result<(), Invalid> {
        for (key, value) in &self.match_labels {
            let good = check_label_key(key).and_then(|()| check_label_value(value));
            good.map_err(|reason| Invalid::at(format!("{field}.matchLabels"), reason))?;
        }
        for (at, requirement) in self.match_expressions.iter().enumerate() {
            requirement
                .check()
                .map_err(|(name, reason)| Invalid::at(format!("{field}.matchExpressions[{at}].{name}"), reason))?;
        }
        Ok(())
    }
}

impl Requirement {
    fn check(&self) -> Result<(), (&'static str, String)> {
        check_label_key(&self.key).map_err(|reason| ("key", reason))?;
        match (self.operator, self.values.is_empty()) {
            (Operator::In | Operator::NotIn, true) => {
                return Err(("values", "is empty; `In` and `NotIn` speak of values".to_owned()));
            }
            (Operator::Exists | Operator::DoesNotExist, false) => {
                return Err((
                    "values",
                    "has values; `Exists` and `DoesNotExist` speak of none".to_owned(),
                ));
            }
            _ => {}
        }
        let mut values = self.values.iter();
        values
            .try_for_each(|value| check_label_value(value))
            .map_err(|reason| ("values", reason))
    }
}
