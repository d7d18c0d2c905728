//! `margay run`: the options of the process and the process itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::show::runtime::Idle;

/// The options of `margay run`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct RunOptions {
    /// Cores to pin workers to, one worker each
    #[arg(long, value_name = "CORE,...", env = "MARGAY_CORES", value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// The Unix socket to answer on
    #[arg(long, value_name = "PATH", env = "MARGAY_SOCKET", default_value = crate::cli::SOCKET)]
    pub socket: PathBuf,
    /// Packet frames of 2,048 bytes to set aside
    #[arg(long, value_name = "COUNT", env = "MARGAY_FRAMES", default_value_t = 65_536,
          value_parser = clap::value_parser!(u32).range(1_024..=16_777_216))]
    pub frames: u32,
    /// Flows to set memory aside for
    #[arg(long, value_name = "COUNT", env = "MARGAY_FLOWS", default_value_t = 1_048_576,
          value_parser = clap::value_parser!(u32).range(1_024..=134_217_728))]
    pub flows: u32,
    /// How a worker passes the time without packets
    #[arg(long, env = "MARGAY_IDLE", value_enum, default_value_t = Idle::Adaptive)]
    pub idle: Idle,
    /// A TCP address to serve /metrics on
    #[arg(long, value_name = "ADDRESS:PORT", env = "MARGAY_METRICS")]
    pub metrics: Option<SocketAddr>,
    /// Resources to apply at start; a folder stands for the .yaml, .yml and .json files in it
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE|DIR",
        env = "MARGAY_FILE",
        value_delimiter = ','
    )]
    pub files: Vec<PathBuf>,
}

/// Why the process did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start as asked; exit code 2.
    #[error("{0}")]
    Start(String),
    /// It failed after it had started; exit code 1.
    #[error("{0}")]
    Failed(String),
}

/// Runs the data plane until it is told to stop.
pub fn run(_options: RunOptions) -> Result<(), RunError> {
    Err(RunError::Start(
        "this build has no data plane in it; build the program with one".to_owned(),
    ))
}
