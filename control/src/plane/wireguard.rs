//! Tunnels: what resources say of them becomes keys, peers and routes, in place.

mod allowed;
mod interface;
mod post;
mod views;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastpath::fib;
use fastpath::forwarding::Forwarding;
use fastpath::interfaces::Listener;
use fastpath::meta::{PortId, VrfId};
use wireguard::interface::Interfaces;
use wireguard::mailbox::Mailbox;
use wireguard::session::Ends;
use wireguard::tunnel::{Action, Now, Refusal as NotTaken};

use super::State;
use super::ports::Port;
use crate::refusal::Refusal;
use crate::resource::{Kind, Resource, WireguardInterface, WireguardPeer};
use crate::show::drops::DropView;
use crate::store::{Plan, Planned};
pub(super) use allowed::AllowedRoutes;
pub(super) use interface::{PEERS_MAX, Running};
pub(super) use post::Ground;
pub(super) use post::Post;

/// Address space for the allowed IPs of all interfaces; the kernel backs what is used.
pub(super) const ALLOWED_BYTES: usize = 256 << 20;
/// Handshake messages taken at once, so that a flood of them does not keep requests waiting.
const LETTERS_AT_ONCE: usize = 64;
/// Notices taken at once.
const NOTICES_AT_ONCE: usize = 1024;

/// All tunnels, shared by requests and the thread that serves them. Whoever also needs the plane's state locks that
/// first.
#[derive(Clone)]
pub(super) struct Tunnels(Arc<Mutex<Inner>>);

pub(super) struct Inner {
    pub list: BTreeMap<String, Running>,
    pool: fib::Pool,
    workers: usize,
    refused: BTreeMap<(String, &'static str), (String, u64)>,
}

/// A message that is to be sent.
pub(super) struct Outgoing {
    /// The tunnel's port.
    pub tunnel: PortId,
    pub vrf: VrfId,
    pub ends: Ends,
    pub port: u16,
    pub bytes: Vec<u8>,
    interface: String,
}

/// What a look at the tunnels found to do.
#[derive(Default)]
pub(super) struct Chores {
    pub outgoing: Vec<Outgoing>,
    /// Packets wait for a session that is there now, or never will be.
    pub announce: bool,
    /// When to look again, at the latest; `None` for when there is news.
    pub wake_ns: Option<u64>,
}

impl Tunnels {
    pub fn new(pool: fib::Pool, workers: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            list: BTreeMap::new(),
            pool,
            workers,
            refused: BTreeMap::new(),
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        // After a panic under the lock (a bug) the rest goes on as well as it can.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what workers have put into the mailbox, and does what is due.
    pub fn serve(&self, mailbox: &Mailbox, now: Now) -> Chores {
        let mut inner = self.lock();
        for _ in 0..NOTICES_AT_ONCE {
            let Some((port, notice)) = mailbox.notice() else { break };
            if let Some((_, running)) = inner.of_port(port) {
                running.tunnel.notice(notice, now);
            }
        }
        for _ in 0..LETTERS_AT_ONCE {
            let Some(letter) = mailbox.letter() else { break };
            let backlog = mailbox.backlog();
            let Some((name, running)) = inner.of_port(letter.interface) else {
                continue;
            };
            if let Err(refusal) = running.tunnel.receive(letter.bytes(), letter.ends, backlog, now) {
                let name = name.clone();
                inner.count(&name, reason(refusal), &refusal.to_string());
            }
        }
        let mut chores = Chores::default();
        for (name, running) in &mut inner.list {
            running.tunnel.wake(now);
            running.chores(name, &mut chores);
        }
        if mailbox.backlog() > 0 {
            chores.wake_ns = Some(now.ns);
        }
        chores
    }

    /// Counts a message that could not be sent.
    pub fn lost(&self, outgoing: &Outgoing, reason: &'static str, sentence: &str) {
        self.lock().count(&outgoing.interface, reason, sentence);
    }

    /// Messages of handshakes that came to nothing, by reason.
    pub fn drops(&self) -> Vec<DropView> {
        let inner = self.lock();
        let view = |((port, reason), (sentence, packets)): (&(String, &'static str), &(String, u64))| DropView {
            node: "wireguard".to_owned(),
            reason: (*reason).to_owned(),
            sentence: sentence.clone(),
            packets: *packets,
            port: Some(port.clone()),
        };
        inner.refused.iter().map(view).collect()
    }
}

impl Inner {
    fn of_port(&mut self, port: PortId) -> Option<(&String, &mut Running)> {
        self.list.iter_mut().find(|(_, running)| running.port == port)
    }

    fn count(&mut self, interface: &str, reason: &'static str, sentence: &str) {
        let counter = self.refused.entry((interface.to_owned(), reason));
        counter.or_insert_with(|| (sentence.to_owned(), 0)).1 += 1;
    }

    /// Makes an interface or a peer what `after` says, from what `before` says.
    fn change(&mut self, change: &Change<'_>, place: (PortId, VrfId), now: Now) -> Result<(), Refusal> {
        let refuse = |reason: String| Refusal::of_document(change.origin, reason);
        match (change.before, change.after) {
            (_, Some(Resource::WireguardInterface(object))) => {
                let body = &object.body;
                match self.list.get_mut(change.name) {
                    Some(running) => running.change(body, place.1, &mut self.pool, now).map_err(refuse),
                    None => {
                        let running = Running::new(body, place, &self.pool, self.workers).map_err(refuse)?;
                        self.list.insert(change.name.to_owned(), running);
                        Ok(())
                    }
                }
            }
            (Some(Resource::WireguardInterface(_)), None) => {
                if let Some(mut running) = self.list.remove(change.name) {
                    running.clear(&mut self.pool, now);
                }
                Ok(())
            }
            (before, after) => self.change_peer(change, peer(before), peer(after), now).map_err(refuse),
        }
    }

    fn change_peer(
        &mut self,
        change: &Change<'_>,
        before: Option<&WireguardPeer>,
        after: Option<&WireguardPeer>,
        now: Now,
    ) -> Result<(), String> {
        let stays = |before: &WireguardPeer, after: &WireguardPeer| {
            (&before.spec.interface, before.spec.public_key) == (&after.spec.interface, after.spec.public_key)
        };
        let replaced = before.filter(|before| after.is_none_or(|after| !stays(before, after)));
        if let Some(before) = replaced
            && let Some(running) = self.list.get_mut(&before.spec.interface)
        {
            running.remove_peer(change.name, &mut self.pool, now);
        }
        let Some(after) = after else { return Ok(()) };
        let Some(running) = self.list.get_mut(&after.spec.interface) else {
            return Err(format!("there is no WireguardInterface/{}", after.spec.interface));
        };
        running.set_peer(change.name, after, &mut self.pool, now)
    }

    fn listeners(&self) -> Vec<Listener> {
        self.list.values().map(Running::listener).collect()
    }
}

/// A step of a plan.
struct Change<'a> {
    origin: &'a str,
    name: &'a str,
    before: Option<&'a Resource>,
    after: Option<&'a Resource>,
}

impl<'a> Change<'a> {
    fn of(planned: &'a Planned) -> Self {
        Self {
            origin: &planned.origin,
            name: &planned.key.name,
            before: planned.before.as_deref(),
            after: planned.after.as_deref(),
        }
    }

    fn reversed(&self) -> Self {
        Self {
            before: self.after,
            after: self.before,
            ..*self
        }
    }
}

fn peer(resource: Option<&Resource>) -> Option<&WireguardPeer> {
    match resource {
        Some(Resource::WireguardPeer(object)) => Some(&object.body),
        _ => None,
    }
}

fn interface(resource: Option<&Resource>) -> Option<&WireguardInterface> {
    match resource {
        Some(Resource::WireguardInterface(object)) => Some(&object.body),
        _ => None,
    }
}

/// What comes or changes, in an order in which each finds what it stands on: interfaces, then peers.
fn coming(plan: &Plan) -> impl Iterator<Item = &Planned> {
    let kinds = [Kind::WireguardInterface, Kind::WireguardPeer].into_iter();
    let planned = kinds.flat_map(|kind| plan.of_kind(kind));
    planned.filter(|planned| planned.after.is_some())
}

/// What goes, in the reverse order.
fn going(plan: &Plan) -> impl Iterator<Item = &Planned> {
    let kinds = [Kind::WireguardPeer, Kind::WireguardInterface].into_iter();
    let planned = kinds.flat_map(|kind| plan.of_kind(kind));
    planned.filter(|planned| planned.after.is_none())
}

impl State {
    /// Makes the tunnels and peers that come, and changes those that change. On a refusal all is as it was.
    pub(super) fn prepare_tunnels(&mut self, plan: &Plan) -> Result<(), Refusal> {
        let mut done = vec![];
        for planned in coming(plan) {
            let change = Change::of(planned);
            if let Err(refusal) = self.change_tunnel(&change) {
                self.undo_tunnels(&done);
                return Err(refusal);
            }
            done.push(change);
        }
        if !done.is_empty() {
            self.publish_tunnels();
        }
        Ok(())
    }

    /// Takes back what `prepare_tunnels` did.
    pub(super) fn revert_tunnels(&mut self, plan: &Plan) {
        let done: Vec<Change<'_>> = coming(plan).map(Change::of).collect();
        self.undo_tunnels(&done);
    }

    /// Removes what the plan removes: no route leads there any more.
    pub(super) fn finish_tunnels(&mut self, plan: &Plan) {
        for planned in going(plan) {
            // What goes needs no room.
            let _ = self.change_tunnel(&Change::of(planned));
        }
        if going(plan).next().is_some() {
            self.publish_tunnels();
        }
    }

    fn undo_tunnels(&mut self, done: &[Change<'_>]) {
        for change in done.iter().rev() {
            // What was there before fits again.
            let _ = self.change_tunnel(&change.reversed());
        }
        if !done.is_empty() {
            self.publish_tunnels();
        }
    }

    fn change_tunnel(&mut self, change: &Change<'_>) -> Result<(), Refusal> {
        let now = self.moment();
        let is_interface = interface(change.before.or(change.after)).is_some();
        let outside = interface(change.after).map(|body| self.vrf(&body.spec.transport_vrf));
        if let Some(body) = interface(change.after) {
            self.ports.set_tunnel(change.name, &body.spec);
        }
        let port = self.ports.id(change.name).unwrap_or_default();
        let place = (port, outside.unwrap_or_default());
        let changed = self.tunnels.lock().change(change, place, now);
        let is_gone = change.after.is_none() || (change.before.is_none() && changed.is_err());
        if is_interface && is_gone {
            self.ports.remove_tunnel(change.name);
        }
        changed
    }

    /// Shows workers the tunnels as they are now.
    fn publish_tunnels(&mut self) {
        let mut list = vec![None; self.ports.list.len()];
        for running in self.tunnels.lock().list.values() {
            if let Some(place) = list.get_mut(running.port.index()) {
                *place = Some(running.published());
            }
        }
        self.wireguard.publish(Interfaces(list));
        self.publish_interfaces();
        // New peers may have something to send, and packets that wait another way to go.
        self.forwarding.announce();
        self.workers.wake();
        self.mailbox.wake();
    }

    pub(super) fn listeners(&self) -> Vec<Listener> {
        self.tunnels.lock().listeners()
    }

    /// The time, as tunnels want it.
    pub(super) fn moment(&self) -> Now {
        moment(self.now_ns(), self.manual_ns.is_some())
    }

    /// Our address to speak to `remote` from, outside tunnels.
    pub(super) fn source_towards(&self, vrf: VrfId, remote: IpAddr) -> Option<IpAddr> {
        let port = self.rib.egress_around_tunnels(vrf, remote)?;
        self.interfaces.current().source_for(port, vrf, remote)
    }

    /// After ports or tunnels have changed, has peers spoken to from addresses that are still ours.
    pub(super) fn choose_tunnel_sources(&self, plan: &Plan) {
        let mut kinds = [Kind::Port, Kind::WireguardInterface].into_iter();
        if !kinds.any(|kind| plan.of_kind(kind).next().is_some()) {
            return;
        }
        let (interfaces, now) = (self.interfaces.current(), self.moment());
        for running in self.tunnels.lock().list.values_mut() {
            let vrf = running.outside;
            let is_ours = |address: &IpAddr| {
                let mut own = interfaces.ports.iter().flatten().filter(|port| port.vrf == vrf);
                own.any(|port| port.has(*address))
            };
            let choose = |ends: Ends| {
                let kept = ends.local.filter(is_ours);
                kept.or_else(|| self.source_towards(vrf, ends.remote.ip()))
            };
            running.tunnel.choose_sources(choose, now);
        }
    }

    /// Packets and bytes of a tunnel, received and sent.
    pub(super) fn tunnel_traffic(&self, port: &Port) -> [(u64, u64); 2] {
        let inner = self.tunnels.lock();
        inner
            .list
            .get(&port.name)
            .map_or_else(Default::default, Running::traffic)
    }
}

/// One moment on both clocks. Simulated time begins in 2001.
pub(super) fn moment(ns: u64, simulated: bool) -> Now {
    let wall = match simulated {
        true => Duration::from_secs(1_000_000_000) + Duration::from_nanos(ns),
        false => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default(),
    };
    Now { ns, wall }
}

/// Lets packets that wait try again.
pub(super) fn announce(forwarding: &Forwarding, wake: impl FnOnce()) {
    forwarding.announce();
    wake();
}

/// The name under which a refusal is counted.
fn reason(refusal: NotTaken) -> &'static str {
    match refusal {
        NotTaken::Malformed => "malformed",
        NotTaken::Transport => "transport",
        NotTaken::WrongMac => "wrong-mac",
        NotTaken::Cookie => "cookie",
        NotTaken::TooMany => "too-many",
        NotTaken::Stranger => "stranger",
        NotTaken::NotAuthentic => "not-authentic",
        NotTaken::Replayed => "replayed",
        NotTaken::TooSoon => "too-soon",
        NotTaken::NotAsked => "not-asked",
        NotTaken::Full => "full",
    }
}

impl Running {
    /// Collects what is to be done.
    fn chores(&mut self, name: &str, chores: &mut Chores) {
        while let Some(action) = self.tunnel.poll() {
            match action {
                Action::Send { ends, bytes } => chores.outgoing.push(Outgoing {
                    tunnel: self.port,
                    vrf: self.outside,
                    ends,
                    port: self.body.spec.listen_port,
                    bytes,
                    interface: name.to_owned(),
                }),
                Action::Established(id) => {
                    self.established(id);
                    chores.announce = true;
                }
                Action::Unreachable(_) => chores.announce = true,
            }
        }
        let next = self.tunnel.next_wake();
        chores.wake_ns = [chores.wake_ns, next].into_iter().flatten().min();
    }
}
