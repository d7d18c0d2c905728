//! Why a request was refused: one sentence for people, two fields for programs.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A request that was not carried out; nothing was changed. This is the body of every answer that is not a success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// One sentence that says what was wrong, where, and what was expected.
    pub error: String,
    /// The document at fault, such as `left.yaml document 2, Route/to-right`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// The path of the field at fault, such as `spec.via[0].gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Refusal {
    /// A refusal that concerns no document in particular.
    pub fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            document: None,
            field: None,
        }
    }

    /// A refusal of one document as a whole.
    pub fn of_document(document: &str, reason: impl fmt::Display) -> Self {
        Self {
            error: format!("{document}: {reason}"),
            document: Some(document.to_owned()),
            field: None,
        }
    }

    /// A refusal of one field of one document.
    pub fn of_field(document: &str, field: &str, reason: impl fmt::Display) -> Self {
        if field.is_empty() {
            return Self::of_document(document, reason);
        }
        Self {
            error: format!("{document}, field {field}: {reason}"),
            document: Some(document.to_owned()),
            field: Some(field.to_owned()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.error)
    }
}

impl std::error::Error for Refusal {}
