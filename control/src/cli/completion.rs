//! `margay completion` and `margay man`: what clap knows of the command line, for shells and for man(1).

use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::{CommandLine, Error, output};

#[derive(Debug, Args)]
pub(super) struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(super) fn carry_out(&self) -> Result<(), Error> {
        let mut script = vec![];
        clap_complete::generate(self.shell, &mut CommandLine::command(), "margay", &mut script);
        output::print_bytes(&script)
    }
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// A folder for the pages of all commands; without it, margay's own page is printed
    folder: Option<PathBuf>,
}

impl Man {
    pub(super) fn carry_out(&self) -> Result<(), Error> {
        let mut command = CommandLine::command();
        command.build();
        match &self.folder {
            None => output::print_bytes(&page(&command)?),
            Some(folder) => write(&command, folder),
        }
    }
}

fn page(command: &Command) -> Result<Vec<u8>, Error> {
    let mut page = vec![];
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .map_err(output::odd)?;
    Ok(page)
}

/// A page for a command, and those for its subcommands.
fn write(command: &Command, folder: &Path) -> Result<(), Error> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = folder.join(format!("{name}.1"));
    std::fs::write(&path, page(command)?)
        .map_err(|error| Error::Failed(format!("cannot write {}: {error}", path.display())))?;
    command.get_subcommands().try_for_each(|command| write(command, folder))
}
