//! What tools ask for: topics, entries without a group, backlogs, dead letters.

use std::time::Duration;

use super::socket::Socket;
use async_trait::async_trait;
use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::fault::{Fault, accept};
use super::keys::GroupKeys;
use super::reply::{self, RawEntry};
use super::topics::partitions_of;
use super::{Shared, wire};
use crate::delivery::{Bits, DeadLetter, Entry, EntryId, Partition, Position, Queue, Token};
use crate::driver::{Backlog, Extent, GroupName, Tools, TopicShape};
use crate::error::Error;

/// Partitions per pipeline.
const PARTITIONS_MAX: usize = 50;

#[async_trait]
impl Tools for Shared {
    async fn topics(&self) -> Result<Vec<TopicShape>, Error> {
        self.load_topics().await
    }

    async fn read(
        &self,
        after: &[(Partition, EntryId)],
        count: usize,
        wait: Duration,
    ) -> Result<Vec<Entry>, Error> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let entries = self.read_once(after, count.max(1), left).await?;
            if !entries.is_empty() || Instant::now() >= until || after.is_empty() {
                return Ok(entries);
            }
        }
    }

    async fn latest(&self, partition: &Partition, count: usize) -> Result<Vec<Entry>, Error> {
        let what = format!("read the last entries of {partition}");
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.keys.log(partition)).arg("+").arg("-").arg("COUNT").arg(count);
        let answer = self.commands.ask_one(&what, command).await?;
        let raw = reply::entries(answer).map_err(|fault| self.commands.error(what, &fault))?;
        let mut entries = plain(partition, raw);
        entries.reverse();
        Ok(entries)
    }

    async fn end(&self, partition: &Partition) -> Result<EntryId, Error> {
        self.extent(partition).await.map(|extent| extent.last)
    }

    async fn extent(&self, partition: &Partition) -> Result<Extent, Error> {
        let what = format!("find the end of {partition}");
        let mut pipeline = Pipeline::new();
        pipeline.cmd("XINFO").arg("STREAM").arg(self.keys.log(partition));
        let mut answers = self.commands.ask(&what, &pipeline).await?;
        let extent = extent(answers.pop().unwrap_or_default());
        extent.map_err(|fault| self.commands.error(what, &fault))
    }

    async fn backlog(&self, group: &GroupName) -> Result<Backlog, Error> {
        let what = format!("look at the backlog of group {group}");
        let shapes = self.load_topics().await?;
        let keys: Vec<GroupKeys> =
            partitions_of(&shapes).map(|partition| self.keys.group(&partition, group)).collect();
        let mut backlog = Backlog::default();
        let mut unread = Vec::new();
        for keys in keys.chunks(PARTITIONS_MAX) {
            let mut pipeline = Pipeline::new();
            for keys in keys {
                look(&mut pipeline, keys);
            }
            let answers = self.commands.ask(&what, &pipeline).await?;
            for (keys, answers) in keys.iter().zip(answers.chunks(LOOKS)) {
                add(&mut backlog, &mut unread, keys, group, answers)
                    .map_err(|fault| self.commands.error(&what, &fault))?;
            }
        }
        backlog.unread = self.count_unread(&what, &unread).await?;
        Ok(backlog)
    }

    async fn dead_letters(
        &self,
        group: &GroupName,
        count: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        let shapes = self.load_topics().await?;
        let mut letters = Vec::new();
        for partition in partitions_of(&shapes) {
            let what = format!("read the dead letters of group {group} on {partition}");
            let mut command = redis::cmd("XRANGE");
            command.arg(self.keys.group(&partition, group).dead).arg("-").arg("+");
            command.arg("COUNT").arg(count);
            let answer = self.commands.ask_one(&what, command).await?;
            let raw = reply::entries(answer).map_err(|fault| self.commands.error(what, &fault))?;
            for (entry, fields) in raw {
                let here = Position { partition: partition.clone(), entry, index: 0 };
                letters.extend(fields.map(|fields| wire::decode_dead(here, &fields)));
            }
        }
        Ok(letters)
    }
}

impl Shared {
    /// One XREAD on a connection of its own, which blocks for a part of the wait.
    async fn read_once(
        &self,
        after: &[(Partition, EntryId)],
        count: usize,
        wait: Duration,
    ) -> Result<Vec<Entry>, Error> {
        if after.is_empty() {
            tokio::time::sleep(wait).await;
            return Ok(Vec::new());
        }
        let keys: Vec<String> =
            after.iter().map(|(partition, _)| self.keys.log(partition)).collect();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("XREAD").arg("COUNT").arg(count);
        if !wait.is_zero() {
            // BLOCK 0 would wait for ever.
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            pipeline.arg("BLOCK").arg(wait.min(self.block_millis()));
        }
        pipeline.arg("STREAMS").arg(&keys);
        for (_, id) in after {
            pipeline.arg(id.to_string());
        }
        let streams = self.ask_blocking(&pipeline).await;
        let streams = streams.map_err(|fault| self.commands.error("read entries", &fault))?;
        let mut entries = Vec::new();
        for (key, raw) in streams {
            if let Some(at) = keys.iter().position(|known| *known == key) {
                entries.extend(plain(&after[at].0, raw));
            }
        }
        Ok(entries)
    }

    /// The connection is taken away while it is used: where the caller gives up in the middle, it
    /// is dropped, and nobody else gets the answer.
    async fn ask_blocking(
        &self,
        pipeline: &Pipeline,
    ) -> Result<Vec<(String, Vec<RawEntry>)>, Fault> {
        let mut slot = self.tail.lock().await;
        let connection = match slot.take() {
            Some(connection) => connection,
            None => self.open_tail().await?,
        };
        let mut answers = connection.send(pipeline).await?;
        *slot = Some(connection);
        reply::streams(accept(answers.pop().unwrap_or_default())?)
    }

    /// Connections live on the driver's runtime, not on the caller's.
    async fn open_tail(&self) -> Result<Socket, Fault> {
        let connector = std::sync::Arc::clone(&self.connector);
        let opened = self.runtime.spawn(async move { connector.open().await }).await;
        opened.unwrap_or_else(|_| Err(Fault::Lost("the driver is closed".to_owned())))
    }

    async fn count_unread(&self, what: &str, unread: &[Unread]) -> Result<u64, Error> {
        let mut total = 0;
        for part in unread.chunks(PARTITIONS_MAX) {
            let mut pipeline = Pipeline::new();
            for one in part {
                pipeline.cmd("XRANGE").arg(&one.key).arg(format!("({}", one.delivered)).arg("+");
                pipeline.arg("COUNT").arg(1);
            }
            let answers = self.commands.ask(what, &pipeline).await?;
            for (one, answer) in part.iter().zip(answers) {
                let next =
                    reply::entries(answer).map_err(|fault| self.commands.error(what, &fault))?;
                // Ids that differ may be those of entries that were deleted since.
                total += if next.is_empty() { 0 } else { one.lag.unwrap_or(1).max(1) };
            }
        }
        Ok(total)
    }
}

/// Entries of a log under no lease.
pub(super) fn plain(partition: &Partition, raw: Vec<RawEntry>) -> Vec<Entry> {
    let entry = |(id, fields): RawEntry| {
        let content = wire::decode_log(partition, id, fields?);
        Some(Entry {
            partition: partition.clone(),
            queue: Queue::Log,
            id,
            records: content.records,
            settled: Bits::new(),
            attempt: content.attempt,
            origin: content.origin,
            token: Token(0),
            suspect: false,
            lease: tokio_util::sync::CancellationToken::new(),
        })
    };
    raw.into_iter().filter_map(entry).collect()
}

/// Reads `XINFO STREAM`. A log that is not there is as good as an empty one.
pub(super) fn extent(answer: Value) -> Result<Extent, Fault> {
    let mut extent = Extent::default();
    let Some(stream) = present(answer)? else { return Ok(extent) };
    for (name, value) in reply::pairs(stream)? {
        match reply::text(name)?.as_str() {
            "last-generated-id" => extent.last = reply::id(value)?,
            "entries-added" => extent.added = reply::count(value)?,
            "length" => extent.kept = reply::count(value)?,
            "first-entry" if value != Value::Nil => {
                let first = reply::items(value)?.into_iter().next().unwrap_or_default();
                extent.first = Some(reply::id(first)?);
            }
            _ => {}
        }
    }
    Ok(extent)
}

/// A stream that has entries after the last one handed out.
struct Unread {
    key: String,
    delivered: EntryId,
    lag: Option<u64>,
}

/// Commands per partition in [`look`].
const LOOKS: usize = 6;

fn look(pipeline: &mut Pipeline, keys: &GroupKeys) {
    for stream in [&keys.log, &keys.retry] {
        pipeline.cmd("XINFO").arg("STREAM").arg(stream);
        pipeline.cmd("XINFO").arg("GROUPS").arg(stream);
    }
    pipeline.cmd("ZCARD").arg(&keys.due);
    pipeline.cmd("XLEN").arg(&keys.dead);
}

fn add(
    backlog: &mut Backlog,
    unread: &mut Vec<Unread>,
    keys: &GroupKeys,
    group: &GroupName,
    answers: &[Value],
) -> Result<(), Fault> {
    let mut answers = answers.iter().cloned();
    let mut next = || answers.next().unwrap_or_default();
    for key in [&keys.log, &keys.retry] {
        let (stream, groups) = (next(), next());
        let end = extent(stream)?.last;
        let Some(state) = state(groups, group)? else { continue };
        backlog.pending += state.pending;
        if state.delivered < end {
            unread.push(Unread { key: key.clone(), delivered: state.delivered, lag: state.lag });
        }
    }
    backlog.due += reply::count(next())?;
    backlog.dead += reply::count(next())?;
    Ok(())
}

/// A group on a stream.
#[derive(Default)]
struct State {
    pending: u64,
    delivered: EntryId,
    lag: Option<u64>,
}

/// A key that is not there is as good as an empty one.
pub(super) fn present(value: Value) -> Result<Option<Value>, Fault> {
    match accept(value) {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.to_string().contains("no such key") => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn state(groups: Value, group: &GroupName) -> Result<Option<State>, Fault> {
    let Some(groups) = present(groups)? else { return Ok(None) };
    for row in reply::items(groups)? {
        let (mut state, mut own) = (State::default(), false);
        for (name, value) in reply::pairs(row)? {
            match reply::text(name)?.as_str() {
                "name" => own = reply::text(value)? == group.as_str(),
                "pending" => state.pending = reply::count(value)?,
                "last-delivered-id" => state.delivered = reply::id(value)?,
                "lag" => state.lag = reply::int(value)?.and_then(|lag| u64::try_from(lag).ok()),
                _ => {}
            }
        }
        if own {
            return Ok(Some(state));
        }
    }
    Ok(None)
}
