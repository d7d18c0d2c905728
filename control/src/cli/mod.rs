//! The command line: a thin client of the socket, and `run`.

mod apply;
mod capture;
mod client;
mod completion;
mod explain;
mod felix;
mod files;
mod flows;
mod get;
mod output;
mod recommend;
mod restore;
mod show;
mod top;
mod trace;
mod wg;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::run::{RunError, RunOptions, run};
use client::Client;
use output::Output;

pub use files::{FileError, read_files};
pub use restore::records_folder;

/// Where the socket is unless something else is said.
pub const SOCKET: &str = "/run/margay/margay.sock";

/// Exit code of a command that failed.
const FAILED: u8 = 1;
/// Exit code of a command that was called wrongly, and of a process that could not start.
const WRONG_USAGE: u8 = 2;

/// A userspace packet-processing data plane for Linux
#[derive(Debug, Parser)]
#[command(name = "margay", version, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the data plane in the foreground
    Run(RunOptions),
    /// Carry what Calico's Felix says, which starts this as its driver, to a running data plane
    Felix(felix::Felix),
    /// Make resources what files say, all or nothing
    Apply(apply::Apply),
    /// Remove resources, all or nothing
    Delete(apply::Delete),
    /// Print resources as they were applied
    Get(get::Get),
    /// Print what the data plane is doing
    Show(show::Show),
    /// End connections
    Flows(flows::Flows),
    /// Say what becomes of a packet, and which policies decide, without sending it
    Explain(explain::Explain),
    /// Propose policies that would allow just the flows that were seen
    Recommend(recommend::Recommend),
    /// Follow packets through the graph
    Trace(trace::Trace),
    /// Write packets to a file that Wireshark reads
    Capture(capture::Capture),
    /// Give devices back that TAPs took the places of, after the data plane was killed
    Restore(restore::Restore),
    /// Watch rates, drops and the load of workers
    Top(top::Top),
    /// Make keys, and turn files of wg-quick into resources and back
    Wg(wg::Wg),
    /// Print a script by which a shell completes margay's commands
    Completion(completion::Completion),
    /// Print the manual page, or write those of all commands
    Man(completion::Man),
    /// Print the version of this program
    Version(Version),
}

/// Options of every command that talks to the socket.
#[derive(Debug, Args)]
struct Common {
    /// The Unix socket of the data plane
    #[arg(long, value_name = "PATH", env = "MARGAY_SOCKET", default_value = SOCKET)]
    socket: PathBuf,
    /// Table for people, JSON or YAML for programs
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Args)]
struct Version {
    /// Table for people, JSON or YAML for programs
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// It was called wrongly.
    #[error("{0}")]
    Usage(String),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
    /// Nobody reads the output any more, which is no failure.
    #[error("the output was closed")]
    Closed,
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let command = match CommandLine::try_parse_from(felix::arguments(std::env::args_os())) {
        Ok(CommandLine { command }) => command,
        Err(error) => {
            // Help for a program that was closed is not worth a word.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { WRONG_USAGE } else { 0 });
        }
    };
    let (message, code) = match carry_out(command) {
        Ok(()) | Err(Error::Closed) => return ExitCode::SUCCESS,
        Err(Error::Usage(message)) => (message, WRONG_USAGE),
        Err(Error::Failed(message)) => (message, FAILED),
    };
    output::complain(&message);
    ExitCode::from(code)
}

fn carry_out(command: Command) -> Result<(), Error> {
    match command {
        Command::Run(options) => run(options).map_err(|error| match error {
            RunError::Start(message) => Error::Usage(message),
            RunError::Failed(message) => Error::Failed(message),
        }),
        Command::Felix(command) => command.carry_out(),
        Command::Apply(command) => command.carry_out(),
        Command::Delete(command) => command.carry_out(),
        Command::Get(command) => command.carry_out(),
        Command::Show(command) => command.carry_out(),
        Command::Flows(command) => command.carry_out(),
        Command::Explain(command) => command.carry_out(),
        Command::Recommend(command) => command.carry_out(),
        Command::Trace(command) => command.carry_out(),
        Command::Capture(command) => command.carry_out(),
        Command::Restore(command) => command.carry_out(),
        Command::Top(command) => command.carry_out(),
        Command::Wg(command) => command.carry_out(),
        Command::Completion(command) => command.carry_out(),
        Command::Man(command) => command.carry_out(),
        Command::Version(Version { output }) => {
            let version = serde_json::json!({ "version": env!("CARGO_PKG_VERSION") });
            output.print(&version, |_| Ok(format!("margay {}\n", env!("CARGO_PKG_VERSION"))))
        }
    }
}

impl Common {
    fn client(&self) -> Result<Client, Error> {
        Client::new(&self.socket)
    }
}
