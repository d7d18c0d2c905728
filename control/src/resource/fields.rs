//! Field types the kinds share, and how a failed field becomes a sentence.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::{Serialize, Serializer};

use super::Invalid;

/// An Ethernet address, written as six pairs of hexadecimal digits: `02:00:00:00:00:02`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether the address names one station: neither a group (IEEE 802 section 8.2.2) nor all zeroes.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Text that is not an Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {MAC}")]
pub struct NotAMacAddress;

const MAC: &str = "an Ethernet address, such as 02:00:00:00:00:02";

impl FromStr for MacAddress {
    type Err = NotAMacAddress;

    fn from_str(text: &str) -> Result<Self, NotAMacAddress> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs
                .next()
                .filter(|pair| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit()));
            *octet = pair
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or(NotAMacAddress)?;
        }
        if pairs.next().is_some() {
            Err(NotAMacAddress)
        } else {
            Ok(Self(octets))
        }
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text {
            expected: MAC,
            parse: |text| text.parse().ok(),
        })
    }
}

/// An IP address.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    deserializer.deserialize_str(Text {
        expected: "an IPv4 or IPv6 address, such as 10.2.0.2 or fd00:2::2",
        parse: |text| text.parse().ok(),
    })
}

/// An IP address that need not be there.
pub(super) fn some_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    address(deserializer).map(Some)
}

/// A prefix whose host bits are zero: a set of destinations.
pub(super) fn destination<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    const EXPECTED: &str = "a prefix, such as 10.20.0.0/16 or fd00:20::/32";
    let written: IpNet = deserializer.deserialize_str(Text {
        expected: EXPECTED,
        parse: |text| text.parse().ok(),
    })?;
    if written == written.trunc() {
        return Ok(written);
    }
    Err(D::Error::custom(format_args!(
        "{written} has bits set beyond its prefix length; write {} for the prefix, or {}/{} for the one address",
        written.trunc(),
        written.addr(),
        written.max_prefix_len()
    )))
}

/// An interface address: an address of this host with the length of the prefix it shares with its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InterfaceAddress(pub IpNet);

impl<'de> Deserialize<'de> for InterfaceAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "an address with its prefix length, such as 10.1.0.1/24 or fd00:1::1/64";
        deserializer.deserialize_str(Text {
            expected,
            parse: |text| text.parse().ok().map(Self),
        })
    }
}

/// The addresses of an interface.
pub(super) fn interface_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let addresses = Vec::<InterfaceAddress>::deserialize(deserializer)?;
    Ok(addresses.into_iter().map(|InterfaceAddress(address)| address).collect())
}

/// Prefixes that need not be clean: an address is a prefix of its full length, and bits beyond the length are cleared.
pub(super) fn allowed_ips<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    struct Allowed(IpNet);

    impl<'de> Deserialize<'de> for Allowed {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_str(Text {
                expected: "a prefix, such as 10.9.0.2/32 or fd00:9::/64",
                parse: |text| allowed_ip(text).map(Self),
            })
        }
    }

    let allowed = Vec::<Allowed>::deserialize(deserializer)?;
    Ok(allowed.into_iter().map(|Allowed(net)| net).collect())
}

/// One of them, as wg(8) reads it.
pub(crate) fn allowed_ip(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok();
    let net = net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.map(|net| net.trunc())
}

/// Whether `path` can name a file of the host's: the working directory of the data plane is nobody's business.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(());
    }
    let path = path.escape_debug();
    Err(format!("`{path}` is not an absolute path, such as /etc/margay/wg0.key"))
}

/// What wg(8) says, too, of a key that everybody on the host may read.
pub(super) fn open_file_warning(path: &str, open: bool) -> Vec<String> {
    let warning = || format!("{path} holds a key and everybody may read it; `chmod 600 {path}`");
    open.then(warning).into_iter().collect()
}

/// A whole number from `LOW` to `HIGH`.
pub(super) fn within<'de, D, const LOW: u16, const HIGH: u16>(deserializer: D) -> Result<u16, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_u64(Within::<LOW, HIGH>)
}

/// Where in the document `error` is and what it says. Serde names the parent of a field that is missing or unknown;
/// people want the field.
pub(super) fn invalid(error: &serde_path_to_error::Error<serde_json::Error>) -> Invalid {
    let reason = error.inner().to_string();
    let mut path = error.path().to_string();
    if path == "." {
        path.clear();
    }
    for prefix in ["missing field `", "unknown field `", "duplicate field `"] {
        if let Some(name) = reason.strip_prefix(prefix).and_then(|rest| rest.split('`').next()) {
            let already = path == name || path.ends_with(&format!(".{name}"));
            if !already {
                path = if path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{path}.{name}")
                };
            }
        }
    }
    Invalid { field: path, reason }
}

pub(super) struct Text<T> {
    pub(super) expected: &'static str,
    pub(super) parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

struct Within<const LOW: u16, const HIGH: u16>;

impl<const LOW: u16, const HIGH: u16> Visitor<'_> for Within<LOW, HIGH> {
    type Value = u16;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a whole number from {LOW} to {HIGH}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u16, E> {
        let fits = u16::try_from(number)
            .ok()
            .filter(|number| (LOW..=HIGH).contains(number));
        fits.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u16, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}

/// Whether a field says what it would say if it were left out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_parse_and_print() {
        let mac: MacAddress = "02:00:00:0A:ff:02".parse().unwrap();
        assert_eq!(mac, MacAddress([2, 0, 0, 10, 255, 2]));
        assert_eq!(mac.to_string(), "02:00:00:0a:ff:02");
        assert!(mac.is_unicast());
        assert!(!MacAddress([1, 0, 0, 0, 0, 0]).is_unicast());
        assert!(!MacAddress([0; 6]).is_unicast());
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:02:03",
            "2:0:0:0:0:2",
            "02-00-00-00-00-02",
            "0g:00:00:00:00:00",
        ] {
            assert_eq!(bad.parse::<MacAddress>(), Err(NotAMacAddress), "{bad}");
        }
        assert!("+2:00:00:00:00:00".parse::<MacAddress>().is_err());
    }
}
