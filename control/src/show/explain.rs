//! `explain`: what becomes of a packet, and the way to it.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::Table;
use crate::program::policy::{Answer, Step, Verdict};

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainView {
    /// `allow` or `deny`.
    pub verdict: String,
    /// What it would be if staged policies were in force; nothing where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
    /// What was decided on the way, in order.
    pub steps: Vec<ExplainStep>,
}

/// Something that was decided on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainStep {
    /// Whose policy: of which end.
    pub endpoint: String,
    /// `egress`, `ingress`, `forward`, `host`, `pre-dnat` or `untracked`; empty where no policy decided.
    pub stage: String,
    /// The tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The policy or profile, by kind and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The rule, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// `allow`, `deny` or `pass`.
    pub verdict: String,
    /// As if staged policies were in force: it decides nothing now.
    pub pending: bool,
    /// In words.
    pub reason: String,
}

impl From<Answer> for ExplainView {
    fn from(answer: Answer) -> Self {
        Self {
            verdict: name(answer.verdict).to_owned(),
            pending: answer.pending.map(|verdict| name(verdict).to_owned()),
            steps: answer.steps.into_iter().map(ExplainStep::from).collect(),
        }
    }
}

impl From<Step> for ExplainStep {
    fn from(step: Step) -> Self {
        Self {
            endpoint: step.endpoint,
            stage: step.stage.to_owned(),
            tier: step.tier,
            policy: step.policy,
            rule: step.rule,
            verdict: name(step.verdict).to_owned(),
            pending: step.pending,
            reason: step.reason,
        }
    }
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::Pass => "pass",
    }
}

/// The answer as text.
pub fn table(answer: &ExplainView) -> String {
    let mut text = format!("{}\n", answer.verdict);
    if let Some(pending) = &answer.pending {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{pending}, if staged policies were in force");
    }
    let mut table = Table::new(&["ENDPOINT", "STAGE", "TIER", "POLICY", ">RULE", "VERDICT", "REASON"]);
    for step in &answer.steps {
        let verdict = match step.pending {
            true => format!("({})", step.verdict),
            false => step.verdict.clone(),
        };
        table.row([
            step.endpoint.as_str().into(),
            if step.stage.is_empty() { "-" } else { &step.stage }.into(),
            step.tier.as_deref().unwrap_or("-").into(),
            step.policy.as_deref().unwrap_or("-").into(),
            step.rule.map_or_else(|| "-".to_owned(), |rule| rule.to_string()).into(),
            verdict.into(),
            step.reason.as_str().into(),
        ]);
    }
    let _ = write!(text, "\n{table}");
    text
}
