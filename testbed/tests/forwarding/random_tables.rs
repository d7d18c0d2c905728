//! Random routes of three tables and both families, packets of all of them in one vector, and a naive reading of the
//! routes: each packet goes where that says and nowhere else, also after the routes have changed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use testbed::Plane;
use testbed::packets::*;

use crate::*;

const TABLES: [&str; 3] = ["default", "red", "blue"];
/// Ports of a table. All tables have the same addresses, so that a packet in the wrong one finds a way there, too.
const PORTS: usize = 2;
/// Packets of a vector.
const VECTOR: usize = 256;

/// A prefix, as the bits of its addresses from the left and their number; the family is that of the map that it is in.
type Prefix = (u128, u8);

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Via {
    /// To the gateway behind this port of the table.
    Gateway(usize),
    /// To either.
    Both,
    Drop,
    Table(usize),
}

/// The routes of each table.
type Routes = [BTreeMap<Prefix, Via>; 3];

/// Routes of IPv4 and IPv6.
type Families = [Routes; 2];

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It leaves by one of these ports, which are numbered through the tables.
    Leaves([usize; 2]),
    Dropped(&'static str),
}

/// A packet: the port it comes in by, its family and its destination.
#[derive(Clone, Copy, Debug)]
struct Packet {
    from: usize,
    family: usize,
    to: u128,
}

/// The bits of an address that stand where both families' lengths count from.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => address.into(),
    }
}

fn address_of(family: usize, bits: u128) -> IpAddr {
    match family {
        0 => Ipv4Addr::from((bits >> 96) as u32).into(),
        _ => Ipv6Addr::from(bits).into(),
    }
}

fn first_bits(of: u128, length: u8) -> u128 {
    of & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

/// The longest prefix by looking at each, and again in the table it leads to.
fn expected(routes: &Routes, packet: &Packet) -> Fate {
    let mut table = packet.from / PORTS;
    for _ in 0..=TABLES.len() {
        let covers = |route: &(&Prefix, &Via)| first_bits(packet.to, route.0.1) == route.0.0;
        let found = routes[table].iter().filter(covers).max_by_key(|(prefix, _)| prefix.1);
        let port = |number| table * PORTS + number;
        match found.map(|route| *route.1) {
            Some(Via::Gateway(number)) => return Fate::Leaves([port(number); 2]),
            Some(Via::Both) => return Fate::Leaves([port(0), port(1)]),
            Some(Via::Drop) => return Fate::Dropped("route/drop-route"),
            Some(Via::Table(next)) => table = next,
            None => return Fate::Dropped("route/no-route"),
        }
    }
    Fate::Dropped("route/table-loop")
}

fn name(port: usize) -> String {
    format!("port{port}")
}

fn gateway_mac(port: usize) -> Mac {
    [2, 0, 0, 0, 3, port as u8]
}

/// The gateway behind a port, and the sender of what comes in by it.
fn gateway(port: usize, family: usize) -> IpAddr {
    let link = port % PORTS + 1;
    match family {
        0 => address(&format!("10.{link}.0.2")),
        _ => address(&format!("fd00:{link}::2")),
    }
}

fn ports() -> String {
    let of_port = |number: usize| {
        let (name, link) = (name(number), number % PORTS + 1);
        let more = match TABLES[number / PORTS] {
            "default" => String::new(),
            table => format!(", vrf: {table}"),
        };
        let gateways = [0, 1].map(|family| {
            let resource = format!("{name}-{family}");
            let gateway = gateway(number, family).to_string();
            neighbor(&resource, &name, &gateway, gateway_mac(number))
        });
        port(&name, &format!("10.{link}.0.1/24, \"fd00:{link}::1/64\""), &more) + &gateways.concat()
    };
    (0..TABLES.len() * PORTS).map(of_port).collect()
}

/// The routes as resources. A route is named after its prefix, so that the same prefix later is a change.
fn resources(families: &Families) -> String {
    let mut text = String::new();
    for (family, routes) in families.iter().enumerate() {
        for (table, routes) in routes.iter().enumerate() {
            for ((bits, length), via) in routes {
                let hop = |port| format!("{{gateway: \"{}\"}}", gateway(port, family));
                let via = match *via {
                    Via::Gateway(port) => hop(port),
                    Via::Both => format!("{}, {}", hop(0), hop(1)),
                    Via::Drop => "{drop: true}".to_owned(),
                    Via::Table(next) => format!("{{vrf: {}}}", TABLES[next]),
                };
                let prefix = format!("{}/{length}", address_of(family, *bits));
                let spec = format!("{{destination: \"{prefix}\", vrf: {}, via: [{via}]}}", TABLES[table]);
                text += &document("Route", &format!("{}-{bits:x}-{length}-{family}", TABLES[table]), &spec);
            }
        }
    }
    text
}

/// What routes of the first there are not in the second.
fn gone(before: &Families, after: &Families) -> Families {
    let mut gone = before.clone();
    for (gone, after) in gone.iter_mut().flatten().zip(after.iter().flatten()) {
        gone.retain(|prefix, _| !after.contains_key(prefix));
    }
    gone
}

/// Addresses that differ in few places, so that prefixes of all lengths meet.
fn destinations(family: usize) -> BoxedStrategy<u128> {
    let byte = || select(vec![0u8, 1, 2, 127, 128, 255]);
    match family {
        0 => (byte(), byte())
            .prop_map(|(third, fourth)| bits(Ipv4Addr::new(10, 50, third, fourth).into()))
            .boxed(),
        _ => (byte(), byte(), byte())
            .prop_map(|(fourth, seventh, last)| {
                let [fourth, seventh, last] = [fourth, seventh, last].map(|byte| u16::from(byte) * 257);
                bits(Ipv6Addr::new(0xfd50, 0, 0, fourth, 0, 0, seventh, last).into())
            })
            .boxed(),
    }
}

fn routes(family: usize) -> impl Strategy<Value = Routes> {
    let lengths = match family {
        0 => vec![0u8, 8, 15, 16, 17, 18, 23, 24, 25, 26, 30, 31, 32],
        _ => vec![0u8, 16, 17, 48, 55, 56, 57, 63, 64, 65, 104, 112, 127, 128],
    };
    let prefixes = (destinations(family), select(lengths));
    let prefixes = prefixes.prop_map(|(bits, length)| (first_bits(bits, length), length));
    let of_table = move |table: usize| {
        let via = prop_oneof![
            4 => (0..PORTS).prop_map(Via::Gateway),
            1 => Just(Via::Both),
            1 => Just(Via::Drop),
            2 => (1..TABLES.len()).prop_map(move |step| Via::Table((table + step) % TABLES.len())),
        ];
        btree_map(prefixes.clone(), via, 0..24)
    };
    [of_table(0), of_table(1), of_table(2)]
}

fn packets_of_all() -> impl Strategy<Value = Vec<Packet>> {
    let packet = (0..TABLES.len() * PORTS, 0..2usize)
        .prop_flat_map(|(from, family)| destinations(family).prop_map(move |to| Packet { from, family, to }));
    vec(packet, VECTOR / 2..=VECTOR)
}

/// Sends the packets in one vector, and holds each against what is expected of it.
fn check(plane: &mut Plane, families: &Families, packets: &[Packet]) {
    let before = plane.drops();
    for (number, packet) in packets.iter().enumerate() {
        let from = gateway(packet.from, packet.family);
        let to = address_of(packet.family, packet.to);
        let bytes = udp((from, number as u16), (to, 2000), 64, b"");
        let link = frame(port_mac(packet.from as u8 + 1), gateway_mac(packet.from), &bytes);
        plane.send(&name(packet.from), &link);
    }
    assert!(plane.turn() >= packets.len(), "they came in more vectors than one");
    plane.settle();
    let mut left: BTreeMap<usize, usize> = BTreeMap::new();
    for port in 0..TABLES.len() * PORTS {
        // The others are errors to senders.
        let came = open_all(&plane.take(&name(port))).into_iter();
        for received in came.filter(|received| received.protocol == 17) {
            let number = usize::from(u16::from_be_bytes([received.payload[0], received.payload[1]]));
            let packet = packets[number];
            assert_eq!(received.to, gateway_mac(port), "{packet:?}");
            let sent = (
                gateway(packet.from, packet.family),
                address_of(packet.family, packet.to),
                63,
            );
            assert_eq!((received.source, received.target, received.hop_limit), sent);
            assert_eq!(left.insert(number, port), None, "{packet:?} came twice");
        }
    }
    let mut drops: BTreeMap<&str, u64> = BTreeMap::new();
    for (number, packet) in packets.iter().enumerate() {
        match (expected(&families[packet.family], packet), left.get(&number)) {
            (Fate::Leaves(ports), Some(port)) => assert!(ports.contains(port), "{packet:?} left by {port}: {ports:?}"),
            (Fate::Dropped(reason), None) => *drops.entry(reason).or_default() += 1,
            (fate, left) => panic!("{packet:?}: {fate:?}, and left by {left:?}"),
        }
    }
    for reason in ["route/drop-route", "route/no-route", "route/table-loop"] {
        let dropped = plane.dropped(reason) - before.get(reason).copied().unwrap_or_default();
        assert_eq!(dropped, drops.get(reason).copied().unwrap_or_default(), "{reason}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn packets_of_all_tables_in_one_vector_go_where_a_naive_reading_of_random_routes_says(
        rounds in vec(([routes(0), routes(1)], packets_of_all()), 3)
    ) {
        let mut plane = Plane::new(&ports()).unwrap();
        let mut was = Families::default();
        for (families, packets) in rounds {
            plane.apply(&resources(&families)).unwrap();
            let gone = resources(&gone(&was, &families));
            if !gone.is_empty() {
                plane.delete(&gone).unwrap();
            }
            check(&mut plane, &families, &packets);
            was = families;
        }
    }
}
