//! `margay wg export`.

use std::fmt::Write;

use clap::Args;
use serde_json::Value;

use super::super::client::Client;
use super::super::{Error, output};
use super::Socket;
use crate::resource::{Resource, WireguardInterfaceSpec, WireguardPeerSpec};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The name of the interface
    name: String,
    #[command(flatten)]
    socket: Socket,
}

impl Export {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let client = Client::new(&self.socket.socket)?;
        let name = &self.name;
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        {
            return Err(Error::Usage(format!("`{}` is not a name", name.escape_debug())));
        }
        let interface = client.get(&format!("/v1/resources/WireguardInterface/{name}"))?;
        let Resource::WireguardInterface(interface) = resource(interface)? else {
            return Err(output::odd("another kind was asked for"));
        };
        let peers = client.get("/v1/resources/WireguardPeer")?;
        let peers = peers
            .get("items")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let mut ours = vec![];
        for peer in peers {
            if let Resource::WireguardPeer(peer) = resource(peer)?
                && peer.body.spec.interface == *name
            {
                ours.push((peer.metadata.name.clone(), peer.body.spec.clone()));
            }
        }
        let interface = &interface.body.spec;
        let keys = ours.iter().filter_map(|(_, peer)| peer.preshared_key_file.as_ref());
        for path in keys.chain([&interface.private_key_file]) {
            check_word(path)?;
        }
        output::print(&file(interface, &ours))
    }
}

/// wg-quick gives its commands to a shell, and puts the interface's name in the place of `%i`.
fn check_word(path: &str) -> Result<(), Error> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@:,".contains(&byte);
    if path.bytes().all(is_plain) {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "the key file `{}` has a name that a shell takes apart, and wg-quick would; give the file a plainer one",
        path.escape_debug()
    )))
}

fn resource(value: Value) -> Result<Resource, Error> {
    Resource::from_value(value).map_err(output::odd)
}

/// Keys stay in their files, which wg-quick's commands name.
fn file(interface: &WireguardInterfaceSpec, peers: &[(String, WireguardPeerSpec)]) -> String {
    let mut text = "[Interface]\n".to_owned();
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{key} = {value}");
    };
    for address in &interface.addresses {
        line("Address", address);
    }
    line("ListenPort", &interface.listen_port);
    line("MTU", &interface.mtu);
    line(
        "PostUp",
        &format_args!("wg set %i private-key {}", interface.private_key_file),
    );
    for (_, peer) in peers {
        if let Some(file) = &peer.preshared_key_file {
            line(
                "PostUp",
                &format_args!("wg set %i peer {} preshared-key {file}", peer.public_key),
            );
        }
    }
    for (name, peer) in peers {
        let _ = write!(text, "\n[Peer]\n# {name}\nPublicKey = {}\n", peer.public_key);
        let allowed: Vec<_> = peer.allowed_ips.iter().map(ToString::to_string).collect();
        if !allowed.is_empty() {
            let _ = writeln!(text, "AllowedIPs = {}", allowed.join(", "));
        }
        if let Some(endpoint) = &peer.endpoint {
            let _ = writeln!(text, "Endpoint = {endpoint}");
        }
        if peer.persistent_keepalive > 0 {
            let _ = writeln!(text, "PersistentKeepalive = {}", peer.persistent_keepalive);
        }
    }
    text
}
