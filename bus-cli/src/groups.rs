//! `bus-cli groups`: where the groups are, what is before them, and moving them.

mod seek;

use clap::Subcommand;
use rumormill::Error;
use rumormill::driver::GroupName;
use rumormill::driver::admin::{Count, GroupReport};

use self::seek::{Seek, SeekArgs};
use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::operate::{Store, ago, count, nothing};
use crate::settings::Rank;
use crate::table::{self, Column, Screen, Table};
use crate::topics::waiting;

/// Show groups and what is before them, and move them
#[derive(Debug, clap::Args)]
pub(crate) struct GroupsArgs {
    #[command(subcommand)]
    command: GroupsCommand,
}

#[derive(Debug, Subcommand)]
enum GroupsCommand {
    /// Every group and what is before it
    List,
    /// One group: where it is on each partition, what it routes, who its consumers are
    Show {
        /// The group: the name of the service or subscription
        group: String,
    },
    Seek(SeekArgs),
}

/// What `groups` was asked for.
pub(crate) struct Groups {
    what: What,
    format: Format,
}

enum What {
    List,
    Show(GroupName),
    Seek(Seek),
}

impl Groups {
    pub(crate) fn new(
        args: GroupsArgs,
        format: Format,
        rank: &dyn Fn(&str) -> Rank,
    ) -> Result<Self, Failure> {
        let what = match args.command {
            GroupsCommand::List => What::List,
            GroupsCommand::Show { group } => What::Show(parse("GROUP", group)?),
            GroupsCommand::Seek(args) => What::Seek(Seek::new(args, rank)?),
        };
        Ok(Self { what, format })
    }

    pub(crate) async fn run(self, store: &Store<'_>) -> Result<Exit, Failure> {
        match self.what {
            What::List => list(store, self.format).await,
            What::Show(group) => show(store, &group, self.format).await,
            What::Seek(seek) => seek.run(store, self.format).await,
        }
    }
}

/// The group that `flag` names.
pub(crate) fn parse(flag: &str, group: String) -> Result<GroupName, Failure> {
    GroupName::new(group).map_err(|error: Error| Failure::refused(flag, &error))
}

async fn list(store: &Store<'_>, format: Format) -> Result<Exit, Failure> {
    let fail = |error| Failure::library("cannot list the groups", &error);
    let mut reports = Vec::new();
    for group in store.admin()?.groups().await.map_err(fail)? {
        reports.push(store.admin()?.group(&group).await.map_err(fail)?);
    }
    let mut table = Table::new([
        Column::left("GROUP"),
        Column::right("PARTITIONS"),
        Column::right("UNREAD"),
        Column::right("PENDING"),
        Column::right("DUE"),
        Column::right("DEAD"),
        Column::left("OLDEST"),
        Column::right("LIVE"),
    ])
    .or_say("no group: one is known from its first subscription on");
    for report in &reports {
        table.row(summary(report));
    }
    table.print(format, &reports)
}

fn summary(report: &GroupReport) -> [String; 8] {
    let parts = &report.partitions;
    let unread = parts.iter().fold(Count::ZERO, |sum, part| sum.plus(part.unread));
    let live = report.consumers.iter().filter(|consumer| consumer.live).count();
    [
        report.group.to_string(),
        parts.len().to_string(),
        count(unread),
        parts.iter().map(|part| part.pending.count).sum::<u64>().to_string(),
        parts.iter().map(|part| part.due.count).sum::<u64>().to_string(),
        report.dead().count.to_string(),
        ago(report.dead().first_time),
        live.to_string(),
    ]
}

async fn show(store: &Store<'_>, group: &GroupName, format: Format) -> Result<Exit, Failure> {
    let report = store.admin()?.group(group).await;
    let report = report.map_err(|error| Failure::library("cannot show the group", &error))?;
    let partitions = partitions(&report);
    if format != Format::Pretty {
        return partitions.print(format, &[report]);
    }
    let screen = Screen::stdout();
    let tables = [partitions, routes(&report), consumers(&report)];
    let tables: Vec<String> = tables.iter().map(|table| table.render(screen)).collect();
    table::write(&tables.join("\n"))
}

fn partitions(report: &GroupReport) -> Table {
    let mut table = Table::new([
        Column::left("PARTITION"),
        Column::left("POSITION"),
        Column::left("STORED"),
        Column::right("UNREAD"),
        Column::right("PENDING"),
        Column::left("OLDEST"),
        Column::left("DUE"),
        Column::right("DEAD"),
        Column::left("SINCE"),
        Column::right("PARKED"),
    ])
    .or_say("it reads no partition");
    for part in &report.partitions {
        table.row([
            part.partition.to_string(),
            part.position.to_string(),
            ago(part.position_time),
            count(part.unread),
            part.pending.count.to_string(),
            ago(part.pending.oldest),
            waiting(part.due),
            part.dead.count.to_string(),
            ago(part.dead.first_time),
            part.parked.to_string(),
        ]);
    }
    table
}

fn routes(report: &GroupReport) -> Table {
    let mut table = Table::new([
        Column::left("ROUTE"),
        Column::left("VERSION"),
        Column::left("A MEMBER WAS SEEN"),
    ])
    .or_say("no member said what it routes");
    for route in &report.routes {
        let version = route.version.map_or_else(|| "any".to_owned(), |version| version.to_string());
        table.row([route.pattern.to_string(), version, ago(route.last_seen)]);
    }
    table
}

fn consumers(report: &GroupReport) -> Table {
    let mut table = Table::new([
        Column::left("CONSUMER"),
        Column::left("STATE"),
        Column::left("HEARD OF"),
        Column::right("PENDING"),
    ])
    .or_say("no consumer");
    for consumer in &report.consumers {
        let state = match (consumer.live, consumer.last_heartbeat) {
            (true, _) => "live",
            (false, Some(_)) => "silent",
            (false, None) => "left",
        };
        let heard = consumer.last_heartbeat.map_or_else(nothing, |time| ago(Some(time)));
        table.row([consumer.name.clone(), state.into(), heard, consumer.pending.to_string()]);
    }
    table
}
