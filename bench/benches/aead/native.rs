//! Libraries in C: small programs, one each, compiled when they are needed.

use super::{PACKETS, ROUNDS, Round};
use bench::report::rows_file;
use std::path::PathBuf;
use std::process::Command;

/// A program that measures one library.
pub struct Native {
    /// Of the library.
    pub name: &'static str,
    program: PathBuf,
}

/// Compiles those whose libraries are here, and names the others.
pub fn build() -> Vec<Native> {
    [
        ("ipsec-mb", "ipsec_mb", "-lIPSec_MB"),
        ("OpenSSL", "openssl", "-lcrypto"),
    ]
    .into_iter()
    .filter_map(|(name, source, library)| {
        let program = rows_file().with_file_name(format!("aead-{source}"));
        let source = format!("{}/benches/aead/{source}.c", env!("CARGO_MANIFEST_DIR"));
        let compiled = Command::new("cc")
            .args(["-O2", "-Wall", "-o"])
            .arg(&program)
            .args([&source, library])
            .output();
        let said = match compiled {
            Ok(output) if output.status.success() => return Some(Native { name, program }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => format!("cc: {error}"),
        };
        let why = said.lines().find(|line| line.contains("error")).unwrap_or(&said);
        eprintln!("skipped {name}: {why}; bench/install-peers.sh brings what it needs");
        None
    })
    .collect()
}

impl Native {
    /// As many rounds as everybody's; none, with a word, if it fails.
    pub fn run(&self, length: usize, vector: usize) -> Option<Vec<Round>> {
        let arguments = [length, vector, PACKETS / vector, ROUNDS].map(|number| number.to_string());
        let output = Command::new(&self.program).args(arguments).output();
        let rounds = output.ok().filter(|output| output.status.success()).and_then(|output| {
            let lines = String::from_utf8(output.stdout).ok()?;
            lines.lines().map(parse).collect::<Option<Vec<_>>>()
        });
        if rounds.as_ref().is_none_or(|rounds| rounds.len() != ROUNDS) {
            eprintln!("skipped {}: {} failed", self.name, self.program.display());
            return None;
        }
        rounds
    }
}

/// A line is: cycles to seal, cycles to open, the last tag in hexadecimal digits.
fn parse(line: &str) -> Option<Round> {
    let mut words = line.split(' ');
    let mut cycles = || words.next()?.parse().ok();
    Some(Round {
        seal: cycles()?,
        open: cycles()?,
        tag: u128::from_str_radix(words.next()?, 16).ok()?.to_be_bytes(),
    })
}
