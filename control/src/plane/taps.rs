//! TAP devices: made for ports, given the host's addresses, and watched where no link event tells of them.

use fastpath::port::Queue;
use fastpath::port::tap::{self, OpenError, TapQueue};
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};

use super::ports::{Backing, Behind};
use crate::resource::PortSpec;

/// Makes the device of a port, with the host's addresses, and sets it up.
pub(super) fn open(spec: &PortSpec) -> Result<Behind, String> {
    let namespace = spec.namespace();
    let options = tap::Options {
        device: spec.device.clone(),
        namespace: namespace.clone(),
        queues: spec.queues,
        mtu: u32::from(spec.mtu),
    };
    let made = tap::within(namespace.as_deref(), || -> Result<_, Trouble> {
        let (device, queues) = tap::Device::open(&options)?;
        give_addresses(device.ifindex(), &spec.host_addresses)?;
        device
            .set_up()
            .map_err(|error| Trouble(format!("cannot set up device {}: {error}", spec.device)))?;
        Ok((device, queues))
    });
    let (device, queues) = made.map_err(|Trouble(why)| why)?;
    let udp = device.joins_udp();
    let queue = |descriptor| -> Box<dyn Queue> { Box::new(TapQueue::new(descriptor, udp)) };
    Ok((
        Backing::Tap(device),
        queues.into_iter().map(queue).collect(),
        String::new(),
    ))
}

/// Has the host's device carry what the port carries.
pub(super) fn follow_mtu(device: &tap::Device, spec: &PortSpec) -> Result<(), String> {
    match device.state() {
        Ok(state) if state.mtu == u32::from(spec.mtu) => Ok(()),
        // One that is gone is made anew with it.
        Err(_) => Ok(()),
        Ok(_) => device
            .set_mtu(u32::from(spec.mtu))
            .map_err(|error| format!("cannot set the MTU of device {}: {error}", spec.device)),
    }
}

/// Why a device has to be given up, if it has to.
pub(super) fn trouble(device: &tap::Device, spec: &PortSpec) -> Option<String> {
    match &spec.netns {
        Some(name) if !device.is_reachable() => Some(format!("network namespace {name} is gone")),
        _ if !device.is_there() => Some(format!("device {} is gone", spec.device)),
        _ => None,
    }
}

/// A sentence that says what went wrong.
struct Trouble(String);

impl From<OpenError> for Trouble {
    fn from(error: OpenError) -> Self {
        Self(error.to_string())
    }
}

/// Gives addresses to a device of the calling thread's namespace, usable at once.
fn give_addresses(ifindex: u32, addresses: &[IpNet]) -> Result<(), Trouble> {
    if addresses.is_empty() {
        return Ok(());
    }
    let trouble = |error: &dyn std::fmt::Display| Trouble(format!("cannot speak to the kernel of addresses: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.map_err(|error| trouble(&error))?.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| trouble(&error))?;
        tokio::spawn(connection);
        for net in addresses {
            let mut request = handle.address().add(ifindex, net.addr(), net.prefix_len());
            if net.addr().is_ipv6() {
                // Nobody else is on this link: duplicates need no looking for.
                let flags = AddressAttribute::Flags(AddressFlags::Nodad);
                request.message_mut().attributes.push(flags);
            }
            let given = request.execute().await;
            given.map_err(|error| Trouble(format!("cannot give the host address {net}: {error}")))?;
        }
        Ok(())
    })
}
