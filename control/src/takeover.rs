//! Takeover: a TAP in place of a device (`punt: tap`). The device goes by another name, the TAP has its name, link address,
//! addresses and routes, and everything can be put back: at the end, at the next start after a crash, and by hand.
//!
//! What was there is written down before anything is changed. Putting back needs only that, and does what is left to do: so
//! it does not matter which of the steps were taken, nor how often it is tried.

mod kernel;
mod record;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastpath::port::tap;

use kernel::Kernel;
pub use record::{Record, records};

/// How long the TAP of a process that was killed may still be there.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a device was not taken over, or not given back.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// What is to be put back cannot be written down or read.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The kernel refused.
    #[error("cannot {what} of device {device}: {why}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// The device.
        device: String,
        /// What the kernel said.
        why: String,
    },
    /// There is none of the name.
    #[error("there is no device `{0}`: `ip link` shows those there are")]
    NoDevice(String),
    /// It belongs to a bridge or bond.
    #[error("device `{0}` is a part of another one, whose addresses it has; expected a device of its own")]
    Enslaved(String),
    /// Another device has its name.
    #[error("another device is called {0} by now; rename or remove it, then run `margay restore`")]
    Taken(String),
    /// It was taken over in another network namespace.
    #[error("{} is of another network namespace; run `margay restore` there first", .0.display())]
    Elsewhere(PathBuf),
    /// The TAP.
    #[error(transparent)]
    Tap(#[from] tap::OpenError),
}

/// A device that a TAP stands in for.
pub struct Takeover {
    folder: PathBuf,
    record: Record,
    /// The TAP's queues and MTU.
    form: (u16, u16),
    tap: Option<(tap::Device, Vec<OwnedFd>)>,
    tap_index: u32,
}

/// One of the things that are done.
type Step = fn(&mut Takeover, &Kernel) -> Result<(), TakeoverError>;

/// What is done after the record is written, in order.
const STEPS: [Step; 4] = [Takeover::rename, Takeover::make_tap, Takeover::undress, Takeover::dress];

/// Puts a TAP in place of `device`, with a number of queues and an MTU in bytes; what is needed to put the device back is kept in `folder`.
///
/// # Errors
/// See [`TakeoverError`]; the device is as it was.
pub fn take(folder: &Path, device: &str, form: (u16, u16)) -> Result<Takeover, TakeoverError> {
    kernel::speak(|kernel| {
        if let Some(left) = Record::read(folder, device)? {
            left.check_place(folder)?;
            put_back(kernel, folder, &left)?;
        }
        let taken = take_in_part(kernel, folder, (device, form), STEPS.len());
        taken.map_err(|(error, begun)| {
            if let Some(mut begun) = begun {
                // The TAP goes first: it has the name.
                begun.tap = None;
                if let Err(worse) = put_back(kernel, folder, &begun.record) {
                    tracing::error!("device {device} could not be put back: {worse}");
                }
            }
            error
        })
    })
}

/// Takes the first `steps` steps.
fn take_in_part(
    kernel: &Kernel,
    folder: &Path,
    (device, form): (&str, (u16, u16)),
    steps: usize,
) -> Result<Takeover, (TakeoverError, Option<Box<Takeover>>)> {
    let record = Record::of(kernel, device).map_err(|error| (error, None))?;
    let mut takeover = Takeover {
        folder: folder.to_owned(),
        record,
        form,
        tap: None,
        tap_index: 0,
    };
    let written = takeover.record.write(folder);
    let done = written.and_then(|()| STEPS[..steps].iter().try_for_each(|step| step(&mut takeover, kernel)));
    match done {
        Ok(()) => Ok(takeover),
        Err(error) => Err((error, Some(Box::new(takeover)))),
    }
}

impl Takeover {
    /// The name that the device has for now.
    pub fn renamed(&self) -> String {
        self.record.renamed()
    }

    /// The link address of both.
    pub fn mac(&self) -> [u8; 6] {
        self.record.mac
    }

    /// The TAP, for the first who asks.
    pub fn take_tap(&mut self) -> Option<(tap::Device, Vec<OwnedFd>)> {
        self.tap.take()
    }

    /// The kernel's number for the TAP.
    pub fn tap_index(&self) -> u32 {
        self.tap_index
    }

    /// The addresses of the TAP, as they are now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, TakeoverError> {
        kernel::speak(|kernel| {
            kernel
                .addresses(self.tap_index)
                .map(|list| list.iter().filter_map(kernel::own).collect())
        })
    }

    /// Writes down what the TAP has by now, for the device to have it: to be done before the TAP goes.
    ///
    /// # Errors
    /// What was written down before stays.
    pub fn follow(&mut self) -> Result<(), TakeoverError> {
        let (index, record) = (self.tap_index, &mut self.record);
        kernel::speak(|kernel| {
            if kernel.link(index)?.is_some_and(|link| link.up) {
                record.set_host(index, &kernel.addresses(index)?, &kernel.routes(index)?);
            }
            Ok(())
        })?;
        self.record.write(&self.folder)
    }

    /// Puts the device back. The TAP has to be closed.
    ///
    /// # Errors
    /// See [`TakeoverError`]; it can be tried again.
    pub fn give_back(&self) -> Result<(), TakeoverError> {
        kernel::speak(|kernel| put_back(kernel, &self.folder, &self.record))
    }

    fn rename(&mut self, kernel: &Kernel) -> Result<(), TakeoverError> {
        kernel.rename(self.record.ifindex, &self.record.renamed())?;
        // Two devices with one link address would have one link-local address.
        kernel::generate_addresses(&self.record.renamed(), kernel::NO_ADDRESSES);
        Ok(())
    }

    fn make_tap(&mut self, kernel: &Kernel) -> Result<(), TakeoverError> {
        let (queues, mtu) = self.form;
        let options = tap::Options {
            device: self.record.device.clone(),
            namespace: None,
            queues,
            mtu: mtu.into(),
        };
        let (device, queues) = tap::Device::open(&options)?;
        self.tap_index = device.ifindex();
        self.tap = Some((device, queues));
        kernel::copy_settings(&self.record.renamed(), &self.record.device);
        kernel::generate_addresses(&self.record.device, kernel::NO_ADDRESSES);
        kernel.set_link_address(self.tap_index, &self.record.mac)
    }

    fn undress(&mut self, kernel: &Kernel) -> Result<(), TakeoverError> {
        kernel.undress(self.record.ifindex)?;
        // It was set down to be renamed where the kernel is old.
        kernel.set_up(self.record.ifindex)
    }

    fn dress(&mut self, kernel: &Kernel) -> Result<(), TakeoverError> {
        kernel.set_up(self.tap_index)?;
        dress(kernel, self.tap_index, &self.record)
    }
}

/// Gives a device what the host had. A route that the kernel does not take any more is said, and nothing else.
fn dress(kernel: &Kernel, index: u32, record: &Record) -> Result<(), TakeoverError> {
    for address in record.addresses() {
        kernel.add_address(index, address)?;
    }
    for route in record.routes() {
        if let Err(error) = kernel.add_route((record.told_of(), index), route) {
            tracing::warn!("a route of the host's is lost: {error}");
        }
    }
    Ok(())
}

/// Puts the device of a record back, and forgets the record.
///
/// # Errors
/// See [`TakeoverError`]; the record stays.
pub fn restore(folder: &Path, record: &Record) -> Result<(), TakeoverError> {
    record.check_place(folder)?;
    kernel::speak(|kernel| put_back(kernel, folder, record))
}

fn put_back(kernel: &Kernel, folder: &Path, record: &Record) -> Result<(), TakeoverError> {
    let Some(link) = kernel.link(record.ifindex)? else {
        tracing::warn!("device {} is gone: there is nothing to put back", record.device);
        return record.forget(folder);
    };
    if link.name == record.renamed() {
        let begun = Instant::now();
        while kernel.link_named(&record.device)?.is_some() {
            if begun.elapsed() > PATIENCE {
                return Err(TakeoverError::Taken(record.device.clone()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // The kernel gave labels of its own to addresses that were renamed with the device.
        kernel.undress(record.ifindex)?;
        kernel.rename(record.ifindex, &record.device)?;
    } else if link.name != record.device {
        tracing::warn!(
            "device {} is called {} by now, and is left alone",
            record.device,
            link.name
        );
        return record.forget(folder);
    }
    kernel::generate_addresses(&record.device, &record.generates);
    if record.up {
        kernel.set_up(record.ifindex)?;
    }
    dress(kernel, record.ifindex, record)?;
    record.forget(folder)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the copy of the test that runs in a network namespace of its own, which ends with it.
    const INSIDE: &str = "TAKEOVER_TEST_INSIDE";

    #[test]
    fn every_step_can_be_taken_back() {
        if std::env::var(INSIDE).is_ok() {
            return each_step();
        }
        let may = |arguments: &[&str]| Command::new("unshare").args(arguments).status().unwrap().success();
        if !may(&["--net", "test", "-c", "/dev/net/tun"]) {
            return println!("skipped: a network namespace needs root, and a TAP /dev/net/tun");
        }
        let test = std::env::current_exe().unwrap();
        let arguments = ["--exact", "takeover::tests::every_step_can_be_taken_back"];
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

    fn each_step() {
        for line in [
            "link add one address 02:00:00:00:00:01 mtu 1400 type veth peer name other",
            "link set one addrgenmode none",
            "link set one up",
            "link set other up",
            "address add 10.4.0.1/24 dev one",
            "address add 10.4.0.9/24 dev one",
            "address add 10.5.0.1/32 dev one valid_lft 3600 preferred_lft 1800",
            "-6 address add fd00:4::1/64 dev one nodad",
            "-6 address add fe80::99/64 dev one nodad",
            "route add default via 10.4.0.2 metric 7",
            "route add 10.6.0.0/16 dev one src 10.4.0.9 mtu 1300",
            "route add 10.7.0.0/16 nexthop via 10.4.0.2 weight 2 nexthop via 10.4.0.3",
            "route add 10.8.0.0/16 via 10.9.9.9 dev one onlink table 100 proto static",
            "-6 route add default via fe80::1 dev one",
            "-6 route add fd00:6::/64 via fd00:4::2 metric 5",
        ] {
            ip(line);
        }
        let folder = tempfile::tempdir().unwrap();
        let before = state();
        assert!(
            before.contains("10.8.0.0/16") && before.contains("fd00:6::/64"),
            "{before}"
        );
        for steps in 0..=STEPS.len() {
            // The process is gone: its TAP is, too, and nothing else was done.
            let taken = kernel::speak(|kernel| {
                take_in_part(kernel, folder.path(), ("one", (1, 1400)), steps).map_err(|it| it.0)
            });
            let taken = taken.unwrap();
            if steps == STEPS.len() {
                let there = state();
                let (own, ours) = (taken.record.renamed(), ip("-br link show one"));
                assert!(ours.contains("UP") && ours.contains("02:00:00:00:00:01"), "{ours}");
                assert_eq!(there, before, "the TAP has what the device had");
                assert_eq!(ip(&format!("address show {own}")).matches("inet").count(), 0);
            }
            drop(taken);
            let left = records(folder.path()).unwrap();
            assert_eq!(left.len(), 1, "after {steps} steps");
            restore(folder.path(), &left[0]).unwrap();
            assert_eq!(state(), before, "after {steps} steps");
            assert!(records(folder.path()).unwrap().is_empty());
            // And once more, as if the file had not been removed.
            left[0].write(folder.path()).unwrap();
            restore(folder.path(), &left[0]).unwrap();
            assert_eq!(state(), before, "after {steps} steps, twice");
        }
        what_changes_meanwhile(folder.path());
    }

    /// What the TAP has at the end is what the device gets.
    fn what_changes_meanwhile(folder: &Path) {
        let mut taken = take(folder, "one", (2, 1400)).unwrap();
        ip("address add 10.4.0.77/24 dev one");
        ip("address del 10.4.0.9/24 dev one");
        ip("route add 10.66.0.0/16 via 10.4.0.2");
        let there = state();
        assert!(taken.addresses().unwrap().contains(&IpAddr::from([10, 4, 0, 77])));
        taken.follow().unwrap();
        drop(taken.take_tap());
        taken.give_back().unwrap();
        assert_eq!(state(), there);
        assert!(matches!(
            take(folder, "two", (1, 1400)),
            Err(TakeoverError::NoDevice(_))
        ));
    }

    /// What the host has on the device called `one`, without what tells two devices apart, and without time.
    fn state() -> String {
        let mut lines: Vec<String> = vec![
            ip("link show one")
                .split("link/ether")
                .nth(1)
                .unwrap_or_default()
                .into(),
        ];
        for family in ["-4", "-6"] {
            let addresses = ip(&format!("{family} -o address show dev one"));
            let words = |line: &str| {
                line.split("\\")
                    .next()
                    .unwrap_or_default()
                    .split(' ')
                    .skip(1)
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            lines.extend(addresses.lines().map(words));
            let mut routes: Vec<String> = ip(&format!("{family} route show table all"))
                .lines()
                .map(str::to_owned)
                .collect();
            routes.retain(|line| !line.starts_with("multicast") && !line.starts_with("anycast"));
            routes.sort_unstable();
            lines.extend(routes);
        }
        lines.join("\n")
    }

    fn ip(arguments: &str) -> String {
        let done = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "ip {arguments}: {said}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}
