//! `margay show`.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;

use super::output::{self, Output};
use super::{Common, Error};
use crate::show::View;

/// How often `--watch` looks.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// To the top left, and clear from there (ECMA-48: CUP, ED).
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

#[derive(Debug, Args)]
pub(super) struct Show {
    /// What to show
    #[arg(value_enum)]
    view: View,
    /// Show it again every second, until interrupted
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    common: Common,
}

impl Show {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let client = self.common.client()?;
        let path = format!("/v1/show/{}", self.view);
        let table = |value: &serde_json::Value| {
            let json = serde_json::to_vec(value).map_err(output::odd)?;
            self.view.table(&json).map_err(output::odd)
        };
        self.common.output.print(&client.get(&path)?, table)?;
        if !self.watch {
            return Ok(());
        }
        loop {
            std::thread::sleep(WATCH_PAUSE);
            let value = client.get(&path)?;
            output::print(self.between())?;
            self.common.output.print(&value, table)?;
        }
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
