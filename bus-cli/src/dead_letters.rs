//! `bus-cli dead-letters`: what a group gave up, why, and what to do about it.

mod change;
mod choice;
mod letter;
mod list;
mod show;

use clap::Subcommand;
use rumormill::driver::GroupName;

use self::change::{Change, PurgeArgs, RedriveArgs};
use self::choice::{Choice, pattern};
use self::letter::LetterId;
use crate::args::{Format, twin};
use crate::failure::{Exit, Failure};
use crate::operate::Store;

/// Show what a group gave up, and redrive or purge it
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
    Purge(PurgeArgs),
}

/// A group's dead letters: a table by cause and type, or with --output json each of them
///
/// --output raw writes their ids, for --id.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("DEAD_LETTERS_LIST", arg)), after_help = "\
Examples:
  bus-cli dead-letters list --group email
  bus-cli dead-letters list --group email --type 'orders.>' --output json")]
struct ListArgs {
    /// The group: the name of the service or subscription
    #[arg(long, required = true)]
    group: String,
    /// Only events of such a type: `*` is one segment, `>` one or more at the end
    #[arg(long = "type", value_name = "PATTERN")]
    of_type: Option<String>,
}

/// One dead letter with its payload and everything known about why
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("DEAD_LETTERS_SHOW", arg)), after_help = "\
Example:
  bus-cli dead-letters show --group email --id orders:0/1700000000000-0")]
struct ShowArgs {
    /// The group: the name of the service or subscription
    #[arg(long, required = true)]
    group: String,
    /// Its id among the dead letters, as `list` shows it: orders:0/1700000000000-0
    #[arg(long, value_name = "POSITION", required = true)]
    id: String,
}

/// What `dead-letters` was asked for.
pub(crate) struct DeadLetters {
    group: GroupName,
    what: What,
    format: Format,
}

enum What {
    List(Choice),
    Show(LetterId),
    Change(Change),
}

impl DeadLetters {
    pub(crate) fn new(args: DeadLettersArgs, format: Format) -> Result<Self, Failure> {
        let (group, what) = match args.command {
            DeadLettersCommand::List(ListArgs { group, of_type }) => {
                (group, What::List(Choice::All(pattern(of_type)?)))
            }
            DeadLettersCommand::Show(ShowArgs { group, id }) => {
                (group, What::Show(LetterId::parse(&id)?))
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
            What::Show(id) => show::run(store, &group, &id, format).await,
            What::Change(change) => change.run(store, &group, format).await,
        }
    }
}
