//! `kind: ServiceAccount`: labels that the pods running as it are selected by.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::resource::calico::check_subdomain;
use crate::resource::{Body, Invalid};

/// The body of a ServiceAccount. Only its labels mean something here; the fields of Kubernetes are accepted and kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceAccount {
    /// Means nothing here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Value>,
    /// Means nothing here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_secrets: Option<Value>,
    /// Means nothing here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automount_service_account_token: Option<bool>,
}

impl Body for ServiceAccount {
    const API_VERSION: &'static str = "v1";
    const KIND: &'static str = "ServiceAccount";
    const PLURAL: &'static str = "serviceaccounts";
    const NAMESPACED: bool = true;
    const COLUMNS: &'static [&'static str] = &[];

    fn row(&self) -> Vec<String> {
        vec![]
    }

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }

    fn check_name(name: &str) -> Result<(), String> {
        check_subdomain(name)
    }
}
