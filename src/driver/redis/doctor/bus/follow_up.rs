//! Gathering the evidence, second round: what the first one made worth a closer look, of so many
//! groups on partitions at most.

mod again;
mod lag;
mod parked;

use super::asking::Asking;
use super::evidence::{Held, OnLog, OnPartition};
use super::gather::shown;
use super::pending::held;
use crate::delivery::EntryId;
use crate::driver::admin::STEP_MAX;
use crate::driver::redis::admin::Look;
use crate::driver::redis::keys::GroupKeys;
use crate::driver::redis::reply;
use crate::driver::redis::script::{COUNT, Call};
use crate::error::Error;

/// Groups on partitions that are followed up for one reason.
const FOLLOWED_MAX: usize = 200;
/// Fields of one hash that are followed up.
const FIELDS_MAX: usize = 20;
/// Dead letters of this time are lately ones.
pub(super) const LATELY_MS: u64 = 10 * 60 * 1000;

/// What is due to be trimmed goes within ten seconds, where anybody trims.
const TRIMMED_WITHIN_MS: u64 = 60 * 60 * 1000;

/// The place of a group on a partition in the evidence.
type Place = (usize, usize);

/// Looks more closely.
pub(super) async fn look(
    asking: &mut Asking<'_>,
    partitions: &mut [OnPartition],
    cut: &mut Vec<String>,
) -> Result<(), Error> {
    unread(asking, partitions).await?;
    for queue in [0, 1] {
        gone(asking, partitions, queue, cut).await?;
    }
    for notes in [false, true] {
        left_over(asking, partitions, notes, cut).await?;
    }
    lately(asking, partitions, cut).await?;
    parked::look(asking, partitions, cut).await?;
    untrimmed(asking, partitions, cut).await?;
    again::look(asking, partitions, cut).await?;
    lag::look(asking, partitions, cut).await
}

/// Those of the groups on partitions for which something is so.
fn places(
    partitions: &[OnPartition],
    max: usize,
    cut: &mut Vec<String>,
    is_so: impl Fn(&OnPartition, &OnLog) -> bool,
) -> Vec<Place> {
    let mut places = Vec::new();
    for (at, on) in partitions.iter().enumerate() {
        let groups = on.groups.iter().enumerate();
        let wanted = groups.filter(|(_, group)| group.own.looked && is_so(on, group));
        places.extend(wanted.map(|(own, _)| (at, own)));
    }
    if places.len() > max {
        cut.push(format!("a closer look at {} groups on partitions", places.len() - max));
        places.truncate(max);
    }
    places
}

/// The keys of a group on a partition; it is one of ours, or it would not have been looked at.
fn keys(asking: &Asking<'_>, partitions: &[OnPartition], (at, own): Place) -> Option<GroupKeys> {
    let on = &partitions[at];
    Some(asking.shared.keys.group(&on.partition, on.groups[own].group.as_ref()?))
}

/// Counts the entries of a stream between two ids.
fn count(key: String, after: EntryId, last: &impl ToString, most: usize) -> Call {
    let mut call = Call::new(&COUNT, vec![key]);
    call.number(&after).number(last).number(&most);
    call
}

/// Finds the first entry that each group has not read.
async fn unread(asking: &mut Asking<'_>, partitions: &mut [OnPartition]) -> Result<(), Error> {
    let is_so = |on: &OnPartition, group: &OnLog| on.log.last_kept() > Some(group.position);
    let places = places(partitions, usize::MAX, &mut Vec::new(), is_so);
    let calls = places.iter().map(|(at, own)| {
        let on = &partitions[*at];
        count(asking.shared.keys.log(&on.partition), on.groups[*own].position, &"+", 1)
    });
    let calls: Vec<Call> = calls.collect();
    let answers = asking.call(&calls, "of a log").await?;
    for ((at, own), answer) in places.into_iter().zip(answers) {
        let parts = asking.read("EVALSHA", reply::items(answer));
        let last = parts.into_iter().nth(1).unwrap_or_default();
        let first = asking.read("EVALSHA", reply::maybe_id(last));
        partitions[at].groups[own].own.found.unread = first;
    }
    Ok(())
}

/// Counts what should have been trimmed: older than it is kept by an hour, and needed by nobody.
/// Trimming leaves less than a node of the stream, a hundred entries.
async fn untrimmed(
    asking: &mut Asking<'_>,
    partitions: &mut [OnPartition],
    cut: &mut Vec<String>,
) -> Result<(), Error> {
    let before = |on: &OnPartition| {
        let old = on.at.saturating_sub(on.kept.keep_ms).saturating_sub(TRIMMED_WITHIN_MS);
        let old = EntryId { millis: old, seq: 0 };
        on.holder().map_or(old, |(needed, _)| needed.min(old)).previous()
    };
    let wanted = partitions.iter().enumerate().filter(|(_, on)| {
        // Beside a group that was not looked at nobody knows what is needed.
        on.groups.iter().all(|group| group.own.looked)
            && on.log.first_kept().is_some_and(|first| first < before(on))
    });
    let mut wanted: Vec<usize> = wanted.map(|(at, _)| at).collect();
    if wanted.len() > FOLLOWED_MAX {
        cut.push(format!("what should be trimmed of {} logs", wanted.len() - FOLLOWED_MAX));
        wanted.truncate(FOLLOWED_MAX);
    }
    let calls = wanted.iter().map(|at| {
        let on = &partitions[*at];
        let key = asking.shared.keys.log(&on.partition);
        count(key, EntryId::ZERO, &before(on), STEP_MAX)
    });
    let calls: Vec<Call> = calls.collect();
    let answers = asking.call(&calls, "of a log").await?;
    for (at, answer) in wanted.into_iter().zip(answers) {
        let found = asking.read("EVALSHA", reply::items(answer)).into_iter().next();
        partitions[at].untrimmed = asking.read("EVALSHA", reply::count(found.unwrap_or_default()));
    }
    Ok(())
}

/// Finds pending entries of the log (0) or of the retry stream (1) whose message is gone: those
/// that still are pending after the message was not found.
async fn gone(
    asking: &mut Asking<'_>,
    partitions: &mut [OnPartition],
    queue: usize,
    cut: &mut Vec<String>,
) -> Result<(), Error> {
    let is_so = |_: &OnPartition, group: &OnLog| !group.own.pending[queue].is_empty();
    let places = places(partitions, FOLLOWED_MAX, cut, is_so);
    let (mut calls, mut looks) = (Vec::new(), Vec::new());
    for place in places {
        let Some(keys) = keys(asking, partitions, place) else { continue };
        let key = if queue == 0 { keys.log } else { keys.retry };
        let group = &partitions[place.0].groups[place.1];
        for Held { id, .. } in &group.own.pending[queue] {
            calls.push(count(key.clone(), id.previous(), id, 1));
            looks.push((place, *id, is_pending(&key, &group.name, *id)));
        }
    }
    let answers = asking.call(&calls, "of a stream").await?;
    let mut missing = Vec::new();
    for (look, answer) in looks.into_iter().zip(answers) {
        let found = asking.read("EVALSHA", reply::items(answer)).into_iter().next();
        if found.is_some_and(|found| reply::count(found).is_ok_and(|found| found == 0)) {
            missing.push(look);
        }
    }
    for (place, id) in still_pending(asking, missing).await? {
        partitions[place.0].groups[place.1].own.found.gone[queue].push(id);
    }
    Ok(())
}

fn is_pending(key: &str, group: &str, id: EntryId) -> Look {
    let id = id.to_string();
    Look::new(&["XPENDING"], key).arg(group).arg(&id).arg(&id).arg(1)
}

async fn still_pending(
    asking: &mut Asking<'_>,
    missing: Vec<(Place, EntryId, Look)>,
) -> Result<Vec<(Place, EntryId)>, Error> {
    let (ids, looks): (Vec<_>, Vec<_>) =
        missing.into_iter().map(|(place, id, look)| ((place, id), look)).unzip();
    let answers = asking.look(&looks).await?;
    let rows = answers.into_iter().map(|rows| asking.read("XPENDING", held(rows)));
    Ok(ids.into_iter().zip(rows).filter(|(_, rows)| !rows.is_empty()).map(|(id, _)| id).collect())
}

/// Finds fields of progress, or notes of suspects, of entries that are not pending: those that
/// are still there after that was seen.
async fn left_over(
    asking: &mut Asking<'_>,
    partitions: &mut [OnPartition],
    notes: bool,
    cut: &mut Vec<String>,
) -> Result<(), Error> {
    let is_so = |_: &OnPartition, group: &OnLog| {
        0 < if notes { group.own.running } else { group.own.progress }
    };
    let places = places(partitions, FOLLOWED_MAX, cut, is_so);
    let (mut found, mut looks) = (Vec::new(), Vec::new());
    for place in places {
        let Some(keys) = keys(asking, partitions, place) else { continue };
        let (hash, stream) =
            if notes { (keys.running, keys.retry) } else { (keys.progress, keys.log) };
        let scan = Look::new(&["HSCAN"], &hash).arg(0).arg("COUNT").arg(FIELDS_MAX);
        let answer = asking.look(&[scan]).await?.pop().unwrap_or_default();
        let page = asking.read("HSCAN", reply::items(answer)).pop().unwrap_or_default();
        for (field, _) in asking.read("HSCAN", reply::pairs(page)).into_iter().take(FIELDS_MAX) {
            if let Ok(id) = shown(field).parse::<EntryId>() {
                let group = &partitions[place.0].groups[place.1].name;
                let exists = Look::new(&["HEXISTS"], &hash).arg(id.to_string());
                found.push((place, id));
                looks.extend([is_pending(&stream, group, id), exists]);
            }
        }
    }
    let mut answers = asking.look(&looks).await?.into_iter();
    for ((at, own), id) in found {
        let rows = asking.read("XPENDING", held(answers.next().unwrap_or_default()));
        let is_there = asking.read("HEXISTS", reply::count(answers.next().unwrap_or_default()));
        if rows.is_empty() && is_there == 1 {
            let found = &mut partitions[at].groups[own].own.found;
            if notes { found.notes.push(id) } else { found.progress.push(id) }
        }
    }
    Ok(())
}

/// Counts the dead letters of the last minutes.
async fn lately(
    asking: &mut Asking<'_>,
    partitions: &mut [OnPartition],
    cut: &mut Vec<String>,
) -> Result<(), Error> {
    let since = |on: &OnPartition| EntryId { millis: on.at.saturating_sub(LATELY_MS), seq: 0 };
    let is_so = |on: &OnPartition, group: &OnLog| group.own.dead.last > Some(since(on));
    let places = places(partitions, FOLLOWED_MAX, cut, is_so);
    let mut calls = Vec::new();
    for place in &places {
        if let Some(keys) = keys(asking, partitions, *place) {
            calls.push(count(keys.dead, since(&partitions[place.0]), &"+", STEP_MAX));
        }
    }
    let answers = asking.call(&calls, "of dead letters").await?;
    for ((at, own), answer) in places.into_iter().zip(answers) {
        let found = asking.read("EVALSHA", reply::items(answer)).into_iter().next();
        let found = asking.read("EVALSHA", reply::count(found.unwrap_or_default()));
        partitions[at].groups[own].own.found.lately = found;
    }
    Ok(())
}
