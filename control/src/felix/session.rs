//! What has been told, by this Felix or the one before, and what is to be told next.

use std::collections::BTreeMap;

use super::snapshot::Snapshot;
use crate::program::felix::{
    ActiveProfileUpdate, ConfigUpdate, HostEndpoint, HostEndpointUpdate, PolicyId, Rule, TierInfo, ToDataplane,
};

/// What the names of workloads' interfaces begin with unless Felix says something else (its `InterfacePrefix`).
const PREFIX: (&str, &str) = ("InterfacePrefix", "cali");
/// Who stands for what is not known yet.
const BEFORE: &str = "before-felix";

/// From messages to changes.
#[derive(Debug)]
pub struct Session {
    told: Snapshot,
    /// What a Felix has said that is not yet through with the whole of it.
    heard: Option<Snapshot>,
    news: Vec<ToDataplane>,
}

impl Session {
    /// Nobody has said anything yet: workloads are closed and nothing is forwarded, but the host's own packets pass, or
    /// Felix could not reach what it learns from.
    pub fn new() -> Self {
        let nothing = TierInfo {
            name: BEFORE.to_owned(),
            // A policy that is not there denies.
            ingress_policies: vec![not_there()],
            egress_policies: vec![not_there()],
            default_action: "Deny".to_owned(),
        };
        let host = HostEndpoint {
            name: "*".to_owned(),
            profile_ids: vec![BEFORE.to_owned()],
            forward_tiers: vec![nothing],
            ..HostEndpoint::default()
        };
        let all = || vec![Rule::default()];
        let mut session = Self {
            told: Snapshot::default(),
            heard: None,
            news: vec![],
        };
        session.say(with_prefix(ConfigUpdate::default()));
        session.say(ToDataplane::ActiveProfileUpdate(ActiveProfileUpdate {
            id: BEFORE.to_owned(),
            inbound_rules: all(),
            outbound_rules: all(),
        }));
        session.say(ToDataplane::HostEndpointUpdate(HostEndpointUpdate {
            endpoint_id: BEFORE.to_owned(),
            endpoint: host,
        }));
        session
    }

    /// Another Felix speaks, from the beginning. What was told stays until it has said everything.
    pub fn begin(&mut self) {
        self.heard = Some(Snapshot::default());
    }

    /// Takes a message. Whether it is the one that ends the beginning.
    pub fn hear(&mut self, message: ToDataplane) -> bool {
        let message = match message {
            ToDataplane::ConfigUpdate(update) => with_prefix(update),
            message => message,
        };
        match (self.heard.take(), message) {
            (Some(heard), ToDataplane::InSync) => {
                self.news.extend(self.told.difference(&heard));
                self.told = heard;
                return true;
            }
            (Some(mut heard), message) => {
                heard.hear(message);
                self.heard = Some(heard);
            }
            (None, ToDataplane::InSync) => {}
            (None, message) => self.say(message),
        }
        false
    }

    /// What is to be told now, as one change.
    pub fn take_news(&mut self) -> Vec<ToDataplane> {
        std::mem::take(&mut self.news)
    }

    /// All that was told.
    pub fn told(&self) -> &Snapshot {
        &self.told
    }

    fn say(&mut self, message: ToDataplane) {
        self.told.hear(message.clone());
        self.news.push(message);
    }
}

/// Whether it is not Felix's, but stands where nothing is known yet.
pub fn is_ours(endpoint: &HostEndpointUpdate) -> bool {
    endpoint.endpoint_id == BEFORE
}

fn not_there() -> PolicyId {
    PolicyId {
        name: BEFORE.to_owned(),
        ..PolicyId::default()
    }
}

/// Felix leaves out settings that are as usual; this one decides which ports are workloads'.
fn with_prefix(update: ConfigUpdate) -> ToDataplane {
    let mut config: BTreeMap<_, _> = update.config;
    let (name, usual) = PREFIX;
    if config.get(name).is_none_or(|value| value.is_empty()) {
        config.insert(name.to_owned(), usual.to_owned());
    }
    ToDataplane::ConfigUpdate(ConfigUpdate { config })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::felix::{
        IpSetDeltaUpdate, IpSetUpdate, IpamPoolUpdate, WorkloadEndpointId, WorkloadEndpointUpdate,
    };

    fn set(members: &[&str]) -> ToDataplane {
        ToDataplane::IpSetUpdate(IpSetUpdate {
            id: "s".into(),
            members: members.iter().map(|member| member.to_string()).collect(),
            ..IpSetUpdate::default()
        })
    }

    fn profile(id: &str) -> ToDataplane {
        ToDataplane::ActiveProfileUpdate(ActiveProfileUpdate {
            id: id.into(),
            ..ActiveProfileUpdate::default()
        })
    }

    fn workload(name: &str) -> ToDataplane {
        let mut update = WorkloadEndpointUpdate::default();
        update.id.workload_id = name.into();
        ToDataplane::WorkloadEndpointUpdate(update)
    }

    fn no_workload(name: &str) -> ToDataplane {
        ToDataplane::WorkloadEndpointRemove(WorkloadEndpointId {
            workload_id: name.into(),
            ..WorkloadEndpointId::default()
        })
    }

    fn hear(session: &mut Session, messages: impl IntoIterator<Item = ToDataplane>) -> Vec<ToDataplane> {
        for message in messages {
            session.hear(message);
        }
        session.take_news()
    }

    #[test]
    fn nothing_is_told_before_everything_was_heard_and_then_all_at_once() {
        let mut session = Session::new();
        let closed = session.take_news();
        assert_eq!(closed.len(), 3);
        session.begin();
        let first = [workload("a"), profile("p"), set(&["10.0.0.1", "10.0.0.2"])];
        assert_eq!(hear(&mut session, first), []);
        let mut news = hear(&mut session, [ToDataplane::InSync]);
        // What refers comes after what it refers to, and the host's stand-in goes with its profile.
        if let ToDataplane::IpSetUpdate(set) = &mut news[1] {
            set.members.sort();
        }
        let expected = [
            ToDataplane::HostEndpointRemove(BEFORE.into()),
            set(&["10.0.0.1", "10.0.0.2"]),
            profile("p"),
            workload("a"),
            ToDataplane::ActiveProfileRemove(BEFORE.into()),
        ];
        assert_eq!(news, expected);
        // From now on as it comes.
        assert_eq!(hear(&mut session, [workload("b")]), [workload("b")]);
    }

    #[test]
    fn another_felix_is_told_of_as_a_difference() {
        let mut session = Session::new();
        session.begin();
        let whole = [
            set(&["10.0.0.1", "10.0.0.2"]),
            profile("p"),
            profile("q"),
            workload("a"),
            workload("b"),
        ];
        hear(&mut session, whole.into_iter().chain([ToDataplane::InSync]));
        let delta = |added: &[&str], removed: &[&str]| {
            let strings = |members: &[&str]| members.iter().map(|member| member.to_string()).collect();
            ToDataplane::IpSetDeltaUpdate(IpSetDeltaUpdate {
                id: "s".into(),
                added_members: strings(added),
                removed_members: strings(removed),
            })
        };
        hear(&mut session, [delta(&["10.0.0.3"], &["10.0.0.1"])]);
        // One that breaks off changes nothing, nor is it remembered.
        session.begin();
        assert_eq!(hear(&mut session, [workload("c")]), []);
        session.begin();
        let same = [set(&["10.0.0.2", "10.0.0.4"]), profile("p"), workload("b")];
        let news = hear(&mut session, same.into_iter().chain([ToDataplane::InSync]));
        let expected = [
            no_workload("a"),
            delta(&["10.0.0.4"], &["10.0.0.3"]),
            ToDataplane::ActiveProfileRemove("q".into()),
        ];
        assert_eq!(news, expected);
    }

    #[test]
    fn the_prefix_of_workloads_is_felixs_unless_it_says_another() {
        let mut session = Session::new();
        assert_eq!(session.told().setting("InterfacePrefix"), Some("cali"));
        session.begin();
        let config = [("InterfacePrefix".into(), "eni".into())].into();
        hear(
            &mut session,
            [ToDataplane::ConfigUpdate(ConfigUpdate { config }), ToDataplane::InSync],
        );
        assert_eq!(session.told().setting("InterfacePrefix"), Some("eni"));
        let pool = ToDataplane::IpamPoolUpdate(IpamPoolUpdate::default());
        assert_eq!(hear(&mut session, [pool.clone()]), [pool]);
    }
}
