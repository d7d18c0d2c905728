//! `kind: WireguardPeer`: whom an interface talks to, and which addresses are theirs. Fields as in wg(8).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Body, Claim, Invalid, Key, Kind, Reference, check_label, fields};
use crate::keys::{PublicKey, Secret};

/// The body of a WireguardPeer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireguardPeer {
    /// What the peer is.
    pub spec: WireguardPeerSpec,
    /// What was in the file when the resource was applied.
    #[serde(skip)]
    pub preshared_key: Option<Secret>,
    /// What the endpoint's name stood for when the resource was applied.
    #[serde(skip)]
    pub address: Option<SocketAddr>,
}

/// What a WireguardPeer is. Fields left out of a document have the default given here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WireguardPeerSpec {
    /// The name of the WireguardInterface it belongs to.
    pub interface: String,
    /// What it is known by.
    pub public_key: PublicKey,
    /// An absolute path to a file with a key that both sides were given, beside their own. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key_file: Option<String>,
    /// Where to send to until it shows up elsewhere: `192.0.2.9:51820`, `[2001:db8::9]:51820`, or a host name, which is
    /// resolved when the resource is applied. Default nowhere: the peer has to speak first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Whose packets are sent to it, and taken from it. Bits beyond the length of a prefix are cleared, as wg(8) does.
    #[serde(default, rename = "allowedIPs", deserialize_with = "fields::allowed_ips")]
    pub allowed_ips: Vec<IpNet>,
    /// Seconds after which to send something if nothing was sent, so that a NAT on the way keeps the peer in mind; 0 for
    /// off. Default 0.
    #[serde(default, deserialize_with = "fields::within::<_, 0, 65535>")]
    pub persistent_keepalive: u16,
}

/// An address or a host name, and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// Text that is not an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an address or host name and a port, such as 192.0.2.9:51820, [2001:db8::9]:51820 or vpn.example:51820"
)]
pub struct NotAnEndpoint;

impl Endpoint {
    /// What it stands for now. Asks the resolver for a name.
    ///
    /// # Errors
    /// Why there is no address, in a sentence.
    pub fn resolve(&self) -> Result<SocketAddr, String> {
        let Self { host, port } = self;
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(address, *port));
        }
        match (host.as_str(), *port).to_socket_addrs() {
            Ok(mut found) => found
                .next()
                .ok_or_else(|| format!("{host} has no address; give one, or correct the name")),
            Err(error) => Err(format!(
                "{host} does not resolve ({error}); give an address, or correct the name"
            )),
        }
    }
}

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    fn from_str(text: &str) -> Result<Self, NotAnEndpoint> {
        let (host, port) = text.rsplit_once(':').ok_or(NotAnEndpoint)?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port
            .parse()
            .ok()
            .filter(|port| digits && *port > 0)
            .ok_or(NotAnEndpoint)?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let good = match bracketed {
            Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
            None => is_host(host),
        };
        let host = bracketed.unwrap_or(host).to_owned();
        good.then_some(Self { host, port }).ok_or(NotAnEndpoint)
    }
}

/// An IPv4 address, or a name (RFC 1123 section 2.1): what looks like an address has to be one.
fn is_host(host: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.bytes().all(inner);
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    match numeric {
        true => host.parse::<std::net::Ipv4Addr>().is_ok(),
        false => host.len() <= 254 && host.strip_suffix('.').unwrap_or(host).split('.').all(label),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match host.contains(':') {
            true => write!(out, "[{host}]:{port}"),
            false => write!(out, "{host}:{port}"),
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bad = |error| serde::de::Error::custom(format_args!("`{}`: {error}", text.escape_debug()));
        text.parse().map_err(bad)
    }
}

impl Body for WireguardPeer {
    const API_VERSION: &'static str = "margay/v1";
    const KIND: &'static str = "WireguardPeer";
    const PLURAL: &'static str = "wireguardpeers";
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [&'static str] = &["INTERFACE", "ENDPOINT", "ALLOWED IPS", "PUBLIC KEY"];

    fn row(&self) -> Vec<String> {
        let spec = &self.spec;
        let allowed: Vec<_> = spec.allowed_ips.iter().map(IpNet::to_string).collect();
        vec![
            spec.interface.clone(),
            spec.endpoint.as_ref().map_or_else(String::new, Endpoint::to_string),
            allowed.join(", "),
            spec.public_key.to_string(),
        ]
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim {
            what: format!(
                "public key {} on interface {}",
                self.spec.public_key, self.spec.interface
            ),
            field: "spec.publicKey".to_owned(),
        }]
    }

    fn references(&self) -> Vec<Reference> {
        vec![Reference::to(
            Key::cluster(Kind::WireguardInterface, &self.spec.interface),
            "spec.interface",
        )]
    }

    fn check(&self) -> Result<(), Invalid> {
        let spec = &self.spec;
        check_label(&spec.interface).map_err(|reason| Invalid::at("spec.interface", reason))?;
        if spec.public_key.is_weak() {
            let reason = wireguard::handshake::WeakKey.to_string();
            return Err(Invalid::at("spec.publicKey", reason));
        }
        if let Some(path) = &spec.preshared_key_file {
            fields::check_path(path).map_err(|reason| Invalid::at("spec.presharedKeyFile", reason))?;
        }
        Ok(())
    }

    fn load(&mut self) -> Result<Vec<String>, Invalid> {
        let mut warnings = vec![];
        if let Some(path) = &self.spec.preshared_key_file {
            let (key, open) = Secret::read(Path::new(path), "genpsk")
                .map_err(|error| Invalid::at("spec.presharedKeyFile", error.to_string()))?;
            self.preshared_key = Some(key);
            warnings = fields::open_file_warning(path, open);
        }
        if let Some(endpoint) = &self.spec.endpoint {
            let address = endpoint
                .resolve()
                .map_err(|reason| Invalid::at("spec.endpoint", reason))?;
            let ip = address.ip();
            let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
            if ip.is_unspecified() || ip.is_multicast() || broadcast {
                return Err(Invalid::at(
                    "spec.endpoint",
                    format!("{ip} is not the address of one host"),
                ));
            }
            self.address = Some(address);
        }
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_or_names_with_a_port() {
        for good in [
            "192.0.2.9:51820",
            "[2001:db8::9]:1",
            "vpn.example:65535",
            "vpn.example.:1",
            "a_b-c:7",
        ] {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "192.0.2.9",
            "192.0.2.9:",
            "192.0.2.9:0",
            "192.0.2.9:65536",
            "192.0.2.9:+1",
            "192.0.2:1",
            "2001:db8::9:51820",
            "[2001:db8::9]",
            "[192.0.2.9]:1",
            "a b:1",
            "a..b:1",
            ":1",
        ] {
            assert_eq!(bad.parse::<Endpoint>(), Err(NotAnEndpoint), "{bad}");
        }
        let endpoint: Endpoint = "[2001:db8::9]:1".parse().unwrap();
        assert_eq!(endpoint.resolve(), Ok("[2001:db8::9]:1".parse().unwrap()));
        let unknown: Endpoint = "nobody.invalid:1".parse().unwrap();
        assert!(
            unknown
                .resolve()
                .unwrap_err()
                .starts_with("nobody.invalid does not resolve")
        );
    }
}
