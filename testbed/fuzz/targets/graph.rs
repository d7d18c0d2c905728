//! Packets through the whole graph: none stops it, stays in it or is lost from the books, and what leaves is well formed.
//!
//! An input is packets, each behind two bytes: its port (2 bits), whether time passes before it (1 bit), and its length (13).
//! The first byte of all says which of two planes gets them.

use std::time::Duration;

use testbed::Plane;
use testbed::packets::{Mac, port_mac};

use super::Run;

/// A router with tunnels.
const ROUTER: &str = "
{apiVersion: margay/v1, kind: Port, metadata: {name: left}, spec: {device: left, driver: memory, addresses: [10.1.0.1/24, 'fd00:1::1/64']}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: right}, spec: {device: right, driver: memory, mtu: 1280, addresses: [10.2.0.1/24, 'fd00:2::1/64']}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: pod}, spec: {device: pod, driver: memory, addresses: [10.3.0.1/24, 'fd00:3::1/64']}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: world}, spec: {device: world, driver: memory, addresses: [192.0.2.1/24, 'fd00:4::1/64']}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: tunl0}, spec: {device: tunl0, driver: ipip, local: 10.2.0.1, addresses: [10.8.0.1/32]}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: vxlan}, spec: {device: vxlan, driver: vxlan, local: 10.2.0.1, addresses: [10.8.1.1/32, 'fd00:8::1/128']}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: left4}, spec: {port: left, address: 10.1.0.2, mac: '02:00:00:00:00:01'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: left6}, spec: {port: left, address: 'fd00:1::2', mac: '02:00:00:00:00:01'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: right4}, spec: {port: right, address: 10.2.0.2, mac: '02:00:00:00:00:02'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: right6}, spec: {port: right, address: 'fd00:2::2', mac: '02:00:00:00:00:02'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: pod4}, spec: {port: pod, address: 10.3.0.2, mac: '02:00:00:00:00:03'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: world4}, spec: {port: world, address: 192.0.2.9, mac: '02:00:00:00:00:04'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: vtep}, spec: {port: vxlan, address: 10.8.1.7, mac: '66:00:00:00:00:07', remote: 10.2.0.2}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: far}, spec: {destination: 10.9.0.0/16, via: [{gateway: 10.2.0.2, port: tunl0}]}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: farther}, spec: {destination: 10.10.0.0/16, via: [{gateway: 10.8.1.7, port: vxlan}]}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: hole}, spec: {destination: 20.0.0.0/8, via: [{drop: true}]}}
---
{apiVersion: margay/v1, kind: Route, metadata: {name: many}, spec: {destination: '2001:db8::/32', via: [{gateway: 'fd00:2::2'}, {gateway: 'fd00:2::3'}]}}
---
{apiVersion: margay/v1, kind: WireguardInterface, metadata: {name: wg0}, spec: {privateKeyFile: KEY, addresses: [10.7.0.1/24, 'fd00:7::1/64']}}
---
{apiVersion: margay/v1, kind: WireguardPeer, metadata: {name: laptop}, spec: {interface: wg0, publicKey: 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=',
 endpoint: '192.0.2.9:51820', allowedIPs: [10.7.0.2/32]}}
";

/// What makes it keep connections.
const TRACKED: &str = "
{apiVersion: margay/v1, kind: SourceNat, metadata: {name: out}, spec: {source: 10.1.0.0/16, address: 192.0.2.1, ports: 1024-2047, outPort: world}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: web, namespace: shop, labels: {app: web}},
 spec: {orchestrator: k8s, node: here, pod: web, endpoint: eth0, interfaceName: pod, ipNetworks: [10.3.0.2/32], profiles: [kns.shop]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: edge, labels: {role: edge}}, spec: {node: here, interfaceName: world}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: web, namespace: shop},
 spec: {selector: app == 'web', types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [8080]}},
  {action: Allow, protocol: ICMP, icmp: {type: 8}}, {action: Allow, protocol: SCTP}, {action: Deny, source: {nets: [10.1.0.0/16]}}]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: raw}, spec: {selector: role == 'edge', doNotTrack: true, applyOnForward: true,
 ingress: [{action: Deny, protocol: UDP, destination: {ports: [9]}}, {action: Allow}], egress: [{action: Allow}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {type: NodePort, clusterIP: 10.96.0.10,
  ports: [{name: http, protocol: TCP, port: 80, targetPort: 8080, nodePort: 30080}, {name: dns, protocol: UDP, port: 53, targetPort: 5353, nodePort: 30053}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}},
  ports: [{name: http, protocol: TCP, port: 8080}, {name: dns, protocol: UDP, port: 5353}], endpoints: [{addresses: [10.3.0.2]}, {addresses: [10.2.0.2]}]}
";

/// The ports, with their MTU.
const PORTS: [(&str, usize); 4] = [("left", 1500), ("right", 1280), ("pod", 1500), ("world", 1500)];
/// Packets of one input.
const PACKETS: usize = 32;

/// Sets it up.
pub fn start() -> Run {
    let mut planes: Vec<Option<Plane>> = vec![None, None];
    Box::new(move |input| {
        let Some((which, rest)) = input.split_first() else {
            return;
        };
        let tracked = usize::from(which & 1);
        let plane = planes[tracked].get_or_insert_with(|| plane(tracked == 1));
        for (port, passes, packet) in packets(rest).take(PACKETS) {
            if passes {
                carry(plane);
                plane.advance(Duration::from_secs(1));
            }
            plane.send(PORTS[port].0, packet);
        }
        carry(plane);
    })
}

fn plane(tracked: bool) -> Plane {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    control::keys::Secret::new(&[1; 32]).write(&key).unwrap();
    let resources = ROUTER.replace("KEY", &key.display().to_string());
    let more = if tracked { TRACKED } else { "" };
    Plane::new(&format!("{resources}---\n{more}")).unwrap()
}

/// Port, whether time passes, and bytes.
fn packets(input: &[u8]) -> impl Iterator<Item = (usize, bool, &[u8])> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let (head, after) = rest.split_first_chunk::<2>()?;
        let head = usize::from(u16::from_be_bytes(*head));
        let (packet, after) = after.split_at((head & 0x1fff).min(after.len()));
        rest = after;
        Some((head >> 14, head & 0x2000 != 0, packet))
    })
}

fn carry(plane: &mut Plane) {
    plane.settle();
    for (number, (port, mtu)) in PORTS.into_iter().enumerate() {
        let ours = port_mac(number as u8 + 1);
        plane.take(port).iter().for_each(|frame| well_formed(frame, ours, mtu));
    }
}

/// What leaves is ours to answer for: the headers of link and IP.
fn well_formed(frame: &[u8], ours: Mac, mtu: usize) {
    let (link, packet) = frame.split_at(14);
    assert!(packet.len() <= mtu, "longer than {mtu}: {frame:02x?}");
    assert_eq!(link[6..12], ours, "{frame:02x?}");
    match [link[12], link[13]] {
        [0x08, 0x00] => {
            let header = &packet[..usize::from(packet[0] & 15) * 4];
            let words = header
                .chunks_exact(2)
                .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
            assert_eq!(words.sum::<u32>() % 0xffff, 0, "a wrong header checksum: {frame:02x?}");
            assert_eq!(
                usize::from(u16::from_be_bytes([packet[2], packet[3]])),
                packet.len(),
                "{frame:02x?}"
            );
        }
        [0x86, 0xdd] => {
            let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            assert_eq!(length + 40, packet.len(), "{frame:02x?}");
        }
        [0x08, 0x06] => assert_eq!(packet.len(), 28, "{frame:02x?}"),
        _ => panic!("neither IP nor ARP: {frame:02x?}"),
    }
}
