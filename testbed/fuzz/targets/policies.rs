//! Policies: what `explain` says of a connection is what the graph does with its packet.

use control::program::policy::Question;
use control::resource::{Document, Kind};
use testbed::Plane;
use testbed::packets::{Mac, frame, open, port_mac, tcp, udp};

use super::Run;
use super::text::{documents, keys};

/// Two pods and the way to the world, and who is behind them.
const NETWORK: &str = "
{apiVersion: margay/v1, kind: Port, metadata: {name: web}, spec: {device: web, driver: memory, addresses: [10.1.0.1/24, 'fd00:1::1/64']}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: db}, spec: {device: db, driver: memory, addresses: [10.2.0.1/24, 'fd00:2::1/64']}}
---
{apiVersion: margay/v1, kind: Port, metadata: {name: uplink}, spec: {device: uplink, driver: memory, addresses: [192.0.2.1/24, 'fd00:3::1/64']}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: web}, spec: {port: web, address: 10.1.0.2, mac: '02:00:00:00:00:01'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: db}, spec: {port: db, address: 10.2.0.2, mac: '02:00:00:00:00:02'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: world}, spec: {port: uplink, address: 192.0.2.9, mac: '02:00:00:00:00:03'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: web6}, spec: {port: web, address: 'fd00:1::2', mac: '02:00:00:00:00:01'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: db6}, spec: {port: db, address: 'fd00:2::2', mac: '02:00:00:00:00:02'}}
---
{apiVersion: margay/v1, kind: Neighbor, metadata: {name: world6}, spec: {port: uplink, address: 'fd00:3::9', mac: '02:00:00:00:00:03'}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: sales}}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: web, namespace: shop, labels: {app: web}},
 spec: {orchestrator: k8s, node: here, pod: web, endpoint: eth0, interfaceName: web, ipNetworks: [10.1.0.2/32, 'fd00:1::2/128'],
  ports: [{name: http, protocol: TCP, port: 80}], profiles: [kns.shop]}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: db, namespace: shop, labels: {app: db}},
 spec: {orchestrator: k8s, node: here, pod: db, endpoint: eth0, interfaceName: db, ipNetworks: [10.2.0.2/32, 'fd00:2::2/128'],
  ports: [{name: sql, protocol: UDP, port: 5432}], profiles: [kns.shop]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: uplink, labels: {role: edge}}, spec: {node: here, interfaceName: uplink}}
";

/// Port, IPv4 and IPv6 address, number.
type Host = (&'static str, [&'static str; 2], u8);

const WEB: Host = ("web", ["10.1.0.2", "fd00:1::2"], 1);
const DB: Host = ("db", ["10.2.0.2", "fd00:2::2"], 2);
const WORLD: Host = ("uplink", ["192.0.2.9", "fd00:3::9"], 3);

/// Who asks whom, by TCP or UDP, at which port.
const QUESTIONS: [(Host, Host, u8, u16); 6] = [
    (WEB, DB, 17, 5432),
    (WEB, DB, 6, 80),
    (DB, WEB, 6, 80),
    (WORLD, WEB, 6, 80),
    (WORLD, DB, 17, 5432),
    (WEB, WORLD, 17, 53),
];

/// Sets it up.
pub fn start() -> Run {
    let mut plane = Plane::new(NETWORK).unwrap();
    let given = keys(NETWORK);
    let mut source_port = 1024;
    Box::new(move |input| {
        let Some((text, documents)) = documents(input) else {
            return;
        };
        let stranger = |document: &Document| {
            let key = document.resource.key();
            is_policy(key.kind) && !given.contains(&key)
        };
        if documents.is_empty() || !documents.iter().all(stranger) || plane.apply(text).is_err() {
            return;
        }
        for family in 0..2 {
            source_port = if source_port == u16::MAX { 1024 } else { source_port + 1 };
            for question in QUESTIONS {
                ask(&mut plane, question, family, source_port);
            }
        }
        plane.delete(text).unwrap();
    })
}

fn is_policy(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Port
            | Kind::Route
            | Kind::Neighbor
            | Kind::SourceNat
            | Kind::WireguardInterface
            | Kind::WireguardPeer
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::WorkloadEndpoint
            | Kind::HostEndpoint
            | Kind::IpPool
    )
}

fn ask(plane: &mut Plane, (from, to, protocol, port): (Host, Host, u8, u16), family: usize, source_port: u16) {
    let question = Question {
        from: from.1[family].to_owned(),
        to: to.1[family].to_owned(),
        protocol,
        source_port,
        port,
    };
    let said = plane.views().explain(&question).unwrap();
    let [source, target] = [from, to].map(|host| host.1[family].parse().unwrap());
    let packet = match protocol {
        6 => tcp((source, source_port), (target, port), 64),
        _ => udp((source, source_port), (target, port), 64, b"?"),
    };
    let mac: Mac = [2, 0, 0, 0, 0, from.2];
    let [arrived] = plane.exchange(from.0, &[frame(port_mac(from.2), mac, &packet)], [to.0]);
    let passed = arrived.iter().any(|frame| open(frame).source == source);
    assert_eq!(
        passed,
        said.verdict == "allow",
        "{question:?}: {said:?}\n{:?}",
        plane.drops()
    );
    for port in ["web", "db", "uplink"] {
        plane.take(port);
    }
}
