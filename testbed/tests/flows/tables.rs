//! Connections from one table of routes into another: every answer finds its way, also where addresses overlap.

use testbed::Plane;
use testbed::packets::{Mac, Received, frame, open, port_mac, udp};

use crate::{RIGHT, address, only};

/// Hosts of the same address in two tables.
const HOSTS: [(&str, Mac); 2] = [("red", [2, 0, 0, 0, 3, 1]), ("blue", [2, 0, 0, 0, 3, 2])];

/// Two tables with the same subnet share an uplink in the default one. No route leads back.
fn plane(nat: &str) -> Plane {
    let mut yaml = String::new();
    for ((vrf, mac), ports) in HOSTS.into_iter().zip(["1024-1999", "2000-2999"]) {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        yaml += &format!(
            "{{apiVersion: margay/v1, kind: Port, metadata: {{name: {vrf}}}, spec: {{device: {vrf}, driver: memory,
  vrf: {vrf}, addresses: [10.1.0.1/24]}}}}
---
{{apiVersion: margay/v1, kind: Neighbor, metadata: {{name: {vrf}}}, spec: {{port: {vrf}, address: 10.1.0.2, mac: '{mac}'}}}}
---
{{apiVersion: margay/v1, kind: Route, metadata: {{name: {vrf}}}, spec: {{destination: 0.0.0.0/0, vrf: {vrf}, via: [{{vrf: default}}]}}}}
---
{{apiVersion: margay/v1, kind: SourceNat, metadata: {{name: {vrf}}}, spec: {{source: {nat}, vrf: {vrf}, address: 192.0.2.1,
  ports: {ports}, outPort: right}}}}
---
"
        );
    }
    yaml += "{apiVersion: margay/v1, kind: Port, metadata: {name: right}, spec: {device: right, driver: memory, addresses: [192.0.2.1/24]}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: right}, spec: {port: right, address: 192.0.2.9, mac: '02:00:00:00:00:0b'}}
";
    Plane::new(&yaml).unwrap()
}

/// What leaves by a port when an IP packet comes in by one.
fn exchange(plane: &mut Plane, (by, number, mac): (&str, u8, Mac), packet: &[u8], out: &str) -> Vec<Received> {
    let [came] = plane.exchange(by, &[frame(port_mac(number), mac, packet)], [out]);
    came.iter().map(|frame| open(frame)).collect()
}

#[test]
fn answers_go_back_to_the_table_where_the_connection_was_opened() {
    let mut plane = plane("10.1.0.0/24");
    let (client, server) = (address("10.1.0.2"), address("192.0.2.9"));
    let mut seen = vec![];
    for (number, (name, mac)) in (1..).zip(HOSTS) {
        let asks = udp((client, 4000), (server, 53), 64, b"who");
        let out = exchange(&mut plane, (name, number, mac), &asks, "right");
        let out = only(&mut plane, out);
        let from = (out.source, u16::from_be_bytes([out.payload[0], out.payload[1]]));
        assert_eq!(from.0, address("192.0.2.1"));
        assert!(!seen.contains(&from.1), "two connections come from one port");
        seen.push(from.1);
        // Both answers, the one that is decided and the one that follows it.
        for text in [b"one", b"two"] {
            let answer = udp((server, 53), from, 64, text);
            let came = exchange(&mut plane, ("right", 3, RIGHT), &answer, name);
            let came = only(&mut plane, came);
            assert_eq!((came.to, came.target), (mac, client));
        }
    }
    assert_eq!(plane.drops(), Default::default());
}

#[test]
fn answers_without_translation_go_back_there_too() {
    let mut plane = plane("10.77.0.0/24");
    let (client, server) = (address("10.1.0.2"), address("192.0.2.9"));
    let (name, mac) = HOSTS[1];
    let asks = udp((client, 4000), (server, 80), 64, b"");
    let out = exchange(&mut plane, (name, 2, mac), &asks, "right");
    assert_eq!(only(&mut plane, out).source, client);
    let answer = udp((server, 80), (client, 4000), 64, b"");
    let came = exchange(&mut plane, ("right", 3, RIGHT), &answer, name);
    assert_eq!(only(&mut plane, came).to, mac);
    // Nobody else gets in that way.
    let stranger = udp((server, 1), (client, 2), 64, b"");
    assert!(exchange(&mut plane, ("right", 3, RIGHT), &stranger, name).is_empty());
    assert_eq!(plane.drops(), [("route/new/no-route".to_owned(), 1)].into());
}
