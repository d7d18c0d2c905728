//! `margay capture`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Error, SOCKET, output};
use crate::capture::{CaptureRequest, Where};

/// Block types of pcapng: an enhanced packet, and the statistics of an interface.
const PACKET: u32 = 6;

#[derive(Debug, Args)]
pub(super) struct Capture {
    /// The file to write, in pcapng; `-` is standard output
    #[arg(short, long, value_name = "FILE.pcap")]
    write: PathBuf,
    /// End after this many packets; otherwise at the first Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Where packets are captured
    #[arg(long = "where", value_name = "WHERE", value_enum, default_value_t)]
    place: Where,
    /// Which packets, as a pcap-filter expression: host 10.1.0.2 and tcp port 80
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// The Unix socket of the data plane
    #[arg(long, value_name = "PATH", env = "MARGAY_SOCKET", default_value = SOCKET)]
    socket: PathBuf,
}

impl Capture {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let request = CaptureRequest {
            place: self.place,
            count: self.count,
            filter: self.filter.join(" "),
        };
        let client = super::client::Client::new(&self.socket)?;
        let mut sink = Sink::new(&self.write);
        client.stream("/v1/capture", &request, |piece| sink.take(piece))?;
        sink.finish()
    }
}

/// The file, opened with the first piece, so that a refused capture overwrites nothing.
struct Sink<'a> {
    path: &'a Path,
    out: Option<Box<dyn Write>>,
    packets: Packets,
}

impl<'a> Sink<'a> {
    fn new(path: &'a Path) -> Self {
        Self {
            path,
            out: None,
            packets: Packets::default(),
        }
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), Error> {
        let out = match &mut self.out {
            Some(out) => out,
            none => none.insert(open(self.path).map_err(|error| failed(self.path, &error))?),
        };
        let written = out.write_all(piece).and_then(|()| out.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Error::Closed,
            _ => failed(self.path, &error),
        })?;
        self.packets.count(piece);
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        output::note(&format!("{} packets captured", self.packets.packets));
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Box<dyn Write>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    Ok(Box::new(File::create(path)?))
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::Failed(format!(
        "cannot write {}: {error}; what was written before is still there",
        path.display()
    ))
}

/// Counts packets in a stream of blocks, of which each begins with its type and its length.
#[derive(Default)]
struct Packets {
    packets: u64,
    /// The part of a head that has come so far.
    head: Vec<u8>,
    /// Bytes of the block that are still to come.
    rest: usize,
}

impl Packets {
    fn count(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(piece.len());
                self.rest -= passed;
                piece = &piece[passed..];
                continue;
            }
            self.head.push(piece[0]);
            piece = &piece[1..];
            if let Some((kind, length)) = self.head.first_chunk().zip(self.head.get(4..8)) {
                let length = length
                    .iter()
                    .rev()
                    .fold(0, |length, &byte| length << 8 | usize::from(byte));
                self.packets += u64::from(u32::from_le_bytes(*kind) == PACKET);
                self.rest = length.saturating_sub(8);
                self.head.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_however_the_stream_is_cut() {
        let block = |kind: u32, length: usize| {
            let mut bytes = vec![0; length];
            bytes[..4].copy_from_slice(&kind.to_le_bytes());
            bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
            bytes
        };
        let stream = [
            block(0x0a0d_0d0a, 28),
            block(1, 20),
            block(6, 100),
            block(6, 44),
            block(5, 24),
        ]
        .concat();
        for cut in 1..stream.len() {
            let mut packets = Packets::default();
            stream.chunks(cut).for_each(|piece| packets.count(piece));
            assert_eq!(packets.packets, 2);
        }
    }
}
