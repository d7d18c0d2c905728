//! A port that reads packets from a capture file and writes what it sends to another: for tests and for questions like
//! "what would happen to these packets". File access is not for a busy worker.

use crate::arena::{FrameIndex, HEADROOM};
use crate::pool::Frames;
use crate::port::Queue;
use crate::vector::Vector;
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Why a capture cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's or the format's complaint.
        error: String,
    },
    /// The file for what is sent cannot be written.
    #[error("cannot write {path}: {error}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's complaint.
        error: String,
    },
}

/// The port's queue.
pub struct PcapQueue {
    reader: Option<PcapReader<BufReader<File>>>,
    writer: PcapWriter<BufWriter<File>>,
    sent: u64,
    finished: Arc<AtomicBool>,
}

/// Where a port that reads `path` writes what it sends: `left.pcap` becomes `left.out.pcap`.
pub fn output_of(path: &Path) -> PathBuf {
    path.with_extension("out.pcap")
}

impl PcapQueue {
    /// Opens `path` for reading, if it exists (a port may only send), and [`output_of`] it for writing.
    ///
    /// # Errors
    /// A file cannot be opened, or the first is no capture.
    pub fn open(path: &Path) -> Result<Self, PcapError> {
        let reader = path.exists().then(|| {
            let file = File::open(path).map_err(|error| error.to_string())?;
            PcapReader::new(BufReader::new(file)).map_err(|error| error.to_string())
        });
        let reader = reader.transpose().map_err(|error| PcapError::Read {
            path: path.to_owned(),
            error,
        })?;
        let output = output_of(path);
        let fail = |error: String| PcapError::Write {
            path: output.clone(),
            error,
        };
        let file = File::create(&output).map_err(|error| fail(error.to_string()))?;
        let writer = PcapWriter::new(BufWriter::new(file)).map_err(|error| fail(error.to_string()))?;
        Ok(Self {
            reader,
            writer,
            sent: 0,
            finished: Arc::new(AtomicBool::new(false)),
        })
    }

    /// Becomes true when everything has been read.
    pub fn finished(&self) -> Arc<AtomicBool> {
        self.finished.clone()
    }
}

impl Queue for PcapQueue {
    fn receive(&mut self, frames: &mut Frames, room: usize, into: &mut Vector) {
        for _ in 0..room {
            let Some(reader) = &mut self.reader else {
                self.finished.store(true, Ordering::Release);
                return;
            };
            let Some(mut frame) = frames.take() else { return };
            match reader.next_packet() {
                Some(Ok(packet)) => match frames.packet(&mut frame).fill(HEADROOM, &packet.data) {
                    Ok(()) => into.push(frame),
                    Err(_) => frames.give(frame),
                },
                // A damaged capture ends where the damage is.
                Some(Err(_)) | None => {
                    frames.give(frame);
                    self.reader = None;
                }
            }
        }
    }

    fn transmit(&mut self, frames: &mut Frames, from: &mut Vec<FrameIndex>) {
        for mut frame in from.drain(..) {
            let mut content = frames.packet(&mut frame);
            let bytes = content.data();
            // No time of day: the same input gives the same file.
            let packet = PcapPacket::new(Duration::from_micros(self.sent), bytes.len() as u32, bytes);
            self.sent += u64::from(self.writer.write_packet(&packet).is_ok());
            frames.give(frame);
        }
    }

    fn close(self: Box<Self>, _: &mut Frames) {
        // The last packets; there is nobody left to tell if the disk is full.
        let _ = self.writer.into_writer().flush();
    }
}
