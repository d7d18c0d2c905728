//! What becomes of a packet between two ends, and why: asked of the compiled policies that workers have, so the answer
//! cannot be another than that of the packets.

use std::net::IpAddr;

use classifier::classify::{Cause, Decision, Verdict as Judged};
use classifier::endpoints::{Barred, Endpoints, Passage, Side};
use classifier::packet::Packet;
use classifier::program::{ChainId, Direction, PolicyId};
use classifier::rule::IpVersion;
use fastpath::meta::{Endpoint as Transport, PortId};

use super::Enforcement;
use super::ports::{Who, addresses};

/// A packet that might be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// A pod (`namespace/name`, or its name), a host endpoint, `host`, or an address.
    pub from: String,
    /// The same.
    pub to: String,
    /// IP protocol number; that of ICMP stands for ICMPv6, too.
    pub protocol: u8,
    /// Source port.
    pub source_port: u16,
    /// Target port; of ICMP, type and code as one number.
    pub port: u16,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Allow,
    /// It is dropped.
    Deny,
    /// It is left to the next tier, or to other policy.
    Pass,
}

/// Something that was decided on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whose policy: of which end.
    pub endpoint: String,
    /// Which of its policies: `egress`, `ingress`, `forward`, `host`, `pre-dnat`, `untracked`; empty where it is no
    /// policy that decided.
    pub stage: &'static str,
    /// The tier, where one decided.
    pub tier: Option<String>,
    /// The policy or profile, where one decided.
    pub policy: Option<String>,
    /// The rule that decided, counted from 0.
    pub rule: Option<u32>,
    /// What it decided.
    pub verdict: Verdict,
    /// As if staged policies were in force. It decides nothing now.
    pub pending: bool,
    /// In words.
    pub reason: String,
}

/// What becomes of a packet, and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What becomes of it.
    pub verdict: Verdict,
    /// What would, if staged policies were in force; nothing where there are none.
    pub pending: Option<Verdict>,
    /// The way.
    pub steps: Vec<Step>,
}

/// One end.
struct Place {
    side: Side,
    address: IpAddr,
    name: String,
}

impl Enforcement {
    /// What becomes of a packet. Where an address is that no endpoint has, `route` knows.
    ///
    /// # Errors
    /// A sentence, if it is not clear who is meant.
    pub fn explain(&mut self, question: &Question, route: &dyn Fn(IpAddr) -> Option<PortId>) -> Result<Answer, String> {
        let (from, to) = self.ends(question, route)?;
        let version = match from.address {
            IpAddr::V4(_) => IpVersion::V4,
            IpAddr::V6(_) => IpVersion::V6,
        };
        let is_icmp = IpVersion::ALL.iter().any(|any| any.icmp() == question.protocol);
        let packet = Packet {
            source: transport(from.address, question.source_port),
            target: transport(to.address, question.port),
            protocol: if is_icmp { version.icmp() } else { question.protocol },
            version,
            chain: ChainId::default(),
        };
        let mut way = Way {
            enforcement: self,
            packet,
            steps: vec![],
            pending: None,
        };
        let verdict = way.walk(&from, &to);
        Ok(Answer {
            verdict,
            pending: way
                .pending
                .map(|denies| if denies { Verdict::Deny } else { Verdict::Allow }),
            steps: way.steps,
        })
    }

    /// Both ends, with addresses of one family.
    fn ends(&self, question: &Question, route: &dyn Fn(IpAddr) -> Option<PortId>) -> Result<(Place, Place), String> {
        let (from, to) = (self.places(&question.from, route)?, self.places(&question.to, route)?);
        let pair = from.into_iter().find_map(|from| {
            let same = |to: &&Place| to.address.is_ipv4() == from.address.is_ipv4();
            let to = to.iter().find(same)?;
            let to = Place {
                name: to.name.clone(),
                ..*to
            };
            Some((from, to))
        });
        let (from, to) = (&question.from, &question.to);
        pair.ok_or_else(|| format!("`{from}` and `{to}` have no addresses of one family: name addresses instead"))
    }

    fn places(&self, text: &str, route: &dyn Fn(IpAddr) -> Option<PortId>) -> Result<Vec<Place>, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(vec![self.place_of(address, route)?]);
        }
        let here = |addresses: Vec<IpAddr>| {
            let name = text.to_owned();
            let place = |address| Place {
                side: Side::Host,
                address,
                name: name.clone(),
            };
            addresses.into_iter().map(place).collect::<Vec<_>>()
        };
        if let Some(host) = self.ports.host(text) {
            let port = self
                .ports
                .iter()
                .find(|(port, _)| self.ports.who(*port) == Some(&Who::Host(text.to_owned())));
            let expected = host.expected_ipv4_addrs.iter().chain(&host.expected_ipv6_addrs);
            let mut addresses: Vec<IpAddr> = expected.filter_map(|text| text.parse().ok()).collect();
            addresses.extend(port.into_iter().flat_map(|(_, info)| &info.addresses));
            return Ok(here(addresses));
        }
        if text == "host" {
            return Ok(here(
                self.ports.iter().flat_map(|(_, info)| info.addresses.clone()).collect(),
            ));
        }
        let named = |id: &str| id == text || id.rsplit('/').next() == Some(text);
        let found: Vec<_> = self
            .ports
            .workloads()
            .filter(|(id, _)| named(&id.workload_id))
            .collect();
        match &found[..] {
            [] => Err(format!(
                "there is no workload, host endpoint or address `{}`; `margay get WorkloadEndpoint -A` lists workloads",
                text.escape_debug()
            )),
            [(id, workload)] => {
                let interface = &workload.name;
                let port = self.ports.named(interface).ok_or_else(|| {
                    format!(
                        "the interface `{interface}` of {} is no port of this plane",
                        id.workload_id
                    )
                })?;
                let place = |net: ipnet::IpNet| Place {
                    side: Side::Port(port),
                    address: net.addr(),
                    name: id.workload_id.clone(),
                };
                Ok(addresses(workload).map(place).collect())
            }
            several => {
                let names: Vec<&str> = several.iter().map(|(id, _)| id.workload_id.as_str()).collect();
                Err(format!(
                    "`{text}` is several workloads: {}; say which",
                    names.join(", ")
                ))
            }
        }
    }

    fn place_of(&self, address: IpAddr, route: &dyn Fn(IpAddr) -> Option<PortId>) -> Result<Place, String> {
        let name = address.to_string();
        let has = |net: ipnet::IpNet| net.contains(&address);
        let workload = self
            .ports
            .workloads()
            .find(|(_, workload)| addresses(workload).any(has));
        if let Some((id, workload)) = workload
            && let Some(port) = self.ports.named(&workload.name)
        {
            let (side, name) = (Side::Port(port), id.workload_id.clone());
            return Ok(Place { side, address, name });
        }
        let side = match self.ports.iter().any(|(_, info)| info.addresses.contains(&address)) {
            true => Side::Host,
            false => Side::Port(route(address).ok_or_else(|| format!("there is no route to {address}"))?),
        };
        Ok(Place { side, address, name })
    }
}

fn transport(address: IpAddr, port: u16) -> Transport {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    Transport { address, port }
}

/// A packet's way through all policy between two ends.
struct Way<'a> {
    enforcement: &'a mut Enforcement,
    packet: Packet,
    steps: Vec<Step>,
    /// Whether staged policies would deny it, where there are any.
    pending: Option<bool>,
}

impl Way<'_> {
    fn walk(&mut self, from: &Place, to: &Place) -> Verdict {
        let endpoints = self.enforcement.compiler.endpoints().clone();
        if !endpoints.settings().in_force {
            self.say(
                &from.name,
                Verdict::Allow,
                "no endpoint has policy, so everything passes",
            );
            return Verdict::Allow;
        }
        if let Side::Port(port) = from.side {
            let sender = endpoints.sender(port);
            if !sender.may_send_from(&self.packet.source, self.packet.version) {
                self.say(
                    &from.name,
                    Verdict::Deny,
                    "the source address is not one of the workload's",
                );
                return Verdict::Deny;
            }
            if let Some(chain) = sender.untracked(&self.packet) {
                match self.ask(chain, &from.name, "untracked", Direction::Ingress) {
                    Verdict::Pass => {}
                    decided => return decided,
                }
            }
            if let Some(chain) = endpoints.before_services(port, &self.packet)
                && self.ask(chain, &from.name, "pre-dnat", Direction::Ingress) == Verdict::Deny
            {
                return Verdict::Deny;
            }
        }
        let passage = match endpoints.passage(from.side, to.side, &self.packet) {
            Ok(passage) => passage,
            Err(barred) => {
                let who = if barred == Barred::Undescribed {
                    &to.name
                } else {
                    &from.name
                };
                self.say(who, Verdict::Deny, sentence(barred));
                return Verdict::Deny;
            }
        };
        if passage[0].is_none() {
            self.say(
                &from.name,
                Verdict::Allow,
                "no policy stands between these ends, or a failsafe port is meant",
            );
        }
        self.follow(&endpoints, passage, (from, to))
    }

    /// Asks the chains between two ends.
    fn follow(&mut self, endpoints: &Endpoints, passage: Passage, (from, to): (&Place, &Place)) -> Verdict {
        let of = |side: Side| match side {
            Side::Port(port) => endpoints.get(port),
            Side::Host => None,
        };
        for chain in passage.into_iter().flatten() {
            let here = Some(chain);
            let (place, stage, direction) = match (of(from.side), of(to.side)) {
                (Some(end), _) if end.workload.is_some() && end.sends[1] == here => (from, "egress", Direction::Egress),
                (Some(end), _) if end.sends[0] == here => (from, "forward", Direction::Ingress),
                (Some(end), None) if end.to_host == here => (from, "host", Direction::Ingress),
                (_, Some(end)) if end.from_host == here => (to, "host", Direction::Egress),
                (_, Some(end)) if end.workload.is_some() && end.receives[0] == here => {
                    (to, "ingress", Direction::Ingress)
                }
                _ => (to, "forward", Direction::Egress),
            };
            if self.ask(chain, &place.name, stage, direction) == Verdict::Deny {
                return Verdict::Deny;
            }
        }
        Verdict::Allow
    }

    fn say(&mut self, endpoint: &str, verdict: Verdict, reason: &str) {
        self.steps.push(Step {
            endpoint: endpoint.to_owned(),
            stage: "",
            tier: None,
            policy: None,
            rule: None,
            verdict,
            pending: false,
            reason: reason.to_owned(),
        });
    }

    /// Asks one chain, and notes what it says.
    fn ask(&mut self, chain: ChainId, endpoint: &str, stage: &'static str, direction: Direction) -> Verdict {
        let packet = Packet { chain, ..self.packet };
        let mut classifier = self.enforcement.compiler.classifier();
        let (judgement, passed) = classifier.vector().explain(&packet);
        let mut note = |tier: Option<u16>, rule: Option<(PolicyId, u32)>, verdict, pending, reason: String| {
            let policy = rule.and_then(|(policy, _)| self.enforcement.book.name(policy));
            let step = Step {
                endpoint: endpoint.to_owned(),
                stage,
                tier: tier
                    .and_then(|tier| self.enforcement.ports.tier(chain, tier))
                    .map(str::to_owned),
                policy: policy.map(ToString::to_string),
                rule: rule.map(|(_, rule)| rule).filter(|rule| *rule != u32::MAX),
                verdict,
                pending,
                reason,
            };
            self.steps.push(step);
        };
        for (decision, pending) in [(Some(judgement.decision), false), (judgement.pending, true)] {
            let Some(decision) = decision else { continue };
            for passed in passed.iter().filter(|passed| passed.pending == pending) {
                let rule = Some((passed.policy, passed.rule));
                note(
                    Some(passed.tier),
                    rule,
                    Verdict::Pass,
                    pending,
                    "a rule passes it to the next tier".to_owned(),
                );
            }
            let (tier, rule, reason) = because(decision.cause);
            note(tier, rule, verdict(decision), pending, reason.to_owned());
        }
        if let Some((policy, rule)) = because(judgement.decision.cause).1
            && let Some(step) = self.steps.iter_mut().rev().find(|step| !step.pending)
            && let Some(action) = self.enforcement.action(policy, direction_of(direction, stage), rule)
        {
            step.reason = format!("{} (action `{action}`)", step.reason);
        }
        let pending = judgement.pending.unwrap_or(judgement.decision).verdict == Judged::Deny;
        if judgement.pending.is_some() || self.pending.is_some() {
            self.pending = Some(self.pending.unwrap_or_default() || pending);
        }
        verdict(judgement.decision)
    }
}

/// Which rules of a policy are meant.
fn direction_of(direction: Direction, stage: &str) -> Direction {
    match stage {
        "egress" => Direction::Egress,
        "ingress" | "untracked" | "pre-dnat" => Direction::Ingress,
        _ => direction,
    }
}

fn verdict(decision: Decision) -> Verdict {
    match decision.verdict {
        Judged::Allow => Verdict::Allow,
        Judged::Deny => Verdict::Deny,
        Judged::Undecided => Verdict::Pass,
    }
}

/// Tier, policy and rule, and the reason in words.
pub(super) fn because(cause: Cause) -> (Option<u16>, Option<(PolicyId, u32)>, &'static str) {
    match cause {
        Cause::Rule { tier, policy, rule } => (Some(tier), Some((policy, rule)), "a rule of a policy"),
        Cause::Profile { policy, rule } => (None, Some((policy, rule)), "a rule of a profile"),
        Cause::EndOfTier { tier } => (Some(tier), None, "no policy of the tier allows it"),
        Cause::EndOfChain => (None, None, "no rule decides"),
        Cause::Unfinished { policy } => (
            None,
            Some((policy, u32::MAX)),
            "the policy is not there, or names a set that is not",
        ),
        Cause::NoChain => (None, None, "the endpoint's policy is not there"),
    }
}

pub(super) fn sentence(barred: Barred) -> &'static str {
    match barred {
        Barred::Undescribed => "nobody said who is behind the port at one end",
        Barred::Down => "the workload at one end is administratively down",
        Barred::ToHost => "DefaultEndpointToHostAction drops what workloads send to this host",
        Barred::Encapsulated => "workloads may not send VXLAN or IP within IP",
    }
}
