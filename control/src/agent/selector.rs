//! Calico's selector language: which labels an endpoint, a set or a namespace has to have.
//!
//! `all()`, `global()`, `has(k)`, `k == 'v'`, `k != 'v'`, `k in {'a', 'b'}`, `k not in {'a', 'b'}`, `k contains 'v'`,
//! `k starts with 'v'`, `k ends with 'v'`, `!`, `&&`, `||` and parentheses, `||` binding least. What says something of a
//! label that is not there is false, but for `!=` and `not in` (libcalico-go `lib/selector`).

mod parse;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The labels of something.
pub type Labels = BTreeMap<String, String>;

/// What everything in a namespace is labelled with.
pub const NAMESPACE: &str = "projectcalico.org/namespace";

/// A selector as written, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    text: Arc<str>,
    expression: Arc<Expression>,
}

/// What a selector means.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expression {
    /// Everything.
    All,
    /// Everything outside namespaces.
    Global,
    /// The label is there.
    Has(String),
    /// The label is there, with this value.
    Equal(String, String),
    /// The label is not there, or with another value.
    NotEqual(String, String),
    /// The label is there, with one of these values.
    In(String, BTreeSet<String>),
    /// The label is not there, or with none of these values.
    NotIn(String, BTreeSet<String>),
    /// The label is there, and its value has this in it.
    Contains(String, String),
    /// The label is there, and its value starts with this.
    StartsWith(String, String),
    /// The label is there, and its value ends with this.
    EndsWith(String, String),
    /// Not this.
    Not(Box<Expression>),
    /// All of these.
    And(Vec<Expression>),
    /// At least one of these.
    Or(Vec<Expression>),
}

/// Text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a selector: at character {character}, {reason}")]
pub struct NotASelector {
    /// Where, counted from 1.
    pub character: usize,
    /// What is wrong there, and what was expected.
    pub reason: String,
}

impl Selector {
    /// What it means.
    pub fn expression(&self) -> &Expression {
        &self.expression
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `global()` stands in it anywhere.
    pub fn is_global(&self) -> bool {
        self.expression.any(&|expression| *expression == Expression::Global)
    }
}

impl FromStr for Selector {
    type Err = NotASelector;

    /// Nothing at all selects everything.
    fn from_str(text: &str) -> Result<Self, NotASelector> {
        Ok(Self {
            expression: Arc::new(parse::parse(text)?),
            text: text.into(),
        })
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Expression {
    /// Whether `labels` are such.
    pub fn selects(&self, labels: &Labels) -> bool {
        let value = |key: &str| labels.get(key).map(String::as_str);
        match self {
            Self::All => true,
            Self::Global => !labels.contains_key(NAMESPACE),
            Self::Has(key) => labels.contains_key(key),
            Self::Equal(key, expected) => value(key) == Some(expected),
            Self::NotEqual(key, other) => value(key) != Some(other),
            Self::In(key, values) => value(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => value(key).is_none_or(|value| !values.contains(value)),
            Self::Contains(key, part) => value(key).is_some_and(|value| value.contains(part.as_str())),
            Self::StartsWith(key, start) => value(key).is_some_and(|value| value.starts_with(start.as_str())),
            Self::EndsWith(key, end) => value(key).is_some_and(|value| value.ends_with(end.as_str())),
            Self::Not(inner) => !inner.selects(labels),
            Self::And(all) => all.iter().all(|inner| inner.selects(labels)),
            Self::Or(any) => any.iter().any(|inner| inner.selects(labels)),
        }
    }

    /// The same of labels whose keys have `prefix` in front, and with `all` where everything is selected: what selects
    /// namespaces or service accounts becomes what selects the endpoints in them.
    pub fn prefixed(&self, prefix: &str, all: &Self) -> Self {
        let key = |key: &String| format!("{prefix}{key}");
        let deeper = |inner: &[Self]| inner.iter().map(|inner| inner.prefixed(prefix, all)).collect();
        match self {
            Self::All => all.clone(),
            Self::Global => Self::Global,
            Self::Has(of) => Self::Has(key(of)),
            Self::Equal(of, value) => Self::Equal(key(of), value.clone()),
            Self::NotEqual(of, value) => Self::NotEqual(key(of), value.clone()),
            Self::In(of, values) => Self::In(key(of), values.clone()),
            Self::NotIn(of, values) => Self::NotIn(key(of), values.clone()),
            Self::Contains(of, part) => Self::Contains(key(of), part.clone()),
            Self::StartsWith(of, start) => Self::StartsWith(key(of), start.clone()),
            Self::EndsWith(of, end) => Self::EndsWith(key(of), end.clone()),
            Self::Not(inner) => Self::Not(Box::new(inner.prefixed(prefix, all))),
            Self::And(inner) => Self::And(deeper(inner)),
            Self::Or(inner) => Self::Or(deeper(inner)),
        }
    }

    /// All of these; everything if there are none.
    pub fn all_of(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut parts: Vec<_> = parts.into_iter().filter(|part| *part != Self::All).collect();
        match parts.len() {
            0 => Self::All,
            1 => parts.remove(0),
            _ => Self::And(parts),
        }
    }

    fn any(&self, is: &impl Fn(&Self) -> bool) -> bool {
        match self {
            Self::Not(inner) => inner.any(is),
            Self::And(inner) | Self::Or(inner) => inner.iter().any(|inner| inner.any(is)),
            leaf => is(leaf),
        }
    }
}

/// One text for one meaning, whatever spaces, quotes and brackets it was written with. It parses to what was printed.
impl fmt::Display for Expression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => out.write_str("all()"),
            Self::Global => out.write_str("global()"),
            Self::Has(key) => write!(out, "has({key})"),
            Self::Equal(key, value) => write!(out, "{key} == {}", Quoted(value)),
            Self::NotEqual(key, value) => write!(out, "{key} != {}", Quoted(value)),
            Self::In(key, values) => write!(out, "{key} in {}", Braced(values)),
            Self::NotIn(key, values) => write!(out, "{key} not in {}", Braced(values)),
            Self::Contains(key, value) => write!(out, "{key} contains {}", Quoted(value)),
            Self::StartsWith(key, value) => write!(out, "{key} starts with {}", Quoted(value)),
            Self::EndsWith(key, value) => write!(out, "{key} ends with {}", Quoted(value)),
            Self::Not(inner) => write!(out, "!{inner}"),
            Self::And(inner) => joined(out, inner, " && "),
            Self::Or(inner) => joined(out, inner, " || "),
        }
    }
}

fn joined(out: &mut fmt::Formatter<'_>, inner: &[Expression], operator: &str) -> fmt::Result {
    for (at, inner) in inner.iter().enumerate() {
        write!(out, "{}{inner}", if at == 0 { "(" } else { operator })?;
    }
    out.write_str(")")
}

/// The language has no escapes, so a value has at most one kind of quote in it.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(out, "{quote}{}{quote}", self.0)
    }
}

struct Braced<'a>(&'a BTreeSet<String>);

impl fmt::Display for Braced<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("{")?;
        for (at, value) in self.0.iter().enumerate() {
            write!(out, "{}{}", if at == 0 { "" } else { ", " }, Quoted(value))?;
        }
        out.write_str("}")
    }
}
