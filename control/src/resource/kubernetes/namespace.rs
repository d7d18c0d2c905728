//! `kind: Namespace`: labels that everything in it is selected by.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::resource::{Body, Invalid};

/// The body of a Namespace. Only its labels mean something here; what an API server adds is accepted and not kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Namespace {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "spec")]
    _spec: Option<Value>,
    #[serde(rename = "status")]
    _status: Option<Value>,
}

impl From<Written> for Namespace {
    fn from(_: Written) -> Self {
        Self {}
    }
}

impl Body for Namespace {
    const API_VERSION: &'static str = "v1";
    const KIND: &'static str = "Namespace";
    const PLURAL: &'static str = "namespaces";
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [&'static str] = &[];

    fn row(&self) -> Vec<String> {
        vec![]
    }

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}
