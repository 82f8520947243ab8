//! The reader: a task with a connection of its own, never dropped in the middle of a read.
//!
//! A read that is given up leaves a ghost on the server, to which entries are handed out that
//! nobody sees. So a read always ends by itself; to stop it, `CLIENT UNBLOCK` ends it early.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::connection::{Backoff, Ghosts, send};
use super::connector::moved;
use super::coverage::{Assigned, Begin, cover};
use super::fault::{Fault, accept};
use super::flight::Stream;
use super::member::{Member, Out};
use super::reply::{self, RawEntry};
use super::{claim, groups, probe, ride, wire};
use crate::delivery::{Entry, Partition, Queue, Start, Token};
use crate::driver::monitor::{Connection, ConnectionState};
use crate::error::Error;

/// Most entries that one read asks for, over all streams.
const ENTRIES_MAX: usize = 1024;
/// How often a subscription without a partition looks for topics.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long acks wait for a read that they may ride with.
const RIDE_WAIT: Duration = Duration::from_millis(1);
/// How long a reader waits after an error that waiting will not mend, before it tries again.
pub(super) const FATAL_PAUSE: Duration = Duration::from_secs(1);

/// Reads the streams of up to 16 partitions.
pub(super) struct Reader {
    member: Arc<Member>,
    assigned: Arc<Assigned>,
    connection: Option<MultiplexedConnection>,
    /// There was a connection before: the server may have handed out what nobody saw.
    was_connected: bool,
    out: Out,
    backoff: Backoff,
    average: Average,
    /// How many topics there were at the last read.
    topics: Option<u64>,
    /// The epoch of the group's routes at the last read.
    epoch: Option<i64>,
    /// The last read failed; said once.
    suffering: bool,
    /// The connections so far, this one among them once it is made.
    ghosts: Ghosts,
    watched: Connection,
    /// Whether the sentinels name another master.
    moves: watch::Receiver<u64>,
}

/// What one read brought.
struct Read {
    streams: Vec<(String, Vec<RawEntry>)>,
    /// Of the group's routes; none where nothing was read.
    epoch: Option<i64>,
    topics: u64,
}

impl Reader {
    pub(super) fn new(member: Arc<Member>, assigned: Arc<Assigned>, out: Out) -> Self {
        let number = member.lines().len();
        let watched = member.shared.monitor.watch(format!("reader {}/{number}", member.group));
        Self {
            moves: member.shared.connector.moves(),
            watched,
            ghosts: Ghosts::default(),
            member,
            assigned,
            connection: None,
            was_connected: false,
            out,
            backoff: Backoff::new(),
            average: Average::new(),
            topics: None,
            epoch: None,
            suffering: false,
        }
    }

    /// Reads until the subscription is closed or its source is dropped.
    pub(super) async fn run(mut self) {
        let member = Arc::clone(&self.member);
        let stopped = async {
            tokio::select! {
                () = member.closed.cancelled() => {}
                () = member.dropped.cancelled() => {}
                () = member.shared.runtime.stop().cancelled() => {}
            }
        };
        tokio::pin!(stopped);
        loop {
            let budget = tokio::select! {
                biased;
                () = &mut stopped => break,
                budget = self.demand() => budget,
            };
            let step = member.shared.troubles.guard("read for a group", self.step(budget));
            let pause = match step.await {
                Some(None) => continue,
                Some(Some(pause)) => pause,
                // Nobody knows what its connection is in the middle of.
                None => {
                    self.connection = None;
                    FATAL_PAUSE
                }
            };
            tokio::select! {
                () = &mut stopped => break,
                () = sleep(pause) => {}
            }
        }
        // Who boarded and was not carried takes another way.
        drop(self.assigned.rides.depart());
        self.assigned.client.store(0, Ordering::Release);
    }

    /// Reads once; gives a pause where that failed.
    async fn step(&mut self, budget: usize) -> Option<Duration> {
        match self.round(budget).await {
            Ok(()) => {
                self.recovered();
                None
            }
            Err(fault) => Some(self.suffer(fault).await),
        }
    }

    /// Waits until events are asked for. Acks may board meanwhile; they leave with the next read,
    /// or soon without one.
    async fn demand(&self) -> usize {
        loop {
            if self.connection.is_some() {
                self.assigned.rides.open();
            }
            let boarded = tokio::select! {
                biased;
                budget = self.member.demand.wait() => return budget,
                () = self.assigned.rides.boarded() => sleep(RIDE_WAIT),
            };
            tokio::select! {
                biased;
                budget = self.member.demand.wait() => return budget,
                () = boarded => self.send_rides().await,
            }
        }
    }

    async fn send_rides(&self) {
        let rides = self.assigned.rides.depart();
        if let Some(connection) = &self.connection {
            ride::deliver(connection.clone(), rides).await;
        }
    }

    async fn round(&mut self, budget: usize) -> Result<(), Fault> {
        let partitions = self.assigned.list();
        self.connect(&partitions).await?;
        if partitions.is_empty() {
            return self.look().await;
        }
        let open = self.member.dead_cap.open(&partitions);
        if open.is_empty() {
            // Acks that boarded have no read to ride with.
            self.send_rides().await;
            return self.look().await;
        }
        let read = self.read(&open, budget).await?;
        self.hand_over(&partitions, read).await
    }

    /// Opens a connection where there is none, and finds what the last one left behind.
    async fn connect(&mut self, partitions: &[Partition]) -> Result<(), Fault> {
        let has_moved = self.moves.has_changed().unwrap_or(false);
        self.moves.mark_unchanged();
        if self.connection.is_some() {
            return if has_moved { Err(moved()) } else { Ok(()) };
        }
        self.watched.turn(ConnectionState::Connecting);
        let mut connection = self.member.shared.connector.open().await?;
        self.watched.turn(ConnectionState::Checking);
        let (client, run_id) = probe::introduce(&mut connection).await?;
        // The old read may still wait on the server: what it would get, nobody would see.
        probe::lay(&mut connection, &run_id, &mut self.ghosts).await?;
        if self.was_connected {
            self.watched.turn(ConnectionState::Recovering);
            let found = claim::recover(&self.member, partitions).await;
            let found = found.map_err(|error| Fault::Lost(error.to_string()))?;
            self.send(found).await;
        }
        self.assigned.client.store(client.unwrap_or(0), Ordering::Release);
        self.ghosts.add(run_id, client);
        self.connection = Some(connection);
        self.was_connected = true;
        self.watched.turn(ConnectionState::Reading);
        Ok(())
    }

    async fn read(&mut self, partitions: &[Partition], budget: usize) -> Result<Read, Fault> {
        let retries = !self.member.is_yielding_retries();
        let keys: Vec<String> = partitions
            .iter()
            .map(|partition| self.member.keys(partition))
            .flat_map(|keys| [Some(keys.log), retries.then_some(keys.retry)])
            .flatten()
            .collect();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("XREADGROUP").arg("GROUP").arg(self.member.group.as_str());
        pipeline
            .arg(&self.member.consumer)
            .arg("COUNT")
            .arg(self.average.count(budget, keys.len()));
        pipeline.arg("BLOCK").arg(self.member.shared.block_millis());
        pipeline.arg("STREAMS").arg(&keys).arg(vec![">"; keys.len()]);
        self.ask_for_news(&mut pipeline);
        if self.member.closed.is_cancelled() {
            return Ok(Read { streams: Vec::new(), epoch: None, topics: 0 });
        }
        // The acks are written first and answered first, however long the read blocks.
        let rides = self.assigned.rides.depart();
        let carried = async {
            if let Some(connection) = self.connection.clone() {
                ride::deliver(connection, rides).await;
            }
        };
        let patience = self.member.shared.connector.patience();
        self.watched.expect(patience);
        // The request has a deadline of its own. This one holds whatever becomes of that.
        let reading = timeout(patience, join(carried, self.send_all(&pipeline)));
        let ((), answers) = reading.await.map_err(|_| Fault::Silent)?;
        let mut answers = answers?.into_iter();
        let streams = accept(answers.next().unwrap_or_default())?;
        let (epoch, topics) = news(answers)?;
        self.watched.answered();
        Ok(Read { streams: reply::streams(streams)?, epoch: Some(epoch), topics })
    }

    fn ask_for_news(&self, pipeline: &mut Pipeline) {
        let keys = &self.member.shared.keys;
        pipeline.cmd("HGET").arg(keys.routes(&self.member.group)).arg(wire::EPOCH);
        pipeline.cmd("HLEN").arg(keys.topics());
    }

    async fn send_all(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Fault> {
        match self.connection.clone() {
            Some(mut connection) => send(&mut connection, pipeline).await,
            None => Err(Fault::Lost("there is no connection".to_owned())),
        }
    }

    /// There is nothing to read yet: looks for topics.
    async fn look(&mut self) -> Result<(), Fault> {
        let mut pipeline = Pipeline::new();
        self.ask_for_news(&mut pipeline);
        let (_, topics) = news(self.send_all(&pipeline).await?.into_iter())?;
        self.follow_topics(topics).await;
        tokio::select! {
            () = self.member.closed.cancelled() => {}
            () = sleep(LOOK_EVERY) => {}
        }
        Ok(())
    }

    /// The routes come first: who gets an entry must know what the group can route.
    async fn hand_over(&mut self, partitions: &[Partition], read: Read) -> Result<(), Fault> {
        let known = match read.epoch {
            Some(epoch) => self.follow_routes(epoch).await,
            None => true,
        };
        if !known {
            // Nobody has seen the entries: they come back after the lease.
            return Ok(());
        }
        // Whoever adds partitions to a topic raises the epoch of the groups that read it.
        if read.epoch.is_some() && self.epoch != read.epoch {
            self.epoch = read.epoch;
            self.topics = None;
        }
        let mut entries = Vec::new();
        for (key, raw) in read.streams {
            if let Some(stream) = self.stream(partitions, &key) {
                entries.extend(self.decode(&stream, raw).await);
            }
        }
        self.send(entries).await;
        if read.topics > 0 {
            self.follow_topics(read.topics).await;
        }
        Ok(())
    }

    fn stream(&self, partitions: &[Partition], key: &str) -> Option<Stream> {
        partitions.iter().find_map(|partition| {
            let keys = self.member.keys(partition);
            let queue = if keys.log == key {
                Queue::Log
            } else if keys.retry == key {
                Queue::Retry
            } else {
                return None;
            };
            Some((partition.clone(), queue))
        })
    }

    async fn decode(&mut self, stream: &Stream, raw: Vec<RawEntry>) -> Vec<Entry> {
        let (mut entries, mut gone) = (Vec::new(), Vec::new());
        for (id, fields) in raw {
            match fields {
                Some(fields) => {
                    let entry = self.member.entry(stream, id, fields, Token(1), None);
                    if self.member.flight.insert(&entry) {
                        entries.push(entry);
                    }
                }
                None => gone.push(id),
            }
        }
        if !gone.is_empty() {
            claim::forget(&self.member, stream, &gone).await;
        }
        entries
    }

    async fn send(&mut self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        // What is handed over is soon settled, and this reader is about to write again.
        if self.connection.is_some() {
            self.assigned.rides.open();
        }
        let events = entries.iter().map(|entry| entry.records.len()).sum();
        self.average.note(events, entries.len());
        self.member.demand.meet();
        // Where the source is gone, so is the consumer: the lease lapses.
        let _nobody = self.out.send(Ok(entries)).await;
    }

    /// Nothing is handed over before the routes are known, lest an event be taken for one that
    /// nobody routes. False where reading ended before that.
    async fn follow_routes(&self, epoch: i64) -> bool {
        let mut backoff = Backoff::new();
        loop {
            let followed = self.member.follow_routes(epoch).await;
            if self.member.tell("follow the routes", followed).is_some() {
                return true;
            }
            if self.member.closed.is_cancelled() || self.member.dropped.is_cancelled() {
                return false;
            }
            sleep(backoff.next()).await;
        }
    }

    async fn follow_topics(&mut self, topics: u64) {
        if self.topics == Some(topics) {
            return;
        }
        let covered = cover(&self.member, Begin::Earliest, &self.out).await;
        if self.member.tell("look for topics", covered).is_some() {
            self.topics = Some(topics);
        }
    }

    fn recovered(&mut self) {
        self.watched.turn(ConnectionState::Reading);
        self.backoff = Backoff::new();
        if std::mem::take(&mut self.suffering) {
            tracing::info!(consumer = self.member.consumer, "reading again");
        }
    }

    /// Deals with a failed read; gives the pause before the next.
    async fn suffer(&mut self, fault: Fault) -> Duration {
        let address = self.member.shared.connector.address();
        let group = &self.member.group;
        if fault.breaks_connection() {
            self.connection = None;
            drop(self.assigned.rides.depart());
            self.watched.turn(ConnectionState::Connecting);
        }
        self.watched.ail(&fault);
        if !std::mem::replace(&mut self.suffering, true) {
            tracing::warn!(%group, address, "reading failed, will go on: {fault}");
        }
        match fault.code() {
            "NOGROUP" | "UNBLOCKED" => self.make_groups_again().await,
            "WRONGTYPE" | "NOPERM" | "NOAUTH" | "WRONGPASS" => {
                let error = self.fatal(fault).await;
                self.member.demand.meet();
                let _nobody = self.out.send(Err(error)).await;
                return FATAL_PAUSE;
            }
            _ => {}
        }
        self.backoff.next()
    }

    /// A group that vanished is made again from the beginning, never from the end.
    async fn make_groups_again(&self) {
        self.watched.turn(ConnectionState::EnsuringGroups);
        let starts: Vec<(Partition, Start)> =
            self.assigned.list().into_iter().map(|own| (own, Start::Earliest)).collect();
        let group = &self.member.group;
        match groups::create(&self.member, &starts).await {
            Ok(()) => tracing::warn!(%group, "groups that had vanished begin again"),
            Err(error) => tracing::warn!(%group, "{error:?}"),
        }
    }

    /// The error for the consumer; the server does not say which of the keys is wrong.
    async fn fatal(&mut self, fault: Fault) -> Error {
        let mut culprits = Vec::new();
        for partition in self.assigned.list() {
            let keys = self.member.keys(&partition);
            for key in [keys.log, keys.retry] {
                let mut pipeline = Pipeline::new();
                pipeline.cmd("TYPE").arg(&key);
                let kind = self.send_all(&pipeline).await.ok().and_then(|mut kinds| kinds.pop());
                match kind.map(reply::text) {
                    Some(Ok(kind)) if kind != "stream" && kind != "none" => culprits.push(key),
                    _ => {}
                }
            }
        }
        let place = if culprits.is_empty() {
            String::new()
        } else {
            format!(" from key {}", culprits.join(", "))
        };
        let what = format!("read for group {}{place}", self.member.group);
        self.member.shared.commands.error(what, &fault)
    }
}

/// The epoch of the group's routes, and the number of topics.
fn news(mut answers: impl Iterator<Item = Value>) -> Result<(i64, u64), Fault> {
    let epoch = reply::int(answers.next().unwrap_or_default())?.unwrap_or(0);
    Ok((epoch, reply::count(answers.next().unwrap_or_default())?))
}

/// The running average of events per entry: rises at once, falls slowly, so that a change to
/// larger batches does not flood the consumer twice.
pub(super) struct Average(f64);

impl Average {
    /// A guess, before anything was seen.
    pub(super) const fn new() -> Self {
        Self(50.0)
    }

    pub(super) fn note(&mut self, events: usize, entries: usize) {
        #[expect(clippy::cast_precision_loss, reason = "small numbers, an estimate")]
        let seen = events.max(1) as f64 / entries.max(1) as f64;
        self.0 = if seen > self.0 { seen } else { (self.0 * 3.0 + seen) / 4.0 };
    }

    /// Entries to ask for per stream.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small positive numbers, an estimate"
    )]
    pub(super) fn count(&self, budget: usize, streams: usize) -> usize {
        let entries = (budget.min(ENTRIES_MAX) as f64 / self.0) as usize;
        (entries / streams.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_divided() {
        let mut average = Average(1.0);
        assert_eq!(average.count(100, 4), 25);
        assert_eq!(average.count(1, 4), 1);
        assert_eq!(average.count(1_000_000, 1), ENTRIES_MAX);
        average.note(100, 2);
        assert_eq!(average.count(100, 1), 2);
        average.note(2, 2);
        assert!(average.0 > 30.0, "falls slowly");
    }
}
