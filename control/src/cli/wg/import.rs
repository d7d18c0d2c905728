//! `margay wg import`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::Value;
use zeroize::Zeroizing;

use super::super::apply::apply_text;
use super::super::{Error, output};
use super::Socket;
use super::quick::{self, Config, Source};
use crate::keys::Secret;
use crate::resource::{
    Metadata, Object, Resource, WireguardInterface, WireguardInterfaceSpec, WireguardPeer, WireguardPeerSpec,
    check_label,
};

/// No file of wg-quick is larger.
const FILE_BYTES: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct Import {
    /// A file of wg-quick, such as /etc/wireguard/wg0.conf, or - for the standard input
    file: PathBuf,
    /// The name of the interface; that of the file without it
    #[arg(long)]
    name: Option<String>,
    /// The folder to write keys to; that of the file without it
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Apply the resources instead of printing them
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    socket: Socket,
}

impl Import {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let shown = self.file.display();
        let config = quick::parse(&self.read()?).map_err(|fault| Error::Failed(format!("{shown}, {fault}")))?;
        let name = self.name()?;
        let folder = self.folder()?;
        config
            .left_out
            .iter()
            .for_each(|line| output::warn(&format!("{shown}, {line}")));
        let resources = resources(&name, &folder, config)?;
        let mut documents = vec![];
        for resource in &resources {
            let value: Value = serde_json::to_value(resource).map_err(output::odd)?;
            documents.push(output::yaml(&value)?);
        }
        let text = documents.join("---\n");
        match self.apply {
            true => apply_text(&self.socket.socket, &format!("import of {shown}"), text),
            false => output::print(&text),
        }
    }

    fn read(&self) -> Result<Zeroizing<String>, Error> {
        let unreadable = |error| Error::Failed(format!("cannot read {}: {error}", self.file.display()));
        let mut text = Zeroizing::new(String::new());
        let mut reader: Box<dyn Read> = match self.is_standard_input() {
            true => Box::new(std::io::stdin()),
            false => Box::new(std::fs::File::open(&self.file).map_err(unreadable)?),
        };
        reader
            .by_ref()
            .take(FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        Ok(text)
    }

    fn is_standard_input(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    fn name(&self) -> Result<String, Error> {
        let stem = self.file.file_stem().filter(|_| !self.is_standard_input());
        let stem = || stem.map(|stem| stem.to_string_lossy().into_owned());
        let Some(name) = self.name.clone().or_else(stem) else {
            return Err(Error::Usage("give the interface a name with --name".to_owned()));
        };
        check_label(&name).map_err(|reason| Error::Usage(format!("{reason}; give one with --name")))?;
        Ok(name)
    }

    fn folder(&self) -> Result<PathBuf, Error> {
        let beside = self.file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let beside = beside.filter(|_| !self.is_standard_input()).unwrap_or(Path::new("."));
        let folder = self.out.as_deref().unwrap_or(beside);
        let failed = |error| Error::Failed(format!("cannot write keys to {}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        // Resources name keys by absolute paths.
        folder.canonicalize().map_err(failed)
    }
}

fn resources(interface: &str, folder: &Path, config: Config) -> Result<Vec<Resource>, Error> {
    let ours = config.interface;
    // A file without a port listens somewhere, which is as good as the usual port.
    let mut spec = serde_json::json!({
        "privateKeyFile": keep(ours.private_key, folder, &format!("{interface}.key"))?,
        "addresses": ours.addresses,
    });
    for (field, value) in [("listenPort", ours.listen_port), ("mtu", ours.mtu)] {
        if let Some(value) = value {
            spec[field] = value.into();
        }
    }
    let spec: WireguardInterfaceSpec = serde_json::from_value(spec)
        .map_err(|error| Error::Failed(format!("[Interface] cannot be a resource: {error}")))?;
    let body = WireguardInterface {
        spec,
        status: None,
        private_key: None,
    };
    let metadata = named(interface.to_owned());
    let mut resources = vec![Resource::WireguardInterface(Arc::new(Object { metadata, body }))];
    for (number, peer) in (1..).zip(config.peers) {
        let name = peer.name.unwrap_or_else(|| format!("{interface}-{number}"));
        let Some(public_key) = peer.public_key else { continue };
        let preshared_key_file = match peer.preshared_key {
            Some(key) => Some(keep(Some(key), folder, &format!("{interface}-{name}.psk"))?),
            None => None,
        };
        let spec = WireguardPeerSpec {
            interface: interface.to_owned(),
            public_key,
            preshared_key_file,
            endpoint: peer.endpoint,
            allowed_ips: peer.allowed_ips,
            persistent_keepalive: peer.persistent_keepalive,
        };
        let body = WireguardPeer {
            spec,
            preshared_key: None,
            address: None,
        };
        let metadata = named(name);
        resources.push(Resource::WireguardPeer(Arc::new(Object { metadata, body })));
    }
    Ok(resources)
}

fn named(name: String) -> Metadata {
    Metadata {
        name,
        namespace: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

/// The path of the file that holds the key, which is written if need be. Another key there stays.
fn keep(key: Option<Source>, folder: &Path, file: &str) -> Result<String, Error> {
    let path = folder.join(file);
    let shown = path.display().to_string();
    match key {
        None => Ok(shown),
        Some(Source::File(path)) => Ok(path),
        Some(Source::Here(key)) => match key.write(&path) {
            Ok(()) => Ok(shown),
            Err(_) if Secret::read(&path, "genkey").is_ok_and(|(there, _)| there == key) => Ok(shown),
            Err(error) => Err(Error::Failed(format!(
                "cannot write a key to {shown}: {error}; choose another folder with --out"
            ))),
        },
    }
}
