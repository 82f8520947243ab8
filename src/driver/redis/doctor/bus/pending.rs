//! Looking at what groups have on partitions, beside their place on the log.

use redis::Value;

use super::asking::Asking;
use super::evidence::{Consumer, Dead, Held, OnPartition, Own};
use super::gather::{PAIRS_MAX, shown};
use super::logs::{first_of, groups, named, take};
use crate::delivery::{EntryId, Partition};
use crate::driver::GroupName;
use crate::driver::redis::admin::{Look, facts};
use crate::driver::redis::fault::Fault;
use crate::driver::redis::reply;
use crate::error::Error;

/// Looks per group and partition.
const LOOKS: usize = 16;
/// Of them, whose answers are held at a time: each brings two dead letters.
const HELD_AT_A_TIME: usize = 25;
/// The oldest pending entries that are looked at.
const ROWS_MAX: usize = 10;

/// Looks at each group on each partition, up to a limit.
pub(super) async fn look(
    asking: &mut Asking<'_>,
    partitions: &mut [OnPartition],
    cut: &mut Vec<String>,
) -> Result<(), Error> {
    let mut places = Vec::new();
    for (at, on) in partitions.iter().enumerate() {
        let of_ours = on.groups.iter().enumerate();
        places.extend(of_ours.filter_map(|(own, group)| Some((at, own, group.group.clone()?))));
    }
    if places.len() > PAIRS_MAX {
        let beyond = places.len() - PAIRS_MAX;
        cut.push(format!("what groups have on {beyond} partitions beyond {PAIRS_MAX}"));
        places.truncate(PAIRS_MAX);
    }
    for part in places.chunks(HELD_AT_A_TIME) {
        let mut looks = Vec::with_capacity(part.len() * LOOKS);
        for (at, _, group) in part {
            looks.extend(looks_at(asking, &partitions[*at].partition, group));
        }
        let answers = asking.look(&looks).await?;
        for ((at, own, group), answers) in part.iter().zip(answers.chunks(LOOKS)) {
            partitions[*at].groups[*own].own = read(asking, group, answers);
        }
    }
    Ok(())
}

fn looks_at(asking: &Asking<'_>, partition: &Partition, group: &GroupName) -> [Look; LOOKS] {
    let keys = asking.shared.keys.group(partition, group);
    let name = group.as_str();
    let rows = |key: &str| Look::new(&["XPENDING"], key).arg(name).arg("-").arg("+").arg(ROWS_MAX);
    [
        Look::of(&keys.log, redis::cmd("TIME")),
        rows(&keys.log),
        rows(&keys.retry),
        Look::new(&["XINFO", "CONSUMERS"], &keys.log).arg(name),
        Look::new(&["XINFO", "CONSUMERS"], &keys.retry).arg(name),
        Look::new(&["XLEN"], &keys.retry),
        Look::new(&["XINFO", "GROUPS"], &keys.retry),
        first_of(&keys.due),
        Look::new(&["ZCARD"], &keys.due),
        Look::new(&["XINFO", "STREAM"], &keys.dead),
        Look::new(&["HLEN"], &keys.parking),
        Look::new(&["ZCARD"], &keys.parked),
        Look::new(&["HLEN"], &keys.progress),
        Look::new(&["HLEN"], &keys.running),
        Look::new(&["HGETALL"], &keys.checkpoint),
        Look::new(&["EXISTS"], &keys.log),
    ]
}

fn read(asking: &mut Asking<'_>, group: &GroupName, answers: &[Value]) -> Own {
    let mut answers = answers.iter().cloned();
    let mut next = || answers.next().unwrap_or_default();
    let at = asking.read("TIME", reply::time(next()));
    let pending = [next(), next()].map(|rows| asking.read("XPENDING", held(rows)));
    let consumers = [next(), next()].map(|rows| asking.read("XINFO", consumers(rows)));
    let retry_length = asking.read("XLEN", reply::count(next()));
    let on_retry = asking.read("XINFO", groups(next()));
    let due = asking.read("ZRANGE", facts::scores(next())).first().map(|(_, due)| *due);
    let later = asking.read("ZCARD", reply::count(next()));
    let dead = asking.read("XINFO", dead(next()));
    let mut count = |verb: &str| asking.read(verb, reply::count(next()));
    let (parking, parked) = (count("HLEN"), count("ZCARD"));
    let (progress, running) = (count("HLEN"), count("HLEN"));
    let checkpoint = asking.read("HGETALL", reply::pairs(next())).into_iter();
    let checkpoint = checkpoint.map(|(name, value)| (shown(name), shown(value))).collect();
    Own {
        looked: reply::count(next()).unwrap_or(0) == 1,
        at,
        pending,
        consumers,
        retry_length,
        retries: on_retry.iter().any(|own| own.group.as_ref() == Some(group)),
        due,
        later,
        dead,
        parking,
        parked,
        progress,
        running,
        checkpoint,
        found: Default::default(),
    }
}

/// Rows of XPENDING.
pub(super) fn held(rows: Value) -> Result<Vec<Held>, Fault> {
    let row = |row| {
        let mut parts = reply::items(row)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        Ok(Held {
            id: reply::id(next())?,
            consumer: shown(next()),
            idle_ms: reply::count(next())?,
            deliveries: reply::count(next())?,
        })
    };
    reply::items(rows)?.into_iter().map(row).collect()
}

fn consumers(rows: Value) -> Result<Vec<Consumer>, Fault> {
    let consumer = |row| {
        let mut fields = named(row)?;
        let mut take = |name: &str| take(&mut fields, name);
        Ok(Consumer { name: shown(take("name")), pending: reply::count(take("pending"))? })
    };
    reply::items(rows)?.into_iter().map(consumer).collect()
}

/// A stream's length and ends.
fn dead(value: Value) -> Result<Dead, Fault> {
    let mut fields = named(value)?;
    let mut take = |name: &str| take(&mut fields, name);
    let end = |entry: Value| -> Result<Option<EntryId>, Fault> {
        reply::items(entry)?.into_iter().next().map(reply::id).transpose()
    };
    Ok(Dead {
        length: reply::count(take("length"))?,
        first: end(take("first-entry"))?,
        last: end(take("last-entry"))?,
    })
}
