//! The numbers of every topic and group.

use std::time::Duration;

use rumormill::driver::admin::{GroupPartition, GroupReport, TopicReport};
use rumormill::{Clock, Error, SystemClock, Timestamp};

use super::sample::{Family, Sample};
use crate::operate::Store;

static UP: Family = Family::gauge("up", "Whether the store answered");
static LOG_ENTRIES: Family =
    Family::gauge("log_entries", "Entries of a log; each holds one event or more");
static LOG_BYTES: Family = Family::gauge("log_bytes", "Memory that a log takes, estimated");
static DELAYED: Family =
    Family::gauge("delayed_events", "Events that were published with a delay and are not due");
static DELAYED_LATE: Family =
    Family::gauge("delayed_late_seconds", "How long the first delayed event is overdue");
static DROPPED: Family =
    Family::total("group_dropped_entries", "Entries that were trimmed before they were settled");
static UNREAD: Family =
    Family::gauge("group_unread_entries", "Entries that were not handed out; at least so many");
static PENDING: Family =
    Family::gauge("group_pending_entries", "Entries that were handed out and are not settled");
static PENDING_AGE: Family =
    Family::gauge("group_pending_age_seconds", "How long ago the oldest of them was stored");
static DUE: Family = Family::gauge("group_due_events", "Events that wait for their next attempt");
static DUE_LATE: Family =
    Family::gauge("group_due_late_seconds", "How long the first of them is overdue");
static DEAD: Family = Family::gauge("group_dead_letters", "Events that were given up");
static DEAD_AGE: Family =
    Family::gauge("group_dead_letters_age_seconds", "How long ago the oldest was given up");
static PARKED: Family =
    Family::gauge("group_parked_events", "Events that wait behind a dead letter of their key");
static CONSUMERS: Family = Family::gauge("group_consumers", "Instances that were heard of lately");

/// Says that the store does not answer.
pub(super) fn down() -> Sample {
    UP.of([], 0.0)
}

/// Looks at the store.
pub(super) async fn gather(store: &Store<'_>) -> Result<Vec<Sample>, Error> {
    let (tools, admin) = (store.looks()?, store.letters()?);
    let mut samples = vec![UP.of([], 1.0)];
    for shape in tools.topics().await? {
        let report = admin.topic(&shape.topic).await?;
        of_topic(&report, SystemClock.now(), &mut samples);
    }
    for group in admin.groups().await? {
        let report = admin.group(&group).await?;
        of_group(&report, SystemClock.now(), &mut samples);
    }
    Ok(samples)
}

fn of_topic(report: &TopicReport, now: Timestamp, samples: &mut Vec<Sample>) {
    let topic = report.topic.to_string();
    for part in &report.partitions {
        let index = part.partition.index.to_string();
        let labels = || [("topic", topic.clone()), ("partition", index.clone())];
        samples.push(LOG_ENTRIES.of(labels(), part.entries as f64));
        samples.extend(part.bytes_estimate.map(|bytes| LOG_BYTES.of(labels(), bytes as f64)));
        samples.push(DELAYED.of(labels(), part.delayed.count as f64));
        samples.push(DELAYED_LATE.of(labels(), since(part.delayed.next, now)));
        for group in &part.groups {
            let labels = labels().into_iter().chain([("group", group.group.to_string())]);
            samples.push(DROPPED.of(labels, group.dropped as f64));
        }
    }
}

fn of_group(report: &GroupReport, now: Timestamp, samples: &mut Vec<Sample>) {
    let group = report.group.to_string();
    for part in &report.partitions {
        of_part(&group, part, now, samples);
    }
    let live = report.consumers.iter().filter(|consumer| consumer.live).count();
    samples.push(CONSUMERS.of([("group", group)], live as f64));
}

fn of_part(group: &str, part: &GroupPartition, now: Timestamp, samples: &mut Vec<Sample>) {
    let partition = &part.partition;
    let numbers = [
        (&UNREAD, part.unread.count as f64),
        (&PENDING, part.pending.count as f64),
        (&PENDING_AGE, since(part.pending.oldest, now)),
        (&DUE, part.due.count as f64),
        (&DUE_LATE, since(part.due.next, now)),
        (&DEAD, part.dead.count as f64),
        (&DEAD_AGE, since(part.dead.first_time, now)),
        (&PARKED, part.parked as f64),
    ];
    for (family, value) in numbers {
        let labels = [
            ("group", group.to_owned()),
            ("topic", partition.topic.to_string()),
            ("partition", partition.index.to_string()),
        ];
        samples.push(family.of(labels, value));
    }
}

/// Seconds since a moment; 0 for none, and for one that is still to come.
fn since(moment: Option<Timestamp>, now: Timestamp) -> f64 {
    moment.map_or(Duration::ZERO, |moment| now.since(moment)).as_secs_f64()
}
