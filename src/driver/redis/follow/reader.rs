//! The task that reads, on a connection of its own. Unlike a consumer's it may be dropped in the
//! middle of a read: the server hands nothing out, so there is nothing to be lost with the answer,
//! and it notices by itself that the connection is gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::socket::Socket;
use redis::{Pipeline, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::covers;
use super::places::Places;
use crate::delivery::{Entry, EntryId, Partition};
use crate::driver::monitor::{Connection, ConnectionState};
use crate::driver::redis::Shared;
use crate::driver::redis::connection::Backoff;
use crate::driver::redis::connector::moved;
use crate::driver::redis::fault::{Fault, accept};
use crate::driver::redis::member::{Demand, Handed};
use crate::driver::redis::reader::average::{Average, Sizes};
use crate::driver::redis::reader::{FATAL_PAUSE, LOOK_EVERY};
use crate::driver::redis::reply;
use crate::driver::redis::tools::{extent, plain};
use crate::driver::redis::topics::partitions_of;
use crate::driver::{GroupName, Missed};
use crate::pattern::Pattern;
use crate::trouble::Trouble;

/// Who did not read for this long asks first what was trimmed meanwhile.
const BEHIND_AFTER: Duration = Duration::from_millis(100);
/// How often the topics are looked at for partitions that were added.
const TOPICS_EVERY: Duration = Duration::from_secs(5);

/// What a reader and its source share.
pub(super) struct Following {
    pub(super) shared: Arc<Shared>,
    pub(super) name: GroupName,
    pub(super) patterns: Vec<Pattern>,
    pub(super) demand: Demand,
    pub(super) missed: Missed,
    pub(super) closed: CancellationToken,
}

pub(super) struct FollowReader {
    own: Arc<Following>,
    places: Places,
    /// Where more may be trimmed than was read: not at the end when last looked at.
    behind: BTreeSet<Partition>,
    out: mpsc::Sender<Handed>,
    connection: Option<Socket>,
    backoff: Backoff,
    average: Average,
    sizes: Sizes,
    /// How many topics there were at the last read.
    topics: Option<u64>,
    /// When the topics were looked at.
    topics_at: Instant,
    /// When the last read ended.
    read_at: Instant,
    /// Reading fails.
    trouble: Trouble,
    /// Whether the sentinels name another master.
    moves: watch::Receiver<u64>,
    watched: Connection,
}

impl FollowReader {
    pub(super) fn new(own: Arc<Following>, places: Places, out: mpsc::Sender<Handed>) -> Self {
        Self {
            moves: own.shared.connector.moves(),
            watched: own.shared.monitor.watch(format!("broadcast {}", own.name)),
            own,
            places,
            behind: BTreeSet::new(),
            out,
            connection: None,
            backoff: Backoff::new(),
            average: Average::new(),
            sizes: Sizes::default(),
            topics: None,
            topics_at: Instant::now(),
            read_at: Instant::now(),
            trouble: Trouble::default(),
        }
    }

    /// Reads until the source is closed or dropped, or the driver ends.
    pub(super) async fn run(mut self) {
        let own = Arc::clone(&self.own);
        let work = async {
            loop {
                let budget = own.demand.wait().await;
                let step = own.shared.troubles.guard("read for a broadcast", self.step(budget));
                match step.await {
                    Some(None) => {}
                    Some(Some(pause)) => sleep(pause).await,
                    None => {
                        self.connection = None;
                        sleep(FATAL_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = own.closed.cancelled() => {}
            () = own.shared.runtime.stop().cancelled() => {}
            () = work => {}
        }
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
        let has_moved = self.moves.has_changed().unwrap_or(false);
        self.moves.mark_unchanged();
        if has_moved && self.connection.is_some() {
            return Err(moved());
        }
        if self.connection.is_none() {
            self.watched.turn(ConnectionState::Connecting);
            self.connection = Some(self.own.shared.connector.open().await?);
            self.watched.turn(ConnectionState::Reading);
            self.all_behind();
        }
        if self.places.is_empty() {
            return self.look().await;
        }
        if self.read_at.elapsed() > BEHIND_AFTER {
            self.all_behind();
        }
        let (entries, topics) = self.read(budget).await?;
        self.read_at = Instant::now();
        self.hand_over(entries).await;
        self.follow_topics(topics).await;
        Ok(())
    }

    fn all_behind(&mut self) {
        self.behind = self.places.list().into_iter().map(|(partition, _)| partition).collect();
    }

    /// Asks first what is gone where that is in doubt: the read itself would hide it.
    async fn read(&mut self, budget: usize) -> Result<(Vec<Entry>, u64), Fault> {
        let places = self.places.list();
        let count = self.average.count(budget, places.len(), self.sizes.most());
        let behind: Vec<Partition> = self.behind.iter().cloned().collect();
        let mut pipeline = Pipeline::new();
        for partition in &behind {
            pipeline.cmd("XINFO").arg("STREAM").arg(self.own.shared.keys.log(partition));
        }
        self.ask_for_entries(&mut pipeline, &places, count);
        pipeline.cmd("HLEN").arg(self.own.shared.keys.topics());
        let patience = self.own.shared.connector.patience();
        self.watched.expect(patience);
        let answers = timeout(patience, self.send_all(&pipeline)).await;
        let mut answers = answers.map_err(|_| Fault::Silent)??.into_iter();
        self.watched.answered();
        for partition in &behind {
            let extent = extent(answers.next().unwrap_or_default())?;
            let missed = self.places.missed(partition, extent);
            self.own.missed.add(&self.own.name, partition, missed);
        }
        let streams = reply::streams(accept(answers.next().unwrap_or_default())?)?;
        let topics = reply::count(answers.next().unwrap_or_default())?;
        self.behind.clear();
        self.watched.turn(ConnectionState::Reading);
        let mut entries = Vec::new();
        for (key, raw) in streams {
            let own = |partition: &Partition| self.own.shared.keys.log(partition) == key;
            let Some((partition, _)) = places.iter().find(|(partition, _)| own(partition)) else {
                continue;
            };
            if let Some((last, _)) = raw.last() {
                self.places.took(partition, raw.len() as u64, *last);
            }
            if raw.len() >= count {
                self.behind.insert(partition.clone());
            }
            self.sizes.note(&raw);
            entries.extend(plain(partition, raw));
        }
        Ok((entries, topics))
    }

    fn ask_for_entries(
        &self,
        pipeline: &mut Pipeline,
        places: &[(Partition, EntryId)],
        count: usize,
    ) {
        let keys = &self.own.shared.keys;
        pipeline.cmd("XREAD").arg("COUNT").arg(count);
        pipeline.arg("BLOCK").arg(self.own.shared.block_millis()).arg("STREAMS");
        for (partition, _) in places {
            pipeline.arg(keys.log(partition));
        }
        for (_, after) in places {
            pipeline.arg(after.to_string());
        }
    }

    async fn send_all(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Fault> {
        let Some(connection) = &self.connection else { return Ok(Vec::new()) };
        connection.send(pipeline).await
    }

    async fn hand_over(&mut self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        let events = entries.iter().map(|entry| entry.records.len()).sum();
        self.average.note(events, entries.len());
        self.own.demand.meet();
        let _nobody = self.out.send(Ok(entries)).await;
    }

    /// There is nothing to read yet: looks for topics.
    async fn look(&mut self) -> Result<(), Fault> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HLEN").arg(self.own.shared.keys.topics());
        let answer = self.send_all(&pipeline).await?.pop().unwrap_or_default();
        self.follow_topics(reply::count(answer)?).await;
        if self.places.is_empty() {
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Topics that appeared are read from their beginning.
    async fn follow_topics(&mut self, topics: u64) {
        // A topic that grows does not change their number.
        if self.topics == Some(topics) && self.topics_at.elapsed() < TOPICS_EVERY {
            return;
        }
        let loaded = self.own.shared.load_topics().await;
        let what = format_args!("look for topics for broadcast {}", self.own.name);
        let troubles = &self.own.shared.troubles;
        match loaded {
            Ok(shapes) => {
                troubles.over(what);
                let matches = |partition: &Partition| covers(&self.own.patterns, partition);
                for partition in partitions_of(&shapes).filter(matches) {
                    if self.places.cover(partition.clone()) {
                        self.behind.insert(partition);
                    }
                }
                self.topics = Some(topics);
                self.topics_at = Instant::now();
            }
            Err(error) => troubles.failed(what, &error),
        }
    }

    fn recovered(&mut self) {
        self.backoff = Backoff::new();
        if let Some(times) = self.trouble.over() {
            tracing::info!(broadcast = %self.own.name, "reading again{times}");
        }
    }

    /// Deals with a failed read; gives the pause before the next.
    async fn suffer(&mut self, fault: Fault) -> Duration {
        let (name, commands) = (&self.own.name, &self.own.shared.commands);
        let (state, _gone) = match fault.breaks_connection() {
            true => (ConnectionState::Connecting, self.connection.take()),
            false => (ConnectionState::Recovering, None),
        };
        self.watched.turn(state);
        self.watched.ail(&fault);
        if let Some(times) = self.trouble.failed() {
            let address = commands.address();
            tracing::warn!(broadcast = %name, address, "reading failed, goes on: {fault}{times}");
        }
        if matches!(fault.code(), "WRONGTYPE" | "NOPERM" | "NOAUTH" | "WRONGPASS") {
            let error = commands.error(format!("read for broadcast {name}"), &fault);
            self.own.demand.meet();
            let _nobody = self.out.send(Err(error)).await;
            return FATAL_PAUSE;
        }
        self.backoff.next()
    }
}
