//! `margay wg`: keys, and the files of wg-quick(8).

mod export;
mod import;
mod quick;

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::{Error, SOCKET, output};
use crate::keys::Secret;

/// A key and its line end; more is no key.
const KEY_BYTES: u64 = 256;

#[derive(Debug, Args)]
pub(super) struct Wg {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a new private key
    Genkey,
    /// Print the public key of the private key on the standard input
    Pubkey,
    /// Print a new preshared key
    Genpsk,
    /// Turn a file of wg-quick into resources, and its keys into files
    Import(import::Import),
    /// Print an interface and its peers as a file for wg-quick, without secrets
    Export(export::Export),
}

/// Where the data plane is.
#[derive(Debug, Args)]
struct Socket {
    /// The Unix socket of the data plane
    #[arg(long, value_name = "PATH", env = "MARGAY_SOCKET", default_value = SOCKET)]
    socket: PathBuf,
}

impl Wg {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        match self.command {
            Command::Genkey => print_secret(&Secret::private()),
            Command::Genpsk => print_secret(&Secret::preshared()),
            Command::Pubkey => output::print(&format!("{}\n", private_key()?.public())),
            Command::Import(command) => command.carry_out(),
            Command::Export(command) => command.carry_out(),
        }
    }
}

fn print_secret(secret: &Secret) -> Result<(), Error> {
    let mut text = secret.text();
    text.push('\n');
    output::print(&text)
}

fn private_key() -> Result<Secret, Error> {
    let mut text = Zeroizing::new(String::new());
    let read = std::io::stdin().take(KEY_BYTES).read_to_string(&mut text);
    read.map_err(|error| Error::Failed(format!("cannot read the standard input: {error}")))?;
    let key = text.trim().parse();
    key.map_err(|error| Error::Failed(format!("the standard input holds no key; {error}")))
}
