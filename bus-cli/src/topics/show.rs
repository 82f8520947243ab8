//! `bus-cli topics show`: what a topic holds, and who keeps it from being trimmed.

use std::time::Duration;

use rumormill::Topic;
use rumormill::driver::admin::{GroupOnPartition, Retention, TopicReport, Waiting, Why};

use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::operate::{Store, ago, bytes, count, nothing, until};
use crate::progress::human;
use crate::table::{self, Column, Screen, Table};

pub(super) async fn show(
    store: &Store<'_>,
    topic: &Topic,
    format: Format,
) -> Result<Exit, Failure> {
    let report = store.admin()?.topic(topic).await;
    let report = report.map_err(|error| Failure::library("cannot show the topic", &error))?;
    let table = partitions(&report);
    if format != Format::Pretty {
        return table.print(format, &[report]);
    }
    let screen = Screen::stdout();
    let (table, groups) = (table.render(screen), groups(&report).render(screen));
    let kept = report.retention.as_ref().map(kept).unwrap_or_default();
    table::write(&format!("{table}\n{groups}{kept}"))
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
        Column::right("HOLDS"),
        Column::right("BYTES"),
        Column::left("OLDEST"),
        Column::left("WHY"),
        Column::right("DROPPED"),
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
                count(group.holds.entries),
                group.holds.bytes_estimate.map_or_else(nothing, bytes),
                ago(group.holds.oldest_time),
                why(group),
                group.dropped.to_string(),
            ]);
        }
    }
    table
}

/// Why a group holds what it holds, and until when.
fn why(group: &GroupOnPartition) -> String {
    let holds = &group.holds;
    let mut words = Vec::new();
    match &holds.why {
        Why::Settled => words.push("all is settled".to_owned()),
        Why::Unread => words.push("unread".to_owned()),
        Why::Pending { consumer } => words.push(format!("pending at {consumer}")),
        Why::Gone => words.push(format!("gone, last seen {}", ago(holds.last_seen))),
    }
    if holds.foreign {
        words.push("another program's group".to_owned());
    }
    let waits = matches!(holds.why, Why::Unread | Why::Pending { .. });
    if let Some(end) = holds.until.filter(|_| waits) {
        let seen = ago(holds.last_seen);
        words.push(format!("no live member since {seen}, stops holding {}", until(Some(end))));
    }
    words.join(", ")
}

/// What is kept, as a sentence.
fn kept(Retention { set, kept }: &Retention) -> String {
    let own = |is_set: bool| if is_set { "" } else { " (default)" };
    format!(
        "\nsettled entries are kept for {}{}, up to {}{} per partition; beyond {}{} the oldest go, \
         settled or not\n",
        human(Duration::from_millis(kept.keep_ms)),
        own(set.keep.is_some()),
        bytes(kept.keep_bytes),
        own(set.keep_bytes.is_some()),
        bytes(kept.cap_bytes),
        own(set.cap_bytes.is_some()),
    )
}
