//! Felix's settings that policy heeds. A value that is not understood is as if it were not there, with a warning.

use std::collections::BTreeMap;
use std::sync::Arc;

use classifier::endpoints::{Failsafe, Failsafes, Settings, ToHost};

use super::rules::{network, protocol_number};

/// Ports of this host that policy does not close (Felix's default; the ways in by which it is looked after).
const INBOUND: &str = "tcp:22,udp:68,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667";
/// Ports of others that policy does not close for this host.
const OUTBOUND: &str = "udp:53,udp:67,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667";

/// The settings of all endpoints; `in_force` is for others to say.
pub(super) fn settings(config: &BTreeMap<String, String>, warn: &mut dyn FnMut(String)) -> Settings {
    let value = |name: &str| config.get(name).map(String::as_str).unwrap_or_default();
    let is = |name: &str, wanted: &str| value(name).eq_ignore_ascii_case(wanted);
    let accept = is("DefaultEndpointToHostAction", "Accept") || is("DefaultEndpointToHostAction", "Return");
    Settings {
        in_force: false,
        // Behind `Return` there is nothing else here that could decide.
        workload_to_host: if accept { ToHost::Accept } else { ToHost::Drop },
        reject: is("IptablesFilterDenyAction", "Reject"),
        failsafes: Arc::new(Failsafes {
            inbound: failsafes(value("FailsafeInboundHostPorts"), INBOUND, warn),
            outbound: failsafes(value("FailsafeOutboundHostPorts"), OUTBOUND, warn),
        }),
        vxlan_from_workloads: is("AllowVXLANPacketsFromWorkloads", "true"),
        ipip_from_workloads: is("AllowIPIPPacketsFromWorkloads", "true"),
    }
}

/// What the names of workloads' interfaces begin with; nothing where Felix did not say.
pub(super) fn workload_prefixes(config: &BTreeMap<String, String>) -> Option<Vec<String>> {
    let prefixes = config.get("InterfacePrefix").filter(|value| !value.is_empty())?;
    Some(prefixes.split(',').map(|prefix| prefix.trim().to_owned()).collect())
}

/// `tcp:22,udp:10.0.0.0/8:68,tcp:[fd00::/8]:80,sctp`; `none` for none.
fn failsafes(text: &str, usual: &str, warn: &mut dyn FnMut(String)) -> Vec<Failsafe> {
    let text = match text.trim() {
        "" => usual,
        text if text.eq_ignore_ascii_case("none") => return vec![],
        text => text,
    };
    let mut failsafes = vec![];
    for one in text.split(',').map(str::trim) {
        match failsafe(one) {
            Some(failsafe) => failsafes.push(failsafe),
            None => warn(format!("the failsafe port `{}` is none", one.escape_debug())),
        }
    }
    failsafes
}

fn failsafe(text: &str) -> Option<Failsafe> {
    // A number alone is a TCP port.
    if let Ok(port) = text.parse() {
        return Some(Failsafe {
            protocol: 6,
            port: Some(port),
            network: None,
        });
    }
    let Some((protocol, rest)) = text.split_once(':') else {
        return Some(Failsafe {
            protocol: protocol_number(text)?,
            port: None,
            network: None,
        });
    };
    let (net, port) = match rest.rsplit_once(':') {
        Some((net, port)) => (Some(network(net.trim_matches(['[', ']']))?), port),
        None => (None, rest),
    };
    Some(Failsafe {
        protocol: protocol_number(protocol)?,
        port: Some(port.parse().ok()?),
        network: net,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failsafe_ports_as_felix_writes_them() {
        let mut warnings = vec![];
        let found = failsafes(
            "tcp:22, udp:10.0.0.0/8:68,tcp:[fd00::/8]:80,sctp,8080,gre:1",
            INBOUND,
            &mut |warning| {
                warnings.push(warning);
            },
        );
        let failsafe = |protocol, port, network: Option<&str>| Failsafe {
            protocol,
            port,
            network: network.map(|network| network.parse().unwrap()),
        };
        let wanted = [
            failsafe(6, Some(22), None),
            failsafe(17, Some(68), Some("10.0.0.0/8")),
            failsafe(6, Some(80), Some("fd00::/8")),
            failsafe(132, None, None),
            failsafe(6, Some(8080), None),
        ];
        assert_eq!(found, wanted);
        assert_eq!(warnings, ["the failsafe port `gre:1` is none"]);
        let mut none = |warning: String| panic!("{warning}");
        assert_eq!(failsafes("", INBOUND, &mut none).len(), 9);
        assert_eq!(failsafes("none", OUTBOUND, &mut none), []);
    }
}
