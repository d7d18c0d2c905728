//! Every limit that makes no sense gets its sentence.

use crate::bad::refused;
use crate::calico;

/// The spec of a Port, the path of the field at fault, and a part of the sentence.
const LIMITS: &[(&str, &str, &str)] = &[
    (
        "{device: a, qos: {ingressBandwidth: 1}}",
        "spec.qos.ingressBandwidth",
        "1 bits a second is out of bounds; expected 1000 to 1000000000000000, or nothing for no limit",
    ),
    (
        "{device: a, qos: {egressBandwidth: fast}}",
        "spec.qos.egressBandwidth",
        "expected a whole number, which may have a suffix such as k, M, G, Ki, Mi or Gi: 10M",
    ),
    (
        "{device: a, qos: {ingressBandwidth: -1}}",
        "spec.qos.ingressBandwidth",
        "expected a whole number",
    ),
    (
        "{device: a, qos: {ingressBurst: 10M}}",
        "spec.qos.ingressBurst",
        "limits nothing without ingressBandwidth; write that, too",
    ),
    (
        "{device: a, qos: {egressPacketBurst: 10}}",
        "spec.qos.egressPacketBurst",
        "limits nothing without egressPacketRate",
    ),
    (
        "{device: a, qos: {egressBandwidth: 2M, egressPeakrate: 1M}}",
        "spec.qos.egressPeakrate",
        "1000000 bits a second is not above the 2000000 of egressBandwidth",
    ),
    (
        "{device: a, qos: {ingressMaxConnections: 7}}",
        "spec.qos.ingressMaxConnections",
        "is for a WorkloadEndpoint only",
    ),
    (
        "{device: a, qos: {dscp: 64}}",
        "spec.qos.dscp",
        "expected a DSCP from 0 to 63",
    ),
    (
        "{device: a, qos: {dscp: best}}",
        "spec.qos.dscp",
        "a name such as EF, AF41 or CS5",
    ),
    (
        "{device: a, qos: {bandwidth: 1M}}",
        "spec.qos.bandwidth",
        "unknown field `bandwidth`",
    ),
];

#[test]
fn nonsense_limits() {
    for (spec, field, part) in LIMITS {
        let refusal = refused(&format!(
            "{{apiVersion: margay/v1, kind: Port, metadata: {{name: a}}, spec: {spec}}}"
        ));
        assert_eq!(refusal.field.as_deref(), Some(*field), "{spec}\n{refusal}");
        assert!(refusal.error.contains(part), "{spec}\nexpected: {part}\nis: {refusal}");
    }
}

#[test]
fn a_workload_has_the_same_limits() {
    let spec = "{interfaceName: a, ipNetworks: [], qosControls: {egressMaxConnections: 7}}";
    let refusal = refused(&calico("WorkloadEndpoint", spec));
    assert_eq!(refusal.field.as_deref(), Some("spec.qosControls.egressMaxConnections"));
    assert!(
        refusal
            .error
            .contains("limits of connections are not available in this version"),
        "{refusal}"
    );
}
