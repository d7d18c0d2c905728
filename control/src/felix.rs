//! Felix drives the plane: what it says over its external data-plane protocol comes in on a Unix socket, frame by frame,
//! and what it is told goes back the same way. `margay felix`, which Felix starts as its driver, carries both
//! ([`relay`]), so that the plane lives on when Felix does not.

mod driver;
pub mod frames;
#[cfg(test)]
mod golden;
pub mod messages;
pub mod relay;
mod rules;
mod session;
mod snapshot;
mod wire;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

pub use driver::Driver;
use frames::{FrameError, Frames};
use messages::{Heard, MessageError};

use crate::server::{BindError, bind_unix};

/// Where the plane listens for Felix unless something else is said.
pub const SOCKET: &str = "/run/margay/felix.sock";
/// How often Felix hears that the plane lives.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Bytes of messages that become one update at most, where they come together.
const TOGETHER: usize = 4 << 20;
/// Room for what is read at once.
const PIECE: usize = 1 << 16;

/// A socket for Felix, that nobody listens to yet.
pub struct Felix {
    listener: UnixListener,
    path: PathBuf,
}

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Message(#[from] MessageError),
    #[error("{0}")]
    Broken(#[from] std::io::Error),
    #[error("a part of the program failed: {0}")]
    Failed(#[from] tokio::task::JoinError),
}

impl Felix {
    /// Takes the socket at `path` (mode 0660, a dead predecessor's is replaced). Needs a tokio runtime around it.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Ok(Self {
            listener: bind_unix(path)?,
            path: path.to_owned(),
        })
    }

    /// Listens to one Felix at a time, for ever. Another that comes takes the place of the one before, which may be dead
    /// without anybody having noticed.
    pub async fn serve(self, driver: Driver) {
        let driver = Arc::new(Mutex::new(driver));
        let mut conversation = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        conversation.shutdown().await;
                        conversation.spawn(converse(stream, driver.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "Felix could not be heard");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(ended) = conversation.join_next() => match ended {
                    Ok(Ok(())) => tracing::info!("Felix has gone; what it said last stays in force"),
                    Ok(Err(why)) => tracing::warn!("Felix was cut off, and what it said last stays in force: {why}"),
                    // Another took its place.
                    Err(_) => {}
                },
            }
        }
    }
}

impl Drop for Felix {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn converse(mut stream: UnixStream, driver: Arc<Mutex<Driver>>) -> Result<(), Ended> {
    tracing::info!("Felix speaks");
    let mut frames = Frames::default();
    let mut beat = tokio::time::interval(HEARTBEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    with(&driver, Driver::begin).await?;
    loop {
        let answers = tokio::select! {
            readable = stream.readable() => {
                readable?;
                let open = receive(&stream, &mut frames)?;
                let heard = read(&mut frames)?;
                if !open && heard.is_empty() {
                    return Ok(frames.finish()?);
                }
                with(&driver, move |driver| driver.hear(heard)).await?
            }
            _ = beat.tick() => with(&driver, Driver::beat).await?,
        };
        stream.write_all(&answers).await?;
    }
}

/// Takes what is there, up to a bound. Whether more may come.
fn receive(stream: &UnixStream, frames: &mut Frames) -> std::io::Result<bool> {
    let bytes = frames.bytes();
    let mut taken = 0;
    while taken < TOGETHER {
        bytes.reserve(PIECE);
        match stream.try_read_buf(bytes) {
            Ok(0) => return Ok(false),
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn read(frames: &mut Frames) -> Result<Vec<Heard>, Ended> {
    let mut heard = vec![];
    while let Some(message) = frames.next_message()? {
        heard.push(messages::read(message)?);
    }
    Ok(heard)
}

/// The plane may block, and other conversations are not to wait for it.
async fn with<T: Send + 'static>(
    driver: &Arc<Mutex<Driver>>,
    work: impl FnOnce(&mut Driver) -> T + Send + 'static,
) -> Result<T, Ended> {
    let driver = driver.clone();
    let work = move || work(&mut driver.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(tokio::task::spawn_blocking(work).await?)
}
