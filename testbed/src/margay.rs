//! The program itself, running on a host of a lab.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::netns::tool;
use crate::process::{Output, TIME_LIMIT, words};
use crate::{Child, Error, Host, Lab, at};

/// A running data plane and the way to its socket. Killed when dropped.
#[derive(Debug)]
pub struct Margay {
    binary: PathBuf,
    host: Host,
    socket: PathBuf,
    /// The process, for its output, processor time and signals.
    pub child: Child,
}

impl Lab {
    /// Starts `margay run` on a host with these resources (YAML) and further arguments, and waits for `ready`.
    ///
    /// The program is `$MARGAY_BIN`, or else the one beside this executable, brought up to date first.
    pub fn margay(&self, host: &Host, resources: &str, arguments: &[&str]) -> Result<Margay, Error> {
        self.margay_from(&find_binary()?, host, resources, arguments)
    }

    /// As [`Lab::margay`], with the program of this path.
    pub fn margay_from(
        &self,
        binary: &Path,
        host: &Host,
        resources: &str,
        arguments: &[&str],
    ) -> Result<Margay, Error> {
        let socket = new_file(host, "sock");
        let file = write_resources(host, resources)?;
        let mut argv: Vec<OsString> = vec![binary.into(), "run".into(), "-f".into(), file.into()];
        argv.extend(["--socket".into(), socket.clone().into()]);
        argv.extend(words(arguments));
        let child = host.spawn_within(&bpf_wrapper(&self.bpf_folder()?), argv)?;
        let mut margay = Margay {
            binary: binary.to_owned(),
            host: host.clone(),
            socket,
            child,
        };
        margay
            .child
            .wait_for("get ready", TIME_LIMIT, |line| line.trim() == "ready")?;
        Ok(margay)
    }

    /// The bpf file system of this lab's data planes, so that one finds what its killed predecessor has pinned
    /// and nothing stays on the machine. `ip netns exec` hides the machine's own.
    fn bpf_folder(&self) -> Result<String, Error> {
        let folder = self.folder().join("bpf");
        let name = folder.to_string_lossy().into_owned();
        if !folder.exists() {
            std::fs::create_dir(&folder).map_err(at(&folder))?;
            tool(&["mount", "-t", "bpf", "bpf", &name])?;
        }
        Ok(name)
    }
}

impl Margay {
    /// Applies resources (YAML) and returns what was printed about them.
    pub fn apply(&self, resources: &str) -> Result<String, Error> {
        let file = write_resources(&self.host, resources)?;
        Ok(self.command(["apply", "-f", &file.to_string_lossy()])?.stdout)
    }

    /// Deletes resources (YAML) and returns what was printed about them.
    pub fn delete(&self, resources: &str) -> Result<String, Error> {
        let file = write_resources(&self.host, resources)?;
        Ok(self.command(["delete", "-f", &file.to_string_lossy()])?.stdout)
    }

    /// What `margay show VIEW` shows, as JSON.
    pub fn show(&self, view: &str) -> Result<serde_json::Value, Error> {
        let output = self.command(["show", view, "-o", "json"])?;
        serde_json::from_str(&output.stdout).map_err(|error| Error::Nonsense {
            command: format!("margay show {view}"),
            reason: error.to_string(),
        })
    }

    /// Any command of the program, sent to this data plane's socket.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output, Error> {
        let mut argv = vec![OsString::from(&self.binary)];
        argv.extend(words(arguments));
        argv.extend(["--socket".into(), self.socket.clone().into()]);
        self.host.run(argv)
    }

    /// The path of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The path of the program.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Processor time used so far, in user and in system mode, in steps of 10 ms.
    pub fn cpu(&self) -> Result<(Duration, Duration), Error> {
        self.child.cpu()
    }

    /// Asks it to end (SIGTERM), and waits until it has; an end that is not clean is an error.
    pub fn stop(mut self) -> Result<Output, Error> {
        self.child.stop()
    }

    /// Ends it without a chance to tidy up (SIGKILL).
    pub fn kill(mut self) {
        self.child.kill();
    }
}

/// Words that put the lab's bpf file system in its usual place, and run what follows.
fn bpf_wrapper(folder: &str) -> [&str; 5] {
    [
        "sh",
        "-ec",
        "mount --bind \"$1\" /sys/fs/bpf; shift; exec \"$@\"",
        "sh",
        folder,
    ]
}

fn write_resources(host: &Host, resources: &str) -> Result<PathBuf, Error> {
    let file = new_file(host, "yaml");
    std::fs::write(&file, resources).map_err(at(&file))?;
    Ok(file)
}

fn new_file(host: &Host, extension: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    host.folder()
        .join(format!("{}-margay-{number}.{extension}", host.name()))
}

/// `$MARGAY_BIN`, or else what cargo builds for the profile and target folder of this executable: built once a
/// process, for `cargo test -p testbed` alone would leave an old one there.
pub fn find_binary() -> Result<PathBuf, Error> {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    if let Some(binary) = std::env::var_os("MARGAY_BIN") {
        return Ok(binary.into());
    }
    if let Some(binary) = BINARY.get() {
        return Ok(binary.clone());
    }
    let executable = std::env::current_exe().map_err(at(Path::new("/proc/self/exe")))?;
    let (profile_folder, profile) = profile_of(&executable).ok_or_else(|| Error::Nonsense {
        command: executable.display().to_string(),
        reason: "it does not lie in a target folder; name the program with MARGAY_BIN".to_owned(),
    })?;
    build(profile_folder, profile)?;
    Ok(BINARY.get_or_init(|| profile_folder.join("margay")).clone())
}

/// The folder cargo puts programs in and the profile's name, from `TARGET/PROFILE[/deps|/examples]/EXECUTABLE`.
fn profile_of(executable: &Path) -> Option<(&Path, &str)> {
    let mut folder = executable.parent()?;
    if ["deps", "examples"].iter().any(|below| folder.ends_with(below)) {
        folder = folder.parent()?;
    }
    let profile = match folder.file_name()?.to_str()? {
        "debug" => "dev",
        name => name,
    };
    Some((folder, profile))
}

fn build(profile_folder: &Path, profile: &str) -> Result<(), Error> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let target = profile_folder.parent().unwrap_or(profile_folder);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--quiet",
        "--package",
        "control",
        "--bin",
        "margay",
        "--profile",
        profile,
    ]);
    command.args(["--manifest-path", manifest, "--target-dir"]).arg(target);
    // The repository's own settings are found from where cargo runs.
    let output = command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).output();
    let name = || "cargo build --package control --bin margay".to_owned();
    let output = output.map_err(|source| Error::Start {
        command: name(),
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let says = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Failed {
        command: name(),
        status: output.status,
        says,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_read_from_where_the_executable_lies() {
        let of = |path| profile_of(Path::new(path)).map(|(folder, profile)| (folder.to_str().unwrap(), profile));
        assert_eq!(of("/t/debug/deps/ping-1f"), Some(("/t/debug", "dev")));
        assert_eq!(of("/t/release/examples/demo"), Some(("/t/release", "release")));
        assert_eq!(of("/t/release/bench"), Some(("/t/release", "release")));
    }
}
