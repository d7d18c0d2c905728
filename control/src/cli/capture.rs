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
            none => none.insert(open(self.path).map_err(|error| failed(self.path, &error, 0))?),
        };
        match write(out, piece, &mut self.packets) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::Closed),
            Err(error) => Err(self.end_early(&error)),
        }
    }

    /// Half a block at the end would make the file one that readers call damaged.
    fn end_early(&mut self, error: &io::Error) -> Error {
        self.out = None;
        if self.path != Path::new("-")
            && let Ok(file) = File::options().write(true).open(self.path)
        {
            // A device has no length, and no half a block either.
            let _ = file.set_len(self.packets.whole);
        }
        failed(self.path, error, self.packets.packets)
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

/// Writes, and counts what could be written.
fn write(out: &mut dyn Write, mut piece: &[u8], packets: &mut Packets) -> io::Result<()> {
    while !piece.is_empty() {
        match out.write(piece) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                packets.count(&piece[..written]);
                piece = &piece[written..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

fn failed(path: &Path, error: &io::Error, packets: u64) -> Error {
    let path = path.display();
    Error::Failed(format!(
        "cannot write {path}: {error}; the {packets} packets captured before are there"
    ))
}

/// Counts whole packets in a stream of blocks, of which each begins with its type and its length.
#[derive(Default)]
struct Packets {
    packets: u64,
    /// Bytes of whole blocks.
    whole: u64,
    /// The part of a head that has come so far.
    head: Vec<u8>,
    /// Type and length of the block that is coming.
    block: (u32, u64),
    /// Bytes of it that are still to come.
    rest: usize,
}

impl Packets {
    fn count(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(piece.len());
                self.rest -= passed;
                piece = &piece[passed..];
                self.end_block();
                continue;
            }
            self.head.push(piece[0]);
            piece = &piece[1..];
            if let Ok([a, b, c, d, e, f, g, h]) = <[u8; 8]>::try_from(&self.head[..]) {
                let length = u32::from_le_bytes([e, f, g, h]);
                self.block = (u32::from_le_bytes([a, b, c, d]), u64::from(length));
                self.rest = (length as usize).saturating_sub(8);
                self.head.clear();
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        if self.rest == 0 {
            let (kind, length) = self.block;
            self.packets += u64::from(kind == PACKET);
            self.whole += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        bytes
    }

    /// A disk with room for so many bytes.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            let room = self.0.min(piece.len());
            self.0 -= room;
            match room {
                0 => Err(io::ErrorKind::StorageFull.into()),
                _ => Ok(room),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn of_what_a_full_disk_took_whole_blocks_are_counted() {
        let stream = [block(0x0a0d_0d0a, 28), block(6, 100), block(6, 44)].concat();
        for (room, expected) in [
            (27, (0, 0)),
            (28, (0, 28)),
            (127, (0, 28)),
            (128, (1, 128)),
            (171, (1, 128)),
        ] {
            let mut packets = Packets::default();
            let error = write(&mut Disk(room), &stream, &mut packets).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert_eq!((packets.packets, packets.whole), expected, "{room}");
        }
    }

    #[test]
    fn packets_are_counted_however_the_stream_is_cut() {
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
            assert_eq!((packets.packets, packets.whole), (2, stream.len() as u64));
        }
    }
}
