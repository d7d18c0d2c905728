//! Limits of ports, and of the workloads behind them, handed to the workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastpath::interfaces::Interface;
use fastpath::meta::PortId;
use fastpath::qos::{Limiter, Limits, Rate};
use fastpath::worker::Command;

use super::State;
use super::ports::Port;
use crate::resource::{DirectionControls, QosControls};
use crate::show::ports::{LimitView, LimitsView};

/// The part of a second whose worth may come at once where nothing is written. After a loss without news of it Linux waits
/// for a fifth of a second (`TCP_RTO_MIN`, RFC 6298 section 2.4 has a whole one): with less, tokens are lost meanwhile that
/// a stream would have used.
const PART_OF_SECOND: u64 = 4;
/// Bits that may come at once where nothing is written: 64 KiB at least.
const LEAST_BURST_BITS: u64 = 64 * 1024 * 8;
/// As Calico has it.
const LEAST_PACKET_BURST: u64 = 5;

/// The limits in force.
#[derive(Default)]
pub(super) struct Policing {
    ports: BTreeMap<PortId, Policed>,
}

/// What is limited at a port.
#[derive(Default)]
struct Policed {
    /// The workload whose limits are among them.
    endpoint: Option<String>,
    /// To who is behind the port.
    ingress: Option<Arc<Limiter>>,
    /// From there.
    egress: Option<Arc<Limiter>>,
}

impl Policing {
    /// The port as workers see it, with the limit of what comes in by it.
    pub fn over(&self, port: &Port, interface: Interface) -> Interface {
        let limiter = self.ports.get(&port.id).and_then(|policed| policed.egress.clone());
        Interface { limiter, ..interface }
    }

    /// For people, with the mark of what comes in; nothing where there is neither.
    pub fn view(&self, port: &Port, dscp: Option<u8>) -> Option<LimitsView> {
        let policed = self.ports.get(&port.id);
        let limits = |limiter: fn(&Policed) -> &Option<Arc<Limiter>>| limiter(policed?).as_deref().map(view);
        (policed.is_some() || dscp.is_some()).then(|| LimitsView {
            endpoint: policed.and_then(|policed| policed.endpoint.clone()),
            ingress: limits(|policed| &policed.ingress),
            egress: limits(|policed| &policed.egress),
            dscp,
        })
    }
}

impl State {
    /// Puts into force what ports and the endpoints behind them say now. What has not changed keeps its tokens.
    pub(super) fn enforce_limits(&mut self) {
        let mut before = std::mem::take(&mut self.policing.ports);
        let mut changed = false;
        for port in self.ports.iter().filter(|port| !port.is_tunnel()) {
            let behind = self.policy.limits_behind(port.id);
            let controls = [port.spec.qos.as_ref(), behind.map(|behind| behind.1)];
            let limits = |direction: fn(&QosControls) -> DirectionControls| {
                let each = controls.iter().flatten().map(|controls| limits(&direction(controls)));
                each.fold(Limits::default(), stricter)
            };
            let was = before.remove(&port.id).unwrap_or_default();
            let (ingress, egress) = (limits(QosControls::ingress), limits(QosControls::egress));
            let now = Policed {
                endpoint: behind.map(|behind| behind.0.to_owned()),
                ingress: kept(&was.ingress, ingress),
                egress: kept(&was.egress, egress),
            };
            if now.ingress != was.ingress {
                let limiter = now.ingress.clone();
                self.workers.ask_all(|| Command::Limit(port.id, limiter.clone()));
            }
            changed |= now.egress != was.egress;
            if now.ingress.is_some() || now.egress.is_some() {
                self.policing.ports.insert(port.id, now);
            }
        }
        for gone in before.into_keys() {
            self.workers.ask_all(|| Command::Limit(gone, None));
        }
        if changed {
            self.publish_interfaces();
        }
    }
}

/// The limiter for these limits: the one there is, if they are the same.
fn kept(was: &Option<Arc<Limiter>>, limits: Limits) -> Option<Arc<Limiter>> {
    match was {
        _ if limits.is_empty() => None,
        Some(was) if *was.limits() == limits => Some(was.clone()),
        _ => Some(Arc::new(Limiter::new(limits))),
    }
}

fn limits(controls: &DirectionControls) -> Limits {
    let rate = |per_second: u64, written: u64, least: u64| {
        let burst = match written {
            0 => (per_second / PART_OF_SECOND).max(least),
            written => written,
        };
        (per_second != 0).then_some(Rate { per_second, burst })
    };
    Limits {
        bandwidth: rate(controls.bandwidth, controls.burst, LEAST_BURST_BITS),
        // A peak rate has no burst but that of a frame, which the limiter adds.
        peak: (controls.peakrate != 0).then_some(Rate {
            per_second: controls.peakrate,
            burst: controls.minburst * 8,
        }),
        packets: rate(controls.packet_rate, controls.packet_burst, LEAST_PACKET_BURST),
    }
}

/// Of two limits of one kind the one of the lower rate.
fn stricter(one: Limits, other: Limits) -> Limits {
    let lower = |one: Option<Rate>, other: Option<Rate>| {
        one.into_iter()
            .chain(other)
            .min_by_key(|rate| (rate.per_second, rate.burst))
    };
    Limits {
        bandwidth: lower(one.bandwidth, other.bandwidth),
        peak: lower(one.peak, other.peak),
        packets: lower(one.packets, other.packets),
    }
}

fn view(limiter: &Limiter) -> LimitView {
    let Limits {
        bandwidth,
        peak,
        packets,
    } = limiter.limits();
    let [bandwidth_drops, packet_rate_drops] = limiter.dropped();
    LimitView {
        bandwidth: bandwidth.map(|rate| rate.per_second),
        burst: bandwidth.map(|rate| rate.burst),
        peakrate: peak.map(|rate| rate.per_second),
        packet_rate: packets.map(|rate| rate.per_second),
        packet_burst: packets.map(|rate| rate.burst),
        bandwidth_drops,
        packet_rate_drops,
    }
}
