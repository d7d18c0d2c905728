//! `margay trace`.

use clap::{Args, Subcommand};

use super::{Common, Error, output};
use crate::server::TraceRequest;
use crate::show;

#[derive(Debug, Args)]
pub(super) struct Trace {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Trace the next packets that match
    Add(Add),
    /// Print the packets traced so far: each node they visited and what it decided
    Show(Common),
    /// Forget the packets traced and stop tracing
    Clear(Common),
}

#[derive(Debug, Args)]
struct Add {
    /// How many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Which packets, as a pcap-filter expression: host 10.1.0.2 and tcp port 80
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    #[command(flatten)]
    common: Common,
}

impl Trace {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        match self.action {
            Action::Add(Add { count, filter, common }) => {
                let filter = filter.join(" ");
                common
                    .client()?
                    .post("/v1/trace", &TraceRequest { count, filter })
                    .map(drop)
            }
            Action::Show(common) => {
                let answer = common.client()?.get("/v1/trace")?;
                common.output.print(&answer, |answer| {
                    let packets: Vec<_> = serde::Deserialize::deserialize(answer).map_err(output::odd)?;
                    Ok(show::trace::table(&packets))
                })
            }
            Action::Clear(common) => common.client()?.delete("/v1/trace").map(drop),
        }
    }
}
