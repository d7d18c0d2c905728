//! `kind: Port`: an interface of the data plane.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Body, Claim, Invalid, MacAddress, ProxyArp, QosControls, Rpf, check_label, fields, overlay};

/// The longest name of a network device: `IFNAMSIZ` less the closing zero (Linux `include/uapi/linux/if.h`).
const DEVICE_NAME_BYTES: usize = 15;
/// What an Ethernet carries (RFC 894).
const ETHERNET_MTU: u16 = 1500;
/// Where network namespaces have their names (ip-netns(8)).
const NAMESPACES: &str = "/run/netns";

/// The body of a Port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// What the port is.
    #[serde(deserialize_with = "with_mtu")]
    pub spec: PortSpec,
}

/// What a Port is. Fields left out of a document have the default given here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortSpec {
    /// An existing network device for `xdp`, the name to create for `tap`, a file for `pcap`.
    pub device: String,
    /// How packets come and go. Default `xdp`.
    #[serde(default)]
    pub driver: Driver,
    /// `xdp` only: where the XDP program runs. Default `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// `xdp` only: whether the device reads and writes our frames itself. Default `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_copy: Option<ZeroCopy>,
    /// Receive and transmit queues, 1 to 64. Default 1.
    #[serde(default = "one_queue", deserialize_with = "fields::within::<_, 1, 64>")]
    pub queues: u16,
    /// The largest IP packet in bytes, 68 (RFC 791) to 1,774 (what a frame holds beside an Ethernet header with a tag).
    /// Default 1,500, for `ipip` and `vxlan` less what they put around a packet.
    #[serde(default, deserialize_with = "fields::within::<_, 68, 1774>")]
    pub mtu: u16,
    /// The routing table the port belongs to. Default `default`.
    #[serde(default = "default_vrf")]
    pub vrf: String,
    /// Addresses of the data plane on this port, each with the prefix it shares with its neighbours.
    #[serde(default, deserialize_with = "fields::interface_addresses")]
    pub addresses: Vec<IpNet>,
    /// Who gets what is for the host. Default `none`.
    #[serde(default)]
    pub punt: Punt,
    /// The port is this VLAN of its device's link, 1 to 4,094; another port is for the device itself.
    #[serde(default, deserialize_with = "some_vlan", skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Whether a packet's source has to be reached by a route. Default `off`.
    #[serde(default, skip_serializing_if = "fields::is_default")]
    pub rpf: Rpf,
    /// For whom the port answers ARP and neighbour discovery beside itself. Default nobody.
    #[serde(default, skip_serializing_if = "fields::is_default")]
    pub proxy_arp: ProxyArp,
    /// `tap` only: the network namespace the device is made in, a name as `ip netns` has it, or a path. Default: ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// `tap` only: addresses of the host on its device, each with the prefix it shares with the port.
    #[serde(
        default,
        deserialize_with = "fields::interface_addresses",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub host_addresses: Vec<IpNet>,
    /// `ipip` and `vxlan` only: the address of ours outside.
    #[serde(
        default,
        deserialize_with = "fields::some_address",
        skip_serializing_if = "Option::is_none"
    )]
    pub local: Option<IpAddr>,
    /// `ipip` and `vxlan` only: the other end's address outside. Default: with `ipip` the gateway of a route, with `vxlan`
    /// the `remote` of its Neighbor.
    #[serde(
        default,
        deserialize_with = "fields::some_address",
        skip_serializing_if = "Option::is_none"
    )]
    pub remote: Option<IpAddr>,
    /// `ipip` and `vxlan` only: the routing table outside. Default `default`.
    #[serde(default, rename = "transportVRF", skip_serializing_if = "Option::is_none")]
    pub transport_vrf: Option<String>,
    /// `vxlan` only: the number of the network, 1 to 16,777,215. Default 4,096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// `vxlan` only: the UDP port of both ends. Default 4,789.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp_port: Option<u16>,
    /// `vxlan` only: the Ethernet address that others know us by inside. Default: `02:4d`, and the end of `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// How much may be sent by the port (ingress of who is behind it), and come in by it (egress). Default: not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<QosControls>,
}

impl PortSpec {
    /// The device, or as Linux names a VLAN of it: `eth1.100`.
    pub fn device_name(&self) -> String {
        match self.vlan {
            Some(vlan) => format!("{}.{vlan}", self.device),
            None => self.device.clone(),
        }
    }

    /// Whether the port is for the link that `other` is a VLAN of.
    pub fn is_trunk_of(&self, other: &PortSpec) -> bool {
        let is_same = self.device == other.device && self.driver == other.driver;
        is_same && self.vlan.is_none() && other.vlan.is_some()
    }

    /// The file of the network namespace that [`netns`](Self::netns) names.
    pub fn namespace(&self) -> Option<PathBuf> {
        let name = self.netns.as_deref()?;
        // A path stands for itself.
        Some(Path::new(NAMESPACES).join(name))
    }
}

/// How packets come to a port and leave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// AF_XDP sockets on an existing network device.
    #[default]
    Xdp,
    /// A TAP device made for the port.
    Tap,
    /// A capture file is read, another written.
    Pcap,
    /// Rings in memory, for tests and benchmarks.
    Memory,
    /// IP in IP.
    Ipip,
    /// VXLAN.
    Vxlan,
    /// A tunnel. A [`WireguardInterface`](super::WireguardInterface) makes one; no Port can be written with it.
    #[serde(skip)]
    Wireguard,
}

impl Driver {
    /// The name as written in a document.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Xdp => "xdp",
            Driver::Tap => "tap",
            Driver::Pcap => "pcap",
            Driver::Memory => "memory",
            Driver::Ipip => "ipip",
            Driver::Vxlan => "vxlan",
            Driver::Wireguard => "wireguard",
        }
    }

    /// Whether it is a tunnel with neighbours.
    pub fn is_overlay(self) -> bool {
        matches!(self, Driver::Ipip | Driver::Vxlan)
    }

    /// Whether `device` names a network device of the kernel.
    pub fn is_network_device(self) -> bool {
        matches!(self, Driver::Xdp | Driver::Tap)
    }
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the device driver where it can, else in the network stack.
    #[default]
    Auto,
    /// In the device driver.
    Native,
    /// In the network stack.
    Generic,
}

/// Whether the device reads and writes frames of the data plane itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ZeroCopy {
    /// Where the device offers it.
    #[default]
    Auto,
    /// It must.
    Always,
    /// It must not.
    Never,
}

/// Who gets packets that are for the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Punt {
    /// Nobody: the data plane answers what it can itself.
    #[default]
    None,
    /// A TAP device of the device's name.
    Tap,
    /// The kernel, to which XDP passes them.
    Kernel,
}

impl Body for Port {
    const API_VERSION: &'static str = "margay/v1";
    const KIND: &'static str = "Port";
    const PLURAL: &'static str = "ports";
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [&'static str] = &["DEVICE", "DRIVER", "QUEUES", "MTU", "VRF", "ADDRESSES"];

    fn row(&self) -> Vec<String> {
        let PortSpec {
            driver,
            queues,
            mtu,
            vrf,
            addresses,
            ..
        } = &self.spec;
        let addresses: Vec<_> = addresses.iter().map(IpNet::to_string).collect();
        vec![
            self.spec.device_name(),
            driver.name().to_owned(),
            queues.to_string(),
            mtu.to_string(),
            vrf.clone(),
            addresses.join(", "),
        ]
    }

    fn claims(&self) -> Vec<Claim> {
        let PortSpec {
            device,
            driver,
            vrf,
            addresses,
            netns,
            ..
        } = &self.spec;
        let kind = match driver {
            Driver::Xdp | Driver::Tap => "network device",
            Driver::Pcap => "capture file",
            Driver::Memory => "memory device",
            Driver::Ipip | Driver::Vxlan | Driver::Wireguard => "tunnel",
        };
        let place = netns.as_ref().map_or(String::new(), |name| format!(" in netns {name}"));
        let (what, field) = match self.spec.vlan {
            Some(vlan) => (format!("vlan {vlan} of {kind} {device}"), "spec.vlan"),
            None => (format!("{kind} {device}{place}"), "spec.device"),
        };
        let field = field.to_owned();
        let device = Claim { what, field };
        let addresses = addresses.iter().enumerate().map(|(at, address)| Claim {
            what: format!("address {} in vrf {vrf}", address.addr()),
            field: format!("spec.addresses[{at}]"),
        });
        std::iter::once(device)
            .chain(overlay::claim(&self.spec))
            .chain(addresses)
            .collect()
    }

    fn check(&self) -> Result<(), Invalid> {
        let spec = &self.spec;
        check_device(spec).map_err(|reason| Invalid::at("spec.device", reason))?;
        check_label(&spec.vrf).map_err(|reason| Invalid::at("spec.vrf", reason))?;
        if spec.driver != Driver::Xdp {
            let only = |field: &str| {
                Invalid::at(
                    field,
                    format!("is for driver xdp only; leave it out for driver {}", spec.driver.name()),
                )
            };
            if spec.mode.is_some() {
                return Err(only("spec.mode"));
            }
            if spec.zero_copy.is_some() {
                return Err(only("spec.zeroCopy"));
            }
            if spec.punt != Punt::None {
                return Err(Invalid::at("spec.punt", "is for driver xdp only; expected `none`"));
            }
        }
        check_vlan(spec)?;
        check_tap(spec)?;
        overlay::check(spec)?;
        check_qos(spec)?;
        check_interface_addresses(&spec.addresses)
    }
}

/// A VLAN has no device of its own to say anything about.
fn check_vlan(spec: &PortSpec) -> Result<(), Invalid> {
    let Some(vlan) = spec.vlan else { return Ok(()) };
    let said = [
        ("spec.mode", spec.mode.is_some()),
        ("spec.zeroCopy", spec.zero_copy.is_some()),
        ("spec.queues", spec.queues != 1),
        ("spec.punt", spec.punt != Punt::None),
    ];
    match said.into_iter().find(|said| said.1) {
        Some((field, _)) => {
            let reason = format!(
                "is for the port of device {} itself; leave it out for vlan {vlan}",
                spec.device
            );
            Err(Invalid::at(field, reason))
        }
        None => Ok(()),
    }
}

/// A port counts no connections.
fn check_qos(spec: &PortSpec) -> Result<(), Invalid> {
    let Some(qos) = &spec.qos else { return Ok(()) };
    if matches!(spec.driver, Driver::Ipip | Driver::Vxlan) {
        let reason = "is not for tunnels; limit the port that the tunnel leaves by, or the workloads";
        return Err(Invalid::at("spec.qos", reason));
    }
    let counted = [
        ("ingressMaxConnections", qos.ingress_max_connections),
        ("egressMaxConnections", qos.egress_max_connections),
    ];
    if let Some((name, _)) = counted.iter().find(|(_, limit)| *limit != 0) {
        let reason = "is for a WorkloadEndpoint only; leave it out for a Port";
        return Err(Invalid::at(format!("spec.qos.{name}"), reason));
    }
    qos.check("spec.qos")
}

/// What only driver tap has.
fn check_tap(spec: &PortSpec) -> Result<(), Invalid> {
    if spec.driver == Driver::Tap {
        if spec.device.contains('%') {
            // The kernel would put a number there.
            return Err(Invalid::at(
                "spec.device",
                "has a `%`; expected the name to give the device",
            ));
        }
        if spec
            .netns
            .as_deref()
            .is_some_and(|name| name.is_empty() || name.contains('\0'))
        {
            let reason = "is empty or has a zero byte; expected the name of a network namespace, or its path";
            return Err(Invalid::at("spec.netns", reason));
        }
        return check_addresses("spec.hostAddresses", &spec.host_addresses);
    }
    let only = |field| {
        let driver = spec.driver.name();
        let reason = format!("is for driver tap only; leave it out for driver {driver}");
        Err(Invalid::at(field, reason))
    };
    match (&spec.netns, spec.host_addresses.is_empty()) {
        (Some(_), _) => only("spec.netns"),
        (None, false) => only("spec.hostAddresses"),
        (None, true) => Ok(()),
    }
}

fn check_device(spec: &PortSpec) -> Result<(), String> {
    let device = spec.device.as_str();
    if !spec.driver.is_network_device() {
        let good = !device.is_empty() && !device.contains('\0');
        return if good {
            Ok(())
        } else {
            Err("is empty or has a zero byte; expected a name".to_owned())
        };
    }
    // As the kernel's dev_valid_name (net/core/dev.c).
    let good = !device.is_empty()
        && device.len() <= DEVICE_NAME_BYTES
        && device != "."
        && device != ".."
        && !device
            .bytes()
            .any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control() || matches!(byte, b'/' | b':'));
    if good {
        return Ok(());
    }
    Err(format!(
        "`{}` cannot name a network device; expected 1 to {DEVICE_NAME_BYTES} bytes without space, `/` or `:`",
        device.escape_debug()
    ))
}

/// Whether these can be the addresses of one interface, of whatever kind.
pub(super) fn check_interface_addresses(addresses: &[IpNet]) -> Result<(), Invalid> {
    check_addresses("spec.addresses", addresses)
}

fn check_addresses(list: &str, addresses: &[IpNet]) -> Result<(), Invalid> {
    for (at, address) in addresses.iter().enumerate() {
        let field = || format!("{list}[{at}]");
        check_interface_address(address).map_err(|reason| Invalid::at(field(), reason))?;
        if addresses[..at].iter().any(|earlier| earlier.addr() == address.addr()) {
            let reason = format!("{} stands twice; remove one", address.addr());
            return Err(Invalid::at(field(), reason));
        }
    }
    Ok(())
}

/// An address one host can have on a link: RFC 1122 section 3.2.1.3, RFC 4291 section 2.
fn check_interface_address(address: &IpNet) -> Result<(), String> {
    let ip = address.addr();
    let what = match ip {
        _ if ip.is_unspecified() => "is the unspecified address",
        _ if ip.is_loopback() => "is a loopback address",
        _ if ip.is_multicast() => "is a multicast address",
        IpAddr::V4(Ipv4Addr::BROADCAST) => "is the broadcast address",
        // With 31 and 32 bits there is neither network nor broadcast address (RFC 3021).
        IpAddr::V4(_) if address.prefix_len() < 31 && ip == address.network() => "is the address of the network itself",
        IpAddr::V4(_) if address.prefix_len() < 31 && ip == address.broadcast() => {
            "is the broadcast address of its network"
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "is an IPv4-mapped address",
        _ => return Ok(()),
    };
    Err(format!(
        "{address} {what}; expected the address of one host with its prefix length, such as 10.1.0.1/24"
    ))
}

/// What a port carries, unless it is written, follows from its driver.
fn with_mtu<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<PortSpec, D::Error> {
    let mut spec = PortSpec::deserialize(deserializer)?;
    if spec.mtu == 0 {
        spec.mtu = ETHERNET_MTU - spec.overhead();
    }
    Ok(spec)
}

fn some_vlan<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    fields::within::<_, 1, 4094>(deserializer).map(Some)
}

fn one_queue() -> u16 {
    1
}

pub(super) fn default_vrf() -> String {
    "default".to_owned()
}

/// As written: `auto`, or a boolean.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected `auto`, `true` or `false`")]
enum WrittenZeroCopy {
    Word(Auto),
    Flag(bool),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Auto {
    Auto,
}

impl Serialize for ZeroCopy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ZeroCopy::Auto => WrittenZeroCopy::Word(Auto::Auto),
            ZeroCopy::Always => WrittenZeroCopy::Flag(true),
            ZeroCopy::Never => WrittenZeroCopy::Flag(false),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ZeroCopy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match WrittenZeroCopy::deserialize(deserializer)? {
            WrittenZeroCopy::Word(Auto::Auto) => ZeroCopy::Auto,
            WrittenZeroCopy::Flag(true) => ZeroCopy::Always,
            WrittenZeroCopy::Flag(false) => ZeroCopy::Never,
        })
    }
}
