//! Looking at the logs of partitions.

use std::collections::HashMap;

use redis::Value;

use super::asking::Asking;
use super::evidence::{Declared, Log, OnLog, OnPartition, Own, Sample};
use super::gather::shown;
use crate::delivery::{EntryId, Partition};
use crate::driver::GroupName;
use crate::driver::admin::Kept;
use crate::driver::redis::admin::{Look, facts};
use crate::driver::redis::fault::Fault;
use crate::driver::redis::reply::{self, Fields};
use crate::driver::redis::wire;
use crate::error::Error;

/// Looks per partition.
const LOOKS: usize = 5;
/// Partitions whose answers are held at a time: each brings two entries.
const PARTITIONS_MAX: usize = 50;
/// What an entry costs beside its text, as in `trim.lua`.
const ENTRY_BYTES: u64 = 16;

/// Looks at the logs of partitions, and at who reads them.
pub(super) async fn look(
    asking: &mut Asking<'_>,
    declared: &[Declared],
    partitions: Vec<Partition>,
) -> Result<Vec<OnPartition>, Error> {
    let kept: HashMap<&str, Kept> =
        declared.iter().map(|topic| (topic.name.as_str(), topic.kept)).collect();
    let mut found = Vec::with_capacity(partitions.len());
    for part in partitions.chunks(PARTITIONS_MAX) {
        let looks: Vec<Look> = part.iter().flat_map(|own| looks(asking, own)).collect();
        let answers = asking.look(&looks).await?;
        for (partition, answers) in part.iter().zip(answers.chunks(LOOKS)) {
            if let Some(kept) = kept.get(partition.topic.as_str()) {
                found.push(read(asking, partition.clone(), *kept, answers));
            }
        }
    }
    Ok(found)
}

/// The groups come before the log: none can be further than the log's end then, as it is told.
fn looks(asking: &Asking<'_>, partition: &Partition) -> [Look; LOOKS] {
    let keys = &asking.shared.keys;
    let (log, delayed) = (keys.log(partition), keys.delayed(partition));
    [
        Look::of(&log, redis::cmd("TIME")),
        Look::new(&["XINFO", "GROUPS"], &log),
        Look::new(&["XINFO", "STREAM"], &log),
        first_of(&delayed),
        Look::new(&["HGETALL"], &keys.dropped(partition)),
    ]
}

/// The first member of a sorted set.
pub(super) fn first_of(key: &str) -> Look {
    Look::new(&["ZRANGE"], key).arg(0).arg(0).arg("WITHSCORES")
}

fn read(
    asking: &mut Asking<'_>,
    partition: Partition,
    kept: Kept,
    answers: &[Value],
) -> OnPartition {
    let mut answers = answers.iter().cloned();
    let mut next = || answers.next().unwrap_or_default();
    let at = asking.read("TIME", reply::time(next()));
    let groups = asking.read("XINFO", groups(next()));
    let log = asking.read("XINFO", log(&partition, next()));
    let delayed = asking.read("ZRANGE", facts::scores(next())).first().map(|(_, due)| *due);
    let mut dropped: Vec<(String, u64)> =
        asking.read("HGETALL", facts::numbers(next())).into_iter().collect();
    dropped.sort();
    OnPartition { partition, at, kept, log, groups, delayed, dropped, untrimmed: 0 }
}

/// The fields of a map of the server's, by name.
pub(super) fn named(value: Value) -> Result<Vec<(String, Value)>, Fault> {
    let pairs = reply::pairs(value)?.into_iter();
    pairs.map(|(name, value)| Ok((reply::text(name)?, value))).collect()
}

/// Takes one of them out.
pub(super) fn take(fields: &mut [(String, Value)], name: &str) -> Value {
    let found = fields.iter_mut().find(|(own, _)| own == name);
    found.map(|(_, value)| std::mem::take(value)).unwrap_or_default()
}

pub(super) fn groups(value: Value) -> Result<Vec<OnLog>, Fault> {
    let group = |row| {
        let mut fields = named(row)?;
        let mut take = |name: &str| take(&mut fields, name);
        let number = |value| reply::int(value).map(|found| found.and_then(|n| n.try_into().ok()));
        let name = shown(take("name"));
        Ok(OnLog {
            group: GroupName::new(name.clone()).ok(),
            name,
            position: reply::id(take("last-delivered-id"))?,
            pending: reply::count(take("pending"))?,
            read: number(take("entries-read"))?,
            lag: number(take("lag"))?,
            own: Own::default(),
        })
    };
    reply::items(value)?.into_iter().map(group).collect()
}

pub(super) fn log(partition: &Partition, value: Value) -> Result<Log, Fault> {
    let mut fields = named(value)?;
    let mut take = |name: &str| take(&mut fields, name);
    let last = take("last-generated-id");
    let mut samples = Vec::new();
    for entry in [take("first-entry"), take("last-entry")] {
        if entry != Value::Nil {
            let one = reply::entries(Value::Array(vec![entry]))?.pop();
            samples.extend(one.map(|(id, fields)| sample(partition, id, fields)));
        }
    }
    Ok(Log {
        length: reply::count(take("length"))?,
        last: if last == Value::Nil { EntryId::ZERO } else { reply::id(last)? },
        added: reply::count(take("entries-added"))?,
        samples,
    })
}

fn sample(partition: &Partition, id: EntryId, fields: Option<Fields>) -> Sample {
    let fields = fields.unwrap_or_default();
    let text: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    let bytes = u64::try_from(text).unwrap_or(u64::MAX).saturating_add(ENTRY_BYTES);
    let content = wire::decode_log(partition, id, fields);
    let (mut flaw, mut stray) = (None, None);
    for record in &*content.records {
        match record {
            Ok(event) if event.event_type().topic() != partition.topic => {
                stray.get_or_insert(event.event_type().to_string());
            }
            Ok(_) => {}
            Err(malformed) => drop(flaw.get_or_insert(malformed.reason.clone())),
        }
    }
    Sample { id, bytes, flaw, stray }
}
