//! What a device had before a TAP stood in for it, on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rtnetlink::packet_core::{Emitable, Parseable};
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::route::RouteMessage;
use serde::{Deserialize, Serialize};

use super::TakeoverError;
use super::kernel::{self, Kernel};

/// What a device had. In its file, `DEVICE.json`, addresses and routes are messages of rtnetlink(7) in hexadecimal, as the
/// kernel told them: nothing it knows is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub device: String,
    /// The kernel's number for it.
    pub ifindex: u32,
    /// The network namespace that it is in, by inode.
    pub namespace: u64,
    /// Its link address.
    pub mac: [u8; 6],
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Whether it was up.
    pub up: bool,
    /// How it makes link-local addresses, as `/proc/sys/net/ipv6/conf/DEVICE/addr_gen_mode` has it.
    pub generates: String,
    /// The number of the device that addresses and routes were last told of: its own, or the TAP's.
    told_of: u32,
    addresses: Vec<String>,
    routes: Vec<String>,
}

impl Record {
    /// What a device has now.
    pub(super) fn of(kernel: &Kernel, device: &str) -> Result<Record, TakeoverError> {
        let link = kernel.link_named(device)?;
        let link = link.ok_or_else(|| TakeoverError::NoDevice(device.to_owned()))?;
        if link.is_enslaved {
            return Err(TakeoverError::Enslaved(device.to_owned()));
        }
        let mut record = Record {
            device: device.to_owned(),
            ifindex: link.index,
            namespace: namespace(),
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            generates: kernel::generated_addresses(device),
            told_of: link.index,
            addresses: vec![],
            routes: vec![],
        };
        record.set_host(link.index, &kernel.addresses(link.index)?, &kernel.routes(link.index)?);
        Ok(record)
    }

    /// The name that the device has while a TAP has its own.
    pub fn renamed(&self) -> String {
        format!("mg-{}", self.ifindex)
    }

    pub(super) fn set_host(&mut self, index: u32, addresses: &[AddressMessage], routes: &[RouteMessage]) {
        self.told_of = index;
        self.addresses = addresses.iter().map(hexadecimal).collect();
        self.routes = routes.iter().map(hexadecimal).collect();
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = AddressMessage> + '_ {
        self.addresses
            .iter()
            .filter_map(|text| AddressMessage::parse(&bytes(text)?).ok())
    }

    /// By the device that they were told of.
    pub(super) fn told_of(&self) -> u32 {
        self.told_of
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = RouteMessage> + '_ {
        self.routes
            .iter()
            .filter_map(|text| RouteMessage::parse(&bytes(text)?).ok())
    }

    /// Writes it down, so that it is there after a crash of the machine, too: the old one or the new.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, folder: &Path) -> Result<(), TakeoverError> {
        let (path, draft) = (
            place(folder, &self.device),
            folder.join(format!(".{}.new", self.device)),
        );
        let save = || -> io::Result<()> {
            fs::create_dir_all(folder)?;
            let mut file = File::create(&draft)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(folder)?.sync_all()
        };
        save().map_err(failed("write", &path))
    }

    /// The record of a device, if there is one.
    pub(super) fn read(folder: &Path, device: &str) -> Result<Option<Record>, TakeoverError> {
        let path = place(folder, device);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let record = serde_json::from_str(&text).map_err(|error| failed("read", &path)(error.into()))?;
        Ok(Some(record))
    }

    pub(super) fn forget(&self, folder: &Path) -> Result<(), TakeoverError> {
        let path = place(folder, &self.device);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Numbers of devices mean something in their own network namespace only.
    pub(super) fn check_place(&self, folder: &Path) -> Result<(), TakeoverError> {
        match self.is_here() {
            true => Ok(()),
            false => Err(TakeoverError::Elsewhere(place(folder, &self.device))),
        }
    }

    /// Whether the device is of the network namespace that the caller is in.
    pub fn is_here(&self) -> bool {
        self.namespace == namespace()
    }
}

/// All records in a folder.
///
/// # Errors
/// The system's; a file that cannot be read is named.
pub fn records(folder: &Path) -> Result<Vec<Record>, TakeoverError> {
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(failed("read", folder)(error)),
    };
    let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
    let mut devices: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    devices.sort_unstable();
    let read = |device: &String| Record::read(folder, device).transpose();
    devices.iter().filter_map(read).collect()
}

fn place(folder: &Path, device: &str) -> PathBuf {
    folder.join(format!("{device}.json"))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TakeoverError {
    let path = path.to_owned();
    move |source| TakeoverError::File { what, path, source }
}

/// The inode of the calling thread's network namespace; 0 where it cannot be seen.
fn namespace() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |file| file.ino())
}

fn hexadecimal(message: &impl Emitable) -> String {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}
