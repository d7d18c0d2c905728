//! Taking the addresses: a dead predecessor's socket is replaced, a live one's is not.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

/// Read and write for the owner and the group.
const MODE: u32 = 0o660;
/// How often, and how long apart, to try for the lock that another starting instance holds for an instant.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why the server could not take its addresses.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another instance serves the socket.
    #[error("another instance answers on {}; stop it, or choose another socket with --socket", .0.display())]
    Taken(PathBuf),
    /// The path exists and is no socket.
    #[error("{} exists and is not a socket; move it away, or choose another socket with --socket", .0.display())]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("cannot make the socket {}: {error}", path.display())]
    Unix {
        /// The path of the socket.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// The operating system refused.
    #[error("cannot listen on {address} for metrics: {error}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
}

/// A listener at `path` with mode 0660. Makes the folder it is in.
pub(crate) fn bind_unix(path: &Path) -> Result<UnixListener, BindError> {
    let refuse = |error| BindError::Unix {
        path: path.to_owned(),
        error,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(refuse)?;
    // Two instances that start at once would both find the socket dead and one would remove the other's.
    let _lock = lock(folder).map_err(refuse)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(refuse(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => match probe(path) {
            Ok(()) => return Err(BindError::Taken(path.to_owned())),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(refuse)?,
            // A full backlog is a sign of life.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(BindError::Taken(path.to_owned())),
            Err(error) => return Err(refuse(error)),
        },
    }
    let listener = UnixListener::bind(path).map_err(refuse)?;
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(refuse)?;
    Ok(listener)
}

/// A listener for `/metrics`.
pub(super) fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map_err(|error| BindError::Tcp { address, error })
}

/// Whether somebody listens. Does not wait, as `connect` would on a full backlog.
fn probe(path: &Path) -> io::Result<()> {
    // Tokio's connect is a non-blocking one, whose first attempt happens at once.
    let mut connecting = std::pin::pin!(tokio::net::UnixStream::connect(path));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::future::Future::poll(connecting.as_mut(), &mut context) {
        std::task::Poll::Ready(connected) => connected.map(drop),
        std::task::Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

fn lock(folder: &Path) -> io::Result<File> {
    let file = File::open(folder)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(
        ErrorKind::WouldBlock,
        "another process keeps the folder locked",
    ))
}
