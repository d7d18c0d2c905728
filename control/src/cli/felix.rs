//! `margay felix`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Error;
use crate::felix::{SOCKET, relay};

/// What Felix starts: it gives its driver no arguments, so the name says what is meant.
const DRIVER: &str = "margay-felix";

#[derive(Debug, Args)]
pub(super) struct Felix {
    /// The socket that `margay run --felix` listens on
    #[arg(long = "felix-socket", value_name = "PATH", env = "MARGAY_FELIX", default_value = SOCKET)]
    socket: PathBuf,
}

impl Felix {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        relay::relay(&self.socket).map_err(|error| Error::Failed(error.to_string()))
    }
}

/// The arguments of this process; under the name `margay-felix` it is `margay felix`.
pub(super) fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = given.collect();
    let name = arguments.first().and_then(|program| Path::new(program).file_name());
    if name.is_some_and(|name| name == DRIVER) {
        arguments.insert(1, "felix".into());
    }
    arguments
}
