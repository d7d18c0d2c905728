//! What backends and addresses of source NAT are told to have.

use testbed::packets::{tcp, udp};

use super::{address, back, client, out, plane, virtual_address};

#[test]
fn backends_have_their_connections_and_what_those_carried() {
    let mut plane = plane("", &[1, 2]);
    let asked: Vec<_> = (0..20)
        .map(|port| {
            let question = udp((client(1), 2000 + port), (virtual_address(), 53), 64, b"?");
            let sent = out(&mut plane, &question).unwrap();
            let answer = udp((sent.target, 5353), (client(1), 2000 + port), 64, b"!");
            assert!(back(&mut plane, &answer).is_some());
            sent.target
        })
        .collect();
    // Past the service nobody counts.
    let direct = out(&mut plane, &tcp((client(1), 9), (address("10.3.0.1"), 9), 64));
    assert!(direct.is_some());
    let views = plane.views();
    let (served, connections) = (views.served(), views.connections());
    let used = connections.used(&served.services);
    assert_eq!((served.backends.len(), served.unlisted), (4, 0), "two of each port");
    for backend in &served.backends {
        let carried = used
            .backends
            .get(&(backend.pool, backend.endpoint))
            .copied()
            .unwrap_or_default();
        let expected = asked
            .iter()
            .filter(|target| **target == backend.endpoint.ip() && backend.port == "53/UDP");
        let count = expected.count() as u64;
        // A question and an answer of 29 bytes each.
        let got = (backend.connections, carried.connections, carried.packets, carried.bytes);
        assert_eq!(got, (count, count, 2 * count, 2 * 29 * count), "{}", backend.address);
    }
    assert!(used.backends.len() == 2 && used.addresses.is_empty());
}

#[test]
fn an_address_has_its_connections_and_fewer_ports() {
    let mut plane = plane("", &[1]);
    plane
        .apply(
            "{apiVersion: margay/v1, kind: SourceNat, metadata: {name: out}, spec: {source: 10.1.0.0/16, address: 10.2.0.1, ports: 5000-5003}}",
        )
        .unwrap();
    for number in 0..12u16 {
        let far = address(&format!("10.3.1.{number}"));
        assert!(out(&mut plane, &udp((client(1), 5000 + number % 3), (far, 53), 64, b"?")).is_some());
    }
    let views = plane.views();
    let used = views.connections().used(&views.served().services);
    let (key, translated) = used.addresses.first_key_value().unwrap();
    assert_eq!(*key, (address("10.2.0.1"), 17));
    assert_eq!(
        (translated.connections, translated.ports, used.addresses.len()),
        (12, 3, 1)
    );
}
