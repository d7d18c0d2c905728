//! How long a connection may be silent, by its protocol and where it stands.

use crate::protocol::{Phase, phase};
use crate::table::Connection;
use crate::time::TICKS_PER_SECOND;
use fastpath::wire::protocol;

/// Seconds of silence after which a connection is forgotten. The defaults are Calico's; for what it counts among the
/// other protocols, SCTP, the handshake and the end have TCP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before the handshake is complete.
    pub tcp_opening_s: u32,
    /// TCP after it.
    pub tcp_established_s: u32,
    /// TCP once both sides have sent FIN.
    pub tcp_closing_s: u32,
    /// TCP once a side has sent RST.
    pub tcp_reset_s: u32,
    /// UDP.
    pub udp_s: u32,
    /// Echoes of ICMP and ICMPv6.
    pub icmp_s: u32,
    /// SCTP before the handshake is complete.
    pub sctp_opening_s: u32,
    /// SCTP after it.
    pub sctp_established_s: u32,
    /// SCTP once both sides have shut it down, or one has aborted it.
    pub sctp_closing_s: u32,
    /// Every other protocol.
    pub other_s: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_opening_s: 20,
            tcp_established_s: 3600,
            tcp_closing_s: 30,
            tcp_reset_s: 40,
            udp_s: 60,
            icmp_s: 5,
            sctp_opening_s: 20,
            sctp_established_s: 600,
            sctp_closing_s: 30,
            other_s: 600,
        }
    }
}

impl Timeouts {
    /// Ticks of silence that a connection is allowed.
    pub fn ticks(&self, connection: &Connection<'_>) -> u32 {
        let seconds = match (connection.protocol(), phase(connection)) {
            (protocol::TCP, Phase::Opening) => self.tcp_opening_s,
            (protocol::TCP, Phase::Established) => self.tcp_established_s,
            (protocol::TCP, Phase::Closing) => self.tcp_closing_s,
            (protocol::TCP, Phase::Reset) => self.tcp_reset_s,
            (protocol::SCTP, Phase::Opening) => self.sctp_opening_s,
            (protocol::SCTP, Phase::Established) => self.sctp_established_s,
            (protocol::SCTP, Phase::Closing | Phase::Reset) => self.sctp_closing_s,
            (protocol::UDP | protocol::UDP_LITE, _) => self.udp_s,
            (protocol::ICMP | protocol::ICMPV6, _) => self.icmp_s,
            _ => self.other_s,
        };
        seconds.saturating_mul(TICKS_PER_SECOND)
    }
}
