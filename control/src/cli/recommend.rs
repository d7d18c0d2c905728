//! `margay recommend`.

use clap::Args;

use super::client::escaped;
use super::output::{self, Output};
use super::{Common, Error};
use crate::recommend::Recommendation;

#[derive(Debug, Args)]
pub(super) struct Recommend {
    /// Only for workloads of this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// In the words of Kubernetes' NetworkPolicy, as kind StagedKubernetesNetworkPolicy
    #[arg(short, long)]
    kubernetes: bool,
    #[command(flatten)]
    common: Common,
}

impl Recommend {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let namespace = self
            .namespace
            .map(|namespace| format!("&namespace={}", escaped(&namespace)));
        let form = if self.kubernetes { "kubernetes" } else { "calico" };
        let path = format!("/v1/recommend?form={form}{}", namespace.unwrap_or_default());
        let answer = self.common.client()?.get(&path)?;
        if self.common.output == Output::Json {
            return self.common.output.print(&answer, |_| Ok(String::new()));
        }
        let made: Recommendation = serde_json::from_value(answer).map_err(output::odd)?;
        output::print(&documents(&made)?)
    }
}

/// What can be applied as it is; what it does not say stands before it.
fn documents(made: &Recommendation) -> Result<String, Error> {
    let mut text = String::new();
    for note in &made.notes {
        text.push_str(&format!("# {note}\n"));
    }
    if made.policies.is_empty() {
        text.push_str(
            "# no flow was allowed yet from or to a workload with a label; flows are kept where there is policy\n",
        );
    }
    let documents: Vec<_> = made.policies.iter().map(output::yaml).collect::<Result<_, _>>()?;
    Ok(text + &documents.join("---\n"))
}
