//! Captures: what the file holds, when it ends, and that Wireshark reads it.

mod router;

use std::path::{Path, PathBuf};
use std::process::Command;

use control::capture::{CaptureRequest, Capturing, Where};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use router::{LIMIT, Net, iperf, iperf_server, ping, shell, until};
use testbed::packets::{Mac, echo, frame, port_mac};
use testbed::{Plane, need};

const LEFT: Mac = [2, 0, 0, 0, 0, 0xa];

const PORTS: &str = "
{apiVersion: margay/v1, kind: Port, metadata: {name: left}, spec: {device: left, driver: memory, addresses: [10.1.0.1/24]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: right}, spec: {device: right, driver: memory, addresses: [10.2.0.1/24]}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: right-host}, spec: {port: right, address: 10.2.0.2, mac: \"02:00:00:00:00:0b\"}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: left-host}, spec: {port: left, address: 10.1.0.2, mac: \"02:00:00:00:00:0a\"}}
";

fn ask(place: Where, count: Option<u64>, filter: &str) -> CaptureRequest {
    CaptureRequest {
        place,
        count,
        filter: filter.to_owned(),
    }
}

/// From the left host, one packet a destination.
fn pings(to: &[&str]) -> Vec<Vec<u8>> {
    let packet = |to: &&str| echo("10.1.0.2".parse().unwrap(), to.parse().unwrap(), 1, b"captured");
    to.iter().map(|to| frame(port_mac(1), LEFT, &packet(to))).collect()
}

/// All that a capture has so far, and whether it is over.
fn read(capturing: &mut Capturing) -> (Vec<u8>, bool) {
    let mut file = vec![];
    loop {
        match capturing.next_piece() {
            None => return (file, true),
            Some(piece) if piece.is_empty() => return (file, false),
            Some(piece) => file.extend(piece),
        }
    }
}

/// Ports, bytes and comments of the packets of a file.
fn packets(file: &[u8]) -> Vec<(String, Vec<u8>, Option<String>)> {
    let mut reader = PcapNgReader::new(file).unwrap();
    let (mut found, mut names) = (vec![], vec![]);
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(port) => names.push(format!("{:?}", port.options[0])),
            Block::EnhancedPacket(packet) => {
                let comment = packet.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
                    _ => None,
                });
                let name = names[packet.interface_id as usize].clone();
                assert_eq!(packet.original_len as usize, packet.data.len());
                found.push((name, packet.data.to_vec(), comment));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn what_comes_in_and_what_goes_out() {
    let mut plane = Plane::new(PORTS).unwrap();
    let sent = pings(&["10.2.0.2", "10.1.0.1"]);
    let mut capturing = plane.views().capture(&ask(Where::Rx, None, "")).unwrap();
    plane.exchange("left", &sent, ["left", "right"]);
    let (file, over) = read(&mut capturing);
    let caught = packets(&file);
    assert!(!over);
    assert_eq!(
        caught.iter().map(|packet| &packet.1).collect::<Vec<_>>(),
        sent.iter().collect::<Vec<_>>()
    );
    assert!(
        caught
            .iter()
            .all(|packet| packet.0.contains("\"left\"") && packet.2.is_none()),
        "{caught:?}"
    );
    drop(capturing);

    let mut capturing = plane.views().capture(&ask(Where::Tx, None, "icmp")).unwrap();
    let [right, left] = plane.exchange("left", &sent, ["right", "left"]);
    let mut bytes: Vec<_> = packets(&read(&mut capturing).0)
        .into_iter()
        .map(|packet| packet.1)
        .collect();
    let mut left_the_plane: Vec<_> = right
        .into_iter()
        .chain(left)
        .filter(|frame| frame[12..14] == [8, 0])
        .collect();
    bytes.sort();
    left_the_plane.sort();
    assert_eq!(bytes, left_the_plane);
    assert_eq!(bytes.len(), 2, "{:?}", plane.drops());
}

#[test]
fn what_is_dropped_and_why() {
    let mut plane = Plane::new(PORTS).unwrap();
    let mut capturing = plane
        .views()
        .capture(&ask(Where::Drops, None, "dst host 10.2.0.255"))
        .unwrap();
    plane.exchange("left", &pings(&["10.2.0.2", "10.2.0.255", "224.0.0.9"]), ["right"]);
    let caught = packets(&read(&mut capturing).0);
    assert_eq!(caught.len(), 1, "{caught:?}");
    let comment = caught[0].2.as_ref().unwrap();
    assert!(
        comment.starts_with("route: directed-broadcast: Sent to all hosts"),
        "{comment}"
    );
}

#[test]
fn enough_is_enough_and_one_at_a_time() {
    let mut plane = Plane::new(PORTS).unwrap();
    let refused = |plane: &mut Plane, request| plane.views().capture(&request).err().unwrap().to_string();
    assert!(refused(&mut plane, ask(Where::Rx, Some(0), "")).contains("expected at least 1"));
    assert!(refused(&mut plane, ask(Where::Rx, None, "tcp and and")).contains("tcp and and"));
    let mut capturing = plane.views().capture(&ask(Where::Rx, Some(3), "")).unwrap();
    assert!(refused(&mut plane, ask(Where::Tx, None, "")).contains("running already"));
    plane.exchange("left", &pings(&["10.2.0.2"; 5]), ["right"]);
    let (file, over) = read(&mut capturing);
    assert_eq!((packets(&file).len(), over), (3, true));
    drop(capturing);
    assert!(plane.views().capture(&ask(Where::Tx, None, "")).is_ok());
}

#[test]
fn a_flood_that_nobody_reads_is_counted() {
    let mut plane = Plane::new(PORTS).unwrap();
    let mut capturing = plane.views().capture(&ask(Where::Rx, Some(2200), "")).unwrap();
    for _ in 0..10 {
        plane.exchange("left", &pings(&["10.2.0.2"; 250]), ["right"]);
    }
    let (file, over) = read(&mut capturing);
    assert_eq!((packets(&file).len(), over), (2048, false), "as many as wait");
    plane.exchange("left", &pings(&["10.2.0.2"; 200]), ["right"]);
    let (rest, over) = read(&mut capturing);
    let file = [file, rest].concat();
    assert_eq!((packets(&file).len(), over), (2200, true));
    let mut reader = PcapNgReader::new(&file[..]).unwrap();
    let mut last = None;
    while let Some(block) = reader.next_block() {
        last = Some(format!("{:?}", block.unwrap()));
    }
    assert!(last.unwrap().contains("IsbIfDrop(452)"));
}

/// What tshark says of a file: a line a packet.
fn tshark(file: &Path, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-T", "fields"]);
    fields.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    said.lines().map(str::to_owned).collect()
}

#[test]
fn wireshark_reads_it_and_nobody_is_held_up() {
    need!("ping", "tshark");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    let folder = net.lab.folder();
    let socket = margay.socket().display().to_string();
    let line = |more: &str| format!("exec {} capture --socket {socket} {more}", margay.binary().display());
    let (drops, rx) = (folder.join("drops.pcap"), folder.join("rx.pcap"));
    let wanted = format!("-w {} --where drops --count 2 icmp", drops.display());
    let mut child = net.router.spawn(["sh", "-c", &line(&wanted)]).unwrap();
    until("two packets to be dropped", || {
        shell(&net.left, "ping -c1 -W0.1 10.2.0.255 || true");
        child.status().unwrap().is_some()
    });
    let caught = tshark(&drops, &["frame.interface_name", "ip.dst", "frame.comment"]);
    assert_eq!(caught.len(), 2, "{caught:?}");
    assert!(
        caught[0].starts_with("left\t10.2.0.255\troute: directed-broadcast: "),
        "{caught:?}"
    );

    // Until the user has enough; and again, for the end of a client ends its capture.
    for round in 0..2 {
        let wanted = format!("-w {} icmp or icmp6", rx.display());
        let mut child = net.router.spawn(["sh", "-c", &line(&wanted)]).unwrap();
        until("packets to be captured", || {
            net.both_families_pass();
            std::fs::metadata(&rx).is_ok_and(|file| file.len() > 500)
        });
        let signal = if round == 0 { "KILL" } else { "INT" };
        net.router
            .run(["kill", &format!("-{signal}"), &child.id().to_string()])
            .unwrap();
        let status = child.wait_for_end(LIMIT).unwrap();
        assert_eq!(status.success(), round == 1, "{}", child.stderr());
        assert_eq!(
            child.stderr().contains("packets captured"),
            round == 1,
            "{}",
            child.stderr()
        );
        assert!(tshark(&rx, &["ip.src", "ipv6.src"]).len() >= 4);
        std::fs::remove_file(&rx).unwrap();
    }

    // A full disk ends the capture, not the plane.
    let mut child = net.router.spawn(["sh", "-c", &line("-w /dev/full")]).unwrap();
    until("the disk to be full", || {
        ping(&net.left, "10.2.0.2");
        child.status().unwrap().is_some()
    });
    let said = child.stderr();
    assert!(
        said.contains("cannot write /dev/full: No space left on device"),
        "{said}"
    );
    net.both_families_pass();
}

/// A small disk, for as long as this lives.
struct Disk(PathBuf);

impl Disk {
    fn new(folder: &Path, size: &str) -> Disk {
        let path = folder.join("disk");
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path);
        assert!(mount.status().unwrap().success());
        Disk(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_fills_up_ends_the_capture_with_a_whole_file_and_the_plane_loses_nothing() {
    need!("iperf3", "ping", "tshark");
    let net = Net::new();
    let margay = net.start(&[]);
    net.both_families_pass();
    let disk = Disk::new(&net.lab.folder(), "1m");
    let file = disk.0.join("full.pcap");
    let _server = iperf_server(&net.right);
    let (socket, binary) = (margay.socket().display(), margay.binary().display());
    let line = format!(
        "exec {binary} capture --socket {socket} -w {} udp or icmp",
        file.display()
    );
    let mut child = net.router.spawn(["sh", "-c", &line]).unwrap();
    until("the capture to begin", || {
        ping(&net.left, "10.2.0.2");
        file.exists()
    });
    let report = iperf(&net.left, "-c 10.2.0.2 -u -b 10M -l 1000 -t 3");
    let status = child.wait_for_end(LIMIT).unwrap();
    let said = child.stderr();
    let why = format!("cannot write {}: No space left on device", file.display());
    assert!(!status.success() && said.contains(&why), "{said}");

    // As many as were said, to the last byte of the file, in their order.
    let caught = tshark(&file, &["frame.len", "udp.length"]);
    assert!(caught.len() > 500, "{}", caught.len());
    assert!(
        said.contains(&format!("the {} packets captured before", caught.len())),
        "{said}"
    );
    let length = std::fs::metadata(&file).unwrap().len();
    assert!((900_000..=1 << 20).contains(&length), "{length}");
    // Nobody but the capture noticed.
    let sum = &report["end"]["sum"];
    assert!(sum["packets"].as_u64().unwrap() > 3_000, "{sum}");
    assert_eq!(sum["lost_packets"], 0, "{sum}");
    margay.stop().unwrap();
}
