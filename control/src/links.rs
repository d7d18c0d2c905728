//! The host's network devices and their changes, told by the kernel over rtnetlink(7).

use std::collections::{HashMap, HashSet};
use std::io;

use futures_util::TryStreamExt;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, Prop};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;

/// A network device, as it is now or, when `removed`, as it last was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name. A renamed device is told as removed, then as new.
    pub name: String,
    /// Its other names (`altname` of ip-link(8)). One that it loses is told as removed, as its name is.
    pub alternatives: Vec<String>,
    /// The kernel's number for it; a device created again under the same name has another.
    pub ifindex: u32,
    /// Ethernet address; zeroes if it has none.
    pub mac: [u8; 6],
    /// Largest packet in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Set up by the administrator (`IFF_UP`).
    pub up: bool,
    /// Able to pass packets: up, with a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// Deleted, renamed or moved to another network namespace.
    pub removed: bool,
}

impl Link {
    /// Whether the device has this name, or had it when it was removed.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alternatives.iter().any(|other| other == name)
    }

    /// The device as it was, of its names those only that `now` has not.
    fn without_names_of(&self, now: &Link) -> Option<Link> {
        let names = std::iter::once(&self.name).chain(&self.alternatives);
        let mut gone = names.filter(|name| !now.is_called(name)).cloned();
        Some(Link {
            name: gone.next()?,
            alternatives: gone.collect(),
            removed: true,
            ..self.clone()
        })
    }
}

/// Watches the devices of the calling thread's network namespace: first tells all there are, then every change of
/// what a [`Link`] says. Call it within a Tokio runtime.
///
/// The watch ends when the receiver is dropped; the receiver ends should the kernel close the connection.
pub fn watch() -> io::Result<mpsc::Receiver<Link>> {
    let (connection, handle, mut messages) = new_multicast_connection(&[MulticastGroup::Link])?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut watch = Watch {
            handle,
            sender: sender.clone(),
            known: HashMap::new(),
        };
        let told = async {
            watch.tell_all().await.ok()?;
            while let Ok(message) = messages.recv().await {
                watch.hear(message.0).await.ok()?;
            }
            Some(())
        };
        tokio::select! {
            () = connection => (),
            _ = told => (),
            () = sender.closed() => (),
        }
    });
    Ok(receiver)
}

struct Watch {
    handle: Handle,
    sender: mpsc::Sender<Link>,
    known: HashMap<u32, Link>,
}

/// The watch is over: nobody listens, or the kernel does not answer.
struct Over;

impl Watch {
    /// Compares what there is with what was told, and tells the difference.
    async fn tell_all(&mut self) -> Result<(), Over> {
        let present: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|_| Over)?;
        let indices: HashSet<u32> = present.iter().map(|message| message.header.index).collect();
        let gone: Vec<u32> = self
            .known
            .keys()
            .filter(|index| !indices.contains(index))
            .copied()
            .collect();
        for index in gone {
            self.remove(index).await?;
        }
        for message in present {
            self.tell(read(&message)).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> Result<(), Over> {
        match message.payload {
            // A bridge speaks of its ports in its own family; a port that leaves a bridge is not a device that goes.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) if is_device(&link) => {
                self.tell(read(&link)).await
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) if is_device(&link) => {
                self.remove(link.header.index).await
            }
            // More changes than the socket holds: some are lost.
            NetlinkPayload::Overrun(_) => self.tell_all().await,
            _ => Ok(()),
        }
    }

    async fn tell(&mut self, link: Link) -> Result<(), Over> {
        let known = self.known.get(&link.ifindex);
        // The kernel repeats itself, and speaks of more than is asked here.
        if known == Some(&link) {
            return Ok(());
        }
        let renamed = known.and_then(|known| known.without_names_of(&link));
        self.known.insert(link.ifindex, link.clone());
        if let Some(before) = renamed {
            self.sender.send(before).await.map_err(|_| Over)?;
        }
        self.sender.send(link).await.map_err(|_| Over)
    }

    async fn remove(&mut self, index: u32) -> Result<(), Over> {
        match self.known.remove(&index) {
            Some(link) => self.sender.send(Link { removed: true, ..link }).await.map_err(|_| Over),
            None => Ok(()),
        }
    }
}

fn is_device(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

fn read(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        name: String::new(),
        alternatives: vec![],
        ifindex: message.header.index,
        mac: [0; 6],
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Running),
        removed: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            // Other kinds of devices have addresses of other lengths.
            LinkAttribute::Address(address) => link.mac = address.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::PropList(properties) => link.alternatives = properties.iter().filter_map(name_of).collect(),
            _ => (),
        }
    }
    link
}

fn name_of(property: &Prop) -> Option<String> {
    match property {
        Prop::AltIfName(name) => Some(name.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    /// Set in the copy of the test that runs in a network namespace of its own, which ends with it.
    const INSIDE: &str = "LINKS_TEST_INSIDE";

    #[test]
    fn devices_and_their_changes_are_told() {
        if std::env::var(INSIDE).is_ok() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            return runtime.block_on(a_life_of_devices());
        }
        if !Command::new("unshare")
            .args(["--net", "true"])
            .status()
            .unwrap()
            .success()
        {
            return println!("skipped: a network namespace needs root");
        }
        let test = std::env::current_exe().unwrap();
        let arguments = ["--exact", "links::tests::devices_and_their_changes_are_told"];
        let inside = Command::new("unshare")
            .arg("--net")
            .arg(test)
            .args(arguments)
            .env(INSIDE, "yes")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&inside.stdout);
        assert!(inside.status.success() && told.contains("1 passed"), "{told}");
    }

    async fn a_life_of_devices() {
        ip("link add one address 02:00:00:00:00:01 mtu 1400 type veth peer name other");
        let mut links = watch().unwrap();
        let loopback = next(&mut links, "lo").await;
        assert_eq!((loopback.ifindex, loopback.up, loopback.removed), (1, false, false));
        let one = next(&mut links, "one").await;
        assert_eq!((one.mac, one.mtu), ([2, 0, 0, 0, 0, 1], 1400));
        assert!(!one.up && !one.running && !one.removed);

        ip("link set one up");
        assert_eq!(
            next(&mut links, "one").await,
            Link {
                up: true,
                ..one.clone()
            }
        );
        ip("link set other up");
        assert_eq!(
            next(&mut links, "one").await,
            Link {
                up: true,
                running: true,
                ..one.clone()
            }
        );
        ip("link set one mtu 1300");
        assert_eq!(next(&mut links, "one").await.mtu, 1300);

        ip("link set one down");
        ip("link set one name two");
        let renamed = loop {
            let link = next(&mut links, "one").await;
            if link.removed {
                break link;
            }
        };
        let two = next(&mut links, "two").await;
        assert_eq!((two.ifindex, two.mac), (renamed.ifindex, one.mac));

        names_come_and_go(&mut links).await;

        // To leave a bridge is not to go.
        ip("link add bridge type bridge");
        ip("link set two master bridge");
        ip("link set two nomaster");
        ip("link set two mtu 1200");
        loop {
            let link = next(&mut links, "two").await;
            assert!(!link.removed);
            if link.mtu == 1200 {
                break;
            }
        }
        ip("link delete two");
        while !next(&mut links, "two").await.removed {}
        // The pair's other end goes with it.
        while !next(&mut links, "other").await.removed {}
    }

    /// Another name comes and goes by itself; the device `two` that has it may be renamed.
    async fn names_come_and_go(links: &mut mpsc::Receiver<Link>) {
        ip("link set two up");
        ip("link property add dev two altname also");
        while !next(links, "two").await.is_called("also") {}
        ip("link set two name three");
        let before = next_removed(links).await;
        assert!(before.name == "two" && !before.is_called("also"), "{before:?}");
        assert!(next(links, "three").await.is_called("also"));
        ip("link property del dev three altname also");
        let before = next_removed(links).await;
        assert!(before.name == "also" && !before.is_called("three"), "{before:?}");
        ip("link set three name two");
        while next(links, "two").await.removed {}
    }

    /// The next thing told of the device of that name.
    async fn next(links: &mut mpsc::Receiver<Link>, name: &str) -> Link {
        let find = async {
            loop {
                let link = links.recv().await.expect("the watch goes on");
                if link.name == name {
                    return link;
                }
            }
        };
        let patience = Duration::from_secs(10);
        tokio::time::timeout(patience, find)
            .await
            .unwrap_or_else(|_| panic!("nothing told of {name}"))
    }

    async fn next_removed(links: &mut mpsc::Receiver<Link>) -> Link {
        let find = async {
            loop {
                let link = links.recv().await.expect("the watch goes on");
                if link.removed {
                    return link;
                }
            }
        };
        let patience = Duration::from_secs(10);
        tokio::time::timeout(patience, find).await.expect("nothing is removed")
    }

    fn ip(arguments: &str) {
        assert!(
            Command::new("ip")
                .args(arguments.split(' '))
                .status()
                .unwrap()
                .success(),
            "ip {arguments}"
        );
    }
}
