//! Connections through the real wiring, in simulated time and without root.

mod icmp;
mod pools;
mod snat;
mod static_nat;
mod tables;
mod tracking;

use std::net::IpAddr;

use testbed::Plane;
use testbed::packets::{Mac, Received, frame, open, port_mac};

pub(crate) const LEFT: Mac = [2, 0, 0, 0, 0, 0xa];
pub(crate) const RIGHT: Mac = [2, 0, 0, 0, 0, 0xb];

/// Hosts behind `left` and `right`, of both families; connections from the left to the right get the right port's address
/// and a port of `ports`.
pub(crate) fn ports_of(pool: &str) -> String {
    format!(
        "{{apiVersion: margay/v1, kind: Port, metadata: {{name: left}}, spec: {{device: left, driver: memory,
  addresses: [10.1.0.1/16, 'fd00:1::1/64']}}}}
---
{{apiVersion: margay/v1, kind: Port, metadata: {{name: right}}, spec: {{device: right, driver: memory,
  addresses: [192.0.2.1/24, 'fd00:2::1/64']}}}}
---
{{apiVersion: margay/v1, kind: Neighbor, metadata: {{name: left4}}, spec: {{port: left, address: 10.1.0.2, mac: '02:00:00:00:00:0a'}}}}
---
{{apiVersion: margay/v1, kind: Neighbor, metadata: {{name: left6}}, spec: {{port: left, address: 'fd00:1::2', mac: '02:00:00:00:00:0a'}}}}
---
{{apiVersion: margay/v1, kind: Neighbor, metadata: {{name: right4}}, spec: {{port: right, address: 192.0.2.9, mac: '02:00:00:00:00:0b'}}}}
---
{{apiVersion: margay/v1, kind: Neighbor, metadata: {{name: right6}}, spec: {{port: right, address: 'fd00:2::9', mac: '02:00:00:00:00:0b'}}}}
---
{{apiVersion: margay/v1, kind: Route, metadata: {{name: clients}}, spec: {{destination: 10.1.1.0/24, via: [{{gateway: 10.1.0.2}}]}}}}
---
{{apiVersion: margay/v1, kind: Route, metadata: {{name: world4}}, spec: {{destination: 0.0.0.0/0, via: [{{gateway: 192.0.2.9}}]}}}}
---
{{apiVersion: margay/v1, kind: Route, metadata: {{name: world6}}, spec: {{destination: '::/0', via: [{{gateway: 'fd00:2::9'}}]}}}}
---
{{apiVersion: margay/v1, kind: SourceNat, metadata: {{name: out4}}, spec: {{source: 10.1.0.0/16, address: 192.0.2.1, ports: '{pool}', outPort: right}}}}
---
{{apiVersion: margay/v1, kind: SourceNat, metadata: {{name: out6}}, spec: {{source: 'fd00:1::/64', address: 'fd00:2::1', ports: '{pool}', outPort: right}}}}
"
    )
}

pub(crate) fn plane() -> Plane {
    Plane::new(&ports_of("1024-65535")).unwrap()
}

/// A host on the left, the plane's address on the right, a host of the world; of each family.
pub(crate) fn families() -> [[IpAddr; 3]; 2] {
    [
        ["10.1.0.2", "192.0.2.1", "198.51.100.7"],
        ["fd00:1::2", "fd00:2::1", "2001:db8::7"],
    ]
    .map(|addresses| addresses.map(address))
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Sends a packet from the left; what leaves on the right.
pub(crate) fn out(plane: &mut Plane, packet: &[u8]) -> Vec<Received> {
    let [right] = plane.exchange("left", &[frame(port_mac(1), LEFT, packet)], ["right"]);
    packets(&right)
}

/// Sends a packet from the right; what leaves on the left.
pub(crate) fn back(plane: &mut Plane, packet: &[u8]) -> Vec<Received> {
    // What the sender is told itself is of no interest.
    let [left, _] = plane.exchange("right", &[frame(port_mac(2), RIGHT, packet)], ["left", "right"]);
    packets(&left)
}

/// The packets among frames: not the plane's questions for neighbours.
fn packets(frames: &[Vec<u8>]) -> Vec<Received> {
    let packets = frames.iter().filter(|frame| frame[12..14] != [8, 6]);
    packets.map(|frame| open(frame)).collect()
}

/// The one packet.
pub(crate) fn only(plane: &mut Plane, mut packets: Vec<Received>) -> Received {
    assert_eq!(packets.len(), 1, "{packets:?}; drops: {:?}", plane.drops());
    packets.remove(0)
}
