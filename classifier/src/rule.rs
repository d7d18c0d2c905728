//! Rules as written: what a packet must look like, and what happens to it then.
//!
//! A rule matches when every condition that is there holds. An empty list is no condition.

use ipnet::IpNet;

/// What happens to a packet that a rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// It may go on.
    #[default]
    Allow,
    /// It is dropped.
    Deny,
    /// It leaves the tier, and the next one decides. In a profile, which is the last: denied.
    Pass,
    /// It is reported, and the next rule is tried.
    Log,
}

/// An IP version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// Both.
    pub const ALL: [IpVersion; 2] = [IpVersion::V4, IpVersion::V6];

    /// The protocol number of its ICMP (RFC 792, RFC 4443).
    pub fn icmp(self) -> u8 {
        match self {
            IpVersion::V4 => 1,
            IpVersion::V6 => 58,
        }
    }
}

/// Protocols whose packets have ports: TCP, UDP, SCTP, UDP-Lite. Conditions on ports mean these.
pub const WITH_PORTS: [u8; 4] = [6, 17, 132, 136];

/// Names a set of members, see [`crate::sets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(pub u32);

impl SetId {
    /// A set that is not there: a policy that names it denies every packet that comes to it.
    pub const MISSING: SetId = SetId(u32::MAX);
}

/// Ports from `first` to `last`, both among them. Port 0 is a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl Ports {
    /// Every port.
    pub const ALL: Ports = Ports {
        first: 0,
        last: u16::MAX,
    };

    /// A single one.
    pub fn one(port: u16) -> Ports {
        Ports {
            first: port,
            last: port,
        }
    }

    /// Whether `port` is among them.
    pub fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// A kind of ICMP message, of the packet's own IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// Its type.
    pub kind: u8,
    /// Its code; any if there is none.
    pub code: Option<u8>,
}

impl Icmp {
    /// Type and code as one number, as [`Endpoint::port`](fastpath::meta::Endpoint) has them: those that it means.
    pub fn range(self) -> Ports {
        let first = u16::from(self.kind) << 8;
        match self.code {
            Some(code) => Ports::one(first | u16::from(code)),
            None => Ports {
                first,
                last: first | 0xff,
            },
        }
    }
}

/// Conditions on one end of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct End {
    /// The address is in one of these. Those of the other IP version are left out; if none remain, no packet matches.
    pub networks: Vec<IpNet>,
    /// The address is in none of these.
    pub not_networks: Vec<IpNet>,
    /// The address is in every one of these.
    pub sets: Vec<SetId>,
    /// The address is in none of these.
    pub not_sets: Vec<SetId>,
    /// The port is in one of these, or as `named_ports` says.
    pub ports: Vec<Ports>,
    /// Address, protocol and port are in one of these, or as `ports` says.
    pub named_ports: Vec<SetId>,
    /// The port is in none of these.
    pub not_ports: Vec<Ports>,
    /// Address, protocol and port are in none of these.
    pub not_named_ports: Vec<SetId>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What happens to the packets it matches.
    pub action: Action,
    /// Only packets of this version.
    pub ip_version: Option<IpVersion>,
    /// The IP protocol. ICMP (1) means IPv4, ICMPv6 (58) means IPv6.
    pub protocol: Option<u8>,
    /// Any IP protocol but this one.
    pub not_protocol: Option<u8>,
    /// Only ICMP of this kind.
    pub icmp: Option<Icmp>,
    /// No ICMP of this kind.
    pub not_icmp: Option<Icmp>,
    /// Where the packet comes from.
    pub source: End,
    /// Where it goes to: after services are translated, but in untracked and pre-DNAT policy.
    pub target: End,
    /// Target address, protocol and target port are in every one of these.
    pub services: Vec<SetId>,
}

impl Rule {
    /// One that matches every packet.
    pub fn all(action: Action) -> Rule {
        Rule {
            action,
            ..Rule::default()
        }
    }

    /// The sets of addresses it names.
    pub fn address_sets(&self) -> impl Iterator<Item = SetId> + '_ {
        let ends = [&self.source, &self.target].into_iter();
        ends.flat_map(|end| end.sets.iter().chain(&end.not_sets).copied())
    }

    /// The sets of addresses with protocol and port it names.
    pub fn port_sets(&self) -> impl Iterator<Item = SetId> + '_ {
        let ends = [&self.source, &self.target].into_iter();
        ends.flat_map(|end| end.named_ports.iter().chain(&end.not_named_ports).copied())
            .chain(self.services.iter().copied())
    }

    /// All names of sets.
    pub(crate) fn sets_mut(&mut self) -> impl Iterator<Item = &mut SetId> {
        let ends = [&mut self.source, &mut self.target].into_iter();
        ends.flat_map(|end| {
            [
                &mut end.sets,
                &mut end.not_sets,
                &mut end.named_ports,
                &mut end.not_named_ports,
            ]
        })
        .chain([&mut self.services])
        .flatten()
    }
}
