//! Tunnel interfaces as workers see them: a snapshot, replaced as a whole; the tables it leads to change in place.

use crate::allowed_ips::AllowedIpsView;
use crate::session::{Lookup, Tables};
use fastpath::meta::{PortId, VrfId};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

/// Every worker's view of one tunnel's sessions and peers, made by control so that no worker allocates.
pub struct Lookups(Box<[Mutex<Lookup>]>);

impl Lookups {
    /// For as many workers. About 80 bytes for each peer there may be, and worker.
    pub fn new(tables: &Tables, workers: usize) -> Arc<Self> {
        Arc::new(Self((0..workers).map(|_| Mutex::new(Lookup::new(tables))).collect()))
    }

    /// The view of one worker. Its nodes run one after the other, so it is always free; once a vector.
    #[inline]
    pub fn of(&self, worker: u16) -> Option<MutexGuard<'_, Lookup>> {
        match self.0.get(usize::from(worker))?.try_lock() {
            Ok(lookup) => Some(lookup),
            // A view is consistent after every step, also after the last one of a worker that is gone.
            Err(TryLockError::Poisoned(lookup)) => Some(lookup.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// One tunnel interface.
pub struct Interface {
    /// Its port: decrypted packets come in by it, and routes lead to it.
    pub port: PortId,
    /// Table of routes for what is outside; what is inside takes that of the port.
    pub vrf: VrfId,
    /// Most bytes of a packet inside.
    pub mtu: u16,
    /// UDP port it listens on and sends from.
    pub listen_port: u16,
    /// Whether TCP connections through it are kept to segments that fit.
    pub clamp_mss: bool,
    /// Whose the addresses inside are.
    pub allowed: AllowedIpsView,
    /// The tunnel's sessions and peers. To be kept when the rest is replaced.
    pub lookups: Arc<Lookups>,
}

/// One tunnel interface, and a worker's view of what changes in place.
pub struct Here<'a> {
    /// The interface.
    pub interface: &'a Interface,
    /// Its sessions and peers.
    pub lookup: MutexGuard<'a, Lookup>,
}

/// The interface of the packet at hand: looked up again only where packets of several are mixed.
pub struct Current<'a> {
    interfaces: &'a Interfaces,
    worker: u16,
    port: PortId,
    here: Option<Here<'a>>,
}

impl<'a> Current<'a> {
    /// The interface behind a port, if there is one.
    #[inline(always)]
    pub fn at(&mut self, port: PortId) -> Option<&mut Here<'a>> {
        if self.here.is_none() || self.port != port {
            self.turn_to(port);
        }
        self.here.as_mut()
    }

    #[inline(never)]
    fn turn_to(&mut self, port: PortId) {
        // Let go first: it may be the same view.
        self.here = None;
        self.port = port;
        let interface = self.interfaces.get(port);
        self.here = interface.and_then(|interface| {
            let lookup = interface.lookups.of(self.worker)?;
            Some(Here { interface, lookup })
        });
    }
}

/// All tunnel interfaces, by their ports.
#[derive(Clone, Default)]
pub struct Interfaces(pub Vec<Option<Arc<Interface>>>);

impl Interfaces {
    /// The interface, if the port is one.
    #[inline(always)]
    pub fn get(&self, port: PortId) -> Option<&Interface> {
        self.0.get(port.index())?.as_deref()
    }

    /// For the packets of one vector.
    #[inline]
    pub fn current(&self, worker: u16) -> Current<'_> {
        Current {
            interfaces: self,
            worker,
            port: PortId::default(),
            here: None,
        }
    }
}
