//! `show policies`: policies and profiles, how many endpoints have them, and what each of their rules matched.

use std::time::Duration;

use classifier::program::Direction;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::table::{Table, bytes, number};
use crate::program::policy::{PolicyInfo, RuleInfo};

const NS_PER_SECOND: u64 = 1_000_000_000;

/// A policy or profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// Its kind, such as `NetworkPolicy`, or `Profile`.
    pub kind: String,
    /// Its name, behind its namespace where it has one.
    pub name: String,
    /// The tier of a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Rules for packets to endpoints.
    pub ingress_rules: usize,
    /// Rules for packets from them.
    pub egress_rules: usize,
    /// Lists of policies of endpoints that it is in.
    pub mentions: usize,
    /// Why it denies all packets to its endpoints, or from them; nothing where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<String>,
    /// Its rules, those of ingress first.
    #[serde(default)]
    pub rules: Vec<RuleView>,
}

/// A rule, and what it matched since it came. It keeps its counts when others come before it or go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuleView {
    /// `ingress` for packets to endpoints, `egress` for packets from them.
    pub direction: String,
    /// Its place among the rules of its direction, counted from 0.
    pub rule: usize,
    /// `allow`, `deny`, `pass` or `log`.
    pub action: String,
    /// Packets that it matched when they were judged, and those of the connections that it allowed.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// Seconds since the last of them; none if there never was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<u64>,
    /// Seconds since the rule came.
    pub age_s: u64,
}

/// One of them, at this time.
pub(crate) fn view(info: &PolicyInfo, now_ns: u64) -> PolicyView {
    let ingress = info.ingress_rules;
    let rule = |(place, rule): (usize, &RuleInfo)| {
        let since = |then_ns: u64| now_ns.saturating_sub(then_ns) / NS_PER_SECOND;
        let (direction, place) = match rule.direction {
            Direction::Ingress => ("ingress", place),
            Direction::Egress => ("egress", place - ingress),
        };
        RuleView {
            direction: direction.to_owned(),
            rule: place,
            action: rule.action.clone(),
            packets: rule.count.packets,
            bytes: rule.count.bytes,
            idle_s: rule.count.seen_ns.map(since),
            age_s: since(rule.count.since_ns),
        }
    };
    PolicyView {
        kind: info.name.kind().to_owned(),
        name: info.name.name(),
        tier: info.tier.clone(),
        ingress_rules: ingress,
        egress_rules: info.egress_rules,
        mentions: info.mentions,
        unfinished: info.unfinished.iter().flatten().next().cloned(),
        rules: info.rules.iter().enumerate().map(rule).collect(),
    }
}

/// Those with rules that matched nothing for so long, though they were there; of each only such rules.
pub fn unused(policies: Vec<PolicyView>, time: Duration) -> Vec<PolicyView> {
    let is_unused = |rule: &RuleView| rule.idle_s.unwrap_or(rule.age_s) >= time.as_secs();
    let policies = policies.into_iter().map(|mut policy| {
        policy.rules.retain(is_unused);
        policy
    });
    policies.filter(|policy| !policy.rules.is_empty()).collect()
}

/// The view as text.
pub fn table(policies: &[PolicyView]) -> String {
    if policies.is_empty() {
        return "no policies; every packet passes\n".to_owned();
    }
    let mut table = Table::new(&[
        "TIER", "KIND", "NAME", "RULE", "ACTION", ">PACKETS", ">BYTES", "MATCHED", "STATE",
    ]);
    for policy in policies {
        let names = [policy.tier.as_deref().unwrap_or("-"), &policy.kind, &policy.name];
        let mentions = number(policy.mentions as u64);
        let state = match &policy.unfinished {
            None => format!("in force for {mentions}"),
            Some(why) => format!("denies: {why}"),
        };
        if policy.rules.is_empty() {
            let row = names.into_iter().chain(["-"; 5]).chain([state.as_str()]);
            table.row(row.map(Into::into));
        }
        for rule in &policy.rules {
            let [tier, kind, name] = names.map(Into::into);
            let place = format!("{} {}", rule.direction, rule.rule);
            let matched = rule.idle_s.map_or_else(|| "never".to_owned(), ago);
            table.row([
                tier,
                kind,
                name,
                place.into(),
                rule.action.as_str().into(),
                number(rule.packets).into(),
                bytes(rule.bytes).into(),
                matched.into(),
                state.as_str().into(),
            ]);
        }
    }
    table.to_string()
}

/// The view of rules that matched nothing for so long.
pub fn unused_table(policies: &[PolicyView]) -> String {
    match policies {
        [] => "every rule that was there so long has matched since\n".to_owned(),
        policies => table(policies),
    }
}

/// A time that has passed, in the largest unit of which there are two.
fn ago(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let large = units.into_iter().find(|(length, _)| seconds >= 2 * length);
    let (length, unit) = large.unwrap_or((1, "s"));
    format!("{} {unit} ago", number(seconds / length))
}

/// A time as people write it: a number and a unit, such as `90s`, `30m`, `12h` or `7d`.
///
/// # Errors
/// A sentence, if it is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "`{}` is no time; expected a number and a unit, such as 30m, 12h or 7d",
            text.escape_debug()
        )
    };
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let seconds = count.checked_mul(seconds).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[(Option<u64>, u64)]) -> PolicyView {
        let rule = |(rule, (idle_s, age_s)): (usize, &(Option<u64>, u64))| RuleView {
            direction: "ingress".to_owned(),
            rule,
            action: "allow".to_owned(),
            packets: idle_s.is_some().into(),
            bytes: 0,
            idle_s: *idle_s,
            age_s: *age_s,
        };
        PolicyView {
            kind: "NetworkPolicy".to_owned(),
            name: "shop/db".to_owned(),
            tier: Some("default".to_owned()),
            ingress_rules: rules.len(),
            egress_rules: 0,
            mentions: 1,
            unfinished: None,
            rules: rules.iter().enumerate().map(rule).collect(),
        }
    }

    #[test]
    fn a_rule_is_unused_when_it_was_there_and_matched_nothing_for_so_long() {
        let policies = vec![
            policy(&[(Some(59), 100), (Some(60), 100), (None, 59), (None, 60)]),
            policy(&[(Some(0), 1000)]),
        ];
        let unused = unused(policies, Duration::from_secs(60));
        let rules = |policy: &PolicyView| policy.rules.iter().map(|rule| rule.rule).collect::<Vec<_>>();
        assert_eq!(unused.iter().map(rules).collect::<Vec<_>>(), [vec![1, 3]]);
        assert!(unused_table(&unused).contains("never"));
        assert!(unused_table(&[]).starts_with("every rule"));
    }

    #[test]
    fn times_are_a_number_and_a_unit() {
        let seconds = |text| duration(text).map(|time| time.as_secs());
        assert_eq!(
            ["0s", "90s", "30m", "12h", "7d"].map(seconds),
            [0, 90, 1_800, 43_200, 604_800].map(Ok)
        );
        for wrong in ["", "7", "d", "-1d", "1.5h", "7 d", "7w", "7°", "999999999999999999d"] {
            let sentence = duration(wrong).unwrap_err();
            assert!(sentence.contains("expected a number and a unit"), "{wrong}: {sentence}");
        }
    }

    #[test]
    fn what_has_passed_is_told_in_a_unit_that_suits() {
        assert_eq!(
            [0, 119, 120, 7_199, 7_200, 172_800, 86_400 * 9].map(ago),
            [
                "0 s ago",
                "119 s ago",
                "2 min ago",
                "119 min ago",
                "2 h ago",
                "2 d ago",
                "9 d ago"
            ]
        );
    }
}
