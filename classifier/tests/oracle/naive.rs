//! What Calico's rules mean, one packet, one rule, one condition at a time, without any of the product's machinery.

use classifier::classify::{Cause, Decision, Judgement, Logged, Verdict};
use classifier::packet::Packet;
use classifier::program::{Chain, DefaultAction, Direction, Last, Policy, PolicyId};
use classifier::rule::{Action, End, Icmp, IpVersion, Ports, Rule, SetId};
use classifier::sets::{Change, Member};
use fastpath::meta::Endpoint;
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// Members by set, policies by name. What is not here is not there.
#[derive(Clone, Debug, Default)]
pub struct Naive {
    pub sets: HashMap<SetId, HashSet<Member>>,
    pub policies: HashMap<PolicyId, Policy>,
}

/// What one pass along a chain finds.
struct Found {
    decision: Decision,
    logs: Vec<Logged>,
}

enum Answer {
    Decided(Verdict, u32),
    Pass(u32),
    Nothing,
    Unfinished,
}

impl Naive {
    pub fn change(&mut self, change: &Change) {
        let members = self.sets.get_mut(&change.set).expect("a set of this world");
        match change.present {
            true => members.insert(change.member),
            false => members.remove(&change.member),
        };
    }

    pub fn judge(&self, number: u8, packet: &Packet, chain: &Chain) -> (Judgement, Vec<Logged>) {
        let real = self.walk(number, packet, chain, false);
        let any_staged = chain
            .tiers
            .iter()
            .any(|tier| tier.policies.iter().any(|placed| placed.staged));
        let judgement = Judgement {
            decision: real.decision,
            pending: any_staged.then(|| self.walk(number, packet, chain, true).decision),
        };
        (judgement, real.logs)
    }

    fn walk(&self, number: u8, packet: &Packet, chain: &Chain, staged: bool) -> Found {
        let mut logs = vec![];
        let decided = |verdict, cause| Decision { verdict, cause };
        for (at, tier) in chain.tiers.iter().enumerate() {
            let mut policies = 0;
            let mut passed = false;
            for placed in tier.policies.iter().filter(|placed| staged || !placed.staged) {
                policies += 1;
                let (tier, policy) = (at as u16, placed.policy);
                match self.policy(number, packet, policy, chain.direction, Some(tier), &mut logs) {
                    Answer::Decided(verdict, rule) => {
                        let decision = decided(verdict, Cause::Rule { tier, policy, rule });
                        return Found { decision, logs };
                    }
                    Answer::Pass(_) => passed = true,
                    Answer::Nothing => continue,
                    Answer::Unfinished => {
                        let decision = decided(Verdict::Deny, Cause::Unfinished { policy });
                        return Found { decision, logs };
                    }
                }
                break;
            }
            if policies > 0 && !passed && tier.default == DefaultAction::Deny {
                let decision = decided(Verdict::Deny, Cause::EndOfTier { tier: at as u16 });
                return Found { decision, logs };
            }
        }
        let verdict = match &chain.last {
            Last::Allow => Verdict::Allow,
            Last::Undecided => Verdict::Undecided,
            Last::Profiles(profiles) => {
                for policy in profiles.iter().copied() {
                    let decision = match self.policy(number, packet, policy, chain.direction, None, &mut logs) {
                        Answer::Decided(verdict, rule) => decided(verdict, Cause::Profile { policy, rule }),
                        Answer::Pass(rule) => decided(Verdict::Deny, Cause::Profile { policy, rule }),
                        Answer::Unfinished => decided(Verdict::Deny, Cause::Unfinished { policy }),
                        Answer::Nothing => continue,
                    };
                    return Found { decision, logs };
                }
                Verdict::Deny
            }
        };
        let decision = decided(verdict, Cause::EndOfChain);
        Found { decision, logs }
    }

    fn policy(
        &self,
        number: u8,
        packet: &Packet,
        policy: PolicyId,
        direction: Direction,
        tier: Option<u16>,
        logs: &mut Vec<Logged>,
    ) -> Answer {
        let Some(written) = self.policies.get(&policy) else {
            return Answer::Unfinished;
        };
        let rules = match direction {
            Direction::Ingress => &written.ingress,
            Direction::Egress => &written.egress,
        };
        if rules.iter().any(|rule| !self.knows(rule)) {
            return Answer::Unfinished;
        }
        for (place, rule) in rules.iter().enumerate() {
            if !self.matches(rule, packet) {
                continue;
            }
            let rule_place = place as u32;
            match rule.action {
                Action::Allow => return Answer::Decided(Verdict::Allow, rule_place),
                Action::Deny => return Answer::Decided(Verdict::Deny, rule_place),
                Action::Pass => return Answer::Pass(rule_place),
                Action::Log => logs.push(Logged {
                    packet: number,
                    tier,
                    policy,
                    rule: rule_place,
                }),
            }
        }
        Answer::Nothing
    }

    /// Whether every set it names is there, and of the right kind.
    fn knows(&self, rule: &Rule) -> bool {
        let there = |set: &SetId| self.sets.contains_key(set);
        let ends = [&rule.source, &rule.target];
        ends.iter().all(|end| {
            let lists = [&end.sets, &end.not_sets, &end.named_ports, &end.not_named_ports];
            lists.into_iter().flatten().all(there)
        }) && rule.services.iter().all(there)
    }

    pub fn matches(&self, rule: &Rule, packet: &Packet) -> bool {
        let version = packet.version;
        if rule.ip_version.is_some_and(|wanted| wanted != version) {
            return false;
        }
        if rule.protocol == Some(1) && version == IpVersion::V6 || rule.protocol == Some(58) && version == IpVersion::V4
        {
            return false;
        }
        if rule.protocol.is_some_and(|protocol| protocol != packet.protocol) {
            return false;
        }
        if rule.not_protocol == Some(packet.protocol) {
            return false;
        }
        if rule.icmp.is_some_and(|icmp| !is_icmp(packet, icmp)) {
            return false;
        }
        if rule.not_icmp.is_some_and(|icmp| is_icmp(packet, icmp)) {
            return false;
        }
        if !rule
            .services
            .iter()
            .all(|set| self.has_port(*set, packet, &packet.target))
        {
            return false;
        }
        self.end(&rule.source, packet, &packet.source) && self.end(&rule.target, packet, &packet.target)
    }

    fn end(&self, rule: &End, packet: &Packet, end: &Endpoint) -> bool {
        let address = end.ip();
        let of_family = |network: &&IpNet| matches!(network, IpNet::V4(_)) == (packet.version == IpVersion::V4);
        if !rule.networks.is_empty()
            && !rule
                .networks
                .iter()
                .filter(of_family)
                .any(|network| network.contains(&address))
        {
            return false;
        }
        if rule
            .not_networks
            .iter()
            .filter(of_family)
            .any(|network| network.contains(&address))
        {
            return false;
        }
        if !rule.sets.iter().all(|set| self.has(*set, address)) {
            return false;
        }
        if rule.not_sets.iter().any(|set| self.has(*set, address)) {
            return false;
        }
        let in_ports = |ports: &[Ports]| {
            has_ports(packet)
                && ports
                    .iter()
                    .any(|ports| ports.first <= end.port && end.port <= ports.last)
        };
        let named = |sets: &[SetId]| sets.iter().any(|set| self.has_port(*set, packet, end));
        let asks = !rule.ports.is_empty() || !rule.named_ports.is_empty();
        if asks && !in_ports(&rule.ports) && !named(&rule.named_ports) {
            return false;
        }
        !in_ports(&rule.not_ports) && !named(&rule.not_named_ports)
    }

    fn has(&self, set: SetId, address: IpAddr) -> bool {
        self.sets[&set].iter().any(|member| match member {
            Member::Network(network) => network.contains(&address),
            Member::Port { .. } => false,
        })
    }

    fn has_port(&self, set: SetId, packet: &Packet, end: &Endpoint) -> bool {
        let member = Member::Port {
            address: end.ip(),
            protocol: packet.protocol,
            port: end.port,
        };
        has_ports(packet) && self.sets[&set].contains(&member)
    }
}

/// TCP, UDP, SCTP, UDP-Lite.
fn has_ports(packet: &Packet) -> bool {
    matches!(packet.protocol, 6 | 17 | 132 | 136)
}

fn is_icmp(packet: &Packet, icmp: Icmp) -> bool {
    let of_version = match packet.version {
        IpVersion::V4 => 1,
        IpVersion::V6 => 58,
    };
    let (kind, code) = ((packet.target.port >> 8) as u8, packet.target.port as u8);
    packet.protocol == of_version && kind == icmp.kind && icmp.code.is_none_or(|wanted| wanted == code)
}
