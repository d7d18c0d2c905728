//! Many routes at once, changed under traffic.

use testbed::Plane;
use testbed::packets::*;

use crate::*;

/// Routes of one table: 20,000 prefixes of 24 bits.
const ROUTES: u32 = 20_000;

/// Gateways behind `right`.
fn gateway(number: u32) -> Mac {
    [2, 0, 0, 0, 1, number as u8]
}

/// The network of a route.
fn network(number: u32) -> [u8; 4] {
    (0x6400_0000 | number << 8).to_be_bytes()
}

/// The routes, each to the gateway that `way` says.
fn routes(way: impl Fn(u32) -> u32) -> String {
    let one = |number: u32| {
        let [a, b, c, _] = network(number);
        format!(
            "apiVersion: margay/v1\nkind: Route\nmetadata: {{ name: n{number} }}\nspec: {{ destination: {a}.{b}.{c}.0/24, \
             via: [{{ gateway: 10.2.0.{} }}] }}\n---\n",
            way(number) + 3
        )
    };
    (0..ROUTES).map(one).collect()
}

/// Checks where packets to some of the networks go.
fn check(plane: &mut Plane, way: impl Fn(u32) -> Option<u32>) {
    let from = pairs()[0].0;
    for number in (0..ROUTES).step_by(97) {
        let [a, b, c, _] = network(number);
        let to = IpAddr::from([a, b, c, number as u8]);
        let came = across(plane, &udp((from, 1), (to, 2), 64, b""));
        let expected = way(number).map(gateway);
        assert_eq!(came.first().map(|packet| packet.to), expected, "{to}");
    }
}

#[test]
fn twenty_thousand_routes_come_change_and_go_and_no_packet_is_lost() {
    let gateways = (0..3).map(|number| {
        let address = format!("10.2.0.{}", number + 3);
        neighbor(&format!("gate{number}"), "right", &address, gateway(number))
    });
    let mut plane = Plane::new(&(two_ports() + &hosts() + &gateways.collect::<String>())).unwrap();
    let (left, right) = pairs()[0];
    let steady: Vec<Vec<u8>> = (0..2000)
        .map(|port| frame(LEFT_PORT, LEFT, &udp((left, port), (right, 2), 64, b"steady")))
        .collect();
    // What came in before a change is on its way while it is made.
    let beside = |plane: &mut Plane, change: &mut dyn FnMut(&mut Plane)| {
        steady.iter().for_each(|frame| plane.send("left", frame));
        (0..3).for_each(|_| assert_eq!(plane.turn(), 256));
        change(plane);
        plane.settle();
        assert_eq!(plane.take("right").len(), steady.len());
    };
    let first = routes(|number| number % 3);
    beside(&mut plane, &mut |plane| plane.apply(&first).unwrap());
    check(&mut plane, |number| Some(number % 3));
    assert_eq!(plane.views().routes().len(), ROUTES as usize + 10);
    let second = routes(|number| (number + 1) % 3);
    beside(&mut plane, &mut |plane| plane.apply(&second).unwrap());
    check(&mut plane, |number| Some((number + 1) % 3));
    assert_eq!(plane.drops(), Default::default());
    beside(&mut plane, &mut |plane| plane.delete(&first).unwrap());
    check(&mut plane, |_| None);
    assert_eq!(plane.views().routes().len(), 10);
}
