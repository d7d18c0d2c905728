//! Messages as protoc wrote them (`protoc --encode`, with field numbers from Calico's `felix/proto/felixbackend.proto`),
//! fields that are passed over among them.

use prost::Message;

use super::messages::{Heard, MessageError, read};
use super::wire::{self, From};
use crate::program::felix::*;
use crate::resource::{Dscp, QosControls};

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(2).map(pair).collect()
}

fn told(hex: &str) -> ToDataplane {
    match read(&bytes(hex)).unwrap() {
        Heard::Told(message) => *message,
        unused => panic!("{unused:?}"),
    }
}

fn strings(strings: &[&str]) -> Vec<String> {
    strings.iter().map(|text| text.to_string()).collect()
}

fn web() -> PolicyId {
    PolicyId {
        name: "web".into(),
        namespace: "shop".into(),
        kind: "NetworkPolicy".into(),
    }
}

#[test]
fn a_set() {
    let set = told("12220a05733a776562120c31302e36352e302e302f32361209666430303a3a2f363418027807");
    let expected = IpSetUpdate {
        id: "s:web".into(),
        members: strings(&["10.65.0.0/26", "fd00::/64"]),
        r#type: IpSetType::Net,
    };
    assert_eq!(set, ToDataplane::IpSetUpdate(expected));
}

#[test]
fn a_policy_with_every_way_to_match() {
    let policy = told(
        "3aaa010a1a12037765621a0473686f70220d4e6574776f726b506f6c696379128b010a4a0a05616c6c6f7710041a051203746370\
         3a04085010515205733a7765626a066e3a68747470b20603088401ba060c31302e36352e302e392f3332da07080a060a01611201\
         62ca0c0272310a210a036c6f6740007a03737663e20604080310048a07036e3a78d207050a0347455412060a047061737320012a\
         0473686f703a0178420764656661756c747808",
    );
    let allow = Rule {
        action: "allow".into(),
        ip_version: Some(IpVersion::V4),
        protocol: Some(Protocol::Name("tcp".into())),
        not_protocol: Some(Protocol::Number(132)),
        src: RuleEnd {
            ip_set_ids: strings(&["s:web"]),
            not_net: strings(&["10.65.0.9/32"]),
            ..RuleEnd::default()
        },
        dst: RuleEnd {
            ports: vec![PortRange { first: 80, last: 81 }],
            named_port_ip_set_ids: strings(&["n:http"]),
            ..RuleEnd::default()
        },
        ..Rule::default()
    };
    let log = Rule {
        action: "log".into(),
        icmp: Some(Icmp { r#type: 0, code: None }),
        not_icmp: Some(Icmp {
            r#type: 3,
            code: Some(4),
        }),
        dst: RuleEnd {
            not_named_port_ip_set_ids: strings(&["n:x"]),
            ..RuleEnd::default()
        },
        dst_ip_port_set_ids: strings(&["svc"]),
        http_match: true,
        ..Rule::default()
    };
    let pass = Rule {
        action: "pass".into(),
        ..Rule::default()
    };
    let expected = Policy {
        inbound_rules: vec![allow, log],
        outbound_rules: vec![pass],
        untracked: false,
        pre_dnat: true,
        tier: "default".into(),
    };
    let expected = ActivePolicyUpdate {
        id: web(),
        policy: expected,
    };
    assert_eq!(policy, ToDataplane::ActivePolicyUpdate(expected));
}

#[test]
fn a_workload() {
    let workload = told(
        "5acd010a1712036b38731a0a73686f702f7765622d302204657468302ab1010a06616374697665120563616c69311a1165653a65653a65\
         653a65653a65653a656522086b6e732e73686f702a0c31302e36352e302e312f3332320b666430303a3a312f3132383a2b0a0764656661\
         756c74121a12037765621a0473686f70220d4e6574776f726b506f6c696379220444656e7942160a093139322e302e322e31120931302e\
         36352e302e31520c3139322e302e322e302f32345a060a016b120176620608c0843d70058001017a02102e7809",
    );
    let expected = WorkloadEndpoint {
        state: "active".into(),
        name: "cali1".into(),
        mac: "ee:ee:ee:ee:ee:ee".into(),
        profile_ids: strings(&["kns.shop"]),
        ipv4_nets: strings(&["10.65.0.1/32"]),
        ipv6_nets: strings(&["fd00::1/128"]),
        tiers: vec![TierInfo {
            name: "default".into(),
            ingress_policies: vec![web()],
            egress_policies: vec![],
            default_action: "Deny".into(),
        }],
        ipv4_nat: vec![NatInfo {
            ext_ip: "192.0.2.1".into(),
            int_ip: "10.65.0.1".into(),
        }],
        ipv6_nat: vec![],
        allow_spoofed_source_prefixes: strings(&["192.0.2.0/24"]),
        qos_controls: Some(Box::new(QosControls {
            ingress_bandwidth: 1_000_000,
            egress_packet_burst: 5,
            dscp: Some(Dscp(46)),
            ..QosControls::default()
        })),
    };
    let expected = WorkloadEndpointUpdate {
        id: web_0(),
        endpoint: expected,
    };
    assert_eq!(workload, ToDataplane::WorkloadEndpointUpdate(expected));
}

fn web_0() -> WorkloadEndpointId {
    WorkloadEndpointId {
        orchestrator_id: "k8s".into(),
        workload_id: "shop/web-0".into(),
        endpoint_id: "eth0".into(),
    }
}

#[test]
fn settings_routes_nodes_pools() {
    let config = told("6a1d0a180a10576972656775617264456e61626c65641204747275651a016d");
    let expected = ConfigUpdate {
        config: [("WireguardEnabled".into(), "true".into())].into(),
    };
    assert_eq!(config, ToDataplane::ConfigUpdate(expected));
    let route = told("ba01261a0c31302e36362e302e302f3236220574686572652a093139322e302e322e39380140016010");
    let expected = RouteUpdate {
        r#type: RouteType::RemoteTunnel,
        dst: "10.66.0.0/26".into(),
        dst_node_name: "there".into(),
    };
    assert_eq!(route, ToDataplane::RouteUpdate(expected));
    let node = told("722e0a05746865726512093139322e302e322e391a0b323030313a6462383a3a39220536343531322a060a0161120162");
    let expected = HostMetadataV4V6Update {
        hostname: "there".into(),
        ipv4_addr: "192.0.2.9".into(),
        ipv6_addr: "2001:db8::9".into(),
    };
    assert_eq!(node, ToDataplane::HostMetadataV4V6Update(expected));
    let pool = told(
        "8201310a0c31302e36352e302e302d313612210a0c31302e36352e302e302f313610011a054e657665722a08576f726b6c6f6164",
    );
    let expected = IpamPoolUpdate {
        id: "10.65.0.0-16".into(),
        cidr: "10.65.0.0/16".into(),
        masquerade: true,
    };
    assert_eq!(pool, ToDataplane::IpamPoolUpdate(expected));
    let key = told("da01150a05746865726512014b1a0931302e36362e302e35");
    let expected = WireguardEndpointUpdate {
        hostname: "there".into(),
        public_key: "K".into(),
        interface_ipv4_addr: "10.66.0.5".into(),
    };
    assert_eq!(key, ToDataplane::WireguardEndpointUpdate(expected));
    assert_eq!(told("0a00"), ToDataplane::InSync);
    let namespace = read(&bytes("aa01100a060a0473686f7012060a0161120162")).unwrap();
    assert_eq!(namespace, Heard::Unused("NamespaceUpdate"));
}

#[test]
fn what_the_plane_says() {
    let said = |hex: &str| wire::FromDataplane::decode(&bytes(hex)[..]).unwrap();
    let message = |sequence_number, payload| wire::FromDataplane {
        sequence_number,
        payload: Some(payload),
    };
    let alive = message(
        1,
        From::ProcessStatusUpdate(wire::ProcessStatusUpdate {
            iso_timestamp: "2026-01-01T00:00:00Z".into(),
            uptime: 1.5,
        }),
    );
    let hex = "1a1f0a14323032362d30312d30315430303a30303a30305a11000000000000f83f4001";
    assert_eq!(alive.encode_to_vec(), bytes(hex));
    let up = message(
        2,
        From::WorkloadEndpointStatusUpdate(wire::WorkloadEndpointStatusUpdate {
            id: Some(wire::WorkloadEndpointId {
                orchestrator_id: "k8s".into(),
                workload_id: "shop/web-0".into(),
                endpoint_id: "eth0".into(),
            }),
            status: Some(wire::EndpointStatus { status: "up".into() }),
            endpoint: Some(wire::WorkloadEndpoint {
                state: "active".into(),
                name: "cali1".into(),
                mac: "ee:ee:ee:ee:ee:ee".into(),
                ipv4_nets: strings(&["10.65.0.1/32"]),
                ..Default::default()
            }),
        }),
    );
    let whole = "32510a1712036b38731a0a73686f702f7765622d3022046574683012040a0275701a300a06616374697665120563616c69311a1165653a\
                 65653a65653a65653a65653a65652a0c31302e36352e302e312f33324002";
    assert_eq!(up.encode_to_vec(), bytes(whole));
    // Fields may come in any order: these have the number first.
    assert_eq!(said("40035200"), message(3, From::DataplaneInSync(wire::Empty {})));
    let key = wire::WireguardStatusUpdate {
        public_key: "K".into(),
        ip_version: 6,
    };
    assert_eq!(said("40044a050a014b1006"), message(4, From::WireguardStatusUpdate(key)));
}

#[test]
fn what_cannot_be_carried_out_is_refused_in_a_sentence() {
    let cases: [(&str, &str); 4] = [
        // A tier's policies as strings, as they were until 2025.
        (
            "5a0f2a0d3a0b0a0174120664656661756c",
            "policies have name, namespace and kind",
        ),
        ("ffffffffffff", "is none of Felix's"),
        ("3a00", "ActivePolicyUpdate does not say what it is about"),
        // A port of 70,000.
        (
            "3a100a00120c0a0a3a0808f0a20410f0a204",
            "port 70000 of a rule is out of range",
        ),
    ];
    for (hex, part) in cases {
        let sentence = read(&bytes(hex)).unwrap_err().to_string();
        assert!(sentence.contains(part), "{hex}: {sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
    }
    // From a Felix that is newer than this.
    assert_eq!(
        read(&bytes("9206027801")),
        Ok::<_, MessageError>(Heard::Unused("unknown"))
    );
}
