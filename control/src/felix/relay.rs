//! What Felix starts as its driver: a pair of pipes on one side, the socket of the plane on the other, and bytes between.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

/// Where Felix writes and reads: descriptors 3 and 4 of the process that it starts.
const PIPES: [&str; 2] = ["/proc/self/fd/3", "/proc/self/fd/4"];
/// Bytes that are carried at once.
const BUFFER: usize = 1 << 16;

/// Why it ended before Felix did.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Nobody listens.
    #[error("cannot reach {}: {error}; is `margay run --felix` running with this socket?", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// It was not started as a driver.
    #[error("{what} is not open: {error}; Felix starts this program (its `DataplaneDriver`), with its pipes there")]
    NoPipe {
        /// The pipe.
        what: &'static str,
        /// What the operating system says.
        error: io::Error,
    },
    /// The plane ended the conversation.
    #[error("the data plane ended the conversation; its log says why")]
    Dismissed,
    /// A side failed.
    #[error("the conversation broke off: {0}")]
    Broken(io::Error),
    /// No thread could be had.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Carries what Felix says to the socket, and what is answered back, until Felix has gone.
///
/// # Errors
/// Why it could not.
pub fn relay(socket: &Path) -> Result<(), RelayError> {
    let [from_felix, to_felix] = PIPES;
    let open = |what: &'static str, options: &OpenOptions| {
        options.open(what).map_err(|error| RelayError::NoPipe { what, error })
    };
    let from_felix = open(from_felix, OpenOptions::new().read(true))?;
    let to_felix = open(to_felix, OpenOptions::new().write(true))?;
    let plane = UnixStream::connect(socket).map_err(|error| RelayError::Unreachable {
        socket: socket.to_owned(),
        error,
    })?;
    let there = plane.try_clone().map_err(RelayError::Broken)?;
    let has_gone = Arc::new(AtomicBool::new(false));
    let (end, ended) = mpsc::channel();
    let (failed, gone) = (end.clone(), has_gone.clone());
    let ask = move || match say(from_felix, &there, &gone) {
        // What was said is still to be heard.
        Ok(()) => {}
        // Nobody waits where the other side has ended.
        Err(error) => drop(failed.send(Err(error))),
    };
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    thread("to-plane").spawn(ask).map_err(RelayError::Thread)?;
    let answer = move || drop(end.send(hear(plane, to_felix, &has_gone)));
    thread("to-felix").spawn(answer).map_err(RelayError::Thread)?;
    ended.recv().unwrap_or(Err(RelayError::Dismissed))
}

/// Until Felix has nothing more to say.
fn say(from_felix: File, mut plane: &UnixStream, has_gone: &AtomicBool) -> Result<(), RelayError> {
    match copy(from_felix, &mut plane) {
        Ok(()) => {
            has_gone.store(true, Ordering::Release);
            plane.shutdown(Shutdown::Write).map_err(RelayError::Broken)
        }
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(RelayError::Dismissed),
        Err(error) => Err(RelayError::Broken(error)),
    }
}

/// Until the plane ends it, or Felix does not listen any more.
fn hear(plane: UnixStream, to_felix: File, has_gone: &AtomicBool) -> Result<(), RelayError> {
    match copy(plane, to_felix) {
        Ok(()) if has_gone.load(Ordering::Acquire) => Ok(()),
        Ok(()) => Err(RelayError::Dismissed),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(RelayError::Broken(error)),
    }
}

/// Not `io::copy`: it splices, and a pipe is locked while splice waits for more to put into it, so that nobody can read
/// what is there already.
fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
