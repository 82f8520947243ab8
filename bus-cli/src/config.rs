//! `bus-cli config`: the effective settings, and the page that documents all of them.
//!
//! A setting has up to four sources, the first of which wins: the flag, its twin in the
//! environment, the configuration file, the default. All of it is read from clap's description of
//! the command line, so that a new flag is a setting without a line here.

mod file;
mod reference;
mod show;

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, Subcommand};

pub(crate) use self::file::File;
use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::table;

/// Show settings and where each comes from
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// The effective settings, each with where it comes from: flag, environment, file and line,
    /// or default. Secrets are not shown
    Show,
    /// Every setting with its flag, environment variable, key and default, as Markdown
    Reference,
}

/// What `config` was asked for.
pub(crate) enum Config {
    Show { settings: Vec<show::Setting>, format: Format },
    Reference,
}

impl Config {
    pub(crate) fn new(
        args: &ConfigArgs,
        format: Format,
        file: Option<&File>,
        matches: &ArgMatches,
    ) -> Self {
        match args.command {
            ConfigCommand::Show => Self::Show { settings: show::settings(file, matches), format },
            ConfigCommand::Reference => Self::Reference,
        }
    }

    pub(crate) fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Show { settings, format } => show::run(&settings, format),
            Self::Reference => table::write(&reference::page()),
        }
    }
}

/// The configuration file that a call names, by flag or environment.
pub(crate) fn path(matches: &ArgMatches) -> Option<PathBuf> {
    let own = matches.try_get_one::<PathBuf>("config").ok().flatten();
    let inner = || matches.subcommand().and_then(|(_, inner)| path(inner));
    own.cloned().or_else(inner)
}

/// The key of a flag in the configuration file; nothing for what is no setting.
fn key(arg: &Arg) -> Option<String> {
    if ["help", "version", "config"].contains(&arg.get_id().as_str()) {
        return None;
    }
    let short = || arg.get_short().map(String::from);
    arg.get_long().map(|long| long.replace('-', "_")).or_else(short)
}

/// How a flag is typed.
fn flag(arg: &Arg) -> String {
    match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some(short)) => format!("-{short}"),
        (None, None) => String::new(),
    }
}

/// Whether something follows the flag.
fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// What holds where nobody says anything; nothing where that is nothing.
fn default(arg: &Arg) -> Option<String> {
    let written = arg.get_default_values().first().map(|text| text.to_string_lossy().into_owned());
    written.or_else(|| (!takes_value(arg)).then(|| "false".to_owned()))
}

/// The name of a command's table in the configuration file.
fn table_name(command: &Command) -> String {
    command.get_name().replace('-', "_")
}

/// A command and the tables that lead to it; the program itself has none.
struct Place<'a> {
    tables: Vec<String>,
    command: &'a Command,
}

/// All commands that have a setting, the program first.
fn places(root: &Command) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    collect(root, &[], &mut places);
    places.retain(|place| place.command.get_arguments().any(|arg| key(arg).is_some()));
    places
}

fn collect<'a>(command: &'a Command, tables: &[String], places: &mut Vec<Place<'a>>) {
    places.push(Place { tables: tables.to_vec(), command });
    for child in command.get_subcommands() {
        let tables: Vec<String> = tables.iter().cloned().chain([table_name(child)]).collect();
        collect(child, &tables, places);
    }
}
