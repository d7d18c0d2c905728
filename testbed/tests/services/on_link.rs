//! Addresses of load balancers on the link of a port, which answers for them where it is told to.

use testbed::Plane;
use testbed::packets::{arp, udp};

use super::{CLIENT, NETWORK, address, client, out, slice};

const ON_LINK: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {type: LoadBalancer, clusterIP: 10.96.0.10,
  ports: [{name: http, protocol: TCP, port: 80}, {name: dns, protocol: UDP, port: 53}]},
 status: {loadBalancer: {ingress: [{ip: 10.1.0.100}]}}}
";

fn plane(more: &str) -> Plane {
    let network = NETWORK.replace("addresses: [10.1.0.1/24]", &format!("addresses: [10.1.0.1/24]{more}"));
    Plane::new(&format!("{network}---\n{ON_LINK}---\n{}", slice(&[1]))).unwrap()
}

/// Whether somebody says that he has the address.
fn answered(plane: &mut Plane, last: u8) -> bool {
    let question = arp(
        [0xff; 6],
        1,
        (CLIENT, [10, 1, 0, 2].into()),
        ([0; 6], [10, 1, 0, last].into()),
    );
    let [answers] = plane.exchange("left", &[question], ["left"]);
    !answers.is_empty()
}

#[test]
fn who_is_on_the_link_finds_the_service_there() {
    let mut silent = plane("");
    assert!(!answered(&mut silent, 100), "nobody asked for it");
    let mut plane = plane(", proxyArp: [10.1.0.100/31]");
    assert!(
        answered(&mut plane, 100) && !answered(&mut plane, 101),
        "only where there is a service"
    );
    let sent = out(
        &mut plane,
        &udp((client(1), 4000), (address("10.1.0.100"), 53), 64, b"?"),
    )
    .unwrap();
    assert_eq!(
        sent.packet,
        udp((client(1), 4000), (address("10.3.0.1"), 5353), 63, b"?")
    );
    // It comes and goes with the service, and with what the port is told.
    plane.delete(ON_LINK).unwrap();
    assert!(!answered(&mut plane, 100));
    plane.apply(ON_LINK).unwrap();
    assert!(answered(&mut plane, 100));
    plane.apply(NETWORK).unwrap();
    assert!(!answered(&mut plane, 100));
}
