//! What a Port says about its link: for whom it answers there, and whose packets may come by it.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// For whom a port answers ARP and neighbour discovery beside itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenProxy", into = "WrittenProxy")]
pub enum ProxyArp {
    /// For nobody.
    #[default]
    Nobody,
    /// For every address that packets would be sent to by another port.
    Routed,
    /// For these prefixes.
    Prefixes(Vec<IpNet>),
}

/// As written: a boolean, or prefixes.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected `true`, `false` or prefixes, such as [169.254.1.1/32]"
)]
enum WrittenProxy {
    Flag(bool),
    Prefixes(Vec<IpNet>),
}

impl From<WrittenProxy> for ProxyArp {
    fn from(written: WrittenProxy) -> Self {
        match written {
            WrittenProxy::Flag(false) => Self::Nobody,
            WrittenProxy::Flag(true) => Self::Routed,
            WrittenProxy::Prefixes(prefixes) => Self::Prefixes(prefixes),
        }
    }
}

impl From<ProxyArp> for WrittenProxy {
    fn from(proxy: ProxyArp) -> Self {
        match proxy {
            ProxyArp::Nobody => Self::Flag(false),
            ProxyArp::Routed => Self::Flag(true),
            ProxyArp::Prefixes(prefixes) => Self::Prefixes(prefixes),
        }
    }
}

/// Whether a packet's source has to be reached by a route (`rp_filter` of Linux; RFC 3704).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rpf {
    /// It need not.
    #[default]
    Off,
    /// By any port.
    Loose,
    /// By the port that the packet came in by.
    Strict,
}
