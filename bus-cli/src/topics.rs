//! `bus-cli topics`: what the topics hold, how many partitions they have, and what is kept.

mod set;
mod show;

use clap::Subcommand;
use rumormill::driver::admin::TopicReport;
use rumormill::{Error, Topic};

use self::set::{Set, SetArgs};
pub(crate) use self::show::waiting;
use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::operate::{Store, ago, bytes, nothing};
use crate::table::{Column, Table};

/// Show topics, give them more partitions, and set what is kept of them
#[derive(Debug, clap::Args)]
pub(crate) struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Every topic and what it holds
    List,
    /// One topic: its partitions, the groups that read them, and who holds how much and why
    Show {
        /// The topic: the first segment of its events' types
        topic: String,
    },
    Set(SetArgs),
}

/// What `topics` was asked for.
pub(crate) struct Topics {
    what: What,
    format: Format,
}

enum What {
    List,
    Show(Topic),
    Set(Set),
}

impl Topics {
    pub(crate) fn new(args: TopicsArgs, format: Format) -> Result<Self, Failure> {
        let what = match args.command {
            TopicsCommand::List => What::List,
            TopicsCommand::Show { topic } => What::Show(parse(&topic)?),
            TopicsCommand::Set(args) => What::Set(Set::new(args)?),
        };
        Ok(Self { what, format })
    }

    pub(crate) async fn run(self, store: &Store<'_>) -> Result<Exit, Failure> {
        match self.what {
            What::List => list(store, self.format).await,
            What::Show(topic) => show::show(store, &topic, self.format).await,
            What::Set(set) => set.run(store, self.format).await,
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
