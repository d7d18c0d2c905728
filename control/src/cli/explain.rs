//! `margay explain`.

use clap::Args;

use super::{Common, Error, output};
use crate::server::ExplainRequest;
use crate::show;

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Who sends: a pod (namespace/name, or its name), a host endpoint, `host`, or an address
    #[arg(long, value_name = "WHO")]
    from: String,
    /// Who gets it
    #[arg(long, value_name = "WHO")]
    to: String,
    /// tcp, udp, sctp, icmp or a number
    #[arg(long = "proto", value_name = "PROTOCOL")]
    protocol: String,
    /// The target port
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
    /// The source port
    #[arg(long, value_name = "N", default_value_t = 0)]
    source_port: u16,
    /// The type of ICMP, and its code
    #[arg(long, value_name = "TYPE[/CODE]")]
    icmp: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Explain {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let request = ExplainRequest {
            from: self.from,
            to: self.to,
            protocol: self.protocol,
            port: self.port,
            source_port: self.source_port,
            icmp: self.icmp,
        };
        let answer = self.common.client()?.post("/v1/explain", &request)?;
        self.common.output.print(&answer, |answer| {
            let answer = serde::Deserialize::deserialize(answer).map_err(output::odd)?;
            Ok(show::explain::table(&answer))
        })
    }
}
