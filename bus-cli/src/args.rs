//! The command line as it was typed. What it means is in `settings`.
//!
//! Each flag has a twin in the environment, `BUS_<COMMAND>_<FLAG>`; those of all commands are
//! `BUS_<FLAG>`. What was typed wins; then the environment, then the configuration file.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, Parser, Subcommand, ValueEnum};

use crate::bench::BenchArgs;
use crate::completions::CompletionsArgs;
use crate::config::ConfigArgs;
use crate::daemon::DaemonArgs;
use crate::dead_letters::DeadLettersArgs;
use crate::doctor::DoctorArgs;
use crate::groups::GroupsArgs;
use crate::man::ManArgs;
use crate::metrics::MetricsArgs;
use crate::record::RecordArgs;
use crate::replay::ReplayArgs;
use crate::services::ServicesArgs;
use crate::topics::TopicsArgs;

/// Publish to, tail, inspect and run an event bus on Redis.
#[derive(Debug, Parser)]
#[command(name = "bus-cli", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Set apart from what a command has of its own.
const EVERYWHERE: &str = "Options of every command";

#[derive(Debug, clap::Args)]
#[command(next_help_heading = EVERYWHERE)]
pub(crate) struct Global {
    /// The store: redis://host:port, rediss://host:port, unix:///path or
    /// redis+sentinel://host:port,host:port/MASTER
    #[arg(
        long,
        global = true,
        env = "BUS_URL",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379"
    )]
    pub(crate) url: String,
    /// The prefix of every key of the bus
    #[arg(long, global = true, env = "BUS_NAMESPACE", default_value = "rm")]
    pub(crate) namespace: String,
    /// A TOML file of settings: the names of flags with `_`, those of one command in its table
    #[arg(long, global = true, env = "BUS_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How results are written. `publish` writes json. `tail` writes pretty on a terminal and
    /// json elsewhere. Everything else writes tables unless told otherwise
    #[arg(long, global = true, env = "BUS_OUTPUT", value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Pretty,
    /// One JSON object a line
    Json,
    /// The payload alone; of a receipt, the id; of a table, the first column
    Raw,
}

/// What a store does to keep an event before it says that it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// It may be kept in the server's memory alone
    Volatile,
    /// An append-only file, synced about once a second
    Everysec,
    /// An append-only file, synced before the answer
    Fsync,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Publish(PublishArgs),
    Tail(TailArgs),
    Record(RecordArgs),
    Replay(ReplayArgs),
    Services(ServicesArgs),
    Topics(TopicsArgs),
    Groups(GroupsArgs),
    DeadLetters(DeadLettersArgs),
    Metrics(MetricsArgs),
    Doctor(DoctorArgs),
    Bench(BenchArgs),
    Daemon(DaemonArgs),
    Config(ConfigArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Gives a flag of `command` its twin in the environment: `--dry-run` of `TOPICS_SET` is
/// `BUS_TOPICS_SET_DRY_RUN`. For flags that several commands share.
pub(crate) fn twin(command: &str, arg: Arg) -> Arg {
    match arg.get_long().map(|long| long.replace('-', "_").to_uppercase()) {
        Some(flag) if arg.get_env().is_none() => arg.env(format!("BUS_{command}_{flag}")),
        _ => arg,
    }
}

/// Publish events; prints one receipt a line: {"id","position","durability"}, and
/// "deduplicated":true for an event that was there before
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bus-cli publish orders.order.placed '{\"number\":7}' --key 7
  bus-cli publish orders.order.placed @order.json --after 5m
  bus-cli tail 'orders.>' --since 1h --until-end | bus-cli publish --from - --url redis://other")]
pub(crate) struct PublishArgs {
    /// The type of the event, such as user_service.user.created
    #[arg(value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// The payload: JSON, @FILE, or - for stdin; null where it is left out
    #[arg(value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
    /// Publish the events of FILE (- for stdin), one JSON object a line, as `tail` writes them
    #[arg(long, value_name = "FILE|-", env = "BUS_PUBLISH_FROM")]
    pub(crate) from: Option<String>,
    /// Events of one key are handled in order
    #[arg(long, env = "BUS_PUBLISH_KEY")]
    pub(crate) key: Option<String>,
    /// A header; may be repeated
    #[arg(long, value_name = "K=V", env = "BUS_PUBLISH_HEADER")]
    pub(crate) header: Vec<String>,
    /// The id of the event, a UUID, in place of a new one
    #[arg(long, env = "BUS_PUBLISH_ID")]
    pub(crate) id: Option<String>,
    /// Keep the event back for so long: 500ms, 10s, 5m, 2h, 7d
    #[arg(long, value_name = "DUR", env = "BUS_PUBLISH_AFTER")]
    pub(crate) after: Option<String>,
    /// Do not run the event any more after so long
    #[arg(long, value_name = "DUR", env = "BUS_PUBLISH_EXPIRES")]
    pub(crate) expires: Option<String>,
    /// Publish N such events, each with an id of its own
    #[arg(long, value_name = "N", env = "BUS_PUBLISH_COUNT",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// At most N events a second
    #[arg(long, value_name = "N", env = "BUS_PUBLISH_RATE",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Publish only where the store does at least this to keep an event
    #[arg(long, value_name = "LEVEL", env = "BUS_PUBLISH_MIN_DURABILITY")]
    pub(crate) min_durability: Option<Level>,
    /// Publish no event whose id was published with --deduplicate in the last 15 minutes; ids are
    /// those of --id or of the lines, and are compared within a partition
    #[arg(long, env = "BUS_PUBLISH_DEDUPLICATE", action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new())]
    pub(crate) deduplicate: bool,
    /// Count an event as published when N replicas have it; without them it may be stored, which
    /// is said after a second
    #[arg(long, value_name = "N", env = "BUS_PUBLISH_WAIT",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) wait: Option<u32>,
    /// Read and check the events, and publish none
    #[arg(long, env = "BUS_PUBLISH_DRY_RUN", action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new())]
    pub(crate) dry_run: bool,
}

/// Show events as they are published, joining no group
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("TAIL", arg)), after_help = "\
Examples:
  bus-cli tail                                  everything from now on
  bus-cli tail 'orders.>' '*.user.created'      what matches one of the patterns
  bus-cli tail --last 10 -n 10 --output raw     the last ten payloads")]
pub(crate) struct TailArgs {
    /// Which events: `*` is one segment, `>` one or more at the end
    #[arg(value_name = "PATTERN", default_value = ">")]
    pub(crate) patterns: Vec<String>,
    #[command(flatten)]
    pub(crate) start: StartArgs,
    /// End after N events
    #[arg(short = 'n', value_name = "N", env = "BUS_TAIL_N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// End with the last event that is there at the start
    #[arg(long, env = "BUS_TAIL_UNTIL_END", action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new())]
    pub(crate) until_end: bool,
}

/// Where `tail` and `record` begin; their twins in the environment are those of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// Begin with what is published from now on; the default
    #[arg(long, action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new())]
    pub(crate) new: bool,
    /// Begin with what was published so long ago: 500ms, 10s, 5m, 2h, 7d
    #[arg(long, value_name = "DUR")]
    pub(crate) since: Option<String>,
    /// Begin with the event at POSITION, such as user_service:0/1700000000000-0/0, and with what
    /// other partitions stored from that moment on
    #[arg(long, value_name = "POSITION")]
    pub(crate) from_id: Option<String>,
    /// Begin with the last N events that match
    #[arg(long, value_name = "N")]
    pub(crate) last: Option<usize>,
}
