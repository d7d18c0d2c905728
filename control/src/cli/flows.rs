//! `margay flows`.

use clap::{Args, Subcommand};

use super::client::escaped;
use super::{Common, Error, output};
use crate::server::DeletedFlows;
use crate::show::table::number;

#[derive(Debug, Args)]
pub(super) struct Flows {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// End the connections that match; print how many there were
    Delete(Delete),
}

#[derive(Debug, Args)]
struct Delete {
    /// Which connections: host 10.1.0.2 and tcp port 80
    #[arg(value_name = "FILTER", required_unless_present = "all", conflicts_with = "all")]
    filter: Vec<String>,
    /// Every connection
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

impl Flows {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let Action::Delete(Delete { filter, all, common }) = self.action;
        let which = match all {
            true => "all=true".to_owned(),
            false => format!("where={}", escaped(&filter.join(" "))),
        };
        let answer = common.client()?.delete(&format!("/v1/flows?{which}"))?;
        common.output.print(&answer, |answer| {
            let DeletedFlows { deleted } = serde::Deserialize::deserialize(answer).map_err(output::odd)?;
            let what = if deleted == 1 { "connection" } else { "connections" };
            Ok(format!("{} {what} deleted\n", number(deleted)))
        })
    }
}
