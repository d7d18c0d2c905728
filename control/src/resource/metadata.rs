//! `metadata`: names after Kubernetes' rules, labels, annotations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::calico::excerpt;

/// The longest DNS label (RFC 1123 section 2.1, RFC 1035 section 2.3.4).
const LABEL_BYTES: usize = 63;
/// The longest key of a label: a DNS subdomain, a slash and a name (Kubernetes, labels and selectors).
const LABEL_KEY_BYTES: usize = 253 + 1 + 63;

/// The `metadata` of a document. What a Kubernetes API server adds on its own is accepted and not kept, so that what
/// `kubectl get -o yaml` prints can be applied as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Metadata {
    /// The name, unique among resources of the kind (and namespace).
    pub name: String,
    /// The namespace, for kinds that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What selectors look at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What nobody here looks at, but the user wants back.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Whether `name` is a DNS label as Kubernetes wants it (RFC 1123): the error says what is expected.
pub fn check_label(name: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(|&byte| inner(byte) && byte != b'-');
    let bytes = name.as_bytes();
    if bytes.len() <= LABEL_BYTES && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|&byte| inner(byte))
    {
        return Ok(());
    }
    Err(format!(
        "`{}` is not a name; expected 1 to {LABEL_BYTES} lower-case letters, digits and `-`, with a letter or digit at both ends",
        name.escape_debug()
    ))
}

/// Whether `key` can be the key of a label: letters, digits and `-_./`, so that selectors can name it.
pub(super) fn check_label_key(key: &str) -> Result<(), String> {
    let in_key = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-');
    if (1..=LABEL_KEY_BYTES).contains(&key.len()) && key.bytes().all(in_key) {
        return Ok(());
    }
    Err(format!(
        "`{}` is not the key of a label; expected 1 to {LABEL_KEY_BYTES} letters, digits, `-`, `_`, `.` and `/`",
        excerpt(key)
    ))
}

/// Whether `value` can be the value of a label.
pub(super) fn check_label_value(value: &str) -> Result<(), String> {
    let in_value = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if value.len() <= LABEL_BYTES && value.bytes().all(in_value) {
        return Ok(());
    }
    Err(format!(
        "`{}` is not the value of a label; expected at most {LABEL_BYTES} letters, digits, `-`, `_` and `.`",
        excerpt(value)
    ))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    name: String,
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(rename = "creationTimestamp")]
    _creation_timestamp: Option<Value>,
    #[serde(rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: Option<Value>,
    #[serde(rename = "deletionTimestamp")]
    _deletion_timestamp: Option<Value>,
    #[serde(rename = "finalizers")]
    _finalizers: Option<Value>,
    #[serde(rename = "generateName")]
    _generate_name: Option<Value>,
    #[serde(rename = "generation")]
    _generation: Option<Value>,
    #[serde(rename = "managedFields")]
    _managed_fields: Option<Value>,
    #[serde(rename = "ownerReferences")]
    _owner_references: Option<Value>,
    #[serde(rename = "resourceVersion")]
    _resource_version: Option<Value>,
    #[serde(rename = "selfLink")]
    _self_link: Option<Value>,
    #[serde(rename = "uid")]
    _uid: Option<Value>,
}

impl TryFrom<Written> for Metadata {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written {
            name,
            namespace,
            labels,
            annotations,
            ..
        } = written;
        for (key, value) in &labels {
            check_label_key(key)?;
            check_label_value(value)?;
        }
        Ok(Self {
            name,
            namespace,
            labels,
            annotations,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_rfc_1123() {
        for good in ["a", "0", "left", "to-the-right", "a--b", &"a".repeat(63)] {
            assert_eq!(check_label(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a b", "ä", "a\n", &"a".repeat(64)] {
            assert!(check_label(bad).is_err(), "{bad}");
        }
    }
}
