//! Encryption between nodes: Felix says which node has which key, address and prefixes; what follows are a tunnel for
//! each family, and a peer in it for each other node.
//!
//! Messages come in, plans for the plane come out, each just the difference: another key of one node touches one peer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use super::felix::{IpVersion, RouteType, ToDataplane, WireguardStatusUpdate};
use crate::keys::{PublicKey, Secret};
use crate::resource::{
    Key, Metadata, Object, Resource, WireguardInterface, WireguardInterfaceSpec, WireguardInterfaceStatus,
    WireguardPeer, WireguardPeerSpec,
};
use crate::store::{Change, Plan, Planned};

/// A key of ours, and the file that keeps it.
#[derive(Clone, Debug)]
pub struct OwnKey {
    /// Where it is kept.
    pub file: PathBuf,
    /// The key.
    pub secret: Secret,
}

impl OwnKey {
    /// The key in a file, which is made the first time (mode 0600).
    ///
    /// # Errors
    /// The file cannot be read or made, or holds something else.
    pub fn keep(file: PathBuf) -> Result<Self, crate::keys::KeyFileError> {
        let secret = Secret::keep(&file)?;
        Ok(Self { file, secret })
    }
}

/// What Felix has said so far, and what was made of it.
pub struct Encryption {
    hostname: String,
    in_sync: bool,
    config: BTreeMap<String, String>,
    families: [Family; 2],
    /// What the plane was told last.
    told: BTreeMap<Key, Arc<Resource>>,
    warnings: BTreeSet<String>,
}

/// The nodes over one family.
struct Family {
    version: IpVersion,
    key: OwnKey,
    nodes: BTreeMap<String, Node>,
    /// Which node has a prefix.
    routes: BTreeMap<IpNet, String>,
    reported: Option<String>,
}

#[derive(Default)]
struct Node {
    public_key: Option<PublicKey>,
    tunnel: Option<IpAddr>,
    address: Option<IpAddr>,
}

/// What is to be done after messages.
#[derive(Debug, Default)]
pub struct Step {
    /// For the plane; empty where nothing changed.
    pub plan: Plan,
    /// For Felix.
    pub status: Vec<WireguardStatusUpdate>,
}

impl Encryption {
    /// For the node of this name, with its keys for IPv4 and IPv6.
    pub fn new(hostname: impl Into<String>, keys: [OwnKey; 2]) -> Self {
        let [v4, v6] = keys;
        let family = |version, key| Family {
            version,
            key,
            nodes: BTreeMap::new(),
            routes: BTreeMap::new(),
            reported: None,
        };
        Self {
            hostname: hostname.into(),
            in_sync: false,
            config: BTreeMap::new(),
            families: [family(IpVersion::V4, v4), family(IpVersion::V6, v6)],
            told: BTreeMap::new(),
            warnings: BTreeSet::new(),
        }
    }

    /// Takes a message. What it says counts from the next [`step`](Self::step).
    pub fn receive(&mut self, message: ToDataplane) {
        use ToDataplane as To;
        let [v4, v6] = &mut self.families;
        match message {
            To::InSync => self.in_sync = true,
            To::ConfigUpdate(update) => self.config = update.config,
            To::WireguardEndpointUpdate(node) => {
                v4.set_key(node.hostname, &node.public_key, &node.interface_ipv4_addr);
            }
            To::WireguardEndpointRemove(node) => v4.set_key(node.hostname, "", ""),
            To::WireguardEndpointV6Update(node) => {
                v6.set_key(node.hostname, &node.public_key_v6, &node.interface_ipv6_addr);
            }
            To::WireguardEndpointV6Remove(node) => v6.set_key(node.hostname, "", ""),
            To::HostMetadataUpdate(node) => v4.set_address(node.hostname, &node.ipv4_addr),
            To::HostMetadataRemove(node) => v4.set_address(node.hostname, ""),
            To::HostMetadataV6Update(node) => v6.set_address(node.hostname, &node.ipv6_addr),
            To::HostMetadataV6Remove(node) => v6.set_address(node.hostname, ""),
            To::HostMetadataV4V6Update(node) => {
                v4.set_address(node.hostname.clone(), &node.ipv4_addr);
                v6.set_address(node.hostname, &node.ipv6_addr);
            }
            To::HostMetadataV4V6Remove(node) => {
                v4.set_address(node.hostname.clone(), "");
                v6.set_address(node.hostname, "");
            }
            To::RouteUpdate(route) => {
                let remote = matches!(route.r#type, RouteType::RemoteWorkload | RouteType::RemoteTunnel);
                self.set_route(&route.dst, remote.then_some(route.dst_node_name));
            }
            To::RouteRemove(route) => self.set_route(&route.dst, None),
            // Policy is told to somebody else.
            _ => {}
        }
    }

    /// What is to be done since the last step that was [`done`](Self::done). Nothing before everything was heard once.
    pub fn step(&mut self) -> Step {
        if !self.in_sync {
            return Step::default();
        }
        let mut step = Step::default();
        let wanted = self.wanted();
        for key in self.told.keys().filter(|key| !wanted.contains_key(*key)) {
            step.plan.changes.push(planned(key, self.told.get(key), None));
        }
        for (key, resource) in &wanted {
            let before = self.told.get(key);
            if before != Some(resource) {
                step.plan.changes.push(planned(key, before, Some(resource)));
            }
        }
        step.plan.warnings = self.warnings.iter().cloned().collect();
        for family in &mut self.families {
            let public_key = match family.is_on(&self.config) {
                true => family.key.secret.public().to_string(),
                false => String::new(),
            };
            if family.reported.as_deref().unwrap_or_default() != public_key {
                family.reported = Some(public_key.clone());
                let ip_version = family.version;
                step.status.push(WireguardStatusUpdate { public_key, ip_version });
            }
        }
        step
    }

    /// Who is told the keys is another now, and is told them again.
    pub fn forget_reported(&mut self) {
        self.families.iter_mut().for_each(|family| family.reported = None);
    }

    /// The plane has carried a plan out: the next one starts from there.
    pub fn done(&mut self, plan: &Plan) {
        for planned in &plan.changes {
            match &planned.after {
                Some(resource) => self.told.insert(planned.key.clone(), resource.clone()),
                None => self.told.remove(&planned.key),
            };
        }
    }

    fn set_route(&mut self, prefix: &str, node: Option<String>) {
        let Ok(prefix) = prefix.parse::<IpNet>() else {
            return tracing::warn!("a route to `{}` is not understood", prefix.escape_debug());
        };
        let routes = &mut self.families[usize::from(prefix.addr().is_ipv6())].routes;
        match node {
            Some(node) => routes.insert(prefix.trunc(), node),
            None => routes.remove(&prefix.trunc()),
        };
    }

    fn wanted(&mut self) -> BTreeMap<Key, Arc<Resource>> {
        let mut wanted = BTreeMap::new();
        self.warnings.clear();
        for family in self.families.iter().filter(|family| family.is_on(&self.config)) {
            let resources = family.resources(&self.hostname, &self.config, &mut self.warnings);
            wanted.extend(resources.map(|resource| (resource.key(), Arc::new(resource))));
        }
        wanted
    }
}

impl Family {
    fn node(&mut self, hostname: String) -> &mut Node {
        self.nodes.entry(hostname).or_default()
    }

    fn set_key(&mut self, hostname: String, public_key: &str, tunnel: &str) {
        let key = public_key.parse::<PublicKey>().ok().filter(|key| !key.is_weak());
        if key.is_none() && !public_key.is_empty() {
            tracing::warn!("the public key of node {hostname} is none; its traffic is not encrypted");
        }
        let node = self.node(hostname);
        (node.public_key, node.tunnel) = (key, tunnel.parse().ok());
    }

    fn set_address(&mut self, hostname: String, address: &str) {
        self.node(hostname).address = address.parse().ok();
    }

    /// The setting of this family: IPv6's have names that end so.
    fn setting<'a>(&self, config: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
        let name = match self.version {
            IpVersion::V4 => name.to_owned(),
            IpVersion::V6 => format!("{name}V6"),
        };
        config.get(&name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn is_on(&self, config: &BTreeMap<String, String>) -> bool {
        self.setting(config, "WireguardEnabled")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The tunnel, and a peer for each other node that has a key and an address.
    fn resources(
        &self,
        hostname: &str,
        config: &BTreeMap<String, String>,
        warnings: &mut BTreeSet<String>,
    ) -> impl Iterator<Item = Resource> {
        let number = |name: &str, usual: u16| {
            let value = self.setting(config, name).and_then(|value| value.parse().ok());
            value.filter(|value| *value > 0).unwrap_or(usual)
        };
        // Felix's defaults: IPv4's header is 20 bytes shorter than IPv6's.
        let (name, port, mtu) = match self.version {
            IpVersion::V4 => ("wireguard.cali", 51820, 1440),
            IpVersion::V6 => ("wg-v6.cali", 51821, 1420),
        };
        let interface = self
            .setting(config, "WireguardInterfaceName")
            .unwrap_or(name)
            .to_owned();
        let port = number("WireguardListeningPort", port);
        let ours = self.nodes.get(hostname).and_then(|node| node.tunnel);
        let public_key = self.key.secret.public();
        let body = WireguardInterface {
            spec: WireguardInterfaceSpec {
                private_key_file: self.key.file.display().to_string(),
                listen_port: port,
                addresses: ours.into_iter().map(IpNet::from).collect(),
                mtu: number("WireguardMTU", mtu),
                vrf: "default".to_owned(),
                transport_vrf: "default".to_owned(),
                clamp_mss: false,
            },
            status: Some(WireguardInterfaceStatus { public_key }),
            private_key: Some(self.key.secret.clone()),
        };
        // Felix says it once, for both families, as a Go duration in whole seconds.
        let keepalive = config.get("WireguardPersistentKeepAlive");
        let keepalive = keepalive
            .and_then(|text| text.trim_end_matches('s').parse().ok())
            .unwrap_or(0);
        let mut resources = vec![Resource::WireguardInterface(Arc::new(object(interface.clone(), body)))];
        for (node, public_key, address) in self.peers(hostname, warnings) {
            let body = WireguardPeer {
                spec: WireguardPeerSpec {
                    interface: interface.clone(),
                    public_key,
                    preshared_key_file: None,
                    endpoint: SocketAddr::new(address, port).to_string().parse().ok(),
                    allowed_ips: self.prefixes(node),
                    persistent_keepalive: keepalive,
                },
                preshared_key: None,
                address: Some(SocketAddr::new(address, port)),
            };
            let name = match self.version {
                IpVersion::V4 => node.to_owned(),
                IpVersion::V6 => format!("{node}.v6"),
            };
            resources.push(Resource::WireguardPeer(Arc::new(object(name, body))));
        }
        resources.into_iter()
    }

    /// A key that several nodes claim is nobody's: whoever copied it could read the others' packets.
    fn peers(&self, hostname: &str, warnings: &mut BTreeSet<String>) -> Vec<(&str, PublicKey, IpAddr)> {
        let mut owners: BTreeMap<PublicKey, Vec<&str>> = BTreeMap::new();
        for (name, node) in &self.nodes {
            if let Some(key) = node.public_key {
                owners.entry(key).or_default().push(name);
            }
        }
        let others = self.nodes.iter().filter(|(name, _)| *name != hostname);
        let mut peers = vec![];
        for (name, node) in others {
            let (Some(key), Some(address)) = (node.public_key, node.address) else {
                continue;
            };
            match &owners[&key][..] {
                [_] if key != self.key.secret.public() => peers.push((name.as_str(), key, address)),
                names => {
                    let names = names.join(", ");
                    warnings.insert(format!(
                        "public key {key} is claimed by {names} at once, and used for none"
                    ));
                }
            }
        }
        peers
    }

    /// What a node has: its workloads, and its end of the tunnel.
    fn prefixes(&self, node: &str) -> Vec<IpNet> {
        let routes = self.routes.iter().filter(|(_, owner)| *owner == node);
        let mut prefixes: BTreeSet<IpNet> = routes.map(|(prefix, _)| *prefix).collect();
        let tunnel = self.nodes.get(node).and_then(|node| node.tunnel).map(IpNet::from);
        // Unless it is said to be somebody else's.
        prefixes.extend(tunnel.filter(|net| !self.routes.contains_key(net)));
        prefixes.into_iter().collect()
    }
}

fn object<B>(name: String, body: B) -> Object<B> {
    let metadata = Metadata {
        name,
        namespace: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    };
    Object { metadata, body }
}

fn planned(key: &Key, before: Option<&Arc<Resource>>, after: Option<&Arc<Resource>>) -> Planned {
    let change = match (before, after) {
        (None, _) => Change::Created,
        (Some(_), Some(_)) => Change::Configured,
        (Some(_), None) => Change::Deleted,
    };
    Planned {
        key: key.clone(),
        origin: format!("Felix, {key}"),
        change,
        before: before.cloned(),
        after: after.cloned(),
    }
}
