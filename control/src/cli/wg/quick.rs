//! The files of wg(8) and wg-quick(8): sections of `key = value` lines.

use std::net::IpAddr;

use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::keys::{PublicKey, Secret};
use crate::resource::{Endpoint, allowed_ip, check_label};

/// What a file says.
pub(super) struct Config {
    pub interface: Interface,
    pub peers: Vec<Peer>,
    /// Lines that were left out, and why.
    pub left_out: Vec<String>,
}

/// A key in the file, or in a file that it names.
#[derive(Clone)]
pub(super) enum Source {
    Here(Secret),
    File(String),
}

#[derive(Default)]
pub(super) struct Interface {
    pub private_key: Option<Source>,
    pub listen_port: Option<u16>,
    pub addresses: Vec<IpNet>,
    pub mtu: Option<u16>,
}

#[derive(Default)]
pub(super) struct Peer {
    /// From a comment, as `export` writes it.
    pub name: Option<String>,
    pub public_key: Option<PublicKey>,
    pub preshared_key: Option<Source>,
    pub endpoint: Option<Endpoint>,
    pub allowed_ips: Vec<IpNet>,
    pub persistent_keepalive: u16,
    line: usize,
}

/// A line that cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(super) struct Fault {
    pub line: usize,
    pub reason: String,
}

/// Reads a file.
pub(super) fn parse(text: &str) -> Result<Config, Fault> {
    let mut reader = Reader {
        config: Config {
            interface: Interface::default(),
            peers: vec![],
            left_out: vec![],
        },
        section: Section::None,
        preshared: vec![],
    };
    let mut last = 1;
    for (line, content) in (1..).zip(text.lines()) {
        last = line;
        reader.line(line, content).map_err(|reason| Fault { line, reason })?;
    }
    reader.finish(last)
}

enum Section {
    None,
    Interface,
    Peer,
}

struct Reader {
    config: Config,
    section: Section,
    /// Files of preshared keys, by line and whose they are.
    preshared: Vec<(usize, PublicKey, String)>,
}

impl Reader {
    fn line(&mut self, number: usize, content: &str) -> Result<(), String> {
        let (content, comment) = content.split_once('#').unwrap_or((content, ""));
        let content = content.trim();
        if content.is_empty() {
            self.name_peer(comment.trim());
            return Ok(());
        }
        if content.starts_with('[') {
            return self.open(number, content);
        }
        let Some((key, value)) = content.split_once('=') else {
            return Err("expected `key = value`, [Interface] or [Peer]".to_owned());
        };
        let (key, value) = (key.trim(), value.trim());
        if value.is_empty() && !key.eq_ignore_ascii_case("AllowedIPs") {
            return Err(format!("{} has no value", key.escape_debug()));
        }
        match self.section {
            Section::None => Err("stands before any section; expected [Interface] or [Peer] first".to_owned()),
            Section::Interface => self.of_interface(number, key, value),
            Section::Peer => self.of_peer(key, value),
        }
    }

    /// The first comment of a peer that can be its name.
    fn name_peer(&mut self, comment: &str) {
        if let (Section::Peer, Some(peer)) = (&self.section, self.config.peers.last_mut())
            && peer.name.is_none()
            && peer.public_key.is_none()
            && check_label(comment).is_ok()
        {
            peer.name = Some(comment.to_owned());
        }
    }

    fn open(&mut self, line: usize, heading: &str) -> Result<(), String> {
        if heading.eq_ignore_ascii_case("[Interface]") {
            self.section = Section::Interface;
        } else if heading.eq_ignore_ascii_case("[Peer]") {
            self.section = Section::Peer;
            let peer = Peer::default();
            self.config.peers.push(Peer { line, ..peer });
        } else {
            let heading = heading.escape_debug();
            return Err(format!("there is no section {heading}; expected [Interface] or [Peer]"));
        }
        Ok(())
    }

    fn of_interface(&mut self, line: usize, key: &str, value: &str) -> Result<(), String> {
        let interface = &mut self.config.interface;
        match key.to_ascii_lowercase().as_str() {
            "privatekey" => interface.private_key = Some(Source::Here(secret(key, value)?)),
            "listenport" => interface.listen_port = Some(port(value)?).filter(|port| *port > 0),
            "address" => interface.addresses.extend(list(value, interface_address)?),
            "mtu" => interface.mtu = Some(number(key, value)?),
            "postup" => return self.post_up(line, value),
            "table" if value.eq_ignore_ascii_case("auto") => {}
            "table" => return Err(TABLE.to_owned()),
            "dns" => self.leave_out(line, key, "names are resolved by the host"),
            "preup" | "predown" | "postdown" => self.leave_out(line, key, COMMAND),
            "fwmark" => self.leave_out(line, key, "a transportVRF keeps what is outside apart"),
            "saveconfig" => self.leave_out(line, key, "resources are not written back"),
            _ => return Err(unknown(key, "Interface")),
        }
        Ok(())
    }

    fn of_peer(&mut self, key: &str, value: &str) -> Result<(), String> {
        let Some(peer) = self.config.peers.last_mut() else {
            return Ok(());
        };
        match key.to_ascii_lowercase().as_str() {
            "publickey" => peer.public_key = Some(value.parse().map_err(|error| format!("{key}: {error}"))?),
            "presharedkey" => peer.preshared_key = Some(Source::Here(secret(key, value)?)),
            "endpoint" => {
                let bad = |error| format!("{key} is `{}`; {error}", value.escape_debug());
                peer.endpoint = Some(value.parse().map_err(bad)?);
            }
            "allowedips" if value.is_empty() => {}
            "allowedips" => peer.allowed_ips.extend(list(value, allowed)?),
            "persistentkeepalive" if value.eq_ignore_ascii_case("off") => peer.persistent_keepalive = 0,
            "persistentkeepalive" => peer.persistent_keepalive = number(key, value)?,
            _ => return Err(unknown(key, "Peer")),
        }
        Ok(())
    }

    /// Commands are the host's business, but for those that `export` writes in the place of keys.
    fn post_up(&mut self, line: usize, command: &str) -> Result<(), String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["wg", "set", "%i", "private-key", file] => {
                self.config.interface.private_key = Some(Source::File(file.to_owned()));
            }
            ["wg", "set", "%i", "peer", key, "preshared-key", file] => {
                let key = key.parse().map_err(|error| format!("the peer of `PostUp`: {error}"))?;
                self.preshared.push((line, key, file.to_owned()));
            }
            _ => self.leave_out(line, "PostUp", COMMAND),
        }
        Ok(())
    }

    fn leave_out(&mut self, line: usize, key: &str, why: &str) {
        self.config
            .left_out
            .push(format!("line {line}: {key} was left out: {why}"));
    }

    fn finish(mut self, last: usize) -> Result<Config, Fault> {
        for (line, key, file) in self.preshared {
            let peer = self.config.peers.iter_mut().find(|peer| peer.public_key == Some(key));
            let reason = || format!("there is no peer {key} in this file");
            peer.ok_or_else(|| Fault { line, reason: reason() })?.preshared_key = Some(Source::File(file));
        }
        if self.config.interface.private_key.is_none() {
            let reason = "the file ends without a PrivateKey in [Interface]".to_owned();
            return Err(Fault { line: last, reason });
        }
        match self.config.peers.iter().find(|peer| peer.public_key.is_none()) {
            Some(peer) => Err(Fault {
                line: peer.line,
                reason: "this [Peer] has no PublicKey".to_owned(),
            }),
            None => Ok(self.config),
        }
    }
}

const TABLE: &str = "Table asks for other routes than allowed IPs make; take the line out, and give the interface a vrf \
                     of its own where they are in the way";
const COMMAND: &str = "it is a command for the host's network, which the data plane does not use";

fn unknown(key: &str, section: &str) -> String {
    format!("[{section}] has no key `{}`", key.escape_debug())
}

/// What is wrong with a secret is told without it.
fn secret(key: &str, value: &str) -> Result<Secret, String> {
    let value = Zeroizing::new(value.to_owned());
    value.parse().map_err(|error| format!("{key}: {error}"))
}

fn port(value: &str) -> Result<u16, String> {
    number("ListenPort", value)
}

fn number(key: &str, value: &str) -> Result<u16, String> {
    let number = value.parse();
    number.map_err(|_| format!("{key} is `{}`; expected a number from 0 to 65535", value.escape_debug()))
}

fn list<T>(value: &str, one: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    value.split(',').map(|item| one(item.trim())).collect()
}

fn allowed(text: &str) -> Result<IpNet, String> {
    let bad = || {
        format!(
            "`{}` is no prefix; expected such as 10.9.0.2/32 or fd00:9::/64",
            text.escape_debug()
        )
    };
    allowed_ip(text).ok_or_else(bad)
}

fn interface_address(text: &str) -> Result<IpNet, String> {
    let net = text.parse().ok();
    let net = net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.ok_or_else(|| format!("`{}` is no address; expected such as 10.9.0.1/24", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn a_file_is_read_as_wg_quick_reads_it() {
        let text = format!(
            "# my laptop\n[interface]\nprivatekey={KEY} # mine\nADDRESS = 10.9.0.2/24, fd00:9::2\nListenPort = 0\n\
             MTU = 1380\nDNS = 1.1.1.1\nTable = auto\nPostUp = iptables -A FORWARD\n\n[Peer]\n# hub\n# of ours\n\
             PublicKey = {PUBLIC}\nPresharedKey = {KEY}\nAllowedIPs = 10.9.0.77/24,0.0.0.0/0\nAllowedIPs = fd00:9::1\n\
             Endpoint = [2001:db8::1]:51820\nPersistentKeepalive = 25\n[Peer]\nPublicKey = {KEY}\nAllowedIPs =\n\
             PersistentKeepalive = off\n"
        );
        let config = parse(&text).unwrap_or_else(|fault| panic!("{fault}"));
        let interface = config.interface;
        assert!(matches!(interface.private_key, Some(Source::Here(key)) if *key.text() == KEY));
        let show = |nets: &[IpNet]| nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(show(&interface.addresses), "10.9.0.2/24 fd00:9::2/128");
        assert_eq!((interface.listen_port, interface.mtu), (None, Some(1380)));
        let hub = &config.peers[0];
        assert_eq!((hub.name.as_deref(), hub.persistent_keepalive), (Some("hub"), 25));
        assert_eq!(show(&hub.allowed_ips), "10.9.0.0/24 0.0.0.0/0 fd00:9::1/128");
        assert_eq!(hub.endpoint.as_ref().unwrap().to_string(), "[2001:db8::1]:51820");
        assert!(hub.preshared_key.is_some() && config.peers[1].preshared_key.is_none());
        let left_out: Vec<&str> = config.left_out.iter().map(|line| &line[..12]).collect();
        assert_eq!(left_out, ["line 7: DNS ", "line 9: Post"]);
    }

    #[test]
    fn every_malformed_line_is_named() {
        let private = format!("PrivateKey = {KEY}");
        let cases = [
            ("Address = 10.0.0.1/24", 1, "before any section"),
            ("[Interfaces]", 1, "no section [Interfaces]"),
            ("[Interface]\nnonsense", 2, "expected `key = value`"),
            ("[Interface]\nPrivateKey = hunter2", 2, "PrivateKey: expected a key"),
            ("[Interface]\nPrivateKey =", 2, "has no value"),
            ("[Interface]\nListenPort = 65536", 2, "expected a number"),
            ("[Interface]\nAddress = 10.0.0.300/24", 2, "is no address"),
            ("[Interface]\nMTU = big", 2, "MTU is `big`"),
            ("[Interface]\nTable = off", 2, "Table asks"),
            (
                "[Interface]\nEndpoint = 1.2.3.4:5",
                2,
                "[Interface] has no key `Endpoint`",
            ),
            ("[Interface]\nMTU = 1400", 2, "without a PrivateKey"),
            ("[Interface]\nKEY\n\n[Peer]\nAllowedIPs = 10.0.0.0/8", 4, "no PublicKey"),
            (
                "[Interface]\nKEY\n[Peer]\nPublicKey = x",
                4,
                "PublicKey: expected a key",
            ),
            (
                "[Interface]\nKEY\n[Peer]\nEndpoint = 1.2.3.4",
                4,
                "Endpoint is `1.2.3.4`",
            ),
            ("[Interface]\nKEY\n[Peer]\nAllowedIPs = 10.0.0.0/33", 4, "is no prefix"),
            (
                "[Interface]\nKEY\n[Peer]\nPersistentKeepalive = -1",
                4,
                "PersistentKeepalive",
            ),
            ("[Interface]\nKEY\n[Peer]\nMTU = 1", 4, "[Peer] has no key `MTU`"),
            (
                "[Interface]\nKEY\nPostUp = wg set %i peer PUB preshared-key /a",
                3,
                "no peer",
            ),
        ];
        for (text, line, part) in cases {
            let text = text.replace("KEY\n", &format!("{private}\n")).replace("PUB", PUBLIC);
            let fault = parse(&text).err().unwrap_or_else(|| panic!("accepted: {text}"));
            assert_eq!(fault.line, line, "{text}: {fault}");
            assert!(fault.reason.contains(part), "{text}: {fault}");
            assert!(!fault.reason.contains("hunter2"), "a secret is not repeated");
        }
    }
}
