//! The reader: a task with a connection of its own, never dropped in the middle of a read.
//!
//! A read that is given up leaves a ghost on the server, to which entries are handed out that
//! nobody sees. So a read always ends by itself; to stop it, `CLIENT UNBLOCK` ends it early.

pub(super) mod average;
mod demand;
mod heal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::socket::{Socket, When};
use futures_util::future::join;
use redis::{Pipeline, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use self::average::Average;
use self::demand::Next;
use self::heal::Unusable;
use super::connection::{Backoff, Ghosts};
use super::connector::moved;
use super::coverage::{Assigned, Begin, cover};
use super::fault::{Fault, accept};
use super::flight::Stream;
use super::member::{Member, Out};
use super::reply::{self, RawEntry};
use super::script::{Call, TRIMMED};
use super::{claim, probe, ride, wire};
use crate::delivery::{Entry, Partition, Queue, Token};
use crate::driver::monitor::{Connection, ConnectionState};
use crate::trouble::Trouble;

/// How often a subscription without a partition looks for topics.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a reader waits after an error that waiting will not mend, before it tries again.
pub(super) const FATAL_PAUSE: Duration = Duration::from_secs(1);
/// A reader that has not read for so long may be behind, though it had read all.
const BEHIND_AFTER: Duration = Duration::from_millis(10);

/// Reads the streams of up to 16 partitions.
pub(super) struct Reader {
    member: Arc<Member>,
    assigned: Arc<Assigned>,
    connection: Option<Socket>,
    /// There was a connection before: the server may have handed out what nobody saw.
    was_connected: bool,
    out: Out,
    backoff: Backoff,
    average: Average,
    /// How many topics there were at the last read.
    topics: Option<u64>,
    /// The epoch of the group's routes at the last read.
    epoch: Option<i64>,
    /// Whether the next read is near.
    next: Next,
    /// Reading fails.
    trouble: Trouble,
    /// What is left out of the reads until it can be read again, and when that is tried next.
    unusable: BTreeMap<Partition, Unusable>,
    probe_at: Instant,
    /// Nothing is left to read; said once.
    is_blocked: bool,
    /// The life of the server that it leads to.
    run_id: String,
    /// When the last read over this connection was answered, and which logs it did not exhaust.
    read_at: Option<Instant>,
    behind: BTreeSet<Partition>,
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
            next: Next::default(),
            trouble: Trouble::default(),
            unusable: BTreeMap::new(),
            is_blocked: false,
            probe_at: Instant::now(),
            run_id: String::new(),
            read_at: None,
            behind: BTreeSet::new(),
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

    async fn round(&mut self, budget: usize) -> Result<(), Fault> {
        let partitions = self.assigned.list();
        self.connect(&partitions).await?;
        if partitions.is_empty() {
            return self.look().await;
        }
        let open = self.member.dead_cap.open(&partitions);
        let open = self.usable(open).await?;
        if open.is_empty() {
            // Acks that boarded have no read to ride with.
            self.send_rides().await;
            self.tell_blocked().await;
            return self.look().await;
        }
        let read = self.read(&open, budget).await?;
        self.hand_over(&partitions, read, budget).await
    }

    /// Opens a connection where there is none, and finds what the last one left behind.
    async fn connect(&mut self, partitions: &[Partition]) -> Result<(), Fault> {
        let has_moved = self.moves.has_changed().unwrap_or(false);
        self.moves.mark_unchanged();
        if self.connection.is_some() {
            return if has_moved { Err(moved()) } else { Ok(()) };
        }
        self.watched.turn(ConnectionState::Connecting);
        let connection = self.member.shared.connector.open().await?;
        self.watched.turn(ConnectionState::Checking);
        let (client, run_id) = probe::introduce(&connection).await?;
        // The old read may still wait on the server: what it would get, nobody would see.
        probe::lay(&connection, &run_id, &mut self.ghosts).await?;
        self.read_at = None;
        if self.was_connected {
            self.watched.turn(ConnectionState::EnsuringGroups);
            self.heal(partitions).await;
            self.watched.turn(ConnectionState::Recovering);
            let mut found = Vec::new();
            let recovered = claim::recover(&self.member, partitions, &mut found).await;
            if !found.is_empty() {
                self.know_routes().await;
            }
            self.send(found).await;
            recovered.map_err(|error| Fault::Lost(error.to_string()))?;
        }
        self.assigned.client.store(client.unwrap_or(0), Ordering::Release);
        self.ghosts.add(run_id.clone(), client);
        self.run_id = run_id;
        self.connection = Some(connection);
        self.was_connected = true;
        self.watched.turn(ConnectionState::Reading);
        Ok(())
    }

    async fn read(&mut self, partitions: &[Partition], budget: usize) -> Result<Read, Fault> {
        let retries = !self.member.is_yielding_retries();
        let keys: Vec<String> = partitions
            .iter()
            .flat_map(|partition| {
                let retry = || self.member.shared.keys.retry(partition, &self.member.group);
                [Some(self.member.shared.keys.log(partition)), retries.then(retry)]
            })
            .flatten()
            .collect();
        let count = self.average.count(budget, keys.len(), self.member.sizes.most());
        let mut pipeline = Pipeline::new();
        let checked = self.check_trimmed(partitions, &mut pipeline);
        pipeline.cmd("XREADGROUP").arg("GROUP").arg(self.member.group.as_str());
        pipeline.arg(&self.member.consumer).arg("COUNT").arg(count);
        pipeline.arg("BLOCK").arg(self.member.shared.block_millis());
        pipeline.arg("STREAMS").arg(&keys).arg(vec![">"; keys.len()]);
        self.ask_for_news(&mut pipeline);
        if self.member.closed.is_cancelled() {
            return Ok(Read { streams: Vec::new(), epoch: None, topics: 0 });
        }
        // The acks are written first and answered first, however long the read blocks.
        let rides = self.assigned.rides.depart();
        let carried = async {
            if let Some(connection) = &self.connection {
                ride::deliver(connection, rides, When::WithNext).await;
            }
        };
        let patience = self.member.shared.connector.patience();
        self.watched.expect(patience);
        // The request has a deadline of its own. This one holds whatever becomes of that.
        let reading = timeout(patience, join(carried, self.send_all(&pipeline)));
        let ((), answers) = reading.await.map_err(|_| Fault::Silent)?;
        let mut answers = answers?.into_iter();
        for partition in checked {
            // What is wrong with it, the read says as well.
            let trimmed = reply::count(answers.next().unwrap_or_default()).unwrap_or(0);
            self.member.tell_trimmed(&partition, trimmed);
        }
        let streams = accept(answers.next().unwrap_or_default())?;
        let (epoch, topics) = news(answers)?;
        self.watched.answered();
        let streams = reply::streams(streams)?;
        self.note_read(partitions, &streams, count);
        Ok(Read { streams, epoch: Some(epoch), topics })
    }

    /// Has what was trimmed unread counted right before the read, on the logs where the group may
    /// be behind: once it has read on, some servers do not tell any more.
    fn check_trimmed(&self, partitions: &[Partition], pipeline: &mut Pipeline) -> Vec<Partition> {
        let all = self.read_at.is_none_or(|read_at| read_at.elapsed() >= BEHIND_AFTER);
        let due = partitions.iter().filter(|own| all || self.behind.contains(*own));
        let due: Vec<Partition> = due.cloned().collect();
        for partition in &due {
            let keys = self.member.keys(partition);
            let mut call = Call::new(&TRIMMED, vec![keys.log, keys.checkpoint]);
            call.arg(self.member.group.as_str()).arg(self.run_id.as_str());
            call.arg(if self.behind.contains(partition) { "1" } else { "0" });
            // In full: the server may have forgotten the script, and then would read on unlooked.
            pipeline.add_command(call.in_full());
        }
        due
    }

    /// Notes what the next read has to know of this one.
    fn note_read(
        &mut self,
        partitions: &[Partition],
        streams: &[(String, Vec<RawEntry>)],
        count: usize,
    ) {
        self.read_at = Some(Instant::now());
        self.behind.clear();
        for (key, entries) in streams {
            let Some((partition, Queue::Log)) = self.stream(partitions, key) else { continue };
            if let Some((last, _)) = entries.last() {
                self.member.shared.history.note(&partition, *last);
            }
            if entries.len() >= count {
                self.behind.insert(partition);
            }
        }
    }

    fn ask_for_news(&self, pipeline: &mut Pipeline) {
        let keys = &self.member.shared.keys;
        pipeline.cmd("HGET").arg(keys.routes(&self.member.group)).arg(wire::EPOCH);
        pipeline.cmd("HLEN").arg(keys.topics());
    }

    async fn send_all(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Fault> {
        match &self.connection {
            Some(connection) => connection.send(pipeline).await,
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
    async fn hand_over(
        &mut self,
        partitions: &[Partition],
        read: Read,
        budget: usize,
    ) -> Result<(), Fault> {
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
        let mut entries: Vec<Entry> = Vec::new();
        for (key, raw) in read.streams {
            if let Some(stream) = self.stream(partitions, &key) {
                entries.extend(self.decode(&stream, raw).await);
            }
        }
        let events: usize = entries.iter().map(|entry| entry.records.len()).sum();
        self.next.follows(events, budget);
        self.send(entries).await;
        if read.topics > 0 {
            self.follow_topics(read.topics).await;
        }
        Ok(())
    }

    fn stream(&self, partitions: &[Partition], key: &str) -> Option<Stream> {
        partitions.iter().find_map(|partition| {
            let keys = &self.member.shared.keys;
            let queue = if keys.log(partition) == key {
                Queue::Log
            } else if keys.retry(partition, &self.member.group) == key {
                Queue::Retry
            } else {
                return None;
            };
            Some((partition.clone(), queue))
        })
    }

    async fn decode(&mut self, stream: &Stream, raw: Vec<RawEntry>) -> Vec<Entry> {
        self.member.sizes.note(&raw);
        let (mut entries, mut gone) = (Vec::with_capacity(raw.len()), Vec::new());
        for (id, fields) in raw {
            match fields {
                Some(fields) => {
                    entries.push(self.member.entry(stream, id, fields, Token(1), None));
                }
                None => gone.push(id),
            }
        }
        let mut kept = Vec::new();
        self.member.flight.of(stream, |held| {
            entries.retain(|entry| {
                let is_new = held.insert(entry);
                if !is_new {
                    kept.push(entry.id);
                }
                is_new
            });
        });
        for id in kept {
            let kept = claim::keep(&self.member, stream, id).await;
            self.member.tell("keep what is in flight", kept);
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
        // Who boards must not wait for room on the way to the source: that may wait for the ack.
        // Where the source is gone, so is the consumer: the lease lapses.
        let Ok(room) = self.out.clone().reserve_owned().await else { return };
        // What is handed over is soon settled, and this reader is about to write again.
        if self.connection.is_some() {
            self.assigned.rides.open();
        }
        let events = entries.iter().map(|entry| entry.records.len()).sum();
        self.average.note(events, entries.len());
        self.member.demand.meet();
        room.send(Ok(entries));
    }

    /// Learns what the group can route, unless reading ends before that: then nothing is routed
    /// any more.
    async fn know_routes(&self) {
        let mut backoff = Backoff::new();
        loop {
            let known = self.member.beat().await;
            let is_known = self.member.tell("say that a consumer lives", known).is_some();
            if is_known || self.member.closed.is_cancelled() || self.member.dropped.is_cancelled() {
                return;
            }
            sleep(backoff.next()).await;
        }
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
}

/// The epoch of the group's routes, and the number of topics.
fn news(mut answers: impl Iterator<Item = Value>) -> Result<(i64, u64), Fault> {
    let epoch = reply::int(answers.next().unwrap_or_default())?.unwrap_or(0);
    Ok((epoch, reply::count(answers.next().unwrap_or_default())?))
}
