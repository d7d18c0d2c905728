//! Limits of rate and of connections, as Calico writes them for endpoints; a Port has the same.
//!
//! Ingress is what goes to whoever is behind the port, egress what comes from there.

use serde::de::{Deserialize, Deserializer};
use serde::{Deserialize as Read, Serialize, Serializer};

use super::Invalid;
use super::calico::NumberOrText;

/// Bits a second (Calico's bounds): 1 kbit/s to 1 Pbit/s.
const BANDWIDTH: (u64, u64) = (1_000, 1_000_000_000_000_000);
/// A peak rate is higher than a bandwidth.
const PEAK: (u64, u64) = (1_010, 1_010_000_000_000_000);
/// Bits: 32 bits of bytes (Calico's bounds).
const BURST: (u64, u64) = (1_000, u32::MAX as u64 * 8);
/// Bytes.
const MINBURST: (u64, u64) = (1_000, 100_000_000);
/// Packets a second. Calico's end at 10,000, where iptables' do.
const PACKETS: (u64, u64) = (1, 1_000_000_000);
/// Connections.
const CONNECTIONS: (u64, u64) = (1, u32::MAX as u64);

/// How much may go to an endpoint or port, and come from it. What is left out, or 0, is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Read)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct QosControls {
    /// Bits a second to it, 1k to 1P.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub ingress_bandwidth: u64,
    /// Bits a second from it.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub egress_bandwidth: u64,
    /// Bits at once to it. Default: a quarter of a second's, at least 64 KiB.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub ingress_burst: u64,
    /// Bits at once from it.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub egress_burst: u64,
    /// Bits a second to it while the burst lasts. Default: as fast as they come.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub ingress_peakrate: u64,
    /// Bits a second from it while the burst lasts.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub egress_peakrate: u64,
    /// Bytes at once to it at the peak rate. Default: a frame.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub ingress_minburst: u64,
    /// Bytes at once from it at the peak rate.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub egress_minburst: u64,
    /// Packets a second to it.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub ingress_packet_rate: u64,
    /// Packets a second from it.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub egress_packet_rate: u64,
    /// Packets at once to it. Default: a quarter of a second's, at least 5.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub ingress_packet_burst: u64,
    /// Packets at once from it.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub egress_packet_burst: u64,
    /// Connections to it at one time. Refused: not available yet.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub ingress_max_connections: u64,
    /// Connections from it at one time. Refused: not available yet.
    #[serde(deserialize_with = "quantity", skip_serializing_if = "is_zero")]
    pub egress_max_connections: u64,
    /// What packets from it are marked with where they leave the cluster (RFC 2474).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
}

/// The limits of one direction; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectionControls {
    /// Bits a second.
    pub bandwidth: u64,
    /// Bits.
    pub burst: u64,
    /// Bits a second.
    pub peakrate: u64,
    /// Bytes.
    pub minburst: u64,
    /// Packets a second.
    pub packet_rate: u64,
    /// Packets.
    pub packet_burst: u64,
    /// Connections.
    pub max_connections: u64,
}

impl QosControls {
    /// Of what goes there.
    pub fn ingress(&self) -> DirectionControls {
        DirectionControls {
            bandwidth: self.ingress_bandwidth,
            burst: self.ingress_burst,
            peakrate: self.ingress_peakrate,
            minburst: self.ingress_minburst,
            packet_rate: self.ingress_packet_rate,
            packet_burst: self.ingress_packet_burst,
            max_connections: self.ingress_max_connections,
        }
    }

    /// Of what comes from there.
    pub fn egress(&self) -> DirectionControls {
        DirectionControls {
            bandwidth: self.egress_bandwidth,
            burst: self.egress_burst,
            peakrate: self.egress_peakrate,
            minburst: self.egress_minburst,
            packet_rate: self.egress_packet_rate,
            packet_burst: self.egress_packet_burst,
            max_connections: self.egress_max_connections,
        }
    }

    /// Whether the limits make sense, and go together. `field` is where they stand.
    pub(super) fn check(&self, field: &str) -> Result<(), Invalid> {
        check_direction(&self.ingress(), &format!("{field}.ingress"))?;
        check_direction(&self.egress(), &format!("{field}.egress"))
    }
}

fn check_direction(controls: &DirectionControls, field: &str) -> Result<(), Invalid> {
    let refuse = |name: &str, reason: String| Err(Invalid::at(format!("{field}{name}"), reason));
    let bounded = [
        ("Bandwidth", controls.bandwidth, BANDWIDTH, "bits a second"),
        ("Burst", controls.burst, BURST, "bits"),
        ("Peakrate", controls.peakrate, PEAK, "bits a second"),
        ("Minburst", controls.minburst, MINBURST, "bytes"),
        ("PacketRate", controls.packet_rate, PACKETS, "packets a second"),
        ("PacketBurst", controls.packet_burst, PACKETS, "packets"),
        ("MaxConnections", controls.max_connections, CONNECTIONS, "connections"),
    ];
    for (name, value, (least, most), unit) in bounded {
        if value != 0 && !(least..=most).contains(&value) {
            return refuse(
                name,
                format!("{value} {unit} is out of bounds; expected {least} to {most}, or nothing for no limit"),
            );
        }
    }
    if controls.max_connections != 0 {
        let reason = "limits of connections are not available in this version; leave it out";
        return refuse("MaxConnections", reason.to_owned());
    }
    let paired = [
        ("Burst", controls.burst, "Bandwidth", controls.bandwidth),
        ("Peakrate", controls.peakrate, "Bandwidth", controls.bandwidth),
        ("Minburst", controls.minburst, "Peakrate", controls.peakrate),
        ("PacketBurst", controls.packet_burst, "PacketRate", controls.packet_rate),
    ];
    let direction = field.rsplit('.').next().unwrap_or_default();
    for (name, value, needed, there) in paired {
        if value != 0 && there == 0 {
            return refuse(
                name,
                format!("limits nothing without {direction}{needed}; write that, too"),
            );
        }
    }
    if controls.peakrate != 0 && controls.peakrate <= controls.bandwidth {
        let (peak, bandwidth) = (controls.peakrate, controls.bandwidth);
        let reason = format!("{peak} bits a second is not above the {bandwidth} of {direction}Bandwidth");
        return refuse("Peakrate", reason);
    }
    Ok(())
}

/// What a packet is marked with: 0 to 63, or a name of RFC 2474, 2597, 3246, 5865 or 8622.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dscp(pub u8);

/// Class selectors and assured forwarding are made of their numbers.
const NAMES: &[(&str, u8)] = &[("DF", 0), ("EF", 46), ("VA", 44), ("LE", 1)];

impl Dscp {
    /// What is one.
    pub const EXPECTED: &'static str = "a DSCP from 0 to 63, or a name such as EF, AF41 or CS5";

    /// A number from 0 to 63, or a name.
    pub fn from_text(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        let named = NAMES.iter().find(|(name, _)| *name == upper).map(|named| named.1);
        let digit = |byte: u8, most: u8| Some(byte.wrapping_sub(b'0')).filter(|digit| *digit <= most);
        let made = || match upper.as_bytes() {
            [b'C', b'S', class] => Some(digit(*class, 7)? << 3),
            [b'A', b'F', class @ b'1'..=b'4', drop @ b'1'..=b'3'] => {
                Some(digit(*class, 4)? << 3 | digit(*drop, 3)? << 1)
            }
            _ => None,
        };
        let number = || text.parse().ok().filter(|number| *number < 64);
        named.or_else(made).or_else(number).map(Self)
    }
}

impl Serialize for Dscp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for Dscp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText {
            expected: Self::EXPECTED,
            number: |number| u8::try_from(number).ok().filter(|number| *number < 64).map(Self),
            text: Self::from_text,
        })
    }
}

/// A whole number, or one with a suffix as Kubernetes has them: `10M`, `4Gi`.
fn quantity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(NumberOrText {
        expected: "a whole number, which may have a suffix such as k, M, G, Ki, Mi or Gi: 10M",
        number: Some,
        text: quantity_from_text,
    })
}

fn quantity_from_text(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    // No sign: `parse` takes one.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = plain.then(|| digits.parse().ok())??;
    number.checked_mul(unit)
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_suffixes() {
        let good = [
            ("0", 0),
            ("7", 7),
            ("10M", 10_000_000),
            ("1k", 1000),
            ("4Gi", 4 << 30),
            ("1P", 10u64.pow(15)),
        ];
        good.into_iter()
            .for_each(|(text, number)| assert_eq!(quantity_from_text(text), Some(number), "{text}"));
        let bad = ["", "M", "-1", "+1", "1.5M", "1m", "10 M", "10MB", "99999999P", "ü"];
        bad.into_iter()
            .for_each(|text| assert_eq!(quantity_from_text(text), None, "{text}"));
    }

    #[test]
    fn dscps_have_names() {
        let good = [
            ("EF", 46),
            ("ef", 46),
            ("AF11", 10),
            ("af43", 38),
            ("CS0", 0),
            ("cs5", 40),
            ("DF", 0),
            ("63", 63),
        ];
        good.into_iter()
            .for_each(|(text, number)| assert_eq!(Dscp::from_text(text), Some(Dscp(number)), "{text}"));
        let bad = ["", "64", "AF10", "AF14", "AF51", "CS8", "-1", "best"];
        bad.into_iter()
            .for_each(|text| assert_eq!(Dscp::from_text(text), None, "{text}"));
    }
}
