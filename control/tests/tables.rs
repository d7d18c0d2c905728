//! How views look. Each view's JSON goes the way it goes from the socket to a terminal.

mod common;

use common::TestPlane;
use control::api::Plane;
use control::show::View;

fn table(view: View) -> String {
    let json = serde_json::to_vec(&view.look(&TestPlane::default())).unwrap();
    anstream::adapter::strip_str(&view.table(&json).unwrap()).to_string()
}

#[test]
fn ports() {
    let expected = "\
NAME   STATE  DEVICE  DRIVER  MODE     QUEUES   MTU  VRF      MAC                ADDRESSES
left   up     left0   xdp     generic       1  1500  default  02:00:00:00:00:01  10.1.0.1/24, fd00:1::1/64
right  down   right0  xdp     generic       1  1500  default  02:00:00:00:00:01  10.1.0.1/24, fd00:1::1/64
right is down: device right0 is gone

NAME   RX PACKETS  RX BYTES  TX PACKETS  TX BYTES  DROPS
left    1,234,567   1.5 GiB           7     420 B      3
right   1,234,567   1.5 GiB           7     420 B      3

NAME   RX DROPPED  RX RING FULL  FILL RING EMPTY  TX INVALID
left            0            12                0           0
right           0            12                0           0
";
    assert_eq!(table(View::Ports), expected);
}

#[test]
fn routes() {
    let expected = "\
DESTINATION   VRF      ORIGIN  NAME      ACTION   VIA
10.20.0.0/16  default  static  to-right  forward  10.2.0.2 on right, 10.2.0.3 on right (weight 2)
";
    assert_eq!(table(View::Routes), expected);
}

#[test]
fn neighbors() {
    let expected = "\
ADDRESS   PORT   MAC  STATE       AGE
10.2.0.2  right  -    incomplete  3 s
";
    assert_eq!(table(View::Neighbors), expected);
}

#[test]
fn runtime() {
    let expected = "\
Time 10.2 s

Worker 0 (core 1, sleeps when idle): load 35.2 %, 1,234,567 turns
NODE    CALLS  VECTORS    PACKETS  PACKETS/VECTOR  CYCLES/PACKET
parse  10,000    4,000  1,000,000           250.0           12.3
route  10,000    4,000    999,000           249.8           12.3
";
    assert_eq!(table(View::Runtime), expected);
}

#[test]
fn drops() {
    let expected = "\
PACKETS  NODE       REASON   PORT  SENTENCE
  1,234  hop-limit  expired  left  the hop limit reached zero
";
    assert_eq!(table(View::Drops), expected);
}

#[test]
fn graph() {
    assert_eq!(table(View::Graph), "port-in -> parse -> route\n");
}

#[test]
fn workers() {
    let expected = "\
WORKER  CORE  STATE    LOAD  TURNS  SLEEPS  QUEUES
     0     1  asleep  0.5 %  1,000      17  left/0, right/0
";
    assert_eq!(table(View::Workers), expected);
}

#[test]
fn memory() {
    let expected = "\
WHAT     USED  CAPACITY   FULL     MEMORY
frames  4,096    65,536  6.2 %  128.0 MiB
total                           128.0 MiB
";
    assert_eq!(table(View::Memory), expected);
}

#[test]
fn trace() {
    let plane = TestPlane::default();
    plane.trace_add(1, "").unwrap();
    let text = control::show::trace::table(&plane.trace_show());
    let expected = "\
Packet 1: in by left, 98 bytes, at 1.500 ms
        0 ns  parse      ipv4          10.1.0.2 > 10.2.0.2 icmp
    1.250 us  hop-limit  drop expired
";
    assert_eq!(anstream::adapter::strip_str(&text).to_string(), expected);
}

#[test]
fn nothing_is_said_in_words() {
    for (view, json) in [
        (View::Ports, "[]"),
        (View::Routes, "[]"),
        (View::Neighbors, "[]"),
        (View::Drops, "[]"),
    ] {
        let text = view.table(json.as_bytes()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("no "), "{text}");
    }
}

#[test]
fn what_is_not_a_view_is_an_error() {
    for view in View::ALL {
        assert!(view.table(b"7").is_err());
        assert_eq!(View::from_name(view.name()), Some(*view));
    }
}

#[test]
fn wireguard() {
    let expected = "\
interface wg0
  public key: 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=
  listening port: 51820

PEER    PUBLIC KEY                                    ENDPOINT         ALLOWED IPS                 LATEST HANDSHAKE  RECEIVED   SENT  KEEPALIVE
laptop  hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=  192.0.2.9:51820  10.9.0.2/32, fd00:9::2/128     1 min 5 s ago   1.5 KiB  420 B       25 s
new     hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=  -                10.9.0.2/32, fd00:9::2/128             never   1.5 KiB  420 B       25 s
";
    assert_eq!(table(View::Wireguard), expected);
}

#[test]
fn services() {
    let expected = "\
service default/web (NodePort)
  clients stay with their backends for 10,800 s
  80/TCP at *:30080, 10.96.0.1:80

BACKEND        NODE  STATE       SHARE  CONNECTIONS
10.1.0.5:8080  here  ready     100.0 %        1,234
10.1.0.6:8080  -     draining    0.0 %            7

  53/UDP at [fd00:96::1]:53, on this node
  no backends
";
    assert_eq!(table(View::Services), expected);
}
