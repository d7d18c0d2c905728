//! `margay restore`.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Common, Error};
use crate::takeover::{self, TakeoverError};

#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    common: Common,
}

/// Where the data plane of a socket writes down what devices had before TAPs took their places: in `punt` beside the
/// socket.
pub fn records_folder(socket: &Path) -> PathBuf {
    socket.with_file_name("punt")
}

impl Restore {
    /// Needs no data plane, and may not have one: that gives devices back by itself.
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let socket = &self.common.socket;
        if UnixStream::connect(socket).is_ok() {
            return Err(Error::Failed(format!(
                "a data plane answers on {}; stop it, and it gives devices back by itself",
                socket.display()
            )));
        }
        let folder = records_folder(socket);
        let failed = |error: TakeoverError| Error::Failed(error.to_string());
        let mut restored = vec![];
        for record in takeover::records(&folder).map_err(failed)? {
            takeover::restore(&folder, &record).map_err(failed)?;
            restored.push(record.device);
        }
        let answer = serde_json::json!({ "restored": restored });
        self.common.output.print(&answer, |_| {
            Ok(match restored.is_empty() {
                true => format!("nothing to restore in {}\n", folder.display()),
                false => restored
                    .iter()
                    .map(|device| format!("device {device} restored\n"))
                    .collect(),
            })
        })
    }
}
