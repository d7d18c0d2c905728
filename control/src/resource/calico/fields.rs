//! Field types that Calico's kinds share.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::agent::selector::{NotASelector, Selector};
use crate::resource::Invalid;
use crate::resource::fields::Text;

/// The longest name of a port, in bytes (Calico's API).
const PORT_NAME_BYTES: usize = 128;
/// Protocols that are known by a name, with their numbers (IANA protocol numbers).
const PROTOCOLS: &[(&str, u8)] = &[
    ("TCP", 6),
    ("UDP", 17),
    ("ICMP", 1),
    ("ICMPv6", 58),
    ("SCTP", 132),
    ("UDPLite", 136),
];

/// A protocol, as Calico's API writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// By name, as documents have it: TCP, UDP, ICMP, ICMPv6, SCTP or UDPLite.
    Name(&'static str),
    /// By number, 1 to 255.
    Number(u8),
}

impl Protocol {
    /// Its number (IANA).
    pub fn number(self) -> u8 {
        match self {
            Self::Number(number) => number,
            Self::Name(name) => PROTOCOLS
                .iter()
                .find(|(known, _)| *known == name)
                .map_or(0, |(_, number)| *number),
        }
    }

    /// Whether its packets have ports that rules look at: TCP, UDP and SCTP.
    pub fn has_ports(self) -> bool {
        matches!(self.number(), 6 | 17 | 132)
    }

    /// Of a name in any case, or of a number.
    pub fn from_text(text: &str) -> Option<Self> {
        let named = PROTOCOLS.iter().find(|(known, _)| known.eq_ignore_ascii_case(text));
        let number = || text.parse().ok().filter(|number| *number > 0).map(Self::Number);
        named.map(|(name, _)| Self::Name(name)).or_else(number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => out.write_str(name),
            Self::Number(number) => number.fmt(out),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name),
            Self::Number(number) => serializer.serialize_u8(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText {
            expected: "TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255",
            number: |number| u8::try_from(number).ok().filter(|number| *number > 0).map(Self::Number),
            text: Self::from_text,
        })
    }
}

/// Ports a rule names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ports {
    /// From the first to the last, both among them.
    Range(u16, u16),
    /// Whatever port of an endpoint has this name.
    Named(String),
}

impl Ports {
    fn from_text(text: &str) -> Option<Self> {
        if let Some((first, last)) = text.split_once(':') {
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            return (first <= last).then_some(Self::Range(first, last));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(|port| Self::Range(port, port));
        }
        is_port_name(text).then(|| Self::Named(text.to_owned()))
    }
}

/// Whether a port can be called so.
pub(super) fn is_port_name(text: &str) -> bool {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=PORT_NAME_BYTES).contains(&text.len()) && text.bytes().all(in_name)
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Range(first, last) if first == last => serializer.serialize_u16(*first),
            Self::Range(first, last) => serializer.collect_str(&format_args!("{first}:{last}")),
            Self::Named(name) => serializer.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText {
            expected: "a port from 0 to 65535, a range such as 8000:8999 with the lower first, or a port's name",
            number: |number| u16::try_from(number).ok().map(|port| Self::Range(port, port)),
            text: Self::from_text,
        })
    }
}

/// Prefixes with nothing beyond their length; an address is a prefix of its full length.
pub(in crate::resource) fn nets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    struct Net(IpNet);

    impl<'de> Deserialize<'de> for Net {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let net: IpNet = deserializer.deserialize_str(Text {
                expected: "a prefix such as 10.20.0.0/16 or fd00:20::/32, or an address",
                parse: address_or_prefix,
            })?;
            if net == net.trunc() {
                return Ok(Self(net));
            }
            Err(D::Error::custom(format_args!(
                "{net} has bits set beyond its prefix length; write {} for the prefix, or {} for the one address",
                net.trunc(),
                net.addr()
            )))
        }
    }

    let nets = Vec::<Net>::deserialize(deserializer)?;
    Ok(nets.into_iter().map(|Net(net)| net).collect())
}

/// Addresses, each also as a prefix of its full length.
pub(super) fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    struct Address(IpAddr);

    impl<'de> Deserialize<'de> for Address {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_str(Text {
                expected: "an address, such as 10.20.0.1, 10.20.0.1/32 or fd00:20::1",
                parse: |text| {
                    let net = address_or_prefix(text)?;
                    (net.prefix_len() == net.max_prefix_len()).then_some(Self(net.addr()))
                },
            })
        }
    }

    let addresses = Vec::<Address>::deserialize(deserializer)?;
    Ok(addresses.into_iter().map(|Address(address)| address).collect())
}

/// A selector; an empty text is none.
pub(super) fn selector<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Selector>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)?.filter(|text| !text.trim().is_empty()) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|NotASelector { character, reason }| {
        D::Error::custom(format_args!(
            "`{}` is not a selector: at character {character}, {reason}",
            excerpt(&text)
        ))
    })
}

/// A number that orders; without one, what it is of comes last.
pub(super) fn order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    // What is no number in YAML, such as .nan, is null in JSON.
    let expected = "expected a finite number; leave it out to come last";
    let number = Option::<f64>::deserialize(deserializer)?.filter(|number| number.is_finite());
    number.map(Some).ok_or_else(|| D::Error::custom(expected))
}

/// `global()` says something of namespaces; elsewhere it was not meant.
pub(super) fn not_global(selector: Option<&Selector>, field: &str) -> Result<(), Invalid> {
    if selector.is_some_and(Selector::is_global) {
        let reason = "has `global()`, which is for the namespaceSelector of a rule";
        return Err(Invalid::at(field, reason));
    }
    Ok(())
}

/// Whether `name` is a DNS subdomain (RFC 1123), as most kinds of Kubernetes and Calico are named.
pub(crate) fn check_subdomain(name: &str) -> Result<(), String> {
    const BYTES: usize = 253;
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(|&byte| inner(byte) && byte != b'-');
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|&byte| inner(byte))
    };
    if name.len() <= BYTES && name.split('.').all(is_part) {
        return Ok(());
    }
    Err(format!(
        "`{}` is not a name; expected 1 to {BYTES} lower-case letters, digits, `-` and `.`, with a letter or digit at both ends and beside each dot",
        excerpt(name)
    ))
}

/// As much of a text as a sentence can hold.
pub(crate) fn excerpt(text: &str) -> String {
    const CHARACTERS: usize = 120;
    let mut short = String::new();
    for character in text.chars().take(CHARACTERS) {
        match character.is_control() {
            true => short.extend(character.escape_debug()),
            false => short.push(character),
        }
    }
    if text.chars().nth(CHARACTERS).is_some() {
        short.push('…');
    }
    short
}

fn address_or_prefix(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok();
    net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// A number, or a text that stands for one.
pub(in crate::resource) struct NumberOrText<T> {
    pub(in crate::resource) expected: &'static str,
    pub(in crate::resource) number: fn(u64) -> Option<T>,
    pub(in crate::resource) text: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.expected)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        (self.number)(number).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(&excerpt(text)), &self))
    }
}
