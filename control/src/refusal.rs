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
            error: on_one_line(error.into()),
            document: None,
            field: None,
        }
    }

    /// A refusal of one document as a whole.
    pub fn of_document(document: &str, reason: impl fmt::Display) -> Self {
        Self {
            error: on_one_line(format!("{document}: {reason}")),
            document: Some(on_one_line(document.to_owned())),
            field: None,
        }
    }

    /// A refusal of one field of one document.
    pub fn of_field(document: &str, field: &str, reason: impl fmt::Display) -> Self {
        if field.is_empty() {
            return Self::of_document(document, reason);
        }
        Self {
            error: on_one_line(format!("{document}, field {field}: {reason}")),
            document: Some(on_one_line(document.to_owned())),
            field: Some(on_one_line(field.to_owned())),
        }
    }
}

/// What documents hold is quoted, also where it would end the line or speak to the terminal.
fn on_one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let escape = |character: char| match character.is_control() {
        true => character.escape_default().collect(),
        false => String::from(character),
    };
    text.chars().map(escape).collect()
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.error)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::Refusal;

    #[test]
    fn it_is_one_line_whatever_it_quotes() {
        let refusal = Refusal::of_field("a.yaml\n", "spec.a\rb", "\u{1b}[2Jé is \"unknown\"");
        assert_eq!(refusal.error, "a.yaml\\n, field spec.a\\rb: \\u{1b}[2Jé is \"unknown\"");
        assert_eq!(refusal.document.as_deref(), Some("a.yaml\\n"));
        assert_eq!(refusal.field.as_deref(), Some("spec.a\\rb"));
    }
}
