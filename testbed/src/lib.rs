//! Whole-system proof: networks of namespaces, in-process hosts, golden captures, and the rules the source keeps.
//!
//! ```no_run
//! # fn main() -> Result<(), testbed::Error> {
//! let lab = testbed::Lab::new()?;
//! let (left, right) = (lab.host("left")?, lab.host("right")?);
//! lab.link((&left, "eth0", ["10.1.0.2/24", "fd00:1::2/64"]), (&right, "eth0", ["10.1.0.3/24", "fd00:1::3/64"]))?;
//! left.run(["ping", "-c1", "10.1.0.3"])?;
//! # Ok(()) } // here the lab goes, and all that ran in it
//! ```

pub mod golden;
pub mod margay;
pub mod netns;
pub mod packets;
pub mod plane;
pub mod process;
pub mod running;
pub mod skip;
pub mod smol;
pub mod wireguard_peer;

pub use margay::Margay;
pub use netns::{Host, Lab};
pub use plane::Plane;
pub use process::{Child, Output};
pub use running::Running;
pub use skip::{need_programs, need_root};
pub use wireguard_peer::WireguardPeer;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why something in the testbed did not work, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program ended with a failure; `says` is the last line it wrote.
    #[error("`{command}` failed ({status}): {says}")]
    Failed {
        /// The program and its arguments, with the host it ran on.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last line on its standard error, else on its standard output.
        says: String,
    },
    /// A program ran longer than allowed and was killed, or something awaited did not come.
    #[error("`{command}` did not {what} within {limit:?}: {says}")]
    Late {
        /// The program and its arguments, with the host it ran on.
        command: String,
        /// What it was to do.
        what: String,
        /// The time it was given.
        limit: Duration,
        /// The last line it wrote.
        says: String,
    },
    /// A program could not be started at all.
    #[error("`{command}` cannot be started: {source}; `testbed/install-deps.sh` installs what the testbed needs")]
    Start {
        /// The program and its arguments.
        command: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file could not be read, written or made.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A capture file is not in pcap format.
    #[error("{}: not a readable capture: {source}", path.display())]
    Capture {
        /// The capture file.
        path: PathBuf,
        /// What is wrong with it.
        source: pcap_file::PcapError,
    },
    /// Packets are not those of the golden capture.
    #[error("{}: {difference}what came is in {}; if it is right, rename it", path.display(), kept.display())]
    Differs {
        /// The golden capture.
        path: PathBuf,
        /// The capture of what came instead.
        kept: PathBuf,
        /// Where they differ.
        difference: golden::Difference,
    },
    /// A program said something that cannot be understood.
    #[error("`{command}` said what cannot be understood: {reason}")]
    Nonsense {
        /// The program and its arguments.
        command: String,
        /// What was expected, or where it went wrong.
        reason: String,
    },
    /// The data plane refused what it was asked.
    #[error("the data plane: {reason}")]
    Plane {
        /// Its sentence.
        reason: String,
    },
    /// An in-process host could not do what it was asked.
    #[error("host {host}: {reason}")]
    Host {
        /// The host's first address.
        host: String,
        /// What went wrong.
        reason: String,
    },
}

/// Names the file an input or output error is about.
fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::File {
        path: path.to_owned(),
        source,
    }
}
