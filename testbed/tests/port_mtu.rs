//! A port never promises more than its device carries, however the port came by its MTU.

use testbed::{Lab, need};

fn port(mtu: u16) -> String {
    format!(
        "{{ apiVersion: margay/v1, kind: Port, metadata: {{ name: left }}, spec: {{ device: left0, mtu: {mtu} }} }}"
    )
}

#[test]
fn an_mtu_above_the_devices_is_refused_for_a_port_that_is_there_too() {
    need!();
    let lab = Lab::new().unwrap();
    let (left, router) = (lab.host("left").unwrap(), lab.host("router").unwrap());
    lab.link((&left, "eth0", ["10.1.0.2/24"]), (&router, "left0", []))
        .unwrap();
    let margay = lab.margay(&router, &port(1500), &["--frames", "1024"]).unwrap();
    let mtu = || margay.show("ports").unwrap()[0]["mtu"].as_u64();
    let refusal = margay.apply(&port(1600)).unwrap_err().to_string();
    assert!(
        refusal.contains("left0 has an MTU of 1500, less than the port's 1600"),
        "{refusal}"
    );
    assert_eq!(mtu(), Some(1500), "a refused change leaves the port as it was");
    margay.apply(&port(1400)).unwrap();
    assert_eq!(mtu(), Some(1400));
    router.run(["ip", "link", "set", "left0", "mtu", "1600"]).unwrap();
    margay.apply(&port(1600)).unwrap();
    assert_eq!(mtu(), Some(1600), "the device carries it by now");
    margay.stop().unwrap();
}
