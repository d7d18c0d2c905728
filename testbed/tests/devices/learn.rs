//! Routes that a routing daemon of the host gives to the kernel are the plane's as well.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use testbed::{Child, Host, Margay, need};

use super::punt::Node;
use super::router::{ip, ping, reaches, shell, until};

/// Prefixes of the flood.
const FLOOD: usize = 100_000;

/// A BIRD that speaks BGP with `peer`, tells it of `prefixes`, and gives the kernel what it hears.
struct Bird {
    socket: String,
    _process: Child,
}

impl Bird {
    fn start(node: &Node, host: &Host, own: (&str, u32), peer: (&str, u32), prefixes: [&str; 2]) -> Bird {
        let file = |suffix: &str| {
            let path = node.net.lab.folder().join(format!("{}.{suffix}", host.name()));
            path.display().to_string()
        };
        let [v4, v6] = prefixes;
        let ((address, number), (peer, remote)) = (own, peer);
        let configuration = format!(
            "router id {address};\n\
             protocol device {{ }}\n\
             protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; }}\n\
             protocol kernel {{ ipv6 {{ export where source = RTS_BGP; }}; }}\n\
             protocol static told4 {{ ipv4; route {v4} blackhole; }}\n\
             protocol static told6 {{ ipv6; route {v6} blackhole; }}\n\
             protocol bgp {{\n\
               local {address} as {number};\n\
               neighbor {peer} as {remote};\n\
               connect retry time 1; connect delay time 1;\n\
               ipv4 {{ import all; export where source = RTS_STATIC; }};\n\
               ipv6 {{ import all; export where source = RTS_STATIC; next hop address {}; }};\n\
             }}\n",
            address.replace("10.4.0.", "fd00:4::"),
        );
        std::fs::write(file("conf"), configuration).unwrap();
        let socket = file("ctl");
        let arguments = ["bird", "-f", "-c", &file("conf"), "-s", &socket, "-P", &file("pid")];
        let process = host.spawn(arguments).unwrap();
        Bird {
            socket,
            _process: process,
        }
    }

    fn tell(&self, host: &Host, command: &str) {
        shell(host, &format!("birdc -s {} {command}", self.socket));
    }
}

/// The routes that were learnt, by prefix.
fn learnt(margay: &Margay) -> BTreeMap<String, Value> {
    let Value::Array(routes) = margay.show("routes").unwrap() else {
        panic!("routes are a list")
    };
    let of_kernel = routes.into_iter().filter(|route| route["origin"] == "kernel");
    of_kernel
        .map(|route| (route["destination"].as_str().unwrap().to_owned(), route))
        .collect()
}

#[test]
fn bgp_of_the_host_tells_the_plane_where_to_send() {
    need!("ping", "curl", "python3", "bird", "birdc");
    bgp_goes_both_ways(Node::start);
}

#[test]
fn bgp_of_a_host_behind_a_tap_tells_the_plane_where_to_send() {
    need!("ping", "curl", "python3", "bird", "birdc");
    bgp_goes_both_ways(Node::start_with_tap);
}

/// The session is the host's; by its device, or by the TAP in its place.
fn bgp_goes_both_ways(start: fn(&Node) -> Margay) {
    let node = Node::new();
    let (router, world, pod) = (&node.net.router, &node.world, &node.net.left);
    shell(
        world,
        "ip route del 10.1.0.0/24; ip -6 route del fd00:1::/64; \
         ip address add 10.77.0.1/32 dev lo; ip -6 address add fd00:77::1/128 dev lo nodad",
    );
    let margay = start(&node);
    assert!(!ping(pod, "10.77.0.1"));
    let (ours, theirs) = (("10.4.0.1", 65001), ("10.4.0.2", 65002));
    let told = ["10.77.0.0/16", "fd00:77::/64"];
    let here = Bird::start(&node, router, ours, theirs, ["10.1.0.0/24", "fd00:1::/64"]);
    let there = Bird::start(&node, world, theirs, ours, told);
    // There and back by BGP: nobody wrote a route.
    for address in ["10.77.0.1", "fd00:77::1"] {
        reaches(pod, address);
    }
    let routes = learnt(&margay);
    assert_eq!(routes["10.77.0.0/16"]["name"], "bird");
    assert_eq!(routes["10.77.0.0/16"]["via"][0]["gateway"], "10.4.0.2");
    assert_eq!(routes["fd00:77::/64"]["via"][0]["port"], "uplink");
    // An apply leaves them, and what is written wins for as long as it stands.
    let drop = "
{apiVersion: margay/v1, kind: Route, metadata: {name: no}, spec: {destination: 10.77.0.0/16, via: [{drop: true}]}}
";
    margay.apply(drop).unwrap();
    until("what is written to count", || !ping(pod, "10.77.0.1"));
    assert!(ping(pod, "fd00:77::1"));
    margay.delete(drop).unwrap();
    reaches(pod, "10.77.0.1");
    // Withdrawn and told again.
    there.tell(world, "disable told4");
    until("the route to be gone", || !learnt(&margay).contains_key("10.77.0.0/16"));
    assert!(!ping(pod, "10.77.0.1") && ping(pod, "fd00:77::1"));
    there.tell(world, "enable told4");
    reaches(pod, "10.77.0.1");
    // The daemon ends, and its routes with it.
    here.tell(router, "down");
    until("no routes", || learnt(&margay).is_empty());
    assert!(!ping(pod, "10.77.0.1"));
    margay.stop().unwrap();
}

#[test]
fn routes_of_the_kernel_are_followed_as_they_change() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    let (router, pod) = (&node.net.router, &node.net.left);
    shell(&node.world, "ip address add 10.77.0.1/32 dev lo; ip link set lo up");
    // One that was there before.
    ip(router, "route add 10.77.0.0/16 via 10.4.0.2 metric 20");
    let margay = node.start();
    reaches(pod, "10.77.0.1");
    assert_eq!(learnt(&margay)["10.77.0.0/16"]["name"], "boot");
    // A better one, which leads nowhere, and is changed for one that does not.
    let gateway = |expected: &str| {
        until(expected, || {
            learnt(&margay)
                .get("10.77.0.0/16")
                .is_some_and(|route| route["via"][0]["gateway"] == expected)
        });
    };
    ip(router, "route add 10.77.0.0/16 via 10.4.0.9 metric 10");
    gateway("10.4.0.9");
    ip(router, "route replace 10.77.0.0/16 via 10.4.0.2 metric 10");
    gateway("10.4.0.2");
    reaches(pod, "10.77.0.1");
    // Several ways, of IPv6 too, which the kernel tells of one by one.
    ip(
        router,
        "route add 10.78.0.0/16 nexthop via 10.4.0.2 weight 3 nexthop via 10.4.0.9",
    );
    ip(router, "-6 route add fd00:78::/64 via fd00:4::2");
    ip(router, "-6 route append fd00:78::/64 via fd00:4::9");
    let ways = |prefix: &str| {
        learnt(&margay)
            .get(prefix)
            .map_or(0, |route| route["via"].as_array().unwrap().len())
    };
    until("two ways", || ways("10.78.0.0/16") == 2 && ways("fd00:78::/64") == 2);
    assert_eq!(learnt(&margay)["10.78.0.0/16"]["via"][0]["weight"], 3);
    ip(router, "-6 route del fd00:78::/64 via fd00:4::9");
    until("one way", || ways("fd00:78::/64") == 1);
    // What leads elsewhere, and what is of another table, is the kernel's own.
    ip(router, "route add 10.79.0.0/16 dev lo");
    ip(router, "route add 10.80.0.0/16 via 10.4.0.2 table 100");
    ip(router, "route add 10.81.0.0/16 via 10.4.0.2");
    until("a later route", || ways("10.81.0.0/16") == 1);
    assert_eq!(ways("10.79.0.0/16") + ways("10.80.0.0/16"), 0);
    // What the kernel is told to drop does not leave by a wider route.
    reaches(pod, "10.77.0.1");
    ip(router, "route add blackhole 10.77.0.1/32");
    ip(router, "-6 route add unreachable fd00:79::/64");
    let action = |prefix: &str| learnt(&margay).get(prefix).map(|route| route["action"].clone());
    for prefix in ["10.77.0.1/32", "fd00:79::/64"] {
        until(prefix, || action(prefix) == Some("drop".into()));
    }
    assert!(!ping(pod, "10.77.0.1"));
    ip(router, "route del blackhole 10.77.0.1/32");
    ip(router, "-6 route del unreachable fd00:79::/64");
    reaches(pod, "10.77.0.1");
    // The kernel takes routes away with the device, and says nothing of it.
    ip(router, "link set uplink0 down");
    until("no routes", || learnt(&margay).is_empty());
    ip(router, "link set uplink0 up");
    ip(router, "route add 10.77.0.0/16 via 10.4.0.2");
    reaches(pod, "10.77.0.1");
    margay.stop().unwrap();
}

#[test]
fn a_flood_of_routes_is_absorbed() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    let (router, pod) = (&node.net.router, &node.net.left);
    let margay = node.start();
    reaches(pod, "10.4.0.2");
    let batch = |verb: &str, numbers: std::ops::Range<usize>| {
        let path = node.net.lab.folder().join(verb);
        let mut lines = String::new();
        for number in numbers {
            let (high, low) = (number >> 8, number & 255);
            writeln!(
                lines,
                "route {verb} 10.{}.{}.{low}/32 via 10.4.0.2",
                100 + (high >> 8),
                high & 255
            )
            .unwrap();
        }
        std::fs::write(&path, lines).unwrap();
        shell(router, &format!("ip -batch {}", path.display()));
    };
    for _ in 0..3 {
        batch("add", 0..FLOOD);
        batch("del", 0..FLOOD);
    }
    batch("add", 0..FLOOD);
    batch("del", 5..FLOOD);
    until("five routes", || learnt(&margay).len() == 5);
    assert!(ping(pod, "10.4.0.2"));
    batch("add", 5..FLOOD);
    until("all routes", || learnt(&margay).len() == FLOOD);
    reaches(pod, "10.4.0.2");
    margay.stop().unwrap();
}
