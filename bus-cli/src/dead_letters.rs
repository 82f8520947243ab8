//! `bus-cli dead-letters`: what a group gave up, why, and what to do about it.

mod change;
mod choice;
mod edit;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod into;
mod letter;
mod list;
mod patch;
mod show;
mod transfer;

use std::path::PathBuf;

use clap::Subcommand;
use rumormill::driver::GroupName;

use self::change::{Change, PurgeArgs, RedriveArgs};
use self::choice::{Choice, Selection, parse_fingerprint};
use self::edit::{Edit, EditArgs};
use self::letter::LetterId;
use self::show::Which;
use self::transfer::{ExportArgs, ImportArgs};
use crate::args::{Format, twin};
use crate::failure::{Exit, Failure};
use crate::operate::Store;

/// Show what a group gave up, and redrive, edit, keep or purge it
#[derive(Debug, clap::Args)]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    List(ListArgs),
    Show(ShowArgs),
    Redrive(RedriveArgs),
    Edit(EditArgs),
    Export(ExportArgs),
    Import(ImportArgs),
    Purge(PurgeArgs),
}

/// What a group's dead letters died of, most first: how many of each cause, since when, an error
///
/// A cause has a fingerprint, for --fingerprint: the class of the failure, the error without ids
/// and numbers, the type of the event and the handler. --output raw writes the ids of the letters
/// instead, for --id; `export` writes them whole.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("DEAD_LETTERS_LIST", arg)), after_help = "\
Examples:
  bus-cli dead-letters list --group email
  bus-cli dead-letters list --group email --type 'orders.>' --output json")]
struct ListArgs {
    /// The group: the name of the service or subscription
    #[arg(long, required = true)]
    group: String,
    #[command(flatten)]
    selection: Selection,
}

/// One dead letter with its payload and everything known about why
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("DEAD_LETTERS_SHOW", arg)), after_help = "\
Examples:
  bus-cli dead-letters show --group email --id orders:0/1700000000000-0
  bus-cli dead-letters show --group email --fingerprint 3f0a92c41b7d")]
struct ShowArgs {
    /// The group: the name of the service or subscription
    #[arg(long, required = true)]
    group: String,
    /// Its id among the dead letters, as `list` shows it: orders:0/1700000000000-0
    #[arg(
        long,
        value_name = "POSITION",
        required_unless_present = "fingerprint",
        conflicts_with = "fingerprint"
    )]
    id: Option<String>,
    /// The last one of a cause, as `list` names it
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
}

/// What `dead-letters` was asked for.
pub(crate) struct DeadLetters {
    group: GroupName,
    what: What,
    format: Format,
}

enum What {
    List(Choice),
    Show(Which),
    Change(Change),
    Edit(Edit),
    Export(Choice),
    Import { file: PathBuf, dry_run: bool },
}

impl DeadLetters {
    pub(crate) fn new(args: DeadLettersArgs, format: Format) -> Result<Self, Failure> {
        let (group, what) = match args.command {
            DeadLettersCommand::List(ListArgs { group, selection }) => {
                (group, What::List(Choice::any(selection)?))
            }
            DeadLettersCommand::Show(ShowArgs { group, id, fingerprint }) => {
                (group, What::Show(which(id, fingerprint)?))
            }
            DeadLettersCommand::Edit(args) => (args.group.clone(), What::Edit(Edit::new(args)?)),
            DeadLettersCommand::Export(ExportArgs { group, selection }) => {
                (group, What::Export(Choice::any(selection)?))
            }
            DeadLettersCommand::Import(ImportArgs { group, file, dry_run }) => {
                (group, What::Import { file, dry_run })
            }
            DeadLettersCommand::Redrive(args) => {
                (args.group.clone(), What::Change(Change::redrive(args)?))
            }
            DeadLettersCommand::Purge(args) => {
                (args.group.clone(), What::Change(Change::purge(args)?))
            }
        };
        Ok(Self { group: crate::groups::parse("--group", group)?, what, format })
    }

    pub(crate) async fn run(self, store: &Store<'_>) -> Result<Exit, Failure> {
        let Self { group, what, format } = self;
        match what {
            What::List(choice) => list::run(store, &group, &choice, format).await,
            What::Show(which) => show::run(store, &group, &which, format).await,
            What::Change(change) => change.run(store, &group, format).await,
            What::Edit(edit) => edit.run(store, &group, format).await,
            What::Export(choice) => transfer::export(store, &group, &choice).await,
            What::Import { file, dry_run } => {
                transfer::import(store, &group, &file, dry_run, format).await
            }
        }
    }
}

fn which(id: Option<String>, fingerprint: Option<String>) -> Result<Which, Failure> {
    match (id, fingerprint) {
        (Some(id), None) => LetterId::parse(&id).map(Which::One),
        (None, Some(text)) => parse_fingerprint(&text).map(Which::LastOf),
        // What a configuration file adds is not known to clap.
        _ => Err(Failure::usage("one of --id and --fingerprint says which letter")),
    }
}
