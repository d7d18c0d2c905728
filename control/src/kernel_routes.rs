//! The routes of the kernel's main table, followed over rtnetlink(7): what a routing daemon such as BIRD says there, the
//! plane learns.
//!
//! The table is mirrored here, and who reads it is told which prefixes changed: a route that flaps a thousand times
//! before anybody looks is one change, so what waits is bounded by the number of prefixes, not by the pace.

mod mirror;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::LinkFlags;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::AsyncSocket;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::Notify;
use tokio::time::Instant;

pub use mirror::{KernelHop, KernelRoute, Mirror};

/// What the table is heard by: the kernel says nothing of IPv4 routes that go with a device or an address.
const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
];
/// News that the kernel keeps for us: some ten thousand routes.
const RECEIVE_BYTES: usize = 8 << 20;
/// How long to wait before the whole table is read again, and before a closed connection is opened again.
const PAUSE: Duration = Duration::from_millis(300);

/// The mirror, between who writes it and who reads it.
pub struct KernelRoutes {
    mirror: Mutex<Mirror>,
    wanted: Notify,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl KernelRoutes {
    /// Empty; `wake` is called after changes.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            mirror: Mutex::default(),
            wanted: Notify::new(),
            wake: Box::new(wake),
        }
    }

    /// Says that somebody wants to know: nothing is read before.
    pub fn want(&self) {
        self.wanted.notify_one();
    }

    /// The routes, as far as they are known.
    pub fn lock(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the table of the calling thread's network namespace for good, from when somebody wants to know.
    pub async fn follow(self: Arc<Self>) {
        self.wanted.notified().await;
        loop {
            match self.listen().await {
                Ok(()) => tracing::warn!("the kernel no longer tells of its routes; asking it again"),
                Err(error) => tracing::warn!("cannot follow the kernel's routes: {error}; trying again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn listen(&self) -> io::Result<()> {
        let (mut connection, handle, mut messages) = new_multicast_connection(&GROUPS)?;
        // With less room the table is read again more often.
        let _ = connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BYTES);
        let hear = async {
            let mut due = Some(Instant::now());
            loop {
                let next = messages.recv();
                let message = match due {
                    None => next.await,
                    Some(at) => match tokio::time::timeout_at(at, next).await {
                        Ok(message) => message,
                        Err(_) => {
                            due = None;
                            self.read_all(&handle).await.map_err(io::Error::other)?;
                            continue;
                        }
                    },
                };
                let Ok((message, _)) = message else { return Ok(()) };
                if self.hear(message) == Heard::Lost {
                    due.get_or_insert_with(|| Instant::now() + PAUSE);
                }
            }
        };
        let (hear, connection) = (pin!(hear), pin!(connection));
        tokio::select! {
            () = connection => Ok(()),
            heard = hear => heard,
        }
    }

    /// Reads the whole table, and forgets what is not in it.
    async fn read_all(&self, handle: &Handle) -> Result<(), rtnetlink::Error> {
        self.lock().begin();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            let mut answers = pin!(handle.route().get(question).execute());
            while let Some(message) = answers.try_next().await? {
                if let Some(news) = News::of(&message) {
                    self.lock().add(news.net, news.metric, news.route, false);
                }
            }
        }
        self.lock().finish();
        (self.wake)();
        Ok(())
    }

    fn hear(&self, message: NetlinkMessage<RouteNetlinkMessage>) -> Heard {
        let replaces = message.header.flags & NLM_F_REPLACE != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(message)) => {
                if let Some(news) = News::of(&message) {
                    self.lock().add(news.net, news.metric, news.route, replaces);
                    (self.wake)();
                }
                Heard::All
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(message)) => {
                if let Some(news) = News::of(&message) {
                    self.lock().remove(news.net, news.metric, &news.route.hops);
                    (self.wake)();
                }
                Heard::All
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                match link.header.flags.contains(LinkFlags::Up) {
                    true => Heard::All,
                    false => Heard::Lost,
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(_) | RouteNetlinkMessage::DelAddress(_))
            | NetlinkPayload::Overrun(_) => Heard::Lost,
            _ => Heard::All,
        }
    }
}

/// Whether the kernel told everything.
#[derive(PartialEq)]
enum Heard {
    All,
    Lost,
}

/// A route that the kernel tells of.
struct News {
    net: IpNet,
    metric: u32,
    route: KernelRoute,
}

impl News {
    /// Routes of the main table with a way to leave, and those that lead nowhere; not those that follow from the host's own
    /// addresses.
    fn of(message: &RouteMessage) -> Option<News> {
        let header = &message.header;
        let mut table = u32::from(header.table);
        let (mut address, mut metric, mut hop, mut hops) = (None, 0, Hop::default(), vec![]);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Destination(destination) => address = read(destination),
                RouteAttribute::Priority(priority) => metric = *priority,
                RouteAttribute::MultiPath(several) => hops = several.iter().filter_map(hop_of).collect(),
                attribute => hop.read(attribute),
            }
        }
        let unspecified = match header.address_family {
            AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let is_ours = table == u32::from(RouteHeader::RT_TABLE_MAIN)
            && (header.kind == RouteType::Unicast || leads_nowhere(header.kind))
            && header.protocol != RouteProtocol::Kernel;
        let net = IpNet::new(address.unwrap_or(unspecified), header.destination_prefix_length).ok()?;
        match leads_nowhere(header.kind) {
            // The kernel names a device here for IPv6, `lo`, which means nothing.
            true => hops = vec![KernelHop::NOWHERE],
            false => hops.extend(hop.finish(1)),
        }
        hops.sort_unstable();
        let route = KernelRoute {
            protocol: header.protocol.into(),
            hops: hops.into(),
        };
        (is_ours && !route.hops.is_empty()).then_some(News { net, metric, route })
    }
}

fn leads_nowhere(kind: RouteType) -> bool {
    matches!(
        kind,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit
    )
}

/// What the attributes of a hop say.
#[derive(Default)]
struct Hop {
    ifindex: Option<u32>,
    gateway: Option<IpAddr>,
    /// Its gateway is of the other family, which the plane does not do.
    is_foreign: bool,
}

impl Hop {
    fn read(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Oif(ifindex) => self.ifindex = Some(*ifindex),
            RouteAttribute::Gateway(gateway) => self.gateway = read(gateway),
            RouteAttribute::Via(_) => self.is_foreign = true,
            _ => (),
        }
    }

    fn finish(self, weight: u16) -> Option<KernelHop> {
        let hop = KernelHop {
            ifindex: self.ifindex?,
            gateway: self.gateway,
            weight,
        };
        (!self.is_foreign).then_some(hop)
    }
}

fn hop_of(message: &RouteNextHop) -> Option<KernelHop> {
    let mut hop = Hop {
        ifindex: Some(message.interface_index),
        ..Hop::default()
    };
    message.attributes.iter().for_each(|attribute| hop.read(attribute));
    hop.finish(u16::from(message.hops) + 1)
}

fn read(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// Who gave a route to the kernel, as `ip route` says.
pub fn protocol_name(protocol: u8) -> String {
    match RouteProtocol::from(protocol) {
        RouteProtocol::Other(number) => number.to_string(),
        known => format!("{known:?}").to_lowercase(),
    }
}
