//! Services: what resources say of them becomes frontends and pools of backends, in place.

mod host_ports;
mod served;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use fastpath::meta::{Endpoint, VrfId};
use nat::affinity::Affinity;
use nat::service::{Book, Frontend, Member, PoolId, Prefix, mapped};

use self::host_ports::HostPorts;
use super::State;
use crate::program::services::{Answers, Balanced, Front, Lead, Place, PoolName, balance};
use crate::resource::{EndpointSlice, Key, Kind, Resource, SERVICE_LABEL, Service, is_direct};
use crate::show::memory::MemoryView;
use crate::show::services::{BackendView, PoolView, ServiceView};
use crate::store::{Plan, Planned};

/// Clients whose backend is remembered.
const AFFINITIES: usize = 1 << 18;
/// Table of routes that services are in.
const VRF: VrfId = VrfId(0);

/// Namespace and name.
type Name = (String, String);

/// All services, as resources say and as workers have them.
pub(super) struct Balancing {
    pub book: Book,
    /// Who had which backend, for the nodes that balance.
    pub affinity: Arc<Affinity>,
    place: Place,
    services: BTreeMap<Name, Arc<Resource>>,
    /// The slices of each service that was named, by their names, whether or not it is there.
    slices: HashMap<Name, BTreeMap<String, Arc<Resource>>>,
    running: HashMap<Name, Running>,
    host_ports: HostPorts,
    /// Frontends that came (true) and went.
    changed: Vec<(Front, bool)>,
}

/// A service, as workers have it.
#[derive(Default)]
struct Running {
    balanced: Balanced,
    pools: BTreeMap<PoolName, PoolId>,
}

impl Balancing {
    /// Nothing yet, seen from `place`.
    pub fn new(place: Place) -> Self {
        // Keeps clients from choosing whose backend is forgotten.
        let random = RandomState::new().build_hasher().finish();
        Self {
            book: Book::default(),
            affinity: Arc::new(Affinity::new(AFFINITIES, random)),
            place,
            services: BTreeMap::new(),
            slices: HashMap::new(),
            running: HashMap::new(),
            host_ports: HostPorts::new(),
            changed: vec![],
        }
    }

    /// Whether there is a service, or a port of the node that leads to a workload.
    pub fn is_wanted(&self) -> bool {
        !self.services.is_empty() || !self.host_ports.is_empty()
    }

    /// Carries the services of a plan out. True if workers have others than before.
    pub fn apply(&mut self, plan: &Plan) -> bool {
        for name in self.learn(plan) {
            self.run(&name);
        }
        self.run_host_ports(plan);
        self.book.publish()
    }

    /// Says which addresses are the node's. True if workers have others than before.
    pub fn set_addresses(&mut self, addresses: impl Iterator<Item = (VrfId, IpAddr)>) -> bool {
        let ours: HashSet<_> = addresses.map(|(vrf, address)| (vrf, mapped(address))).collect();
        self.book.set_addresses(ours);
        self.book.publish()
    }

    /// Keeps the resources of a plan; the services that they touch.
    fn learn(&mut self, plan: &Plan) -> BTreeSet<Name> {
        let mut touched = BTreeSet::new();
        for planned in plan.of_kind(Kind::Service) {
            let name = name_of(&planned.key);
            match &planned.after {
                Some(resource) => self.services.insert(name.clone(), resource.clone()),
                None => self.services.remove(&name),
            };
            touched.insert(name);
        }
        for Planned { key, before, after, .. } in plan.of_kind(Kind::EndpointSlice) {
            if let Some(owner) = before.as_deref().and_then(owner_of)
                && let Some(slices) = self.slices.get_mut(&owner)
            {
                slices.remove(&key.name);
                if slices.is_empty() {
                    self.slices.remove(&owner);
                }
                touched.insert(owner);
            }
            if let Some(resource) = after
                && let Some(owner) = owner_of(resource)
            {
                let slices = self.slices.entry(owner.clone()).or_default();
                slices.insert(key.name.clone(), resource.clone());
                touched.insert(owner);
            }
        }
        touched
    }

    /// Makes workers have a service as resources say that it is.
    fn run(&mut self, name: &Name) {
        let resource = self.services.get(name);
        let answers = match resource.is_some_and(|resource| is_direct(resource.metadata())) {
            true => Answers::Direct,
            false => Answers::Back,
        };
        let service = resource.and_then(|resource| service(resource));
        let slices = self.slices.get(name).into_iter().flat_map(BTreeMap::values);
        let slices = slices.filter_map(|resource| slice(resource));
        let wanted = service.map(|service| balance(service, slices, answers, &self.place));
        let wanted = wanted.filter(|wanted| !wanted.frontends.is_empty());
        let running = self.running.remove(name);
        if let Some(running) = self.replace(running, wanted) {
            self.running.insert(name.clone(), running);
        }
    }

    /// Makes workers have something as it is wanted; how they have it, if they do.
    fn replace(&mut self, running: Option<Running>, wanted: Option<Balanced>) -> Option<Running> {
        let is_wanted = wanted.is_some();
        let mut running = running.unwrap_or_default();
        let wanted = wanted.unwrap_or_default();
        let (before, after) = (&running.balanced.frontends, &wanted.frontends);
        let gone = before
            .keys()
            .filter(|front| !after.contains_key(front))
            .map(|front| (*front, false));
        let come = after
            .keys()
            .filter(|front| !before.contains_key(front))
            .map(|front| (*front, true));
        self.changed.extend(gone.chain(come));
        running.change(&mut self.book, wanted);
        is_wanted.then_some(running)
    }

    /// What clients connect to, of all services and host ports.
    pub fn fronts(&self) -> impl Iterator<Item = &Front> {
        self.running
            .values()
            .chain(self.host_ports.values())
            .flat_map(|running| running.balanced.frontends.keys())
    }

    /// Frontends that came (true) or went since this was last asked, in that order.
    pub fn take_changed(&mut self) -> Vec<(Front, bool)> {
        std::mem::take(&mut self.changed)
    }

    /// Frontends that came (true) or went since [`Self::take_changed`].
    pub fn changed(&self) -> &[(Front, bool)] {
        &self.changed
    }

    /// Memory for who had which backend.
    pub fn memory(&self, now_ns: u64) -> MemoryView {
        let now_s = (now_ns / 1_000_000_000) as u32;
        MemoryView {
            what: "session affinities".to_owned(),
            capacity: AFFINITIES as u64,
            used: self.affinity.used(now_s) as u64,
            bytes: self.affinity.bytes() as u64,
        }
    }

    /// The services that lead anywhere, by namespace and name; then workloads with host ports.
    pub fn views(&self) -> Vec<ServiceView> {
        let running = self.services.iter().filter_map(|(name, resource)| {
            let running = self.running.get(name)?;
            Some(self.view(name, service(resource)?.spec.kind.name(), running))
        });
        running.chain(self.host_port_views()).collect()
    }

    fn view(&self, (namespace, name): &Name, service_type: &str, running: &Running) -> ServiceView {
        let pool = |(pool, id): (&PoolName, &PoolId)| self.pool_view(&running.balanced, pool, *id);
        // Of a service that answers directly, those of this node have a pool besides.
        let leads = || running.balanced.frontends.values();
        let is_led_to = |(name, _): &(&PoolName, &PoolId)| leads().any(|lead| lead.pool == **name);
        ServiceView {
            namespace: namespace.clone(),
            name: name.clone(),
            service_type: service_type.to_owned(),
            affinity_s: running.balanced.affinity_s,
            direct: running.balanced.frontends.values().any(|lead| lead.direct),
            pools: running.pools.iter().filter(is_led_to).map(pool).collect(),
        }
    }

    fn pool_view(&self, balanced: &Balanced, name: &PoolName, id: PoolId) -> PoolView {
        let services = self.book.published();
        let pool = services.pool(id);
        let slots = pool.map_or(0, nat::service::Pool::slots);
        let mut shares = HashMap::new();
        for (pool, (backend, slots)) in pool
            .into_iter()
            .flat_map(|pool| pool.shares().map(move |share| (pool, share)))
        {
            let end = backend.member.endpoint;
            shares.insert((end.ip(), end.port), (slots, pool.connections(backend)));
        }
        let backend = |(end, backend): (&(IpAddr, u16), &crate::program::services::Backend)| {
            let (own, connections) = shares.get(end).copied().unwrap_or_default();
            BackendView {
                address: address_text(end.0, end.1),
                node: backend.node.clone(),
                state: backend.state.into(),
                share_percent: if slots == 0 {
                    0.0
                } else {
                    100.0 * own as f64 / slots as f64
                },
                connections,
            }
        };
        let leading = balanced.frontends.iter().filter(|(_, lead)| lead.pool == *name);
        let text = |front: &Front| match front.address.is_unspecified() {
            true => format!("*:{}", front.port),
            false => address_text(front.address, front.port),
        };
        PoolView {
            port: name.port.0,
            protocol: name.port.1.name().to_owned(),
            local: name.local,
            frontends: leading.map(|(front, _)| text(front)).collect(),
            backends: balanced.pools.get(name).into_iter().flatten().map(backend).collect(),
        }
    }
}

impl Running {
    /// Publishes nothing: who is led to comes before who leads, and goes after.
    fn change(&mut self, book: &mut Book, wanted: Balanced) {
        for (name, backends) in &wanted.pools {
            let id = *self.pools.entry(name.clone()).or_insert_with(|| book.add_pool());
            let is_same = self.balanced.affinity_s == wanted.affinity_s
                && self.balanced.pools.get(name).is_some_and(|known| known == backends);
            if !is_same {
                let member = |(end, backend): (&(IpAddr, u16), &crate::program::services::Backend)| Member {
                    endpoint: endpoint(end.0, end.1),
                    weight: backend.state.takes_new().into(),
                    remote: backend.remote,
                };
                let members: Vec<Member> = backends.iter().map(member).collect();
                book.set_pool(id, &members, wanted.affinity_s);
            }
        }
        for front in self.balanced.frontends.keys() {
            if !wanted.frontends.contains_key(front) {
                book.remove_frontend(&frontend(front));
            }
        }
        for (front, lead) in &wanted.frontends {
            if let Some(id) = self.pools.get(&lead.pool)
                && self.balanced.frontends.get(front) != Some(lead)
            {
                let own = PoolName {
                    local: true,
                    ..lead.pool.clone()
                };
                let own = self.pools.get(&own).filter(|_| lead.direct);
                book.set_frontend(frontend(front), lead_to(*id, own.copied(), lead));
            }
        }
        self.pools.retain(|name, id| {
            let stays = wanted.pools.contains_key(name);
            if !stays {
                book.remove_pool(*id);
            }
            stays
        });
        self.balanced = wanted;
    }
}

fn frontend(front: &Front) -> Frontend {
    Frontend::at(VRF, front.address, front.protocol.number(), front.port)
}

fn lead_to(pool: PoolId, direct: Option<PoolId>, lead: &Lead) -> nat::service::Lead {
    let sources = lead.sources.iter();
    nat::service::Lead {
        pool,
        sources: sources.map(|net| Prefix::new(net.addr(), net.prefix_len())).collect(),
        masquerade: lead.masquerade,
        silent: lead.silent,
        direct,
    }
}

fn endpoint(address: IpAddr, port: u16) -> Endpoint {
    let address = mapped(address);
    Endpoint { address, port }
}

fn address_text(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

fn name_of(key: &Key) -> Name {
    (key.namespace.clone().unwrap_or_default(), key.name.clone())
}

/// The service that a slice names, if it names one.
fn owner_of(resource: &Resource) -> Option<Name> {
    let metadata = resource.metadata();
    let service = metadata.labels.get(SERVICE_LABEL)?;
    Some((metadata.namespace.clone().unwrap_or_default(), service.clone()))
}

fn service(resource: &Resource) -> Option<&Service> {
    match resource {
        Resource::Service(object) => Some(&object.body),
        _ => None,
    }
}

fn slice(resource: &Resource) -> Option<&EndpointSlice> {
    match resource {
        Resource::EndpointSlice(object) => Some(&object.body),
        _ => None,
    }
}

impl State {
    /// Carries the services of a plan out.
    pub(super) fn apply_services(&mut self, plan: &Plan) {
        self.balancing.apply(plan);
        self.place_services();
    }

    /// Says which addresses node ports are at.
    pub(super) fn place_node_ports(&mut self) {
        let ports: Vec<_> = self.ports.iter().collect();
        let vrf = |name: &String| self.vrfs.get(name).copied().unwrap_or_default();
        let addresses = ports.into_iter().flat_map(|port| {
            let vrf = vrf(&port.spec.vrf);
            port.spec.addresses.iter().map(move |net| (vrf, net.addr()))
        });
        let addresses: Vec<_> = addresses.collect();
        self.balancing.set_addresses(addresses.into_iter());
    }
}

#[cfg(test)]
#[path = "services/tests.rs"]
mod tests;
