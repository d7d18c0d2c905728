//! In-process hosts back to back, in simulated and in real time.

use std::net::IpAddr;
use std::time::Duration;

use testbed::smol::{Host, Network, Wire, wire};

const LEFT: [u8; 6] = [2, 0, 0, 0, 0, 1];
const RIGHT: [u8; 6] = [2, 0, 0, 0, 0, 2];
const MEGABYTE: usize = 1 << 20;

#[test]
fn both_families_answer_echo_requests() {
    let mut network = Network::simulated(pair(wire()), |_| ());
    for (from, to) in [(0, "10.1.0.3"), (0, "fd00:1::3"), (1, "10.1.0.2"), (1, "fd00:1::2")] {
        network.ping(from, to.parse().unwrap()).unwrap();
    }
}

#[test]
fn a_silent_address_is_an_error_in_a_sentence() {
    let mut network = Network::simulated(pair(wire()), |_| ());
    let error = network.ping(0, address("10.1.0.9")).unwrap_err().to_string();
    assert_eq!(
        error,
        "host 10.1.0.2/24: 10.1.0.9 did not answer an echo request within 5s"
    );
}

#[test]
fn a_megabyte_arrives_whole_over_both_families() {
    let mut network = Network::simulated(pair(wire()), |_| ());
    for at in ["10.1.0.3:80", "[fd00:1::3]:80"] {
        network.transfer(0, 1, at.parse().unwrap(), MEGABYTE).unwrap();
    }
}

#[test]
fn a_megabyte_arrives_in_real_time() {
    let mut network = Network::real(pair(wire()));
    network
        .transfer(1, 0, "10.1.0.2:443".parse().unwrap(), MEGABYTE)
        .unwrap();
}

#[test]
fn simulated_time_runs_the_same_every_time() {
    let run = || Network::simulated(pair(wire()), |_| ()).transfer(0, 1, "10.1.0.3:80".parse().unwrap(), MEGABYTE);
    assert_eq!(run().unwrap(), run().unwrap());
}

#[test]
fn what_lies_between_may_lose_and_route() {
    let ((left_end, left_wire), (right_end, right_wire)) = (wire(), wire());
    // A router of another network would do as much: each side has it as its gateway, and its hardware address.
    let left = Host::new(LEFT, &["10.1.0.2/24"], &["10.1.0.1"], left_end).unwrap();
    let right = Host::new(RIGHT, &["10.2.0.2/24"], &["10.2.0.1"], right_end).unwrap();
    let mut count = 0_u32;
    let mut network = Network::simulated(vec![left, right], |_| {
        for (from, to, other) in [(&left_wire, &right_wire, RIGHT), (&right_wire, &left_wire, LEFT)] {
            while let Ok(frame) = from.rx.try_recv() {
                count += 1;
                if let Some(reply) = arp_reply(&frame) {
                    from.tx.send(reply).unwrap();
                } else if !count.is_multiple_of(50) {
                    to.tx.send([&other, ROUTER.as_slice(), &frame[12..]].concat()).unwrap();
                }
            }
        }
    });
    network
        .transfer(0, 1, "10.2.0.2:80".parse().unwrap(), MEGABYTE)
        .unwrap();
    drop(network);
    assert!(count > 750, "a megabyte needs more than {count} frames");
}

#[test]
fn changed_bytes_are_noticed() {
    let ((left_end, left_wire), (right_end, right_wire)) = (wire(), wire());
    let hosts = pair((left_end, right_end));
    let mut network = Network::simulated(hosts, |_| {
        for (from, to) in [(&left_wire, &right_wire), (&right_wire, &left_wire)] {
            while let Ok(mut frame) = from.rx.try_recv() {
                if frame.len() > 1000 {
                    // Two neighbouring words changed places: the checksum of RFC 1071 cannot tell.
                    frame[800..804].rotate_left(2);
                }
                to.tx.send(frame).unwrap();
            }
        }
    });
    let error = network
        .transfer(0, 1, "10.1.0.3:80".parse().unwrap(), MEGABYTE)
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("of the transfer arrived changed"), "{error}");
}

#[test]
fn a_nonsense_address_is_refused() {
    let error = Host::new(LEFT, &["10.1.0.2"], &[], wire().0).err().unwrap().to_string();
    assert!(
        error.contains("\"10.1.0.2\" is not an address of the form needed"),
        "{error}"
    );
}

#[test]
fn an_unplugged_wire_loses_frames_and_nothing_else() {
    let mut host = Host::new(LEFT, &["10.1.0.2/24"], &[], wire().0).unwrap();
    host.send_echo(address("10.1.0.3")).unwrap();
    assert!(host.poll(Duration::ZERO), "no ARP request was sent");
    assert_eq!(host.take_echo_reply(), None);
}

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// The router's answer to an ARP request (RFC 826), whoever is asked for.
fn arp_reply(frame: &[u8]) -> Option<Vec<u8>> {
    let request = frame
        .get(12..42)
        .filter(|rest| rest.starts_with(&[8, 6]) && rest[9] == 1)?;
    let (sender, asked) = (&request[10..20], &request[26..30]);
    Some([&sender[..6], &ROUTER, &request[..9], &[2], &ROUTER, asked, sender].concat())
}

fn pair((left, right): (Wire, Wire)) -> Vec<Host> {
    vec![
        Host::new(LEFT, &["10.1.0.2/24", "fd00:1::2/64"], &[], left).unwrap(),
        Host::new(RIGHT, &["10.1.0.3/24", "fd00:1::3/64"], &[], right).unwrap(),
    ]
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}
