//! What a user writes: `apiVersion`, `kind`, `metadata` and the body of the kind, parsed once into real types.
//!
//! A kind is one file that implements [`Body`], and one line in the list at the end of this file.

pub mod calico;
mod document;
mod endpoint_slice;
mod fields;
mod json;
pub mod kubernetes;
mod link;
mod metadata;
mod neighbor;
mod overlay;
mod port;
mod qos;
mod route;
mod sections;
mod service;
mod source_nat;
mod wireguard_interface;
mod wireguard_peer;

use std::fmt;
use std::fmt::Debug;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use calico::{
    GlobalNetworkPolicy, GlobalNetworkSet, HostEndpoint, IpPool, NetworkPolicy, NetworkSet, Profile,
    StagedGlobalNetworkPolicy, StagedKubernetesNetworkPolicy, StagedNetworkPolicy, Tier, WorkloadEndpoint,
};
pub use document::{Document, Format, Named, Source, read, read_keys};
pub use endpoint_slice::{AddressType, Endpoint as SliceEndpoint, EndpointPort, EndpointSlice, Hint, SERVICE_LABEL};
pub(crate) use fields::allowed_ip;
pub use fields::{MacAddress, NotAMacAddress};
pub use kubernetes::{KubernetesNetworkPolicy, Namespace, ServiceAccount};
pub use link::{ProxyArp, Rpf};
pub use metadata::{Metadata, check_label};
pub use neighbor::{Neighbor, NeighborSpec};
pub use port::{Driver, Mode, Port, PortSpec, Punt, ZeroCopy};
pub use qos::{DirectionControls, Dscp, QosControls};
pub use route::{Hop, Route, RouteSpec, Target};
pub use service::{Protocol, Service, ServicePort, ServiceType, TrafficPolicy, is_direct};
pub use source_nat::{PortRange, SourceNat, SourceNatSpec};
pub use wireguard_interface::{WireguardInterface, WireguardInterfaceSpec, WireguardInterfaceStatus};
pub use wireguard_peer::{Endpoint, NotAnEndpoint, WireguardPeer, WireguardPeerSpec};

/// Everything of a document but `apiVersion`, `kind` and `metadata`.
pub trait Body: Serialize + DeserializeOwned + Clone + PartialEq + Debug {
    /// The group and version the kind belongs to, such as `margay/v1`.
    const API_VERSION: &'static str;
    /// The name of the kind as written in a document, such as `Port`.
    const KIND: &'static str;
    /// What the command line also calls it, such as `ports`.
    const PLURAL: &'static str;
    /// Whether its names are unique in a namespace, or in the whole data plane.
    const NAMESPACED: bool;
    /// Headings of the table that `get` prints, after the name.
    const COLUMNS: &'static [&'static str];

    /// The cells under [`Body::COLUMNS`].
    fn row(&self) -> Vec<String>;

    /// What serde cannot check: how the fields of this one document go together.
    fn check(&self) -> Result<(), Invalid>;

    /// What no other resource may also have: a device, an address, a destination.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }

    /// The same, where what it has follows from its name, too.
    fn claims_by_name(&self, _metadata: &Metadata) -> Vec<Claim> {
        Vec::new()
    }

    /// The resources this one names, which have to exist.
    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }

    /// Reads what the document names outside of itself, such as files and host names, each time it is applied. What it
    /// says was not refused, but the user should know it.
    fn load(&mut self) -> Result<Vec<String>, Invalid> {
        Ok(Vec::new())
    }

    /// What goes together with the resource's name and annotations only.
    fn check_named(&self, _metadata: &Metadata) -> Result<(), Invalid> {
        Ok(())
    }

    /// Whether `name` is one this kind allows. Kinds of other projects are more generous than a DNS label.
    fn check_name(name: &str) -> Result<(), String> {
        check_label(name)
    }
}

/// A field that does not go together with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The path of the field from the top of the document.
    pub field: String,
    /// What is wrong with it and what was expected.
    pub reason: String,
}

impl Invalid {
    /// An error at `field`.
    pub fn at(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// Something only one resource can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What, in words that are the same for everyone who claims it: `address 10.1.0.1 in vrf default`.
    pub what: String,
    /// The path of the field that claims it.
    pub field: String,
}

/// One resource naming another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What is named.
    pub key: Key,
    /// A kind that will do as well, under the same name.
    pub or: Option<Kind>,
    /// The path of the field that names it.
    pub field: String,
}

impl Reference {
    /// A reference to just this resource.
    pub fn to(key: Key, field: impl Into<String>) -> Self {
        let field = field.into();
        Self { key, or: None, field }
    }
}

/// A document of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<B> {
    /// Its name and labels.
    pub metadata: Metadata,
    /// The rest of it.
    pub body: B,
}

/// What identifies a resource. Resources are sorted by it, so listings are stable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The kind of the resource.
    pub kind: Kind,
    /// The namespace, for kinds that have one.
    pub namespace: Option<String>,
    /// The name, unique among resources of the kind (and namespace).
    pub name: String,
}

impl Key {
    /// The key of a resource that stands outside namespaces.
    pub fn cluster(kind: Kind, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: None,
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(out, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(out, "{}/{}", self.kind, self.name),
        }
    }
}

/// A field of a document that did not become what it should.
pub(crate) fn from_body<B: Body>(rest: Value) -> Result<B, Invalid> {
    let body: B = serde_path_to_error::deserialize(rest).map_err(|error| fields::invalid(&error))?;
    body.check()?;
    Ok(body)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a, B> {
    api_version: &'static str,
    kind: &'static str,
    metadata: &'a Metadata,
    #[serde(flatten)]
    body: &'a B,
}

/// Makes the enums over all kinds from the one list of them.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident),* $(,)?) => {
        /// The kinds of resources.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind),*];

            /// The name as written in a document.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => <$kind as Body>::KIND,)* }
            }

            /// The plural in lower case, as the command line takes it.
            pub fn plural(self) -> &'static str {
                match self { $(Kind::$kind => <$kind as Body>::PLURAL,)* }
            }

            /// The group and version of the kind.
            pub fn api_version(self) -> &'static str {
                match self { $(Kind::$kind => <$kind as Body>::API_VERSION,)* }
            }

            /// Whether resources of the kind live in namespaces.
            pub fn namespaced(self) -> bool {
                match self { $(Kind::$kind => <$kind as Body>::NAMESPACED,)* }
            }

            /// Headings of the table that `get` prints, after the name.
            pub fn columns(self) -> &'static [&'static str] {
                match self { $(Kind::$kind => <$kind as Body>::COLUMNS,)* }
            }

            fn check_name(self, name: &str) -> Result<(), String> {
                match self { $(Kind::$kind => <$kind as Body>::check_name(name),)* }
            }
        }

        /// A resource of any kind. Behind a pointer, so that the many of small kinds are small, and that the plane keeps
        /// the same piece of memory as the store.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Resource {
            $($(#[$doc])* $kind(Arc<Object<$kind>>),)*
        }

        impl Resource {
            /// The kind of this resource.
            pub fn kind(&self) -> Kind {
                match self { $(Resource::$kind(_) => Kind::$kind,)* }
            }

            /// Its name and labels.
            pub fn metadata(&self) -> &Metadata {
                match self { $(Resource::$kind(object) => &object.metadata,)* }
            }

            /// The cells under the headings of its kind.
            pub fn row(&self) -> Vec<String> {
                match self { $(Resource::$kind(object) => object.body.row(),)* }
            }

            /// What no other resource may also have.
            pub fn claims(&self) -> Vec<Claim> {
                match self {
                    $(Resource::$kind(object) => {
                        let mut claims = object.body.claims();
                        claims.extend(object.body.claims_by_name(&object.metadata));
                        claims
                    })*
                }
            }

            /// The resources this one names, which have to exist.
            pub fn references(&self) -> Vec<Reference> {
                match self { $(Resource::$kind(object) => object.body.references(),)* }
            }

            /// Reads what the resource names outside of itself: see [`Body::load`].
            pub(crate) fn load(&mut self) -> Result<Vec<String>, Invalid> {
                match self { $(Resource::$kind(object) => Arc::make_mut(object).body.load(),)* }
            }

            fn new(kind: Kind, metadata: Metadata, rest: Value) -> Result<Self, Invalid> {
                Ok(match kind {
                    $(Kind::$kind => {
                        let body = from_body::<$kind>(rest)?;
                        body.check_named(&metadata)?;
                        Resource::$kind(Arc::new(Object { metadata, body }))
                    })*
                })
            }
        }

        impl Serialize for Resource {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Resource::$kind(object) => Written {
                        api_version: <$kind as Body>::API_VERSION,
                        kind: <$kind as Body>::KIND,
                        metadata: &object.metadata,
                        body: &object.body,
                    }
                    .serialize(serializer),)*
                }
            }
        }
    };
}

kinds! {
    /// An interface of the data plane.
    Port,
    /// Where packets to a prefix go.
    Route,
    /// The Ethernet address of an on-link host, given rather than resolved.
    Neighbor,
    /// Connections that get another source address.
    SourceNat,
    /// A private key, a UDP port, and the addresses behind them.
    WireguardInterface,
    /// Whom an interface talks to, and which addresses are theirs.
    WireguardPeer,
    /// Addresses and ports that stand for a set of backends.
    Service,
    /// Backends of a service.
    EndpointSlice,
    /// Policies that are asked together.
    Tier,
    /// Who may talk to endpoints of a namespace.
    NetworkPolicy,
    /// Who may talk to endpoints, of hosts too.
    GlobalNetworkPolicy,
    /// A NetworkPolicy that says what it would do.
    StagedNetworkPolicy,
    /// A GlobalNetworkPolicy that says what it would do.
    StagedGlobalNetworkPolicy,
    /// A NetworkPolicy of Kubernetes that says what it would do.
    StagedKubernetesNetworkPolicy,
    /// Prefixes in a namespace that selectors find.
    NetworkSet,
    /// Prefixes that selectors find.
    GlobalNetworkSet,
    /// An interface of the host, with policy.
    HostEndpoint,
    /// A pod, container or virtual machine, with policy.
    WorkloadEndpoint,
    /// What decides where no policy does.
    Profile,
    /// Addresses of workloads.
    IpPool,
    /// What resources and pods are in.
    Namespace,
    /// What pods run as.
    ServiceAccount,
    /// Who may talk to pods, in Kubernetes' words.
    KubernetesNetworkPolicy,
}

impl Kind {
    /// The kind a user means by `text`: the name or the plural, in any case, either also with the kind's group after a
    /// dot. Of two with one name it is the first; the other needs its group.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut kinds = Self::ALL.iter().copied();
        let is = |kind: &Kind, text: &str| {
            kind.name().eq_ignore_ascii_case(text) || kind.plural().eq_ignore_ascii_case(text) //
        };
        kinds.clone().find(|kind| is(kind, text)).or_else(|| {
            let (short, group) = text.split_once('.')?;
            kinds.find(|kind| is(kind, short) && kind.group().eq_ignore_ascii_case(group))
        })
    }

    /// What stands before the version of the kind.
    fn group(self) -> &'static str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }

    /// All kinds as a person would list them: `Port, Route or Neighbor`.
    pub fn list() -> String {
        let mut names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => names.concat(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl Resource {
    /// What identifies this resource.
    pub fn key(&self) -> Key {
        let Metadata { name, namespace, .. } = self.metadata();
        Key {
            kind: self.kind(),
            namespace: namespace.clone(),
            name: name.clone(),
        }
    }
}
