//! `margay show`.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::client::escaped;
use super::output::{self, Output};
use super::{Common, Error};
use crate::connections::Sort;
use crate::show::{View, flow_logs, policies};

/// How often `--watch` looks.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// To the top left, and clear from there (ECMA-48: CUP, ED).
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

#[derive(Debug, Args)]
pub(super) struct Show {
    /// What to show
    #[arg(value_enum)]
    view: View,
    /// Of flows, which: host 10.1.0.2 and tcp port 80
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Of flows, which come first [default: bytes]
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    /// Of flows, all of them and not the first 1,000 alone: as JSON, one a line
    #[arg(long, conflicts_with_all = ["sort", "watch", "output"])]
    all: bool,
    /// Of flows, what becomes of them from now on, until interrupted: as JSON, one a line
    #[arg(long, conflicts_with_all = ["sort", "watch", "all", "output"])]
    follow: bool,
    /// Show it again every second, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Of policies, only the rules that matched nothing for so long, such as 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = policies::duration)]
    unused: Option<Duration>,
    /// Of flow-logs, only the windows that ended so long ago at most, such as 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = policies::duration)]
    since: Option<Duration>,
    #[command(flatten)]
    common: Common,
}

impl Show {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let asks = self.all || self.follow || self.sort.is_some() || !self.filter.is_empty();
        if asks && self.view != View::Flows {
            return Err(Error::Usage(format!(
                "a filter, --sort, --all and --follow are for `margay show flows`; `{}` is shown whole",
                self.view
            )));
        }
        let client = self.common.client()?;
        if self.unused.is_some() && self.view != View::Policies {
            return Err(Error::Usage(format!(
                "--unused is about rules; say `margay show policies`, not `{}`",
                self.view
            )));
        }
        if self.since.is_some() && self.view != View::FlowLogs {
            return Err(Error::Usage(format!(
                "--since is about windows of time; say `margay show flow-logs`, not `{}`",
                self.view
            )));
        }
        if self.all || self.follow {
            return client.follow(&format!("/v1/flows?{}", self.query()), output::print_bytes);
        }
        let path = format!("/v1/show/{}?{}", self.view, self.query());
        self.print(client.get(&path)?)?;
        if !self.watch {
            return Ok(());
        }
        loop {
            std::thread::sleep(WATCH_PAUSE);
            let value = client.get(&path)?;
            output::print(self.between())?;
            self.print(value)?;
        }
    }

    /// What was asked for, as the socket takes it.
    fn query(&self) -> String {
        let filter = (!self.filter.is_empty()).then(|| format!("where={}", escaped(&self.filter.join(" "))));
        let sort = self.sort.and_then(|sort| sort.to_possible_value());
        let sort = sort.map(|sort| format!("sort={}", sort.get_name()));
        let follow = self.follow.then(|| "follow=true".to_owned());
        let parts: Vec<_> = filter.into_iter().chain(sort).chain(follow).collect();
        parts.join("&")
    }

    fn print(&self, mut value: Value) -> Result<(), Error> {
        if let Some(time) = self.since {
            let view = serde_json::from_value(value).map_err(output::odd)?;
            let since_1970 = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            let view = flow_logs::since(view, since_1970.saturating_sub(time));
            value = serde_json::to_value(&view).map_err(output::odd)?;
        }
        if let Some(time) = self.unused {
            let all = serde_json::from_value(value).map_err(output::odd)?;
            let unused = policies::unused(all, time);
            let value = serde_json::to_value(&unused).map_err(output::odd)?;
            let table = |_: &Value| Ok(policies::unused_table(&unused));
            return self.common.output.print(&value, table);
        }
        self.common.output.print(&value, |value| {
            let json = serde_json::to_vec(value).map_err(output::odd)?;
            self.view.table(&json).map_err(output::odd)
        })
    }

    /// What separates one look from the next: a cleared screen for people, a separator for programs.
    fn between(&self) -> &'static str {
        match self.common.output {
            Output::Yaml => "---\n",
            Output::Json => "",
            Output::Table if std::io::stdout().is_terminal() => CLEAR,
            Output::Table => "\n",
        }
    }
}
