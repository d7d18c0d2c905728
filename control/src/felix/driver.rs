//! What Felix says is carried out, and how things are is said to Felix.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::frames;
use super::messages::Heard;
use super::session::Session;
use super::wire::{self, From};
use crate::api::Plane;
use crate::intent::Intent;
use crate::plane::DataPlane;
use crate::program::encryption::{Encryption, OwnKey};
use crate::program::felix::{ToDataplane, WireguardStatusUpdate, WorkloadEndpoint, WorkloadEndpointId};
use crate::resource::{Document, Named};
use crate::show::ports::PortState;
use crate::store::{Plan, Request};

/// The plane as Felix has it.
pub struct Driver {
    plane: Arc<DataPlane>,
    intent: Arc<Intent>,
    session: Session,
    encryption: Option<Encryption>,
    hostname: String,
    /// The folder with our keys.
    keys: PathBuf,
    start: Instant,
    sequence: u64,
    /// What Felix was told of its endpoints.
    statuses: BTreeMap<EndpointId, &'static str>,
    unused: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum EndpointId {
    Workload(WorkloadEndpointId),
    Host(String),
}

impl Driver {
    /// Has the plane wait for Felix: workloads are closed, and nothing is forwarded. `hostname` is what Felix calls this
    /// node; keys are made in the folder `keys` when they are first needed.
    pub fn new(plane: Arc<DataPlane>, intent: Arc<Intent>, hostname: String, keys: PathBuf) -> Self {
        let mut session = Session::new();
        plane.expect_policy();
        plane.tell(session.take_news());
        Self {
            plane,
            intent,
            session,
            encryption: None,
            hostname,
            keys,
            start: Instant::now(),
            sequence: 0,
            statuses: BTreeMap::new(),
            unused: BTreeMap::new(),
        }
    }

    /// Another Felix speaks, who knows nothing of what the last was told.
    pub fn begin(&mut self) {
        self.session.begin();
        self.statuses.clear();
        self.unused.clear();
        if let Some(encryption) = &mut self.encryption {
            encryption.forget_reported();
        }
    }

    /// Carries out what came together, as one change. The answer, in frames.
    pub(super) fn hear(&mut self, heard: Vec<Heard>) -> Vec<u8> {
        let mut in_sync = false;
        for message in heard {
            match message {
                Heard::Told(message) => in_sync |= self.session.hear(*message),
                Heard::Unused(name) => *self.unused.entry(name).or_default() += 1,
            }
        }
        let news = self.session.take_news();
        let mut answers = Answers::default();
        if !news.is_empty() || in_sync {
            self.plane.tell(news.clone());
            let keys = self.encrypt(&news);
            keys.into_iter().for_each(|key| answers.key(key));
            self.say_statuses(&mut answers);
        }
        if in_sync {
            self.log();
            answers.say(From::DataplaneInSync(wire::Empty {}));
        }
        answers.number(&mut self.sequence)
    }

    /// The plane lives; the answer, in frames, says how its endpoints are.
    pub(super) fn beat(&mut self) -> Vec<u8> {
        let mut answers = Answers::default();
        answers.say(From::ProcessStatusUpdate(wire::ProcessStatusUpdate {
            iso_timestamp: iso_timestamp(unix_s()),
            uptime: self.start.elapsed().as_secs_f64(),
        }));
        self.say_statuses(&mut answers);
        answers.number(&mut self.sequence)
    }

    fn log(&self) {
        let [sets, policies, endpoints, other] = self.session.told().sizes();
        let unused: Vec<_> = self
            .unused
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let unused = match unused.is_empty() {
            true => "none".to_owned(),
            false => unused.join(", "),
        };
        tracing::info!(
            "Felix is in sync: {sets} sets, {policies} policies and profiles, {endpoints} endpoints, {other} others; \
             without use here: {unused}"
        );
    }

    /// Tunnels to other nodes follow; keys that Felix is to know.
    fn encrypt(&mut self, news: &[ToDataplane]) -> Vec<WireguardStatusUpdate> {
        let is_on = |name| {
            let value = self.session.told().setting(name);
            value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
        };
        if self.encryption.is_none() && !is_on("WireguardEnabled") && !is_on("WireguardEnabledV6") {
            return vec![];
        }
        let encryption = match &mut self.encryption {
            Some(encryption) => {
                news.iter().cloned().for_each(|message| encryption.receive(message));
                encryption
            }
            none => {
                let key = |file: &str| OwnKey::keep(self.keys.join(file));
                let made = std::fs::create_dir_all(&self.keys).map_err(|error| error.to_string());
                let keys = made.map(|()| [key("felix-v4.key"), key("felix-v6.key")]);
                let keys = keys.and_then(|[v4, v6]| match (v4, v6) {
                    (Ok(v4), Ok(v6)) => Ok([v4, v6]),
                    (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
                });
                match keys {
                    Ok(keys) => {
                        let encryption = none.insert(Encryption::new(self.hostname.clone(), keys));
                        let all = self.session.told().messages().cloned();
                        all.chain([ToDataplane::InSync])
                            .for_each(|message| encryption.receive(message));
                        encryption
                    }
                    Err(error) => {
                        let folder = self.keys.display();
                        tracing::warn!(
                            "traffic to other nodes is not encrypted: no key can be kept in {folder}: {error}"
                        );
                        return vec![];
                    }
                }
            }
        };
        let step = encryption.step();
        match carry_out(&self.intent, &step.plan) {
            Ok(()) => encryption.done(&step.plan),
            Err(refusal) => tracing::warn!("traffic to other nodes is not encrypted as Felix says: {refusal}"),
        }
        step.plan
            .warnings
            .iter()
            .for_each(|warning| tracing::warn!("{warning}"));
        step.status
    }

    /// Says what is not as Felix was told last.
    fn say_statuses(&mut self, answers: &mut Answers) {
        let up: BTreeSet<String> = self
            .plane
            .ports()
            .into_iter()
            .filter(|port| port.state == PortState::Up)
            .flat_map(|port| [port.name, port.device])
            .collect();
        let word = |is_up: bool| if is_up { "up" } else { "down" };
        let mut now = BTreeMap::new();
        for message in self.session.told().messages() {
            match message {
                ToDataplane::WorkloadEndpointUpdate(update) => {
                    let status = word(update.endpoint.state == "active" && up.contains(&update.endpoint.name));
                    let id = EndpointId::Workload(update.id.clone());
                    if self.statuses.get(&id) != Some(&status) {
                        answers.workload(&update.id, &update.endpoint, status);
                    }
                    now.insert(id, status);
                }
                ToDataplane::HostEndpointUpdate(update) if !super::session::is_ours(update) => {
                    let name = update.endpoint.name.as_str();
                    let status = word(name.is_empty() || name == "*" || up.contains(name));
                    let id = EndpointId::Host(update.endpoint_id.clone());
                    if self.statuses.get(&id) != Some(&status) {
                        answers.host(&update.endpoint_id, status);
                    }
                    now.insert(id, status);
                }
                _ => {}
            }
        }
        let gone = self.statuses.keys().filter(|id| !now.contains_key(id));
        gone.for_each(|id| answers.gone(id));
        self.statuses = now;
    }
}

/// As if the user had written it, so that nobody has what somebody else has already.
fn carry_out(intent: &Intent, plan: &Plan) -> Result<(), crate::refusal::Refusal> {
    let (mut gone, mut wanted) = (vec![], vec![]);
    for planned in &plan.changes {
        let origin = planned.origin.clone();
        match &planned.after {
            Some(resource) => wanted.push(Document {
                origin,
                resource: (**resource).clone(),
            }),
            // The user may have deleted it already.
            None if intent.store().get(&planned.key).is_none() => {}
            None => gone.push(Named {
                origin,
                key: planned.key.clone(),
            }),
        }
    }
    if !gone.is_empty() {
        intent.carry_out(Request::Delete(gone))?;
    }
    if !wanted.is_empty() {
        intent.carry_out(Request::Apply(wanted))?;
    }
    Ok(())
}

/// Messages to Felix.
#[derive(Default)]
struct Answers(Vec<From>);

impl Answers {
    fn say(&mut self, payload: From) {
        self.0.push(payload);
    }

    fn key(&mut self, key: WireguardStatusUpdate) {
        self.say(From::WireguardStatusUpdate(wire::WireguardStatusUpdate {
            public_key: key.public_key,
            ip_version: key.ip_version as i32,
        }));
    }

    fn workload(&mut self, id: &WorkloadEndpointId, endpoint: &WorkloadEndpoint, status: &str) {
        self.say(From::WorkloadEndpointStatusUpdate(wire::WorkloadEndpointStatusUpdate {
            id: Some(workload_id(id)),
            status: Some(status_of(status)),
            endpoint: Some(wire::WorkloadEndpoint {
                state: endpoint.state.clone(),
                name: endpoint.name.clone(),
                mac: endpoint.mac.clone(),
                ipv4_nets: endpoint.ipv4_nets.clone(),
                ipv6_nets: endpoint.ipv6_nets.clone(),
                ..Default::default()
            }),
        }));
    }

    fn host(&mut self, id: &str, status: &str) {
        self.say(From::HostEndpointStatusUpdate(wire::HostEndpointStatusUpdate {
            id: Some(host_id(id)),
            status: Some(status_of(status)),
        }));
    }

    fn gone(&mut self, id: &EndpointId) {
        self.say(match id {
            EndpointId::Workload(id) => From::WorkloadEndpointStatusRemove(wire::WorkloadEndpointRemove {
                id: Some(workload_id(id)),
            }),
            EndpointId::Host(id) => From::HostEndpointStatusRemove(wire::HostEndpointRemove { id: Some(host_id(id)) }),
        });
    }

    /// As frames, each with the next number.
    fn number(self, sequence: &mut u64) -> Vec<u8> {
        let mut bytes = vec![];
        for payload in self.0 {
            *sequence += 1;
            let message = wire::FromDataplane {
                sequence_number: *sequence,
                payload: Some(payload),
            };
            frames::put(&mut bytes, &message);
        }
        bytes
    }
}

fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Seconds since 1970 as `2026-08-01T12:00:00Z` (RFC 3339). Years begin in March here, so that leap days come last.
fn iso_timestamp(unix_s: u64) -> String {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // From the first of March of the year 0.
    let days = unix_s / 86_400 + 719_468;
    let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march_months = (5 * day + 2) / 153;
    let month = (march_months + 2) % 12 + 1;
    let day = day - (153 * march_months + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month <= 2);
    let [hour, minute, second] = [unix_s / 3_600 % 24, unix_s / 60 % 60, unix_s % 60];
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn status_of(status: &str) -> wire::EndpointStatus {
    wire::EndpointStatus {
        status: status.to_owned(),
    }
}

fn workload_id(id: &WorkloadEndpointId) -> wire::WorkloadEndpointId {
    wire::WorkloadEndpointId {
        orchestrator_id: id.orchestrator_id.clone(),
        workload_id: id.workload_id.clone(),
        endpoint_id: id.endpoint_id.clone(),
    }
}

fn host_id(id: &str) -> wire::HostEndpointId {
    wire::HostEndpointId {
        endpoint_id: id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_felix_reads_them() {
        for (unix_s, written) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
        ] {
            assert_eq!(iso_timestamp(unix_s), written);
        }
    }
}
