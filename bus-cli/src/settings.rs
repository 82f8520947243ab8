//! What the command line means: values that were checked, before anything is connected.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;
use rumormill::delivery::EntryId;
use rumormill::{
    Bus, BusBuilder, Confirm, Durability, Error, EventId, EventType, Pattern, Position, Services,
};

use crate::address::Address;
use crate::args::{Args, Command, Format, Level, PublishArgs, StartArgs, TailArgs};
use crate::bench::Bench;
use crate::config::{Config, File};
use crate::daemon::Daemon;
use crate::dead_letters::DeadLetters;
use crate::doctor::Doctor;
use crate::duration;
use crate::failure::Failure;
use crate::groups::Groups;
use crate::metrics::Metrics;
use crate::operate::Operation;
use crate::record::Record;
use crate::replay::Replay;
use crate::topics::Topics;

/// How long replicas may take: what a batch in front may take, and the answer is still in time.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything that one call was asked to do.
pub(crate) struct Settings {
    pub(crate) connection: Connection,
    pub(crate) task: Task,
}

pub(crate) struct Connection {
    pub(crate) address: Address,
    pub(crate) namespace: String,
    /// What the store must do at least to keep an event.
    pub(crate) least: Option<Durability>,
}

impl Connection {
    /// A bus at this address that runs no service.
    pub(crate) fn bus(&self) -> BusBuilder {
        let bus = Bus::builder().url(self.address.url()).namespace(&self.namespace);
        let bus = bus.services(Services::none());
        match self.least {
            Some(least) => bus.min_durability(least),
            None => bus,
        }
    }
}

pub(crate) enum Task {
    Publish(Publish),
    Tail(Tail),
    Record(Record),
    Replay(Replay),
    Config(Config),
    Daemon(Daemon),
    Services(crate::services::Services),
    Operate(Operation),
    Doctor(Doctor),
    Bench(Bench),
    Completions(clap_complete::Shell),
    Man(PathBuf),
}

pub(crate) struct Publish {
    pub(crate) what: What,
    pub(crate) after: Duration,
    pub(crate) deduplicate: bool,
    pub(crate) confirm: Confirm,
    /// Events per second.
    pub(crate) rate: Option<u32>,
    pub(crate) dry_run: bool,
    pub(crate) format: Format,
}

pub(crate) enum What {
    Event(Box<Template>),
    Lines(Input),
}

/// One event, published `count` times.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) event_type: EventType,
    pub(crate) data: Data,
    pub(crate) key: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) id: Option<EventId>,
    pub(crate) expires: Option<Duration>,
    pub(crate) count: u64,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Data {
    Typed(String),
    Input(Input),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Input {
    Stdin,
    File(PathBuf),
}

impl Input {
    pub(crate) fn new(text: &str) -> Self {
        if text == "-" { Self::Stdin } else { Self::File(text.into()) }
    }
}

pub(crate) struct Tail {
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) start: Start,
    pub(crate) limit: Option<u64>,
    pub(crate) until_end: bool,
    /// Pretty on a terminal and JSON elsewhere, where nothing was said.
    pub(crate) format: Option<Format>,
}

/// Where `tail` begins.
#[derive(Debug, PartialEq)]
pub(crate) enum Start {
    New,
    Since(Duration),
    /// Within the position's own partition, the earlier events of its entry are left out.
    From(EntryId, Option<Position>),
    Last(usize),
}

impl Start {
    /// Whether an event lies before the one to begin with, in the same entry.
    pub(crate) fn excludes(&self, position: &Position) -> bool {
        match self {
            Self::From(_, Some(from)) => from.partition == position.partition && position < from,
            _ => false,
        }
    }
}

impl Settings {
    /// What `args` mean, of which `matches` tell the sources; `file` was put below them.
    pub(crate) fn new(
        args: Args,
        matches: &ArgMatches,
        file: Option<&File>,
    ) -> Result<Self, Failure> {
        let Args { global, command } = args;
        let rank = |id: &str| {
            let command = deepest(matches);
            let known = command.try_contains_id(id).is_ok();
            Rank::of(known.then(|| command.value_source(id)).flatten())
        };
        let format = global.output.unwrap_or(Format::Pretty);
        let least = match &command {
            Command::Publish(args) => args.min_durability,
            Command::Daemon(args) => args.min_durability,
            _ => None,
        };
        let least = least.map(|level| match level {
            Level::Volatile => Durability::Volatile,
            Level::Everysec => Durability::Everysec,
            Level::Fsync => Durability::Fsync,
        });
        let task = match command {
            Command::Publish(args) => Task::Publish(publish(args, global.output, &rank)?),
            Command::Tail(args) => Task::Tail(tail(&args, global.output, &rank)?),
            Command::Record(args) => Task::Record(Record::new(args, &rank)?),
            Command::Replay(args) => Task::Replay(Replay::new(args, global.output)?),
            Command::Config(args) => Task::Config(Config::new(&args, format, file, matches)),
            Command::Services(args) => Task::Services(crate::services::Services::new(args, format)),
            Command::Daemon(args) => Task::Daemon(Daemon::new(args, format)?),
            Command::Topics(args) => Task::Operate(Operation::Topics(Topics::new(args, format)?)),
            Command::Groups(args) => {
                Task::Operate(Operation::Groups(Groups::new(args, format, &rank)?))
            }
            Command::DeadLetters(args) => {
                Task::Operate(Operation::DeadLetters(DeadLetters::new(args, format)?))
            }
            Command::Metrics(args) => {
                Task::Operate(Operation::Metrics(Metrics::new(&args, format)))
            }
            Command::Doctor(args) => Task::Doctor(Doctor::new(args, format)?),
            Command::Bench(args) => Task::Bench(Bench::new(&args, format)?),
            Command::Completions(args) => Task::Completions(args.shell),
            Command::Man(args) => Task::Man(args.out),
        };
        let address = Address::new(global.url);
        let connection = Connection { address, namespace: global.namespace, least };
        Ok(Self { connection, task })
    }
}

/// What was matched for the command that is run.
fn deepest(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| deepest(inner))
}

/// How much a value's source counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    File,
    Environment,
    Typed,
}

impl Rank {
    fn of(source: Option<ValueSource>) -> Self {
        match source {
            Some(ValueSource::CommandLine) => Self::Typed,
            Some(ValueSource::EnvVariable) => Self::Environment,
            // The file stands in place of the defaults.
            _ => Self::File,
        }
    }
}

fn publish(
    args: PublishArgs,
    format: Option<Format>,
    rank: &dyn Fn(&str) -> Rank,
) -> Result<Publish, Failure> {
    let after = args.after.as_deref().map(|text| duration::parse("--after", text)).transpose()?;
    let (rate, dry_run, deduplicate) = (args.rate, args.dry_run, args.deduplicate);
    let timeout = CONFIRM_TIMEOUT;
    let confirm = args.wait.map_or(Confirm::Server, |count| Confirm::Replicas { count, timeout });
    if deduplicate && after.is_some_and(|after| !after.is_zero()) {
        return Err(Failure::usage("--deduplicate cannot be used with --after")
            .with_help("what is published later is not deduplicated"));
    }
    // An event that was typed wins over a file that the environment names.
    let typed = rank("from") == Rank::Typed;
    let from = args.from.as_deref().filter(|_| typed || args.event_type.is_none());
    let what = match from {
        Some(from) => {
            refuse_beside_from(&args)?;
            What::Lines(Input::new(from))
        }
        None => What::Event(Box::new(template(args)?)),
    };
    let format = format.unwrap_or(Format::Json);
    let after = after.unwrap_or_default();
    Ok(Publish { what, after, deduplicate, confirm, rate, dry_run, format })
}

/// Each line says for itself what these would say for all.
fn refuse_beside_from(args: &PublishArgs) -> Result<(), Failure> {
    let beside = [
        ("TYPE", args.event_type.is_some()),
        ("--count", args.count.is_some()),
        ("--key", args.key.is_some()),
        ("--header", !args.header.is_empty()),
        ("--id", args.id.is_some()),
        ("--expires", args.expires.is_some()),
    ];
    match beside.into_iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Failure::usage(format!("{flag} cannot be used with --from"))
            .with_help("each line of the file says it for its own event")),
        None => Ok(()),
    }
}

fn template(args: PublishArgs) -> Result<Template, Failure> {
    let Some(event_type) = args.event_type else {
        return Err(Failure::usage("neither TYPE nor --from says what to publish").with_help(
            "bus-cli publish user_service.user.created '{\"user_id\":\"user_alice\"}'",
        ));
    };
    let event_type = EventType::new(event_type).map_err(|error| refused("TYPE", &error))?;
    let id: Option<Result<EventId, _>> = args.id.map(|text| text.parse());
    let id = id.transpose().map_err(|error| refused("--id", &error))?;
    let count = args.count.unwrap_or(1);
    if id.is_some() && count > 1 {
        return Err(Failure::usage(format!("--id cannot be used with --count {count}"))
            .with_help("an id belongs to one event; leave it out and each gets its own"));
    }
    let expires = args.expires.as_deref().map(|text| duration::parse("--expires", text));
    let headers: Result<Vec<_>, _> = args.header.iter().map(|text| header(text)).collect();
    Ok(Template {
        event_type,
        data: data(args.data)?,
        key: args.key,
        headers: headers?,
        id,
        expires: expires.transpose()?,
        count,
    })
}

fn data(typed: Option<String>) -> Result<Data, Failure> {
    let Some(typed) = typed else { return Ok(Data::Typed("null".to_owned())) };
    if typed == "-" {
        return Ok(Data::Input(Input::Stdin));
    }
    if let Some(file) = typed.strip_prefix('@') {
        return Ok(Data::Input(Input::File(file.into())));
    }
    match json(&typed) {
        Ok(json) => Ok(Data::Typed(json)),
        Err(why) => Err(Failure::usage(format!("payload is no JSON: {why}"))
            .with_help("quote it for the shell, or write @FILE, or - for stdin")),
    }
}

/// The JSON value in `text` as it is written, without the blanks and line ends around it.
pub(crate) fn json(text: &str) -> Result<String, serde_json::Error> {
    let value: &serde_json::value::RawValue = serde_json::from_str(text)?;
    Ok(value.get().to_owned())
}

fn header(text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("--header: {text:?} is not like K=V"))),
    }
}

fn tail(
    args: &TailArgs,
    format: Option<Format>,
    rank: &dyn Fn(&str) -> Rank,
) -> Result<Tail, Failure> {
    Ok(Tail {
        patterns: patterns("PATTERN", &args.patterns)?,
        start: start(&args.start, rank)?,
        limit: args.limit,
        until_end: args.until_end,
        format,
    })
}

/// The patterns that `flag` gave.
pub(crate) fn patterns(flag: &str, texts: &[String]) -> Result<Vec<Pattern>, Failure> {
    let patterns: Result<Vec<_>, _> = texts.iter().cloned().map(Pattern::new).collect();
    patterns.map_err(|error| refused(flag, &error))
}

/// One of the four places to begin. One that was typed wins over those of the environment, and
/// those over the ones of the file.
pub(crate) fn start(args: &StartArgs, rank: &dyn Fn(&str) -> Rank) -> Result<Start, Failure> {
    let given = [
        ("new", "--new", args.new),
        ("since", "--since", args.since.is_some()),
        ("from_id", "--from-id", args.from_id.is_some()),
        ("last", "--last", args.last.is_some()),
    ];
    match one_of(given, rank).map_err(|failure| failure.with_help("choose one place to begin"))? {
        Some("since") => {
            let text = args.since.as_deref().unwrap_or_default();
            duration::parse("--since", text).map(Start::Since)
        }
        Some("from_id") => from_id(args.from_id.as_deref().unwrap_or_default()),
        Some("last") => Ok(Start::Last(args.last.unwrap_or_default())),
        _ => Ok(Start::New),
    }
}

/// Which one of flags that exclude each other was given, by its id. One that was typed wins over
/// those of the environment, and those over the ones of the file.
pub(crate) fn one_of<const N: usize>(
    given: [(&'static str, &'static str, bool); N],
    rank: &dyn Fn(&str) -> Rank,
) -> Result<Option<&'static str>, Failure> {
    let mut given: Vec<_> = given.into_iter().filter(|(.., given)| *given).collect();
    let first = given.iter().map(|(id, ..)| rank(id)).max();
    given.retain(|(id, ..)| Some(rank(id)) == first);
    match given.as_slice() {
        [] => Ok(None),
        [(id, ..)] => Ok(Some(id)),
        [(_, first, _), (_, second, _), ..] => {
            Err(Failure::usage(format!("{first} cannot be used with {second}")))
        }
    }
}

/// A position, or an entry id for all partitions.
fn from_id(text: &str) -> Result<Start, Failure> {
    if let Ok(entry) = text.parse::<EntryId>() {
        return Ok(Start::From(entry, None));
    }
    let position: Position = text.parse().map_err(|error| refused("--from-id", &error))?;
    Ok(Start::From(position.entry, Some(position)))
}

fn refused(flag: &str, error: &Error) -> Failure {
    Failure::refused(flag, error)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::failure::Exit;

    fn read(line: &[&str]) -> Result<Task, Failure> {
        let line = std::iter::once("bus-cli").chain(line.iter().copied());
        let matches = Args::command().try_get_matches_from(line).expect("clap takes it");
        let args = Args::from_arg_matches(&matches).expect("clap takes it");
        Settings::new(args, &matches, None).map(|settings| settings.task)
    }

    fn publish(line: &[&str]) -> Result<Publish, Failure> {
        match read(&[&["publish"], line].concat())? {
            Task::Publish(task) => Ok(task),
            _ => panic!("not publish"),
        }
    }

    fn start(line: &[&str]) -> Result<Start, Failure> {
        match read(&[&["tail"], line].concat())? {
            Task::Tail(task) => Ok(task.start),
            _ => panic!("not tail"),
        }
    }

    fn template(line: &[&str]) -> Result<Template, Failure> {
        match publish(line)?.what {
            What::Event(template) => Ok(*template),
            What::Lines(_) => panic!("not --from"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn payload_bytes_stay_as_they_were_written() {
        let data = |text| template(&["a.b", text]).expect("valid").data;
        assert_eq!(data("{ \"a\" : 1.0 }"), Data::Typed("{ \"a\" : 1.0 }".to_owned()));
        assert_eq!(data(" -5\n"), Data::Typed("-5".to_owned()));
        assert_eq!(data("-"), Data::Input(Input::Stdin));
        assert_eq!(data("@a file"), Data::Input(Input::File("a file".into())));
        let none = template(&["a.b"]).expect("valid").data;
        assert_eq!(none, Data::Typed("null".to_owned()));
    }

    #[test]
    fn headers_keep_what_follows_the_first_sign() {
        let line = ["a.b", "--header", "k=v=w", "--header", "e=", "--key", "k"];
        let template = template(&line).expect("valid");
        let expected = [("k", "v=w"), ("e", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(template.headers, expected);
        assert_eq!(template.key.as_deref(), Some("k"));
    }

    #[test]
    fn bad_values_are_usage_errors() {
        let cases: &[&[&str]] = &[
            &[],
            &["a b"],
            &["a.b", "{"],
            &["a.b", "--id", "7"],
            &["a.b", "--after", "5"],
            &["a.b", "--expires", "soon"],
            &["a.b", "--header", "k"],
            &["a.b", "--header", "=v"],
            &["a.b", "--count", "2", "--id", "00000000-0000-7000-8000-000000000000"],
            &["--from", "-", "--count", "2"],
            &["--from", "-", "--key", "k"],
            &["a.b", "--from", "-"],
        ];
        for line in cases {
            assert_eq!(
                publish(line).err().map(|failure| failure.exit),
                Some(Exit::Usage),
                "{line:?}"
            );
        }
    }

    #[test]
    fn tail_begins_in_one_place() {
        assert_eq!(start(&[]).expect("valid"), Start::New);
        assert_eq!(start(&["--last", "3"]).expect("valid"), Start::Last(3));
        let entry: EntryId = "7-1".parse().expect("valid");
        assert_eq!(start(&["--from-id", "7-1"]).expect("valid"), Start::From(entry, None));
        let position: Position = "a:0/7-1/2".parse().expect("valid");
        let expected = Start::From(entry, Some(position));
        assert_eq!(start(&["--from-id", "a:0/7-1/2"]).expect("valid"), expected);
        for bad in [&["--new", "--last", "3"][..], &["--since", "1"], &["--from-id", "x"], &["a b"]]
        {
            assert_eq!(start(bad).err().map(|failure| failure.exit), Some(Exit::Usage), "{bad:?}");
        }
    }
}
