//! `show flow-logs`: who spoke with whom, the last windows.

use std::time::Duration;

use super::table::{Table, bytes, number};
use crate::flow_logs::{EndKind, FlowLog, FlowLogsView, LogEnd, LogPolicy, LogVerdict};

/// The view with no other windows than those that ended at a time since 1970, or later.
pub fn since(mut view: FlowLogsView, since_1970: Duration) -> FlowLogsView {
    view.logs.retain(|log| u128::from(log.end_ms) >= since_1970.as_millis());
    view
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_ended_before_a_time_are_left_out() {
        let window = |end_ms| {
            let end = serde_json::json!({"kind": "other"});
            let log = serde_json::json!({
                "start_ms": 0, "end_ms": end_ms, "source": end, "target": end, "protocol": "tcp",
                "verdict": {"action": "allow", "policies": []}, "started": 0, "completed": 0,
                "packets": 0, "bytes": 0, "reply_packets": 0, "reply_bytes": 0,
            });
            serde_json::from_value::<FlowLog>(log).unwrap()
        };
        let view = FlowLogsView {
            lost: 7,
            logs: vec![window(14_999), window(15_000), window(30_000)],
            ..FlowLogsView::default()
        };
        let view = since(view, Duration::from_secs(15));
        let ends: Vec<_> = view.logs.iter().map(|log| log.end_ms).collect();
        assert_eq!((view.lost, ends), (7, vec![15_000, 30_000]));
    }
}
