//! Rules that name services, in the plane: what may reach a backend follows the backend.

use testbed::Plane;
use testbed::packets::{frame, open, port_mac, udp};

use crate::{DB, WEB, WORLD, address, asks, plane};

/// The web may ask the database, wherever that is.
const POLICY: &str = "
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: web, namespace: shop},
 spec: {selector: app == 'web', types: [Egress], egress: [{action: Allow, destination: {services: {name: database}}}]}}
";

fn slice(address: &str) -> String {
    format!(
        "
{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
 metadata: {{name: database-1, namespace: shop, labels: {{kubernetes.io/service-name: database}}}},
 ports: [{{protocol: UDP, port: 5432}}], endpoints: [{{addresses: [{address}]}}]}}
"
    )
}

const DATABASE: &str = "
{apiVersion: v1, kind: Service, metadata: {name: database, namespace: shop},
 spec: {clusterIP: 10.96.0.10, ports: [{protocol: UDP, port: 5432}]}}
";

fn reach(plane: &mut Plane, port: u16) -> [bool; 3] {
    [(DB, 5432), (DB, 5433), (WORLD, 5432)].map(|(to, number)| asks(plane, WEB, to, (port, number)))
}

#[test]
fn a_rule_that_names_a_service_follows_its_backend() {
    let mut plane = plane(&[POLICY]);
    assert_eq!(reach(&mut plane, 4000), [false; 3], "the service has no backend");
    plane.apply(&slice("10.2.0.2")).unwrap();
    assert_eq!(reach(&mut plane, 4001), [true, false, false], "{:?}", plane.drops());
    plane.apply(&slice("192.0.2.9")).unwrap();
    // New connections and the one that was allowed before.
    assert_eq!(reach(&mut plane, 4002), [false, false, true], "{:?}", plane.drops());
    assert!(!asks(&mut plane, WEB, DB, (4001, 5432)));
    plane.delete(&slice("192.0.2.9")).unwrap();
    assert_eq!(reach(&mut plane, 4003), [false; 3]);
}

#[test]
fn a_packet_to_a_services_own_address_is_judged_by_its_backend() {
    /// Whether the backend gets what the web sends to the service.
    fn asks_service(plane: &mut Plane, port: u16) -> bool {
        let packet = udp((address(WEB), port), ("10.96.0.10".parse().unwrap(), 5432), 64, b"?");
        let [arrived] = plane.exchange("web", &[frame(port_mac(1), [2, 0, 0, 0, 0, 1], &packet)], ["db"]);
        arrived.iter().any(|frame| open(frame).target == address(DB))
    }
    let mut plane = plane(&[DATABASE, &slice("10.2.0.2")]);
    assert!(asks_service(&mut plane, 4000), "{:?}", plane.drops());
    let denied = POLICY.replace("services: {name: database}", "services: {name: another}");
    plane.apply(&denied).unwrap();
    assert!(!asks_service(&mut plane, 4001));
    plane.apply(POLICY).unwrap();
    assert!(asks_service(&mut plane, 4002), "{:?}", plane.drops());
}
