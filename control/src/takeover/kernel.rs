//! What a takeover asks of the kernel, over rtnetlink(7) and sysctl.

use std::fmt::Display;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_core::Nla;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteProtocol, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::runtime::Runtime;

use super::TakeoverError;

/// `addr_gen_mode` of a device that makes no link-local address by itself (`IN6_ADDR_GEN_MODE_NONE`, linux/if_link.h).
pub const NO_ADDRESSES: &str = "1";
/// What a host may have said of its device that means something for a TAP as well.
const SETTINGS: [&str; 10] = [
    "ipv4/conf/DEVICE/forwarding",
    "ipv4/conf/DEVICE/rp_filter",
    "ipv4/conf/DEVICE/arp_ignore",
    "ipv4/conf/DEVICE/arp_announce",
    "ipv4/conf/DEVICE/accept_redirects",
    "ipv4/conf/DEVICE/promote_secondaries",
    "ipv6/conf/DEVICE/disable_ipv6",
    "ipv6/conf/DEVICE/forwarding",
    "ipv6/conf/DEVICE/accept_ra",
    "ipv6/conf/DEVICE/use_tempaddr",
];
/// `RTA_NH_ID`: a next hop by number, told beside what it stands for.
const NEXT_HOP_ID: u16 = 30;
/// Clock ticks of the kernel's that user space sees in a second (`USER_HZ`).
const TICKS: u32 = 100;

/// A connection to the kernel.
pub struct Kernel {
    runtime: Runtime,
    handle: Handle,
}

/// A device.
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: [u8; 6],
    pub mtu: u32,
    pub up: bool,
    /// It is a part of a bridge or bond.
    pub is_enslaved: bool,
}

/// Speaks to the kernel on a thread of its own: the caller's may serve others.
pub fn speak<T: Send>(work: impl FnOnce(&Kernel) -> Result<T, TakeoverError> + Send) -> Result<T, TakeoverError> {
    let speak = || {
        let refused = |error: std::io::Error| failed("ask the kernel", &"of every kind", &error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(refused)?;
        let guard = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection().map_err(refused)?;
        runtime.spawn(connection);
        drop(guard);
        work(&Kernel { runtime, handle })
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(speak);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Kernel {
    /// The device of a number.
    pub fn link(&self, index: u32) -> Result<Option<Link>, TakeoverError> {
        Ok(self.links()?.into_iter().find(|link| link.index == index))
    }

    /// The device of a name.
    pub fn link_named(&self, name: &str) -> Result<Option<Link>, TakeoverError> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    fn links(&self) -> Result<Vec<Link>, TakeoverError> {
        let links = self.runtime.block_on(self.handle.link().get().execute().try_collect());
        let links: Vec<LinkMessage> = links.map_err(|error| failed("read the state", &"of every kind", &error))?;
        Ok(links.iter().map(read).collect())
    }

    /// Gives a device another name. Before 6.2 the kernel renames only what is down.
    pub fn rename(&self, index: u32, name: &str) -> Result<(), TakeoverError> {
        let rename = || self.change(LinkUnspec::new_with_index(index).name(name).build());
        match rename() {
            Err(error) if is(&error, &[libc::EBUSY]) => {
                let down = self.change(LinkUnspec::new_with_index(index).down().build());
                down.and_then(|()| rename())
            }
            done => done,
        }
        .map_err(|error| failed("change the name", &name, &error))
    }

    pub fn set_up(&self, index: u32) -> Result<(), TakeoverError> {
        let up = self.change(LinkUnspec::new_with_index(index).up().build());
        up.map_err(|error| failed("change the state", &index, &error))
    }

    pub fn set_link_address(&self, index: u32, mac: &[u8; 6]) -> Result<(), TakeoverError> {
        let address = self.change(LinkUnspec::new_with_index(index).address(mac.to_vec()).build());
        address.map_err(|error| failed("change the link address", &index, &error))
    }

    fn change(&self, message: LinkMessage) -> Result<(), rtnetlink::Error> {
        self.runtime.block_on(self.handle.link().set(message).execute())
    }

    /// The addresses of a device.
    pub fn addresses(&self, index: u32) -> Result<Vec<AddressMessage>, TakeoverError> {
        let all = self
            .runtime
            .block_on(self.handle.address().get().execute().try_collect());
        let mut all: Vec<AddressMessage> = all.map_err(|error| failed("read the addresses", &index, &error))?;
        all.retain(|address| address.header.index == index);
        Ok(all)
    }

    /// The routes by a device that do not follow from its addresses: those without a gateway first, for others need them.
    pub fn routes(&self, index: u32) -> Result<Vec<RouteMessage>, TakeoverError> {
        let mut routes = vec![];
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessageBuilder::<IpAddr>::new().build();
            question.header.address_family = family;
            let all = self
                .runtime
                .block_on(self.handle.route().get(question).execute().try_collect());
            let all: Vec<RouteMessage> = all.map_err(|error| failed("read the routes", &index, &error))?;
            routes.extend(all.into_iter().filter(|route| leads_by(route, index)));
        }
        routes.sort_by_key(has_gateway);
        Ok(routes)
    }

    /// Takes a device's routes and addresses away.
    pub fn undress(&self, index: u32) -> Result<(), TakeoverError> {
        for route in self.routes(index)?.into_iter().rev() {
            self.remove_route(index, route)?;
        }
        for address in self.addresses(index)? {
            let removed = self.runtime.block_on(self.handle.address().del(address).execute());
            // A secondary address can go with its primary one.
            unless(removed, &[libc::EADDRNOTAVAIL]).map_err(|error| failed("take the addresses", &index, &error))?;
        }
        Ok(())
    }

    fn remove_route(&self, index: u32, route: RouteMessage) -> Result<(), TakeoverError> {
        let route = replayed(route, (index, index));
        let removed = self.runtime.block_on(self.handle.route().del(route).execute());
        unless(removed, &[libc::ESRCH, libc::ENOENT]).map_err(|error| failed("take the routes", &index, &error))
    }

    /// Gives a device an address, usable at once: whoever had it before was the same host.
    pub fn add_address(&self, index: u32, mut address: AddressMessage) -> Result<(), TakeoverError> {
        address.header.index = index;
        let is_v6 = address.header.family == AddressFamily::Inet6;
        let kept = AddressFlags::Noprefixroute | AddressFlags::Mcautojoin | AddressFlags::Managetempaddr;
        for attribute in &mut address.attributes {
            match attribute {
                AddressAttribute::Flags(flags) if is_v6 => *flags = (*flags & kept) | AddressFlags::Nodad,
                AddressAttribute::Flags(flags) => *flags &= kept,
                _ => (),
            }
        }
        let (handle, own) = (self.handle.address(), own(&address));
        let Some(ip) = own else { return Ok(()) };
        let mut request = handle.add(index, ip, address.header.prefix_len);
        *request.message_mut() = address;
        let added = self.runtime.block_on(request.execute());
        unless(added, &[libc::EEXIST]).map_err(|error| failed("give the addresses", &index, &error))
    }

    /// Gives a device a route that was, by its number, another one's.
    pub fn add_route(&self, (from, to): (u32, u32), route: RouteMessage) -> Result<(), TakeoverError> {
        let route = replayed(route, (from, to));
        let added = self.runtime.block_on(self.handle.route().add(route).execute());
        unless(added, &[libc::EEXIST]).map_err(|error| failed("give the routes", &to, &error))
    }
}

/// The address itself: on a link between two, the one at this end.
pub fn own(address: &AddressMessage) -> Option<IpAddr> {
    let attributes = &address.attributes;
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// How a device makes link-local addresses. Without IPv6 it says nothing.
pub fn generated_addresses(device: &str) -> String {
    let mode = std::fs::read_to_string(setting("ipv6/conf/DEVICE/addr_gen_mode", device));
    mode.unwrap_or_default().trim().to_owned()
}

/// Has a device make link-local addresses in a way. Where it cannot be told, it makes one that it need not have.
pub fn generate_addresses(device: &str, mode: &str) {
    if !mode.is_empty() {
        let _ = std::fs::write(setting("ipv6/conf/DEVICE/addr_gen_mode", device), mode);
    }
}

/// Has a device be to the host what another one was, as far as it can be told.
pub fn copy_settings(from: &str, to: &str) {
    for name in SETTINGS {
        if let Ok(value) = std::fs::read_to_string(setting(name, from)) {
            let _ = std::fs::write(setting(name, to), value.trim());
        }
    }
}

fn setting(name: &str, device: &str) -> String {
    format!("/proc/sys/net/{}", name.replace("DEVICE", device))
}

fn read(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: [0; 6],
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        is_enslaved: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(address) => link.mac = address.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(_) => link.is_enslaved = true,
            _ => (),
        }
    }
    link
}

/// Whether it is a route by the device that somebody gave to the kernel.
fn leads_by(route: &RouteMessage, index: u32) -> bool {
    let is_given = route.header.kind == RouteType::Unicast && route.header.protocol != RouteProtocol::Kernel;
    is_given
        && route.header.table != libc::RT_TABLE_LOCAL
        && route.attributes.iter().any(|attribute| match attribute {
            RouteAttribute::Oif(oif) => *oif == index,
            RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.interface_index == index),
            _ => false,
        })
}

fn has_gateway(route: &RouteMessage) -> bool {
    let leads = |attribute: &RouteAttribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_)
        )
    };
    route.attributes.iter().any(leads)
}

/// What the kernel told of a route, as it may be told to the kernel, of another device.
fn replayed(mut route: RouteMessage, (from, to): (u32, u32)) -> RouteMessage {
    route.header.flags &= RouteFlags::Onlink;
    let attributes = std::mem::take(&mut route.attributes);
    let kept = attributes.into_iter().filter_map(|attribute| match attribute {
        // A route that a router advertised goes on to expire.
        RouteAttribute::CacheInfo(known) => {
            (known.expires > 0).then_some(RouteAttribute::Expires(known.expires / TICKS))
        }
        RouteAttribute::Other(other) if other.kind() == NEXT_HOP_ID => None,
        RouteAttribute::Oif(oif) => Some(RouteAttribute::Oif(moved(oif, (from, to)))),
        RouteAttribute::MultiPath(hops) => {
            let hops = hops.into_iter().map(|mut hop: RouteNextHop| {
                hop.interface_index = moved(hop.interface_index, (from, to));
                hop.flags &= RouteNextHopFlags::Onlink;
                hop
            });
            Some(RouteAttribute::MultiPath(hops.collect()))
        }
        other => Some(other),
    });
    route.attributes = kept.collect();
    route
}

fn moved(index: u32, (from, to): (u32, u32)) -> u32 {
    if index == from { to } else { index }
}

fn failed(what: &'static str, device: &dyn Display, error: &dyn Display) -> TakeoverError {
    TakeoverError::Kernel {
        what,
        device: device.to_string(),
        why: error.to_string(),
    }
}

fn is(error: &rtnetlink::Error, errors: &[i32]) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(said) => said.code.is_some_and(|code| errors.contains(&-code.get())),
        _ => false,
    }
}

fn unless(done: Result<(), rtnetlink::Error>, errors: &[i32]) -> Result<(), rtnetlink::Error> {
    match done {
        Err(error) if is(&error, errors) => Ok(()),
        done => done,
    }
}
