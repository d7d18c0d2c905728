//! Flow logs as JSON lines in a file, and in some older ones beside it: `FILE`, `FILE.1`, `FILE.2` and so on.
//!
//! A thread of its own writes, so that a slow disk holds up nobody. What cannot be written is counted, said once, and not
//! tried again; the next window is.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::FlowLog;

/// Windows that wait for a slow disk.
const WAITING: usize = 4;

/// How much is kept in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A file that is as large is put aside.
    pub bytes: u64,
    /// Files put aside.
    pub older: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            older: 4,
        }
    }
}

type Window = Vec<Arc<FlowLog>>;

/// A file that is being written.
pub struct FileLog {
    windows: Option<Sender<Window>>,
    failures: Arc<Mutex<Failures>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Failures {
    windows: u64,
    last: Option<String>,
}

impl Failures {
    fn add(&mut self, error: String) {
        self.windows += 1;
        if self.last.as_ref() != Some(&error) {
            tracing::error!("a flow log was not written: {error}");
        }
        self.last = Some(error);
    }
}

impl FileLog {
    /// Goes on with the file at `path`, or makes it.
    ///
    /// # Errors
    /// It cannot be written, or there is no thread to be had.
    pub fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        let mut rotating = Rotating::open(path, limits)?;
        let failures = Arc::new(Mutex::new(Failures::default()));
        let (sender, windows): (_, Receiver<Window>) = bounded(WAITING);
        let theirs = failures.clone();
        let write = move || {
            for window in windows {
                if let Err(error) = rotating.write(&window) {
                    let path = rotating.path.display();
                    lock(&theirs).add(format!(
                        "{path}: {error}; make room, or name another file with --flow-log"
                    ));
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("flow-log-file".to_owned())
            .spawn(write)?;
        Ok(Self {
            windows: Some(sender),
            failures,
            thread: Some(thread),
        })
    }

    /// Has a window written, unless too many wait already.
    pub fn write(&self, window: &[Arc<FlowLog>]) {
        let Some(windows) = self.windows.as_ref().filter(|_| !window.is_empty()) else {
            return;
        };
        if let Err(TrySendError::Full(_)) = windows.try_send(window.to_vec()) {
            lock(&self.failures).add("the disk is too slow for them".to_owned());
        }
    }

    /// Windows that were not written, and why the last one was not.
    pub fn failures(&self) -> (u64, Option<String>) {
        let failures = lock(&self.failures);
        (failures.windows, failures.last.clone())
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        drop(self.windows.take());
        if let Some(thread) = self.thread.take() {
            // It ends with what waits; a panic in it is said by itself.
            let _ = thread.join();
        }
    }
}

fn lock(failures: &Mutex<Failures>) -> std::sync::MutexGuard<'_, Failures> {
    failures.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Rotating {
    path: PathBuf,
    limits: Limits,
    file: File,
    bytes: u64,
}

impl Rotating {
    fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            limits,
            bytes: file.metadata()?.len(),
            file,
        })
    }

    fn write(&mut self, window: &[Arc<FlowLog>]) -> io::Result<()> {
        let mut lines = BufWriter::new(Vec::new());
        for log in window {
            serde_json::to_writer(&mut lines, &**log)?;
            lines.write_all(b"\n")?;
        }
        let lines = lines.into_inner().map_err(io::IntoInnerError::into_error)?;
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.limits.bytes {
            self.put_aside()?;
        }
        self.file.write_all(&lines)?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let older = |number: usize| match number {
            0 => self.path.clone(),
            number => {
                let mut name = self.path.clone().into_os_string();
                name.push(format!(".{number}"));
                name.into()
            }
        };
        for number in (0..self.limits.older).rev() {
            match std::fs::rename(older(number), older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.limits.older == 0 {
            std::fs::remove_file(&self.path)?;
        }
        *self = Self::open(&self.path, self.limits)?;
        Ok(())
    }
}
