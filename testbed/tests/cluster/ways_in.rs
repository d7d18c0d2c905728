//! Policy of the way in, with real clients: before connections are tracked, before services are translated, and the ports
//! that stay open whatever it says. And policy that changes under what runs.

use serde_json::Value;
use testbed::{Child, Host, need};

use super::router::{self, LIMIT, iperf_server, shell, until};
use super::{Cluster, ENDPOINTS, SERVICE, SILENCE, ask, slice};

/// Who is behind the ports, the way in with a label to select it by.
fn ends() -> String {
    ENDPOINTS.replace(
        "metadata: {name: uplink}",
        "metadata: {name: uplink, labels: {way: in}}",
    )
}

/// A policy for the way in, of this stage, with these rules.
fn at_the_way_in(stage: &str, rules: &str) -> String {
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: way-in}},
          spec: {{order: 1, selector: way == 'in', {stage}applyOnForward: true, types: [Ingress], ingress: [{rules}]}}}}\n"
    )
}

/// What a server on a port that is open by failsafe says: ssh's, of Calico's list.
fn ssh(host: &Host) -> Child {
    let server = host.spawn(["python3", "-m", "http.server", "22"]).unwrap();
    until("the server of port 22", || ask(host, "127.0.0.1:22").is_ok());
    server
}

#[test]
fn policy_of_the_way_in_stands_before_all_and_leaves_failsafe_ports_open() {
    need!("python3", "curl");
    let cluster = Cluster::new(&[&ends(), SERVICE, &slice(&[2])]);
    let Cluster { net, world, margay, .. } = &cluster;
    let _ssh = ssh(&net.right);
    let (pod, node_port, failsafe) = ("10.2.0.2:8080", "10.4.0.1:30080", "10.2.0.2:22");
    let open = |to: &str| match ask(world, to) {
        Ok(_) => true,
        silence => {
            assert_eq!(silence, SILENCE, "{to}");
            false
        }
    };
    let all = || [pod, node_port, failsafe].map(open);
    let from_inside = || ask(&net.left, "10.96.0.1").is_ok();
    assert_eq!(all(), [true; 3]);

    // Who waits for a way in to be closed waits for curl: as few of these as it takes.
    let deny = "{action: Deny}";
    for (stage, failsafes) in [("doNotTrack: true, ", true), ("preDNAT: true, ", true), ("", false)] {
        margay.apply(&at_the_way_in(stage, deny)).unwrap();
        // Of what is forwarded, normal policy is asked without failsafe ports: they are there for the host.
        assert_eq!(all(), [false, false, failsafes], "{stage}");
        assert!(from_inside(), "{stage}: it is about the way in alone");
    }
    // Before services, a node port is what it was sent to.
    let node_port_alone = "{action: Allow, protocol: TCP, destination: {ports: [30080]}}, {action: Deny}";
    margay
        .apply(&at_the_way_in("preDNAT: true, ", node_port_alone))
        .unwrap();
    assert_eq!(all(), [false, true, true]);
    // Behind services, it is the backend and its port.
    let backend_alone =
        "{action: Allow, protocol: TCP, destination: {nets: [10.2.0.2/32], ports: [8080]}}, {action: Deny}";
    margay.apply(&at_the_way_in("", backend_alone)).unwrap();
    assert_eq!(all(), [true, true, false]);
    margay.delete(&at_the_way_in("", deny)).unwrap();
    assert_eq!(all(), [true; 3]);
}

/// Only the database's port of iperf3 is meant; and once more, with another order each time, so that every round is a change.
fn forbids_the_database(order: u32) -> String {
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: cut}},
          spec: {{order: {order}, selector: app == 'db', types: [Ingress],
          ingress: [{{action: Deny, protocol: UDP}}, {{action: Allow}}]}}}}\n"
    )
}

/// An `iperf3` client of so many datagrams of 500 bytes a second, few enough for the kernels' queues on a busy machine.
fn stream(cluster: &Cluster, to: &str, file: &str) -> Child {
    let report = cluster.net.lab.folder().join(file);
    let words = format!(
        "iperf3 -c {to} -u -b 2M -l 500 -t 8 --json --get-server-output > {}",
        report.display()
    );
    cluster.net.left.spawn(["sh", "-c", &words]).unwrap()
}

fn lost_of(cluster: &Cluster, file: &str) -> (u64, u64) {
    let report = std::fs::read_to_string(cluster.net.lab.folder().join(file)).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let sum = &report["end"]["sum"];
    let number = |name: &str| sum[name].as_u64().unwrap_or_else(|| panic!("{report}"));
    (number("lost_packets"), number("packets"))
}

#[test]
fn what_a_change_forbids_ends_with_its_next_packet_and_what_it_allows_loses_none() {
    need!("python3", "curl", "iperf3");
    let cluster = Cluster::new(&[ENDPOINTS]);
    let Cluster { net, third, margay, .. } = &cluster;
    let _servers = [iperf_server(&net.right), iperf_server(third)];
    let (mut allowed, mut cut) = (
        stream(&cluster, "10.2.0.2", "allowed"),
        stream(&cluster, "10.3.0.2", "cut"),
    );
    // Packets of IP that the kernel there received, whether anybody has read them yet or not.
    let received = || shell(third, "awk '/^Ip: [0-9]/ {print $4}' /proc/net/snmp");
    let arrived = || received().trim().parse::<u64>().unwrap();
    until("both streams", || {
        let flows = margay.show("flows").unwrap();
        let of = |to: &str| flows.to_string().matches(to).count();
        of("10.2.0.2") > 0 && of("10.3.0.2") > 0 && arrived() > 100
    });

    let denied = || router::drops(margay, "denied");
    for round in 1..=4 {
        margay.apply(&forbids_the_database(round)).unwrap();
        // What was on its way is there once the first of what came after it was denied.
        let before = denied();
        until("the first to be denied", || denied() > before);
        let (there, before) = (arrived(), denied());
        until("twenty to be denied", || denied() >= before + 20);
        assert_eq!(arrived(), there, "round {round}");
        if round % 2 == 0 {
            let there = arrived();
            margay.delete(&forbids_the_database(round)).unwrap();
            until("the stream to go on", || arrived() > there);
        }
    }
    for client in [&mut allowed, &mut cut] {
        client.wait_for_end(LIMIT).unwrap();
    }
    let (lost, all) = lost_of(&cluster, "allowed");
    assert!(
        lost == 0 && all > 2_000,
        "{lost} of {all} were lost of what was allowed all the time"
    );
    let (lost, all) = lost_of(&cluster, "cut");
    assert!(lost >= 80, "{lost} of {all}: twenty and more in each of four rounds");
}
