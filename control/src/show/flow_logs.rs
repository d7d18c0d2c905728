//! `show flow-logs`: who spoke with whom, the last windows.

use super::table::{Table, bytes, number};
use crate::flow_logs::{EndKind, FlowLog, FlowLogsView, LogEnd, LogPolicy, LogVerdict};

/// The view as text.
pub fn table(view: &FlowLogsView) -> String {
    let mut text = match view.logs.is_empty() {
        true => "no flow logged yet; a window of 15 s is shown when it is over, where there is policy\n".to_owned(),
        false => flows(&view.logs).to_string(),
    };
    if view.lost > 0 {
        let lost = number(view.lost);
        text.push_str(&format!(
            "{lost} judgements were not logged: there were too many at once\n"
        ));
    }
    if let Some(error) = &view.file_error {
        let unwritten = number(view.unwritten);
        text.push_str(&format!("{unwritten} windows were not written: {error}\n"));
    }
    text
}

fn flows(logs: &[FlowLog]) -> Table {
    let mut table = Table::new(&[
        "SOURCE", "TARGET", "PROTOCOL", "PORT", "ACTION", "STAGED", ">STARTED", ">PACKETS", ">BYTES", "POLICIES",
    ]);
    for log in logs {
        let port = log.port.map(|port| port.to_string()).or_else(|| log.icmp.clone());
        let staged = log.pending.as_ref().map_or("-", |pending| &pending.action);
        table.row([
            end(&log.source).into(),
            end(&log.target).into(),
            log.protocol.as_str().into(),
            port.unwrap_or_else(|| "-".to_owned()).into(),
            log.verdict.action.as_str().into(),
            staged.into(),
            number(log.started).into(),
            number(log.packets + log.reply_packets).into(),
            bytes(log.bytes + log.reply_bytes).into(),
            policies(&log.verdict).into(),
        ]);
    }
    table
}

fn end(end: &LogEnd) -> String {
    match (end.kind, &end.name, &end.address) {
        (EndKind::Other, ..) => "(others)".to_owned(),
        (_, Some(name), _) => name.clone(),
        (_, None, address) => address.clone().unwrap_or_default(),
    }
}

/// `egress Profile kns.shop 0, ingress NetworkPolicy shop/db 1`.
fn policies(verdict: &LogVerdict) -> String {
    let one = |policy: &LogPolicy| {
        let end_of_tier = || policy.tier.as_ref().map(|tier| format!("end of tier {tier}"));
        let decided = policy.policy.clone().or_else(end_of_tier);
        let rule = policy.rule.map_or_else(String::new, |rule| format!(" {rule}"));
        format!("{} {}{rule}", policy.direction, decided.as_deref().unwrap_or("-"))
    };
    match (&verdict.reason, verdict.policies.is_empty()) {
        (Some(reason), _) => reason.clone(),
        (None, true) => "-".to_owned(),
        (None, false) => verdict.policies.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}
