//! `kind: WireguardInterface`: a private key, a UDP port, and the addresses behind them. Fields as in wg(8).

use std::path::Path;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::port::{check_interface_addresses, default_vrf};
use super::{Body, Claim, Invalid, check_label, fields};
use crate::keys::{PublicKey, Secret};

/// The body of a WireguardInterface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireguardInterface {
    /// What the interface is.
    pub spec: WireguardInterfaceSpec,
    /// What follows from its private key. What a document says here counts for nothing, so that what `get` prints can
    /// be applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<WireguardInterfaceStatus>,
    /// What was in the file when the resource was applied.
    #[serde(skip)]
    pub private_key: Option<Secret>,
}

/// What a WireguardInterface is. Fields left out of a document have the default given here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WireguardInterfaceSpec {
    /// An absolute path to a file with the private key. It is read whenever the resource is applied.
    pub private_key_file: String,
    /// The UDP port that peers send to. Default 51,820.
    #[serde(default = "usual_port", deserialize_with = "fields::within::<_, 1, 65535>")]
    pub listen_port: u16,
    /// Addresses of the data plane behind the tunnel, each with the prefix that is behind it, too.
    #[serde(default, deserialize_with = "fields::interface_addresses")]
    pub addresses: Vec<IpNet>,
    /// The largest packet inside, in bytes, 68 (RFC 791) to 1,694 (what a frame holds beside the outer headers).
    /// Default 1,420: 1,500 less IPv6, UDP, and WireGuard's header and tag.
    #[serde(default = "usual_mtu", deserialize_with = "fields::within::<_, 68, 1694>")]
    pub mtu: u16,
    /// The routing table of the packets inside. Default `default`.
    #[serde(default = "default_vrf")]
    pub vrf: String,
    /// The routing table of the packets outside. Default `default`.
    #[serde(default = "default_vrf", rename = "transportVRF")]
    pub transport_vrf: String,
    /// Whether TCP connections through the tunnel are told to keep their segments within its MTU. Default false.
    #[serde(default, rename = "clampMSS")]
    pub clamp_mss: bool,
}

/// What follows from the private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WireguardInterfaceStatus {
    /// What peers know the interface by.
    pub public_key: PublicKey,
}

impl WireguardInterface {
    /// What peers know it by, once its private key was read.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.status.as_ref().map(|status| status.public_key)
    }
}

impl Body for WireguardInterface {
    const API_VERSION: &'static str = "margay/v1";
    const KIND: &'static str = "WireguardInterface";
    const PLURAL: &'static str = "wireguardinterfaces";
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [&'static str] = &["LISTEN PORT", "MTU", "VRF", "ADDRESSES", "PUBLIC KEY"];

    fn row(&self) -> Vec<String> {
        let spec = &self.spec;
        let addresses: Vec<_> = spec.addresses.iter().map(IpNet::to_string).collect();
        vec![
            spec.listen_port.to_string(),
            spec.mtu.to_string(),
            spec.vrf.clone(),
            addresses.join(", "),
            self.public_key().map_or_else(String::new, |key| key.to_string()),
        ]
    }

    fn claims(&self) -> Vec<Claim> {
        let spec = &self.spec;
        let port = Claim {
            what: format!("UDP port {} in vrf {}", spec.listen_port, spec.transport_vrf),
            field: "spec.listenPort".to_owned(),
        };
        let addresses = spec.addresses.iter().enumerate().map(|(at, address)| Claim {
            what: format!("address {} in vrf {}", address.addr(), spec.vrf),
            field: format!("spec.addresses[{at}]"),
        });
        std::iter::once(port).chain(addresses).collect()
    }

    fn check(&self) -> Result<(), Invalid> {
        let spec = &self.spec;
        fields::check_path(&spec.private_key_file).map_err(|reason| Invalid::at("spec.privateKeyFile", reason))?;
        check_label(&spec.vrf).map_err(|reason| Invalid::at("spec.vrf", reason))?;
        check_label(&spec.transport_vrf).map_err(|reason| Invalid::at("spec.transportVRF", reason))?;
        check_interface_addresses(&spec.addresses)
    }

    fn load(&mut self) -> Result<Vec<String>, Invalid> {
        let path = &self.spec.private_key_file;
        let (key, open) = Secret::read(Path::new(path), "genkey")
            .map_err(|error| Invalid::at("spec.privateKeyFile", error.to_string()))?;
        let public_key = key.public();
        self.status = Some(WireguardInterfaceStatus { public_key });
        self.private_key = Some(key);
        Ok(fields::open_file_warning(path, open))
    }
}

fn usual_port() -> u16 {
    51820
}

fn usual_mtu() -> u16 {
    1420
}
