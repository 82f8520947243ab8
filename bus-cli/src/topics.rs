//! `bus-cli topics`: what the topics hold, and how many partitions they have.

use std::io::{Write, stderr};

use clap::Subcommand;
use rumormill::driver::admin::{PARTITIONS_MAX, TopicChange, TopicReport, Waiting};
use rumormill::{Error, Topic};

use crate::args::{Format, twin};
use crate::failure::{Exit, Failure};
use crate::operate::{Store, ago, bytes, count, nothing, several, until};
use crate::prompt::{Consent, Go};
use crate::table::{self, Column, Screen, Table};

/// Show topics, and give them more partitions
#[derive(Debug, clap::Args)]
pub(crate) struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Every topic and what it holds
    List,
    /// One topic: its partitions, and the groups that read them
    Show {
        /// The topic: the first segment of its events' types
        topic: String,
    },
    Set(SetArgs),
}

/// Give a topic more partitions, or make it known with so many
///
/// Keys move: while the old partitions are being read out, later events of a key may be handled
/// before earlier ones.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("TOPICS_SET", arg)), after_help = "\
Examples:
  bus-cli topics set orders --partitions 8 --dry-run
  bus-cli topics set orders --partitions 8 --yes")]
struct SetArgs {
    /// The topic: the first segment of its events' types
    topic: String,
    /// How many it is to have; never fewer than it has
    #[arg(long, value_name = "N", required = true,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(PARTITIONS_MAX)))]
    partitions: u32,
    #[command(flatten)]
    consent: Consent,
}

/// What `topics` was asked for.
pub(crate) struct Topics {
    what: What,
    format: Format,
}

enum What {
    List,
    Show(Topic),
    Set { topic: Topic, partitions: u32, consent: Consent },
}

impl Topics {
    pub(crate) fn new(args: TopicsArgs, format: Format) -> Result<Self, Failure> {
        let what = match args.command {
            TopicsCommand::List => What::List,
            TopicsCommand::Show { topic } => What::Show(parse(&topic)?),
            TopicsCommand::Set(SetArgs { topic, partitions, consent }) => {
                What::Set { topic: parse(&topic)?, partitions, consent }
            }
        };
        Ok(Self { what, format })
    }

    pub(crate) async fn run(self, store: &Store<'_>) -> Result<Exit, Failure> {
        match self.what {
            What::List => list(store, self.format).await,
            What::Show(topic) => show(store, &topic, self.format).await,
            What::Set { topic, partitions, consent } => {
                set(store, &topic, partitions, consent, self.format).await
            }
        }
    }
}

fn parse(topic: &str) -> Result<Topic, Failure> {
    topic.parse().map_err(|error: Error| Failure::refused("TOPIC", &error))
}

async fn list(store: &Store<'_>, format: Format) -> Result<Exit, Failure> {
    let fail = |error| Failure::library("cannot list the topics", &error);
    let mut reports = Vec::new();
    for shape in store.tools()?.topics().await.map_err(fail)? {
        reports.push(store.admin()?.topic(&shape.topic).await.map_err(fail)?);
    }
    let mut table = Table::new([
        Column::left("TOPIC"),
        Column::right("PARTITIONS"),
        Column::right("ENTRIES"),
        Column::left("LAST"),
        Column::right("BYTES"),
        Column::right("DELAYED"),
        Column::right("GROUPS"),
    ])
    .or_say("no topic: one is known from its first event or subscription on");
    for report in &reports {
        table.row(summary(report));
    }
    table.print(format, &reports)
}

fn summary(report: &TopicReport) -> [String; 7] {
    let parts = &report.partitions;
    let mut groups: Vec<_> =
        parts.iter().flat_map(|part| &part.groups).map(|group| group.group.as_str()).collect();
    groups.sort_unstable();
    groups.dedup();
    let memory: Option<u64> = parts.iter().map(|part| part.bytes_estimate).sum();
    [
        report.topic.to_string(),
        parts.len().to_string(),
        parts.iter().map(|part| part.entries).sum::<u64>().to_string(),
        ago(parts.iter().filter_map(|part| part.last_time).max()),
        memory.map_or_else(nothing, bytes),
        parts.iter().map(|part| part.delayed.count).sum::<u64>().to_string(),
        groups.len().to_string(),
    ]
}

async fn show(store: &Store<'_>, topic: &Topic, format: Format) -> Result<Exit, Failure> {
    let report = store.admin()?.topic(topic).await;
    let report = report.map_err(|error| Failure::library("cannot show the topic", &error))?;
    let table = partitions(&report);
    if format != Format::Pretty {
        return table.print(format, &[report]);
    }
    let screen = Screen::stdout();
    table::write(&format!("{}\n{}", table.render(screen), groups(&report).render(screen)))
}

fn partitions(report: &TopicReport) -> Table {
    let mut table = Table::new([
        Column::left("PARTITION"),
        Column::right("ENTRIES"),
        Column::left("FIRST"),
        Column::left("LAST"),
        Column::right("BYTES"),
        Column::left("DELAYED"),
    ]);
    for part in &report.partitions {
        table.row([
            part.partition.to_string(),
            part.entries.to_string(),
            ago(part.first_time),
            ago(part.last_time),
            part.bytes_estimate.map_or_else(nothing, bytes),
            waiting(part.delayed),
        ]);
    }
    table
}

/// How many wait, and until when.
pub(crate) fn waiting(waiting: Waiting) -> String {
    match waiting.next {
        Some(next) => format!("{}, next {}", waiting.count, until(Some(next))),
        None => waiting.count.to_string(),
    }
}

fn groups(report: &TopicReport) -> Table {
    let mut table = Table::new([
        Column::left("GROUP"),
        Column::left("PARTITION"),
        Column::left("POSITION"),
        Column::right("UNREAD"),
        Column::right("PENDING"),
    ])
    .or_say("no group reads it");
    for part in &report.partitions {
        for group in &part.groups {
            table.row([
                group.group.to_string(),
                part.partition.to_string(),
                group.position.to_string(),
                count(group.unread),
                group.pending.to_string(),
            ]);
        }
    }
    table
}

async fn set(
    store: &Store<'_>,
    topic: &Topic,
    partitions: u32,
    consent: Consent,
    format: Format,
) -> Result<Exit, Failure> {
    let fail = |error| Failure::library(format!("cannot set the partitions of {topic}"), &error);
    let shapes = store.tools()?.topics().await.map_err(fail)?;
    let before = shapes.iter().find(|shape| shape.topic == *topic).map(|shape| shape.partitions);
    let address = store.address;
    let what = match before {
        Some(before) if partitions < before => return Err(shrinks(topic, before, partitions)),
        Some(before) if partitions == before => {
            let _ = writeln!(stderr(), "topic {topic} has {before} partitions as it is");
            let change = TopicChange {
                topic: topic.clone(),
                before: Some(before),
                partitions,
                groups: Vec::new(),
            };
            return changed(&change, format);
        }
        Some(before) => {
            let _ = writeln!(
                stderr(),
                "keys move: until the old partitions are read out, later events of a key may be \
                 handled before earlier ones"
            );
            format!("give topic {topic} {partitions} partitions in place of {before} on {address}")
        }
        None => {
            let parts = several(partitions.into(), "partition");
            format!("make topic {topic} known on {address}, with {parts}")
        }
    };
    if consent.ask(&what)? == Go::Stop {
        let change = TopicChange { topic: topic.clone(), before, partitions, groups: Vec::new() };
        return if format == Format::Json { changed(&change, format) } else { Ok(Exit::Done) };
    }
    let change = store.admin()?.set_partitions(topic, partitions).await.map_err(fail)?;
    changed(&change, format)
}

fn changed(change: &TopicChange, format: Format) -> Result<Exit, Failure> {
    let mut table = Table::new([
        Column::left("TOPIC"),
        Column::right("BEFORE"),
        Column::right("PARTITIONS"),
        Column::left("GROUPS ON THE NEW ONES"),
    ]);
    let groups: Vec<&str> = change.groups.iter().map(|group| group.as_str()).collect();
    let groups = if groups.is_empty() { nothing() } else { groups.join(", ") };
    let before = change.before.map_or_else(nothing, |before| before.to_string());
    table.row([change.topic.to_string(), before, change.partitions.to_string(), groups]);
    table.print(format, &[change])
}

/// As the library would, before anybody is asked.
fn shrinks(topic: &Topic, before: u32, partitions: u32) -> Failure {
    Failure::failed(format!(
        "topic {topic} has {before} partitions and cannot shrink to {partitions}"
    ))
    .with_help(
        "what lies in the partitions that went away would never be read: publish to a new topic \
         instead",
    )
}
