//! The wire format, held against Wireshark's: it decrypts what was on the wire, and finds the packets that went in.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use control::keys::Secret;
use testbed::{golden, need_programs, skip};
use wireguard::handshake::Identity;
use wireguard::tunnel::Random;

use super::World;
use super::gateway::{Seeded, Settings};
use super::paths::{hopped, message_at, packet, pass};

/// Bytes that a gateway draws before, and in, a handshake; generously.
const DRAWN: usize = 4096;

/// The private half of the ephemeral key in an initiation of gateway 1, found among the numbers it draws.
fn ephemeral(initiation: &[u8]) -> Secret {
    let mut drawn = vec![0; DRAWN];
    Seeded(1).fill(&mut drawn);
    let mut keys = drawn.windows(32).map(|bytes| <[u8; 32]>::try_from(bytes).unwrap());
    let found = keys.find(|key| Identity::new(key).public()[..] == initiation[8..40]);
    Secret::new(&found.expect("it was drawn from these numbers"))
}

/// What Wireshark has to be told to decrypt what gateway 1 has begun (wireshark's dissector of WireGuard, "key log").
fn key_log(world: &World) -> String {
    let first = world.wire.iter().find(|frame| frame[message_at(frame)] == 1).unwrap();
    let mut log = String::new();
    // Writing to a text does not fail.
    let _ = writeln!(log, "LOCAL_STATIC_PRIVATE_KEY = {}", *Secret::new(&[1; 32]).text());
    let _ = writeln!(log, "REMOTE_STATIC_PUBLIC_KEY = {}", Secret::new(&[2; 32]).public());
    let _ = writeln!(
        log,
        "LOCAL_EPHEMERAL_PRIVATE_KEY = {}",
        *ephemeral(&first[message_at(first)..]).text()
    );
    log
}

/// The packets inside a capture, without padding, in order.
fn decrypted(capture: &Path, key_log: &Path) -> Vec<Vec<u8>> {
    let keys = format!("wg.keylog_file:{}", key_log.display());
    let output = Command::new("tshark")
        .arg("-r")
        .arg(capture)
        .args(["-o", &keys, "-Y", "wg.type == 4", "-x"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut packets: Vec<Vec<u8>> = vec![];
    let mut inside = false;
    for line in text.lines() {
        // Every source of bytes has a heading, and lines of an offset, 16 bytes in hexadecimal, and text.
        if line.ends_with(':') {
            inside = line.starts_with("Decrypted");
            packets.extend(inside.then(Vec::new));
        } else if inside && let Some((_, bytes)) = line.split_once("  ") {
            let bytes = bytes.get(..47.min(bytes.len())).unwrap_or_default();
            let bytes = bytes
                .split_whitespace()
                .map(|byte| u8::from_str_radix(byte, 16).unwrap());
            packets.last_mut().unwrap().extend(bytes);
        }
    }
    // Of keepalives nothing is left.
    packets.retain(|packet| !packet.is_empty());
    packets
}

#[test]
fn wireshark_finds_what_went_in() {
    if let Some(reason) = need_programs(&["tshark"]) {
        skip!("{reason}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf { folder.path().join(name) };
    for outer in [true, false] {
        let mut world = World::pair_with(outer, Settings::default());
        let mut expected = vec![];
        for (inner, length) in [
            (true, 28),
            (true, 100),
            (false, 100),
            (true, 1419),
            (false, 1420),
            (false, 1408),
        ] {
            for (from, to) in [(1, 2), (2, 1)] {
                let sent = packet(from, to, inner, length);
                assert_eq!(pass(&mut world, from, to, std::slice::from_ref(&sent)).len(), 1);
                expected.push(hopped(sent, 1));
            }
        }
        golden::write(&file("wire.pcap"), &world.wire).unwrap();
        std::fs::write(file("keys"), key_log(&world)).unwrap();
        let mut found = decrypted(&file("wire.pcap"), &file("keys"));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter_mut().zip(&expected) {
            let padding = found.split_off(expected.len());
            assert!(
                padding.len() < 16 && padding.iter().all(|byte| *byte == 0),
                "{padding:?}"
            );
        }
        golden::compare(&expected, &found).unwrap_or_else(|difference| panic!("{difference}"));
    }
}
