//! Golden captures: pcap files read, written and compared packet by packet, with a difference people can read.

use std::fmt::{self, Display};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use etherparse::{LaxPacketHeaders, LinkHeader, NetHeaders, TcpHeader, TransportHeader};
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, PcapError};

use crate::{Error, at};

/// Differing packets shown in full; of the others the number is told.
const SHOWN: usize = 4;
/// Bytes a line of the hexadecimal picture shows.
const LINE: usize = 16;

/// Place from 0 in two lists, with what was expected there and what came; one of them may be missing.
type Pair = (usize, Option<Vec<u8>>, Option<Vec<u8>>);

/// Where two lists of packets differ. Displayed: each differing packet's headers and bytes, what was expected behind
/// `-` and what came behind `+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    packets: Vec<Pair>,
    expected: usize,
    actual: usize,
}

/// Reads the packets of a capture of Ethernet frames, without their times.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let wrong = |source| Error::Capture {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(at(path))?;
    let mut reader = PcapReader::new(BufReader::new(file)).map_err(wrong)?;
    if reader.header().datalink != DataLink::ETHERNET {
        return Err(wrong(PcapError::InvalidField("it does not hold Ethernet frames")));
    }
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        packets.push(packet.map_err(wrong)?.data.into_owned());
    }
    Ok(packets)
}

/// Writes a capture. Packets are a microsecond apart from time 0, so that the same packets make the same file.
pub fn write<P: AsRef<[u8]>>(path: &Path, packets: &[P]) -> Result<(), Error> {
    let wrong = |source| Error::Capture {
        path: path.to_owned(),
        source,
    };
    let file = File::create(path).map_err(at(path))?;
    let mut writer = PcapWriter::new(BufWriter::new(file)).map_err(wrong)?;
    for (number, packet) in (0..).zip(packets.iter().map(AsRef::as_ref)) {
        let packet = PcapPacket::new(Duration::from_micros(number), packet.len() as u32, packet);
        writer.write_packet(&packet).map_err(wrong)?;
    }
    std::io::Write::flush(&mut writer.into_writer()).map_err(at(path))
}

/// Compares packets with those expected, one by one.
pub fn compare<P: AsRef<[u8]>>(expected: &[P], actual: &[P]) -> Result<(), Difference> {
    let at = |packets: &[P], place: usize| packets.get(place).map(|packet| packet.as_ref().to_vec());
    let packets: Vec<_> = (0..expected.len().max(actual.len()))
        .map(|place| (place, at(expected, place), at(actual, place)))
        .filter(|(_, expected, actual)| expected != actual)
        .collect();
    match packets.is_empty() {
        true => Ok(()),
        false => Err(Difference {
            packets,
            expected: expected.len(),
            actual: actual.len(),
        }),
    }
}

/// Compares packets with a golden capture. When they differ, or there is none yet, they are left in `PATH.tmp`, to be
/// looked at and, if they are right, renamed.
pub fn check(path: &Path, actual: &[Vec<u8>]) -> Result<(), Error> {
    let expected = if path.exists() { read(path)? } else { Vec::new() };
    let Err(difference) = compare(&expected, actual) else {
        return Ok(());
    };
    let kept = PathBuf::from(format!("{}.tmp", path.display()));
    write(&kept, actual)?;
    Err(Error::Differs {
        path: path.to_owned(),
        kept,
        difference,
    })
}

/// One line for each header of an Ethernet frame, and one for what remains or cannot be read.
pub fn describe(frame: &[u8]) -> Vec<String> {
    let headers = match LaxPacketHeaders::from_ethernet(frame) {
        Ok(headers) => headers,
        Err(_) => return vec![format!("{} bytes are no Ethernet frame", frame.len())],
    };
    let mut lines = Vec::new();
    if let Some(LinkHeader::Ethernet2(link)) = &headers.link {
        let (source, destination) = (hex(&link.source, ":"), hex(&link.destination, ":"));
        lines.push(format!(
            "ethernet {source} > {destination} type {:#06x}",
            link.ether_type.0
        ));
    }
    lines.extend(headers.link_exts.iter().map(|extension| format!("{extension:?}")));
    match &headers.net {
        Some(NetHeaders::Ipv4(ip, _)) => lines.push(ipv4(ip)),
        Some(NetHeaders::Ipv6(ip, extensions)) => {
            lines.push(ipv6(ip));
            if *extensions != Default::default() {
                lines.push(format!("{extensions:?}"));
            }
        }
        Some(NetHeaders::Arp(arp)) => lines.push(format!(
            "arp {:?} {} is {}, asks {} at {}",
            arp.operation,
            hex(arp.sender_protocol_addr(), "."),
            hex(arp.sender_hw_addr(), ":"),
            hex(arp.target_protocol_addr(), "."),
            hex(arp.target_hw_addr(), ":"),
        )),
        None => {}
    }
    match &headers.transport {
        Some(TransportHeader::Udp(udp)) => lines.push(format!(
            "udp {} > {} length {} checksum {:#06x}",
            udp.source_port, udp.destination_port, udp.length, udp.checksum
        )),
        Some(TransportHeader::Tcp(header)) => lines.push(tcp(header)),
        Some(TransportHeader::Icmpv4(icmp)) => {
            lines.push(format!("icmp {:?} checksum {:#06x}", icmp.icmp_type, icmp.checksum));
        }
        Some(TransportHeader::Icmpv6(icmp)) => {
            lines.push(format!("icmpv6 {:?} checksum {:#06x}", icmp.icmp_type, icmp.checksum));
        }
        Some(other) => lines.push(format!("{other:?}")),
        None => {}
    }
    if let Some((error, layer)) = &headers.stop_err {
        lines.push(format!("unreadable from {layer}: {error}"));
    }
    lines.push(format!(
        "{} bytes in all, {} of payload",
        frame.len(),
        headers.payload.slice().len()
    ));
    lines
}

fn ipv4(ip: &etherparse::Ipv4Header) -> String {
    format!(
        "ipv4 {} > {} protocol {} ttl {} length {} id {:#06x} dscp {} ecn {}{}{} offset {}{} checksum {:#06x}",
        Ipv4Addr::from(ip.source),
        Ipv4Addr::from(ip.destination),
        ip.protocol.0,
        ip.time_to_live,
        ip.total_len,
        ip.identification,
        ip.dscp.value(),
        ip.ecn.value(),
        if ip.dont_fragment { " DF" } else { "" },
        if ip.more_fragments { " MF" } else { "" },
        ip.fragment_offset.value(),
        options(&ip.options),
        ip.header_checksum
    )
}

fn ipv6(ip: &etherparse::Ipv6Header) -> String {
    format!(
        "ipv6 {} > {} next {} hop limit {} payload {} class {:#04x} flow {:#07x}",
        Ipv6Addr::from(ip.source),
        Ipv6Addr::from(ip.destination),
        ip.next_header.0,
        ip.hop_limit,
        ip.payload_length,
        ip.traffic_class,
        ip.flow_label.value()
    )
}

fn tcp(header: &TcpHeader) -> String {
    let flags = [
        (header.syn, 'S'),
        (header.ack, 'A'),
        (header.fin, 'F'),
        (header.rst, 'R'),
        (header.psh, 'P'),
        (header.urg, 'U'),
        (header.ece, 'E'),
        (header.cwr, 'W'),
    ];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect();
    format!(
        "tcp {} > {} {flags} sequence {} acknowledgment {} window {}{} checksum {:#06x}",
        header.source_port,
        header.destination_port,
        header.sequence_number,
        header.acknowledgment_number,
        header.window_size,
        options(header.options.as_slice()),
        header.checksum
    )
}

fn options(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        String::new()
    } else {
        format!(" options {}", hex(bytes, ""))
    }
}

fn hex(bytes: &[u8], between: &str) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(between)
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference {
            packets,
            expected,
            actual,
        } = self;
        writeln!(
            f,
            "differing packets: {} (expected {expected}, came {actual})",
            packets.len()
        )?;
        for (place, expected, actual) in packets.iter().take(SHOWN) {
            match (expected, actual) {
                (Some(_), None) => writeln!(f, "packet {} is missing:", place + 1)?,
                (None, Some(_)) => writeln!(f, "packet {} is too much:", place + 1)?,
                _ => writeln!(f, "packet {} differs:", place + 1)?,
            }
            let (expected, actual) = (picture(expected.as_deref()), picture(actual.as_deref()));
            f.write_str(&beside(&expected.0, &actual.0, Some("    ")))?;
            f.write_str(&beside(&expected.1, &actual.1, None))?;
        }
        match packets.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}

impl std::error::Error for Difference {}

/// The header lines of a frame and its bytes, or nothing of no frame.
fn picture(frame: Option<&[u8]>) -> (Vec<String>, Vec<String>) {
    let Some(frame) = frame else {
        return (Vec::new(), Vec::new());
    };
    let line = |(number, bytes)| format!("{:04x}  {}", number * LINE, hex(bytes, " "));
    (describe(frame), frame.chunks(LINE).enumerate().map(line).collect())
}

/// Lines set beside each other: what was expected behind `-` and what came behind `+`, common ones behind `common`.
fn beside(expected: &[String], actual: &[String], common: Option<&str>) -> String {
    let mut text = String::new();
    for place in 0..expected.len().max(actual.len()) {
        let (left, right) = (expected.get(place), actual.get(place));
        let marked = match left == right {
            true => [common.zip(left), None],
            false => [left.map(|line| ("  - ", line)), right.map(|line| ("  + ", line))],
        };
        marked
            .into_iter()
            .flatten()
            .for_each(|(mark, line)| text.extend([mark, line, "\n"]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn udp(ttl: u8, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 1, 0, 2], [10, 2, 0, 2], ttl)
            .udp(1000, 2000);
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.pcap");
        let packets = vec![udp(64, b"one"), udp(63, &[7; 1400]), vec![0; 14], vec![1; 9018]];
        write(&path, &packets).unwrap();
        assert_eq!(read(&path).unwrap(), packets);
        let before = std::fs::read(&path).unwrap();
        write(&path, &packets).unwrap();
        assert_eq!(
            std::fs::read(&path).unwrap(),
            before,
            "the same packets make another file"
        );
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.pcap");
        assert!(read(&path).unwrap_err().to_string().contains("some.pcap: No such file"));
        std::fs::write(&path, b"no capture, but text enough for a header").unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .contains("some.pcap: not a readable capture")
        );
        write(&path, &[udp(64, b"one")]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("not a readable capture"));
    }

    #[test]
    fn a_difference_shows_the_header_and_the_bytes_that_differ() {
        let difference = compare(&[udp(63, b"one")], &[udp(64, b"one")]).unwrap_err().to_string();
        let expected = "\
differing packets: 1 (expected 1, came 1)
packet 1 differs:
    ethernet 02:00:00:00:00:01 > 02:00:00:00:00:02 type 0x0800
  - ipv4 10.1.0.2 > 10.2.0.2 protocol 17 ttl 63 length 31 id 0x0000 dscp 0 ecn 0 DF offset 0 checksum 0x27c8
  + ipv4 10.1.0.2 > 10.2.0.2 protocol 17 ttl 64 length 31 id 0x0000 dscp 0 ecn 0 DF offset 0 checksum 0x26c8
    udp 1000 > 2000 length 11 checksum 0x0bab
    45 bytes in all, 3 of payload
  - 0010  00 1f 00 00 40 00 3f 11 27 c8 0a 01 00 02 0a 02
  + 0010  00 1f 00 00 40 00 40 11 26 c8 0a 01 00 02 0a 02
";
        assert_eq!(difference, expected);
    }

    #[test]
    fn missing_and_surplus_packets_are_told_apart_and_counted() {
        let (one, two) = (udp(64, b"one"), udp(64, b"two"));
        assert_eq!(compare(&[&one, &two], &[&one, &two]), Ok(()));
        let missing = compare(&[&one, &two], &[&one]).unwrap_err().to_string();
        assert!(missing.contains("packet 2 is missing:\n  - ethernet"), "{missing}");
        let surplus = compare(&[], &[&one; 7]).unwrap_err().to_string();
        assert!(
            surplus.contains("packet 4 is too much:") && surplus.ends_with("and 3 more\n"),
            "{surplus}"
        );
    }

    #[test]
    fn what_came_is_kept_beside_the_golden_capture() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.pcap");
        let came = vec![udp(64, b"one")];
        let error = check(&path, &came).unwrap_err().to_string();
        assert!(error.contains("out.pcap.tmp"), "{error}");
        std::fs::rename(folder.path().join("out.pcap.tmp"), &path).unwrap();
        check(&path, &came).unwrap();
    }

    #[test]
    fn any_bytes_are_described() {
        for length in 0..80 {
            for fill in [0x00, 0x08, 0x45, 0x60, 0x86, 0xff] {
                let mut frame = vec![fill; length];
                describe(&frame);
                if length >= 14 {
                    frame[12..14].copy_from_slice(&[0x08, 0x00]);
                    describe(&frame);
                    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
                    assert!(!describe(&frame).is_empty());
                }
            }
        }
    }
}
