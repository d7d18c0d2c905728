//! Printing: tables, JSON and YAML; colours where there is a terminal; silence where nobody reads.

use std::io::{self, ErrorKind, Write};

use serde_json::Value;

use super::Error;

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
    /// For both
    Yaml,
}

impl Output {
    /// Prints `value`, which `table` makes a table of.
    pub(super) fn print(self, value: &Value, table: impl FnOnce(&Value) -> Result<String, Error>) -> Result<(), Error> {
        let text = match self {
            Output::Table => table(value)?,
            Output::Json => serde_json::to_string_pretty(value).map_err(odd)? + "\n",
            Output::Yaml => yaml(value)?,
        };
        print(&text)
    }
}

/// One YAML document.
pub(super) fn yaml(value: &Value) -> Result<String, Error> {
    serde_saphyr::to_string(value).map_err(odd)
}

/// Writes to the standard output, as it is.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(closed)
}

/// Writes to the standard output.
pub(super) fn print(text: &str) -> Result<(), Error> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(closed)
}

/// Writes one sentence to the standard error.
pub(super) fn complain(message: &str) {
    let red = anstyle::AnsiColor::Red.on_default().bold();
    // There is nowhere left to say that this failed.
    let _ = writeln!(anstream::stderr().lock(), "{red}error:{red:#} {message}");
}

/// Writes what should be known to the standard error.
pub(super) fn warn(message: &str) {
    let yellow = anstyle::AnsiColor::Yellow.on_default().bold();
    let _ = writeln!(anstream::stderr().lock(), "{yellow}warning:{yellow:#} {message}");
}

/// Writes what is worth a word to the standard error, where it does not mix with the output.
pub(super) fn note(message: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{message}");
}

/// An answer this program cannot make sense of.
pub(super) fn odd(error: impl std::fmt::Display) -> Error {
    Error::Failed(format!(
        "the answer is not understood: {error}; is the data plane of the same version as this program?"
    ))
}

fn closed(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::BrokenPipe => Error::Closed,
        _ => Error::Failed(format!("cannot write the output: {error}")),
    }
}
