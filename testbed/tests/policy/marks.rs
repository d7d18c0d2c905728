//! Marks on what leaves the cluster: whose packets, going where, and what of the header stays.

use super::*;

const POOLS: &str = "
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.1.0.0/16}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: more}, spec: {cidr: 10.2.0.0/24}}
";

/// A service at an address outside of all pools, with the database behind it.
const SERVICE: &str = "
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop},
 spec: {clusterIP: 10.96.0.9, ports: [{port: 80, targetPort: 5432, protocol: UDP}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: db, namespace: shop, labels: {kubernetes.io/service-name: db}},
 addressType: IPv4, ports: [{port: 5432, protocol: UDP}], endpoints: [{addresses: [10.2.0.2]}]}
";

fn marked(name: &str, controls: &str) -> String {
    PODS.replace(
        &format!("interfaceName: {name},"),
        &format!("interfaceName: {name}, qosControls: {{{controls}}},"),
    )
}

/// A plane whose web has this mark.
fn plane_that_marks(dscp: &str, more: &[&str]) -> Plane {
    let pods = marked("web", &format!("dscp: {dscp}"));
    let documents = [&[NETWORK, &pods], more].concat().join("---\n");
    Plane::new(&documents).unwrap()
}

/// The traffic class that a packet of class `sent` arrives with.
fn class(plane: &mut Plane, from: Host, to: (&str, Host), ports: (u16, u16), sent: u8) -> u8 {
    let mut packet = udp((address(from), ports.0), (to.0.parse().unwrap(), ports.1), 64, b"?");
    // The checksum goes along: a class is the low half of the first word.
    packet[1] = sent;
    let sum = u16::from_be_bytes([packet[10], packet[11]]);
    let sum = u32::from(!sum) + u32::from(sent);
    packet[10..12].copy_from_slice(&(!((sum & 0xffff) as u16 + (sum >> 16) as u16)).to_be_bytes());
    let mac: Mac = [2, 0, 0, 0, 0, from.2];
    let [arrived] = plane.exchange(from.0, &[frame(port_mac(from.2), mac, &packet)], [to.1.0]);
    let [arrived] = arrived
        .try_into()
        .unwrap_or_else(|_| panic!("{from:?} to {to:?}: {:?}", plane.drops()));
    assert_eq!(open(&arrived).payload[8..], *b"?");
    arrived[15]
}

#[test]
fn what_a_workload_sends_out_of_the_cluster_is_marked_and_nothing_else() {
    let mut plane = plane_that_marks("EF", &[POOLS, SERVICE]);
    let ef = 46 << 2;
    for round in 0..3 {
        assert_eq!(
            class(&mut plane, WEB, (WORLD.1, WORLD), (4000, 53), 0),
            ef,
            "round {round}"
        );
        // Another mark gives way, that of congestion stays.
        assert_eq!(
            class(&mut plane, WEB, (WORLD.1, WORLD), (4000, 53), 0b0010_1011),
            ef | 0b11
        );
        assert_eq!(class(&mut plane, WEB, (DB.1, DB), (4000, 5432), 0), 0, "to a pod");
        assert_eq!(
            class(&mut plane, WEB, ("10.96.0.9", DB), (4001, 80), 4),
            4,
            "to a service"
        );
        assert_eq!(class(&mut plane, DB, (WEB.1, WEB), (5432, 4000), 4), 4, "from another");
        assert_eq!(
            class(&mut plane, DB, (WORLD.1, WORLD), (5432, 4000), 8),
            8,
            "from another to the world"
        );
        assert_eq!(
            class(&mut plane, WORLD, (WEB.1, WEB), (53, 4000), 0),
            0,
            "answers from outside"
        );
    }
    // What is asked from outside is answered with the mark.
    assert_eq!(class(&mut plane, WORLD, (WEB.1, WEB), (999, 80), 0), 0);
    assert_eq!(class(&mut plane, WEB, (WORLD.1, WORLD), (80, 999), 0), ef);
    assert!(plane.packets("rewrite") > 5, "marks and the short way go together");
}

#[test]
fn a_mark_follows_its_resources_also_on_established_connections() {
    let mut plane = plane_that_marks("10", &[]);
    let both = |plane: &mut Plane| [(WORLD.1, WORLD), (DB.1, DB)].map(|to| class(plane, WEB, to, (4000, 53), 0) >> 2);
    assert_eq!(both(&mut plane), [10, 10], "without pools everything is outside");
    plane.apply(POOLS).unwrap();
    assert_eq!(both(&mut plane), [10, 0]);
    plane
        .apply(&marked("web", "dscp: CS5, egressPacketRate: 1000"))
        .unwrap();
    assert_eq!(both(&mut plane), [40, 0]);
    // The port's own is what counts where nothing is said of the workload.
    let port = "{apiVersion: margay/v1, kind: Port, metadata: {name: web}, spec: {device: web, driver: memory,
        addresses: [10.1.0.1/24], qos: {dscp: AF11}}}";
    plane.apply(port).unwrap();
    assert_eq!(both(&mut plane), [40, 0]);
    plane.apply(PODS).unwrap();
    assert_eq!(both(&mut plane), [10, 0]);
    let ports = plane.views().ports();
    let marks: Vec<_> = ports
        .iter()
        .filter_map(|port| Some((port.name.as_str(), port.limits.as_ref()?.dscp)))
        .collect();
    assert_eq!(marks, [("web", Some(10))]);
    plane.apply(NETWORK).unwrap();
    assert_eq!(both(&mut plane), [0, 0]);
}

#[test]
fn a_service_or_pool_that_comes_or_goes_is_known_at_once() {
    let mut plane = plane_that_marks("10", &[]);
    let front = "10.96.0.9".parse().unwrap();
    let to_front = |plane: &mut Plane| class(plane, WEB, ("10.96.0.9", DB), (4001, 80), 0) >> 2;
    plane.apply(POOLS).unwrap();
    plane.apply(SERVICE).unwrap();
    assert_eq!(to_front(&mut plane), 0);
    let elsewhere = SERVICE.replace("10.96.0.9", "10.97.0.9");
    plane.apply(&elsewhere).unwrap();
    assert!(!passes(
        &mut plane,
        WEB,
        DB,
        &udp((address(WEB), 4001), (front, 80), 64, b"?")
    ));
    plane.apply(SERVICE).unwrap();
    assert_eq!(to_front(&mut plane), 0);
    plane
        .delete("{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: more}}")
        .unwrap();
    assert_eq!(class(&mut plane, WEB, (DB.1, DB), (4000, 5432), 0) >> 2, 10);
    plane.apply(POOLS).unwrap();
    assert_eq!(class(&mut plane, WEB, (DB.1, DB), (4000, 5432), 0) >> 2, 0);
}

#[test]
fn what_is_no_mark_is_refused_where_it_stands() {
    let mut plane = plane(&[]);
    let refused = |plane: &mut Plane, documents: &str| plane.apply(documents).unwrap_err().to_string();
    let said = refused(&mut plane, &marked("web", "dscp: best"));
    assert!(
        said.contains("spec.qosControls.dscp") && said.contains("EF, AF41 or CS5"),
        "{said}"
    );
    let host = PODS.replace(
        "metadata: {name: uplink}",
        "metadata: {name: uplink, annotations: {qos.projectcalico.org/dscp: '64'}}",
    );
    let said = refused(&mut plane, &host);
    assert!(
        said.contains("metadata.annotations.qos.projectcalico.org/dscp") && said.contains("0 to 63"),
        "{said}"
    );
}
