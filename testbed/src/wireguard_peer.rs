//! WireGuard as others speak it: a program with a TUN device on a host of a lab, set up with wg(8).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::process::{TIME_LIMIT, words};
use crate::{Child, Error, Host, Lab, at};

/// The tunnel program of Debian's package of that name; a device's name is to follow.
pub const WIREGUARD_GO: [&str; 2] = ["wireguard-go", "--foreground"];

/// What a tunnel is to be.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel<'a> {
    /// The name of its device.
    pub device: &'a str,
    /// Keys and peers, as `wg setconf` reads them (wg(8), "Configuration File Format").
    pub settings: &'a str,
    /// The device's addresses, with prefix lengths.
    pub addresses: &'a [&'a str],
    /// The largest packet inside, in bytes.
    pub mtu: u16,
}

/// A running tunnel. Killed when dropped, and its device goes with it.
#[derive(Debug)]
pub struct WireguardPeer {
    host: Host,
    device: String,
    sockets: PathBuf,
    /// The process, for its output, processor time and signals.
    pub child: Child,
}

impl Lab {
    /// Starts a tunnel on a host and routes the allowed IPs of its peers into it, as wg-quick(8) does.
    ///
    /// `program` makes the device whose name follows its words, serves the cross-platform interface of WireGuard (a
    /// socket in /var/run/wireguard), and stays in the foreground.
    pub fn wireguard(
        &self,
        host: &Host,
        program: impl IntoIterator<Item = impl AsRef<OsStr>>,
        tunnel: Tunnel<'_>,
    ) -> Result<WireguardPeer, Error> {
        let sockets = self.folder().join(format!("{}-wireguard", host.name()));
        std::fs::create_dir_all(&sockets).map_err(at(&sockets))?;
        let socket = sockets.join(format!("{}.sock", tunnel.device));
        // One that was killed has left it.
        let _ = std::fs::remove_file(&socket);
        let mut argv = words(program);
        argv.push(tunnel.device.into());
        let child = host.spawn_within(&wrapper(&sockets.to_string_lossy()), argv)?;
        let mut peer = WireguardPeer {
            host: host.clone(),
            device: tunnel.device.to_owned(),
            sockets,
            child,
        };
        peer.wait_for(&socket)?;
        peer.set_up(tunnel)?;
        Ok(peer)
    }
}

impl WireguardPeer {
    /// Changes it: `wg set DEVICE` and these words, separated by blanks. Routes stay as they are.
    pub fn set(&self, words: &str) -> Result<(), Error> {
        let arguments = ["set", &self.device].into_iter().chain(words.split_whitespace());
        self.wg(arguments).map(drop)
    }

    /// What `wg show DEVICE WHAT` prints, such as `transfer` or `endpoints`.
    pub fn show(&self, what: &str) -> Result<String, Error> {
        self.wg(["show", &self.device, what])
    }

    /// Seconds since 1970 of the last handshake with its only peer; 0 if there was none.
    pub fn latest_handshake(&self) -> Result<u64, Error> {
        self.last_number("latest-handshakes")
    }

    /// Bytes received from its only peer, handshakes and keepalives included.
    pub fn received_bytes(&self) -> Result<u64, Error> {
        let shown = self.show("transfer")?;
        let received = shown.split_whitespace().nth(1).and_then(|number| number.parse().ok());
        received.ok_or_else(|| self.nonsense("transfer", &shown))
    }

    fn last_number(&self, what: &str) -> Result<u64, Error> {
        let shown = self.show(what)?;
        let number = shown.split_whitespace().last().and_then(|number| number.parse().ok());
        number.ok_or_else(|| self.nonsense(what, &shown))
    }

    fn nonsense(&self, what: &str, shown: &str) -> Error {
        Error::Nonsense {
            command: format!("wg show {} {what}", self.device),
            reason: format!("no number in {shown:?}"),
        }
    }

    fn set_up(&self, tunnel: Tunnel<'_>) -> Result<(), Error> {
        let file = self.sockets.join(format!("{}.conf", self.device));
        std::fs::write(&file, tunnel.settings).map_err(at(&file))?;
        self.wg(["setconf", &self.device, &file.to_string_lossy()])?;
        let device = &self.device;
        let mut script = format!("ip link set {device} mtu {} up\n", tunnel.mtu);
        for address in tunnel.addresses {
            script.push_str(&format!("ip address add {address} dev {device}\n"));
        }
        for allowed in self.allowed_ips()? {
            // An address of the device may have brought it.
            script.push_str(&format!("ip route replace {allowed} dev {device}\n"));
        }
        self.host.run(["sh", "-ec", &script]).map(drop)
    }

    fn allowed_ips(&self) -> Result<Vec<String>, Error> {
        let shown = self.show("allowed-ips")?;
        // One line a peer: its key, then its prefixes, or `(none)`.
        let words = shown.lines().flat_map(|line| line.split_whitespace().skip(1));
        let prefixes = words.filter(|word| word.contains('/'));
        Ok(prefixes.map(str::to_owned).collect())
    }

    fn wg<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String, Error> {
        let mut argv = vec![OsString::from("wg")];
        argv.extend(words(arguments));
        let mut wg = self
            .host
            .spawn_within(&wrapper(&self.sockets.to_string_lossy()), argv)?;
        Ok(wg.wait(TIME_LIMIT)?.stdout)
    }

    fn wait_for(&mut self, socket: &Path) -> Result<(), Error> {
        let deadline = Instant::now() + TIME_LIMIT;
        while !socket.exists() {
            if let Some(status) = self.child.status()? {
                return Err(Error::Failed {
                    command: format!("the tunnel {}", self.device),
                    status,
                    says: self.child.stderr(),
                });
            }
            if Instant::now() >= deadline {
                return Err(late(&self.device, socket));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// Words that put a folder where programs and wg(8) look for each other, and run what follows: devices of many hosts
/// have the same name.
fn wrapper(folder: &str) -> [&str; 5] {
    [
        "sh",
        "-ec",
        "mkdir -p /var/run/wireguard; mount --bind \"$1\" /var/run/wireguard; shift; exec \"$@\"",
        "sh",
        folder,
    ]
}

fn late(device: &str, socket: &Path) -> Error {
    Error::Late {
        command: format!("the tunnel {device}"),
        what: "open its socket".to_owned(),
        limit: TIME_LIMIT,
        says: format!("{} is not there", socket.display()),
    }
}
