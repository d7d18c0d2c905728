//! Which connections: `host 10.1.0.2 and tcp port 80`. Every part has to match; an end matches before translation or after.

use std::collections::HashMap;
use std::net::IpAddr;

use fastpath::meta::{Endpoint, VrfId};
use fastpath::wire::protocol;
use ipnet::IpNet;
use nat::key::Key;

use crate::refusal::Refusal;

/// What a filter may consist of.
const EXPECTED: &str = "expected parts such as `host 10.1.0.2`, `net 10.0.0.0/8`, `port 80`, `proto 47`, `vrf red` or `tcp`, joined by `and`";

const PROTOCOLS: [(&str, u8); 6] = [
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("sctp", protocol::SCTP),
    ("icmp", protocol::ICMP),
    ("icmp6", protocol::ICMPV6),
    ("udplite", protocol::UDP_LITE),
];

/// An expression over connections; the empty one matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Net(IpNet),
    Port(u16),
    Protocol(u8),
    Vrf(String),
}

impl Filter {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is not understood, and what was expected.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let mut words = text.split_whitespace().filter(|word| *word != "and");
        let mut parts = vec![];
        while let Some(word) = words.next() {
            let known = PROTOCOLS.iter().find(|(name, _)| *name == word);
            parts.push(match (known, word) {
                (Some((_, number)), _) => Part::Protocol(*number),
                (None, "host" | "net" | "port" | "proto" | "vrf") => {
                    let value = words.next().unwrap_or_default();
                    Part::read(word, value).ok_or_else(|| not_understood(&format!("{word} {value}")))?
                }
                (None, _) => return Err(not_understood(word)),
            });
        }
        Ok(Self(parts))
    }

    /// Whether it matches every connection.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn matches(&self, [there, back]: &[Key; 2], vrfs: &HashMap<VrfId, String>) -> bool {
        let ends = [there.source(), there.target(), back.source(), back.target()];
        let any = |is: &dyn Fn(&Endpoint) -> bool| ends.iter().any(is);
        self.0.iter().all(|part| match part {
            Part::Net(net) => any(&|end| net.contains(&end.ip())),
            Part::Port(port) => any(&|end| end.port == *port),
            Part::Protocol(number) => there.protocol() == *number,
            Part::Vrf(name) => vrfs.get(&there.vrf()) == Some(name),
        })
    }
}

impl Part {
    fn read(kind: &str, value: &str) -> Option<Self> {
        Some(match kind {
            "host" => Part::Net(value.parse::<IpAddr>().ok()?.into()),
            "net" => Part::Net(value.parse().ok()?),
            "port" => Part::Port(value.parse().ok()?),
            "proto" => {
                let known = PROTOCOLS.iter().find(|(name, _)| *name == value);
                Part::Protocol(known.map_or_else(|| value.parse().ok(), |(_, number)| Some(*number))?)
            }
            _ => Part::Vrf(value.to_owned()),
        })
    }
}

fn not_understood(what: &str) -> Refusal {
    Refusal::new(format!(
        "`{}` is not understood; {EXPECTED}",
        what.trim().escape_debug()
    ))
}

/// The name of a protocol, or else its number.
pub(crate) fn name_of(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(_, other)| *other == number);
    known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read() {
        let read = |text| Filter::parse(text).unwrap().0;
        assert_eq!(read(""), []);
        let expected = [
            Part::Net("10.1.0.2/32".parse().unwrap()),
            Part::Protocol(6),
            Part::Port(80),
        ];
        assert_eq!(read("host 10.1.0.2 and tcp port 80"), expected);
        assert_eq!(read("proto udp"), read("udp"));
        assert_eq!(
            read("proto 47 vrf red"),
            [Part::Protocol(47), Part::Vrf("red".to_owned())]
        );
        assert_eq!(read("net fd00::/8"), [Part::Net("fd00::/8".parse().unwrap())]);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, part) in [
            ("hst 10.1.0.2", "hst"),
            ("tcp and port 70000", "port 70000"),
            ("host", "host"),
            ("net 10.0.0.0/33", "net 10.0.0.0/33"),
            ("proto ftp", "proto ftp"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
        ] {
            let refusal = Filter::parse(text).unwrap_err();
            assert_eq!(refusal.error, format!("`{part}` is not understood; {EXPECTED}"));
        }
    }
}
