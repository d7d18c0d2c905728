//! Programs: started, limited in time, read, accounted for, and gone when dropped.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::{Error, at};

/// How long `run` lets a program run, and how long a polite stop is waited for.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What a program that ended well has written; bytes that are not UTF-8 are replaced.
#[derive(Clone, Debug)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A running program. Killed, with the process group it leads, when dropped.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    command: String,
    stdout: PathBuf,
    stderr: PathBuf,
    /// How it ended, once that is known; from then on its id may belong to somebody else.
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts `argv` with output to `FILES.out` and `FILES.err`; errors call it `command`.
    pub(crate) fn start(argv: &[OsString], command: String, files: &Path) -> Result<Child, Error> {
        let (stdout, stderr) = (files.with_extension("out"), files.with_extension("err"));
        let [program, arguments @ ..] = argv else {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "no program is named");
            return Err(Error::Start { command, source });
        };
        let process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).map_err(at(&stdout))?)
            .stderr(File::create(&stderr).map_err(at(&stderr))?)
            .process_group(0) // so that what it starts dies with it
            .spawn();
        match process {
            Ok(process) => Ok(Child {
                process,
                command,
                stdout,
                stderr,
                ended: None,
            }),
            Err(source) => Err(Error::Start { command, source }),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// How it ended, or nothing while it runs.
    pub fn status(&mut self) -> Result<Option<ExitStatus>, Error> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().map_err(|source| self.lost(source))?;
        }
        Ok(self.ended)
    }

    /// Waits until it ends; a failure is an error, and so is taking longer than `limit`, which kills it.
    pub fn wait(&mut self, limit: Duration) -> Result<Output, Error> {
        match self.wait_for_end(limit)? {
            status if status.success() => Ok(Output {
                stdout: self.stdout(),
                stderr: self.stderr(),
            }),
            status => Err(Error::Failed {
                command: self.command.clone(),
                status,
                says: self.last_words(),
            }),
        }
    }

    /// Waits until it ends, however it ends; taking longer than `limit` kills it and is an error.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                self.kill();
                return Err(self.late("end", limit));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for a line containing `text` on either output and returns it; an end without it is an error.
    pub fn wait_for_line(&mut self, text: &str, limit: Duration) -> Result<String, Error> {
        self.wait_for(&format!("say \"{text}\""), limit, |line| line.contains(text))
    }

    /// Waits for a whole line of either output that `wanted` likes; `what` says in errors what it was to do.
    pub fn wait_for(&mut self, what: &str, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String, Error> {
        let deadline = Instant::now() + limit;
        loop {
            // Asked before reading: what was written before the end is then certainly read.
            let ended = self.status()?;
            let written = [self.stdout(), self.stderr()];
            let whole = written
                .iter()
                .flat_map(|text| text.split_inclusive('\n'))
                .filter(|line| line.ends_with('\n'));
            if let Some(line) = whole.map(str::trim_end).find(|line| wanted(line)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = ended {
                let says = format!("it ended and did not {what}: {}", self.last_words());
                return Err(Error::Failed {
                    command: self.command.clone(),
                    status,
                    says,
                });
            }
            if Instant::now() >= deadline {
                return Err(self.late(what, limit));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Processor time used so far by all its threads, in user and in system mode, in steps of 10 ms (proc(5), `stat`).
    ///
    /// To be read while it runs: nothing is left of it once its end was waited for.
    pub fn cpu(&self) -> Result<(Duration, Duration), Error> {
        let path = PathBuf::from(format!("/proc/{}/stat", self.id()));
        let stat = std::fs::read_to_string(&path).map_err(at(&path))?;
        cpu_times(&stat, rustix::param::clock_ticks_per_second()).ok_or_else(|| Error::Nonsense {
            command: format!("/proc/{}/stat", self.id()),
            reason: format!("no processor times in {stat:?}"),
        })
    }

    /// Sends a signal to it alone; a program that has ended gets none.
    pub fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        if self.status()?.is_none() {
            rustix::process::kill_process(Pid::from_child(&self.process), signal).map_err(|e| self.lost(e.into()))?;
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits for that; one that ends badly or not at all is an error.
    pub fn stop(&mut self) -> Result<Output, Error> {
        self.signal(Signal::TERM)?;
        self.wait(TIME_LIMIT)
    }

    /// Kills it and its process group (SIGKILL); no harm when it has ended.
    pub fn kill(&mut self) {
        if let Ok(None) = self.status() {
            // It may end by itself in between; it stays ours until waited for, so the id cannot be another's.
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.process), Signal::KILL);
            self.ended = self.process.wait().ok();
        }
    }

    /// Lets it run on after this process, for demonstrations that are to stay; its output files stay too.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    fn late(&self, what: &str, limit: Duration) -> Error {
        Error::Late {
            command: self.command.clone(),
            what: what.to_owned(),
            limit,
            says: self.last_words(),
        }
    }

    fn lost(&self, source: std::io::Error) -> Error {
        Error::Nonsense {
            command: self.command.clone(),
            reason: format!("it cannot be reached: {source}"),
        }
    }

    /// The line most likely to say what went wrong.
    fn last_words(&self) -> String {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        let last = |text: &str| {
            text.lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .map(str::to_owned)
        };
        last(&stderr)
            .or_else(|| last(&stdout))
            .unwrap_or_else(|| "it wrote nothing".to_owned())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `argv` as a person would type it.
pub(crate) fn spelled(argv: &[OsString]) -> String {
    argv.iter()
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Owned words from whatever a caller has at hand.
pub(crate) fn words(argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Vec<OsString> {
    argv.into_iter().map(|word| word.as_ref().to_owned()).collect()
}

fn read(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// Fields 14 and 15 of proc(5) `stat`. The name in field 2 may hold anything, so counting starts behind its bracket.
fn cpu_times(stat: &str, ticks_per_second: u64) -> Option<(Duration, Duration)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut time = || {
        Some(Duration::from_millis(
            fields.next()?.parse::<u64>().ok()? * 1000 / ticks_per_second,
        ))
    };
    Some((time()?, time()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) -> Child {
        Child::start(&words(["sh", "-c", script]), script.to_owned(), &folder.join("program")).unwrap()
    }

    #[test]
    fn output_and_failure_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let output = shell(folder.path(), "echo good; echo bad >&2")
            .wait(TIME_LIMIT)
            .unwrap();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("good\n", "bad\n"));
        let error = shell(folder.path(), "echo why >&2; exit 3")
            .wait(TIME_LIMIT)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "`echo why >&2; exit 3` failed (exit status: 3): why");
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = shell(folder.path(), "sleep 1000 & echo $!; wait");
        let grandchild: u32 = child.wait_for("start", TIME_LIMIT, |_| true).unwrap().parse().unwrap();
        let error = child.wait(Duration::from_millis(1)).unwrap_err();
        assert!(matches!(error, Error::Late { .. }), "{error}");
        let gone = || match std::fs::read_to_string(format!("/proc/{grandchild}/stat")) {
            Ok(stat) => stat.contains(") Z "), // dead; whoever inherited it has not looked yet
            Err(_) => true,
        };
        let deadline = Instant::now() + TIME_LIMIT;
        while !gone() {
            assert!(Instant::now() < deadline, "the grandchild lives");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_line_is_awaited_and_its_absence_explained() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = shell(folder.path(), "printf 'rea'; sleep 0.05; echo dy; exec sleep 1000");
        assert_eq!(child.wait_for_line("ready", TIME_LIMIT).unwrap(), "ready");
        let error = shell(folder.path(), "echo no device >&2")
            .wait_for_line("ready", TIME_LIMIT)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("it ended and did not say \"ready\": no device"),
            "{error}"
        );
    }

    #[test]
    fn stopping_is_asking() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done";
        let mut child = shell(folder.path(), script);
        child.wait_for_line("up", TIME_LIMIT).unwrap();
        assert_eq!(child.stop().unwrap().stdout, "up\nbye\n");
    }

    #[test]
    fn processor_time_is_read_behind_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 31 0 0 20 0 1 0 5 0 0";
        let expected = (Duration::from_millis(2500), Duration::from_millis(310));
        assert_eq!(cpu_times(stat, 100), Some(expected));
        assert_eq!(cpu_times("7 (a) S 1 2", 100), None);
    }

    #[test]
    fn a_busy_program_uses_processor_time() {
        let folder = tempfile::tempdir().unwrap();
        let child = shell(folder.path(), "while :; do :; done");
        let deadline = Instant::now() + TIME_LIMIT;
        while child.cpu().map(|(user, system)| user + system).unwrap() < Duration::from_millis(50) {
            assert!(Instant::now() < deadline, "no time was counted");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
