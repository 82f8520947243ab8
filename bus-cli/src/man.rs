//! `bus-cli man`: the manual pages, one for each command.

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::args::Args;
use crate::failure::{Exit, Failure};

/// Write the manual pages, one for each command
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  bus-cli man --out ~/.local/share/man/man1 && man bus-cli")]
pub(crate) struct ManArgs {
    /// The directory they go to; it is made where it is missing
    #[arg(long, value_name = "DIR", env = "BUS_MAN_OUT", required = true)]
    pub(crate) out: PathBuf,
}

pub(crate) fn run(out: &Path) -> Result<Exit, Failure> {
    let refuse = |error: std::io::Error| {
        Failure::failed(format!("cannot write manual pages to {}", out.display())).because(&error)
    };
    fs::create_dir_all(out).map_err(refuse)?;
    // The page of a help command would say what each page says.
    let command = Args::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, out).map_err(refuse)?;
    Ok(Exit::Done)
}
