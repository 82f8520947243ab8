//! `bus-cli completions`: what a shell needs to complete a command line.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::failure::{Exit, Failure};
use crate::table;

/// Write the completions of a shell to stdout
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bus-cli completions bash > ~/.local/share/bash-completion/completions/bus-cli
  bus-cli completions zsh > ~/.zfunc/_bus-cli          with ~/.zfunc in $fpath
  bus-cli completions fish > ~/.config/fish/completions/bus-cli.fish")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

pub(crate) fn run(shell: Shell) -> Result<Exit, Failure> {
    let mut command = Args::command();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "bus-cli", &mut script);
    table::write(&String::from_utf8_lossy(&script))
}
