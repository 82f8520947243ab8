//! Taking over entries: what others abandoned, and what a lost connection left unseen.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use super::fault::{Fault, accept};
use super::flight::Stream;
use super::groups;
use super::member::Member;
use super::reply::{self, RawEntry};
use crate::delivery::{Entry, EntryId, Partition, Queue, Token};
use crate::driver::monitor::Incident;
use crate::error::Error;

/// Most entries that are claimed at once.
pub(super) const CLAIMED_MAX: usize = 100;

/// Where the search of each stream goes on.
pub(super) type Cursors = HashMap<Stream, EntryId>;

/// The streams of partitions.
pub(super) fn streams_of(partitions: &[Partition]) -> Vec<Stream> {
    let both = |partition: &Partition| {
        [(partition.clone(), Queue::Log), (partition.clone(), Queue::Retry)]
    };
    partitions.iter().flat_map(both).collect()
}

/// Claims what was idle for a lease, `count` entries at most per stream. Gives the entries and
/// whether any search has not come to its end.
pub(super) async fn abandoned(
    member: &Arc<Member>,
    streams: &[Stream],
    cursors: &mut Cursors,
    count: usize,
) -> Result<(Vec<Entry>, bool), Error> {
    if planted!(NoSweep) {
        return Ok((Vec::new(), false));
    }
    let _alone = member.claiming.lock().await;
    let what = format!("take over what is abandoned in group {}", member.group);
    let mut pipeline = Pipeline::new();
    for stream in streams {
        let cursor = cursors.get(stream).copied().unwrap_or(EntryId::ZERO);
        pipeline.cmd("XAUTOCLAIM").arg(member.stream_key(stream)).arg(member.group.as_str());
        let idle = if planted!(ZeroIdle) { 0 } else { millis(member.lease.lease) };
        pipeline.arg(&member.consumer).arg(idle).arg(cursor.to_string());
        pipeline.arg("COUNT").arg(count);
    }
    let answers = member.shared.commands.ask(&what, &pipeline).await?;
    let (mut entries, mut unfinished) = (Vec::new(), false);
    for (stream, answer) in streams.iter().zip(answers) {
        match read_claim(answer) {
            Ok((cursor, raw, gone)) => {
                unfinished |= cursor != EntryId::ZERO;
                cursors.insert(stream.clone(), cursor);
                tell_gone(member, stream, &gone).await;
                // What was taken up from other streams is to be run whatever becomes of this one.
                let adopted = adopt(member, stream, raw).await;
                entries.extend(member.tell("take entries over", adopted).unwrap_or_default());
            }
            // The reader makes a group again that vanished.
            Err(fault) if fault.code() == "NOGROUP" => {}
            Err(fault) => {
                let what = format!("{what} in {}", member.stream_key(stream));
                let error = member.shared.commands.error(&what, &fault);
                member.shared.troubles.failed(what, &error);
            }
        }
    }
    Ok((entries, unfinished))
}

pub(super) type Claimed = (EntryId, Vec<RawEntry>, Vec<EntryId>);

pub(super) fn read_claim(answer: Value) -> Result<Claimed, Fault> {
    let mut parts = reply::items(answer)?.into_iter();
    let cursor = reply::id(parts.next().unwrap_or_default())?;
    let raw = reply::entries(parts.next().unwrap_or_default())?;
    let gone = reply::items(parts.next().unwrap_or_default())?;
    let gone = gone.into_iter().map(reply::id).collect::<Result<_, _>>()?;
    Ok((cursor, raw, gone))
}

/// Finds what the server handed to this consumer and nobody saw: what is pending for it and not
/// in flight here. Reading the history with `0` would raise the counts of running work. What is
/// in `entries` is in flight from then on, and to be handed over also where this fails.
pub(super) async fn recover(
    member: &Arc<Member>,
    partitions: &[Partition],
    entries: &mut Vec<Entry>,
) -> Result<(), Error> {
    let _alone = member.claiming.lock().await;
    for stream in streams_of(partitions) {
        let unseen = unseen(member, &stream).await?;
        for ids in unseen.chunks(CLAIMED_MAX.min(member.sizes.most())) {
            let mut claim = redis::cmd("XCLAIM");
            claim.arg(member.stream_key(&stream)).arg(member.group.as_str());
            claim.arg(&member.consumer).arg(0);
            for id in ids {
                claim.arg(id.to_string());
            }
            let answer = ask(member, "take up what was not seen", claim).await?;
            let raw = reply::entries(answer).map_err(|fault| error(member, &fault))?;
            entries.extend(adopt(member, &stream, raw).await?);
        }
    }
    Ok(())
}

/// Pages through the own pending list.
async fn unseen(member: &Member, stream: &Stream) -> Result<Vec<EntryId>, Error> {
    let (mut unseen, mut from) = (Vec::new(), "-".to_owned());
    loop {
        let mut pending = redis::cmd("XPENDING");
        pending.arg(member.stream_key(stream)).arg(member.group.as_str());
        pending.arg(&from).arg("+").arg(CLAIMED_MAX).arg(&member.consumer);
        let mut pipeline = Pipeline::new();
        pipeline.add_command(pending);
        let mut answers =
            member.shared.commands.ask("look for what was not seen", &pipeline).await?;
        let rows = match rows(answers.pop().unwrap_or_default()) {
            Ok(rows) => rows,
            // The reader makes groups again, and says what it cannot read.
            Err(Fault::Refused { code, .. })
                if matches!(code.as_str(), "NOGROUP" | "WRONGTYPE" | "NOPERM") =>
            {
                return Ok(unseen);
            }
            Err(fault) => return Err(error(member, &fault)),
        };
        let Some((last, ..)) = rows.last() else { return Ok(unseen) };
        from = format!("({last}");
        let fresh = rows.iter().map(|(id, ..)| *id);
        unseen.extend(fresh.filter(|id| member.flight.token(stream, *id).is_none()));
    }
}

/// Rows of XPENDING: entry, consumer, delivery count.
pub(super) fn rows(value: Value) -> Result<Vec<(EntryId, String, u64)>, Fault> {
    let row = |value| {
        let mut parts = reply::items(value)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let (id, consumer, _idle) = (reply::id(next())?, reply::text(next())?, next());
        Ok((id, consumer, reply::count(next())?))
    };
    reply::items(accept(value)?)?.into_iter().map(row).collect()
}

/// Makes claimed entries this consumer's: their delivery counts and their progress are asked for.
async fn adopt(
    member: &Arc<Member>,
    stream: &Stream,
    raw: Vec<RawEntry>,
) -> Result<Vec<Entry>, Error> {
    member.sizes.note(&raw);
    let key = member.stream_key(stream);
    let (mut fresh, mut gone) = (Vec::new(), Vec::new());
    for (id, fields) in raw {
        match (fields, member.flight.token(stream, id)) {
            (None, _) => gone.push(id),
            (Some(_), Some(token)) => restore(member, &key, id, token).await?,
            (Some(fields), None) => fresh.push((id, fields)),
        }
    }
    if !gone.is_empty() {
        forget(member, stream, &gone).await;
    }
    if fresh.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = Pipeline::new();
    for (id, _) in &fresh {
        let id = id.to_string();
        pipeline.cmd("XPENDING").arg(&key).arg(member.group.as_str()).arg(&id).arg(&id).arg(1);
    }
    // A retry entry holds one event and has no progress; its id may be that of a log entry.
    let half_settled = stream.1 == Queue::Log;
    if half_settled {
        pipeline.cmd("HMGET").arg(member.keys(&stream.0).progress);
        for (id, _) in &fresh {
            pipeline.arg(id.to_string());
        }
    }
    let mut answers = member.shared.commands.ask("take entries over", &pipeline).await?;
    let progress = match answers.pop() {
        Some(answer) if half_settled => progress(member, answer)?,
        Some(answer) => {
            answers.push(answer);
            vec![None; fresh.len()]
        }
        None => Vec::new(),
    };
    let mut entries = Vec::new();
    for (((id, fields), answer), progress) in fresh.into_iter().zip(answers).zip(progress) {
        // What is left out here is nobody's for a lease, and is found again by a sweep.
        let rows = rows(answer).map_err(|fault| error(member, &fault));
        let Some(rows) = member.tell("ask for a delivery count", rows) else { continue };
        // Somebody else may have been as quick.
        let Some((.., count)) = rows.into_iter().find(|row| row.1 == member.consumer) else {
            continue;
        };
        let entry = member.entry(stream, id, fields, Token(count), progress);
        if member.flight.of(stream, |held| held.insert(&entry)) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// The progress records of entries.
fn progress(member: &Member, answer: Value) -> Result<Vec<Option<Bytes>>, Error> {
    let read = |values: Vec<Value>| values.into_iter().map(reply::bytes).collect();
    reply::items(answer).and_then(read).map_err(|fault| error(member, &fault))
}

/// An entry that is in flight here was claimed from ourselves: its count is put back, or what
/// runs would no longer be able to settle it.
async fn restore(member: &Member, key: &str, id: EntryId, token: Token) -> Result<(), Error> {
    let mut claim = redis::cmd("XCLAIM");
    claim.arg(key).arg(member.group.as_str()).arg(&member.consumer).arg(0).arg(id.to_string());
    claim.arg("RETRYCOUNT").arg(token.0).arg("JUSTID");
    ask(member, "put a delivery count back", claim).await.map(drop)
}

/// An entry that is in flight here was handed out anew: its group was made again, or moved back.
/// What runs goes on to hold it.
pub(super) async fn keep(member: &Member, stream: &Stream, id: EntryId) -> Result<(), Error> {
    match member.flight.token(stream, id) {
        Some(token) if token != Token(1) => {
            restore(member, &member.stream_key(stream), id, token).await
        }
        _ => Ok(()),
    }
}

/// Entries that were deleted while they were pending: there is nothing left to deliver.
pub(super) async fn forget(member: &Member, stream: &Stream, gone: &[EntryId]) {
    tell_gone(member, stream, gone).await;
    let ids: Vec<String> = gone.iter().map(EntryId::to_string).collect();
    let mut pipeline = Pipeline::new();
    pipeline.cmd("XACK").arg(member.stream_key(stream)).arg(member.group.as_str()).arg(&ids);
    if stream.1 == Queue::Retry {
        pipeline.cmd("HDEL").arg(member.keys(&stream.0).running).arg(&ids);
    }
    let what = "forget deleted entries";
    let named = format!("{what} in group {}", member.group);
    let forgotten = member.shared.commands.ask(&named, &pipeline).await;
    member.tell(what, forgotten);
}

/// The one place that says so: entries were handed out and are not pending any more, though
/// nobody here settled them. Those that the rounds have counted are left out; see
/// `checkpoint.lua`.
pub(super) async fn tell_gone(member: &Member, stream: &Stream, gone: &[EntryId]) {
    if gone.is_empty() {
        return;
    }
    let counted = match stream.1 {
        Queue::Log => {
            let counted = counted(member, &stream.0).await;
            member.tell("see what was counted", counted).unwrap_or_default()
        }
        Queue::Retry => EntryId::ZERO,
    };
    let entries = gone.iter().filter(|id| **id > counted).count() as u64;
    if entries > 0 {
        let (group, partition) = (member.group.clone(), stream.0.clone());
        member.shared.monitor.raise(Incident::PendingGone { group, partition, entries });
    }
}

/// Up to where pending entries that are gone were counted.
async fn counted(member: &Member, partition: &Partition) -> Result<EntryId, Error> {
    let mut get = redis::cmd("HGET");
    get.arg(member.keys(partition).checkpoint).arg("gone");
    let answer = ask(member, "see what was counted", get).await?;
    let counted = reply::maybe_id(answer).map_err(|fault| error(member, &fault))?;
    Ok(counted.unwrap_or_default())
}

/// The one place that says so: entries were to be settled and were not pending any more.
///
/// The group may have vanished: then it is made again.
pub(super) async fn tell_missed(member: &Member, stream: &Stream, entries: u64) {
    if entries == 0 {
        return;
    }
    let (group, partition) = (member.group.clone(), stream.0.clone());
    member.shared.monitor.raise(Incident::SettleMissed { group, partition, entries });
    // What it cannot make again, the reader says.
    let again = groups::again(member, std::slice::from_ref(&stream.0)).await;
    member.tell("make groups again", again);
}

async fn ask(member: &Member, what: &str, command: Cmd) -> Result<Value, Error> {
    let what = format!("{what} in group {}", member.group);
    member.shared.commands.ask_one(what, command).await
}

fn error(member: &Member, fault: &Fault) -> Error {
    member.shared.commands.error(format!("take over entries of group {}", member.group), fault)
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
