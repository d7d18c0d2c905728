//! How the fields of a Service go together, after the validation of Kubernetes' API server.

use std::collections::HashSet;

use super::{ClusterIp, Invalid, Service, ServiceType, SessionAffinity, check_label};

/// The longest time that a client stays with its backend, in seconds.
const AFFINITY_MAX_S: u32 = 86_400;

/// What serde cannot check.
pub(super) fn check(service: &Service) -> Result<(), Invalid> {
    service.check_type()?;
    service.check_addresses()?;
    service.check_ports()?;
    service.check_affinity()
}

impl Service {
    fn check_addresses(&self) -> Result<(), Invalid> {
        let spec = &self.spec;
        let headless = spec.cluster_ip == Some(ClusterIp::Headless);
        if headless && self.has_node_ports() {
            let reason = format!("`None` does not go with type {}; expected an address", spec.kind.name());
            return Err(Invalid::at("spec.clusterIP", reason));
        }
        if let Some(first) = spec.cluster_ips.first()
            && spec.cluster_ip.is_some_and(|ip| ip != *first)
        {
            return Err(Invalid::at(
                "spec.clusterIPs[0]",
                "expected the same as in spec.clusterIP",
            ));
        }
        let families: Vec<bool> = self.cluster_addresses().map(|address| address.is_ipv4()).collect();
        if spec.cluster_ips.len() > 2 || families.len() == 2 && families[0] == families[1] {
            return Err(Invalid::at(
                "spec.clusterIPs",
                "expected at most one address of each family",
            ));
        }
        let external = spec.external_ips.iter().enumerate();
        for (at, address) in external {
            if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
                let reason = format!("{address} is no address that others can send to");
                return Err(Invalid::at(format!("spec.externalIPs[{at}]"), reason));
            }
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), Invalid> {
        let ports = &self.spec.ports;
        if ports.is_empty() && self.is_balanced() {
            return Err(Invalid::at(
                "spec.ports",
                "expected at least one port, such as [{ port: 80 }]",
            ));
        }
        let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
        for (at, port) in ports.iter().enumerate() {
            let invalid = |field: &str, reason: String| Err(Invalid::at(format!("spec.ports[{at}].{field}"), reason));
            if port.port == 0 {
                return invalid("port", "0 is no port; expected 1 to 65535".to_owned());
            }
            if port.name.is_empty() && ports.len() > 1 {
                return invalid("name", "expected a name, as there are several ports".to_owned());
            }
            if !port.name.is_empty()
                && let Err(reason) = check_label(&port.name)
            {
                return invalid("name", reason);
            }
            if !names.insert(&port.name) {
                return invalid("name", format!("another port has the name `{}` already", port.name));
            }
            if !numbers.insert((port.protocol, port.port)) {
                let reason = format!("port {}/{} is there already", port.port, port.protocol.name());
                return invalid("port", reason);
            }
            if port.node_port != 0 && !self.has_node_ports() {
                let reason = format!("a service of type {} has none; leave it out", self.spec.kind.name());
                return invalid("nodePort", reason);
            }
        }
        Ok(())
    }

    fn check_affinity(&self) -> Result<(), Invalid> {
        let spec = &self.spec;
        if spec.session_affinity == SessionAffinity::None && spec.session_affinity_config.is_some() {
            let reason = "has no meaning without `sessionAffinity: ClientIP`; leave it out";
            return Err(Invalid::at("spec.sessionAffinityConfig", reason));
        }
        let seconds = self.affinity_s();
        if spec.session_affinity == SessionAffinity::ClientIP && !(1..=AFFINITY_MAX_S).contains(&seconds) {
            let reason = format!("{seconds} is out of range; expected 1 to {AFFINITY_MAX_S}");
            return Err(Invalid::at(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                reason,
            ));
        }
        Ok(())
    }

    fn check_type(&self) -> Result<(), Invalid> {
        let (spec, kind) = (&self.spec, self.spec.kind);
        let only = |field: &str, of: &str| {
            let reason = format!("is for services of type {of} only, not {}; leave it out", kind.name());
            Err(Invalid::at(format!("spec.{field}"), reason))
        };
        if kind == ServiceType::ExternalName && spec.external_name.as_ref().is_none_or(String::is_empty) {
            return Err(Invalid::at(
                "spec.externalName",
                "expected a name, as the type is ExternalName",
            ));
        }
        if !spec.load_balancer_source_ranges.is_empty() && kind != ServiceType::LoadBalancer {
            return only("loadBalancerSourceRanges", "LoadBalancer");
        }
        let is_external = self.has_node_ports() || !spec.external_ips.is_empty();
        if spec.external_traffic_policy.is_some() && !is_external {
            return only("externalTrafficPolicy", "NodePort and LoadBalancer");
        }
        Ok(())
    }
}
