//! One consumer of a group: what its reader, its lease keeper and its settler share.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::{Pipeline, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::coverage::{Assigned, Coverage};
use super::dead_cap::DeadCap;
use super::flight::{Flight, Stream};
use super::keys::GroupKeys;
use super::reader::average::Sizes;
use super::reply::Fields;
use super::ride::NotCarried;
use super::{Shared, wire};
use crate::delivery::{Bits, Entry, EntryId, Partition, Queue, Token};
use crate::driver::{GroupName, GroupRoutes, LeaseTimes, SUSPECT_FROM};
use crate::error::Error;
use crate::pattern::Pattern;

/// How often a reader that is to stop is woken, until it has.
const UNBLOCK_EVERY: Duration = Duration::from_millis(10);

/// Entries on their way to the source, or an error that waiting will not mend.
pub(super) type Handed = Result<Vec<Entry>, Error>;
/// The way to the source.
pub(super) type Out = mpsc::Sender<Handed>;

pub(super) struct Member {
    pub(super) shared: Arc<Shared>,
    pub(super) group: GroupName,
    /// The name, unique per subscription.
    pub(super) consumer: String,
    /// What this instance can route.
    pub(super) own_routes: Vec<(Pattern, Option<u32>)>,
    /// What the group can route, and the epoch at which that was read.
    pub(super) routes: Arc<GroupRoutes>,
    pub(super) epoch: AtomicI64,
    pub(super) lease: LeaseTimes,
    /// A dead letter parks its key.
    pub(super) park_keys: bool,
    pub(super) flight: Flight,
    /// How large entries are.
    pub(super) sizes: Sizes,
    pub(super) demand: Demand,
    /// Where too many dead letters stand in the way of reading.
    pub(super) dead_cap: DeadCap,
    /// Until then the retry streams are left to the other members.
    pub(super) yields: Mutex<Option<Instant>>,
    /// Held while entries are claimed, so that none is taken up twice.
    pub(super) claiming: tokio::sync::Mutex<()>,
    /// Held by settlements, and alone while entries are taken back: what is being acknowledged
    /// must not be made pending again.
    pub(super) settling: tokio::sync::RwLock<()>,
    /// What is read, and by whom.
    pub(super) coverage: tokio::sync::Mutex<Coverage>,
    /// The readers.
    pub(super) assigned: Mutex<Vec<Arc<Assigned>>>,
    pub(super) readers: TaskTracker,
    /// Reading ends.
    pub(super) closed: CancellationToken,
    /// The source was dropped: the consumer is dead.
    pub(super) dropped: CancellationToken,
}

impl Member {
    /// What came of something that is done again and again; that it fails is said, not each time.
    pub(super) fn tell<T>(&self, what: &str, done: Result<T, Error>) -> Option<T> {
        let what = format_args!("{what} for group {}", self.group);
        match done {
            Ok(done) => {
                self.shared.troubles.over(what);
                Some(done)
            }
            Err(error) => {
                self.shared.troubles.failed(what, &error);
                None
            }
        }
    }

    /// The group's keys on a partition.
    pub(super) fn keys(&self, partition: &Partition) -> GroupKeys {
        self.shared.keys.group(partition, &self.group)
    }

    /// The key of one of the group's streams.
    pub(super) fn stream_key(&self, stream: &Stream) -> String {
        let (keys, partition) = (&self.shared.keys, &stream.0);
        match stream.1 {
            Queue::Log => keys.log(partition),
            Queue::Retry => keys.retry(partition, &self.group),
        }
    }

    /// What this member handed over comes back to the retry stream after `delay`: it is left to
    /// the others for a while, or a member that can do nothing with it, and so is always the
    /// first to read again, would take most of it each time.
    ///
    /// Between two such times it reads for at least half a delay: of two members that each know
    /// what the other does not, neither may wait for the other for ever.
    pub(super) fn yield_retries(&self, delay: Duration) {
        let now = Instant::now();
        let mut yields = self.yields.lock().unwrap_or_else(PoisonError::into_inner);
        if yields.is_none_or(|until| now >= until + delay / 2) {
            *yields = Some(now + delay + delay / 2);
        }
    }

    pub(super) fn is_yielding_retries(&self) -> bool {
        let until = *self.yields.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// What is known of the readers.
    pub(super) fn lines(&self) -> MutexGuard<'_, Vec<Arc<Assigned>>> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends acks with the write of the partition's reader, where it is about to write; else they
    /// have to take another way.
    pub(super) async fn ride(
        &self,
        partition: &Partition,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, NotCarried> {
        let line = self.lines().iter().find(|line| line.has(partition)).cloned();
        line.ok_or(NotCarried::Left)?.rides.carry(commands).await
    }

    /// Reads an entry's fields.
    pub(super) fn entry(
        &self,
        stream: &Stream,
        id: EntryId,
        fields: Fields,
        token: Token,
        progress: Option<Bytes>,
    ) -> Entry {
        let content = match stream.1 {
            Queue::Log => wire::decode_log(&stream.0, id, fields),
            Queue::Retry => wire::decode_retry(fields),
        };
        Entry {
            partition: stream.0.clone(),
            queue: stream.1,
            id,
            records: content.records,
            settled: progress.map(|bits| Bits::from_bytes(bits.to_vec())).unwrap_or_default(),
            attempt: content.attempt,
            origin: content.origin,
            suspect: content.suspect || token.0 >= SUSPECT_FROM,
            token,
            lease: CancellationToken::new(),
        }
    }

    /// Stops the readers: each finishes its read, which `CLIENT UNBLOCK` cuts short.
    pub(super) async fn stop_reading(&self) {
        self.closed.cancel();
        self.readers.close();
        loop {
            self.unblock().await;
            tokio::select! {
                () = self.readers.wait() => return,
                () = sleep(UNBLOCK_EVERY) => {}
            }
        }
    }

    async fn unblock(&self) {
        let lines = self.lines().clone();
        let mut pipeline = redis::pipe();
        for line in lines {
            let id = line.client.load(Ordering::Acquire);
            if id != 0 {
                pipeline.cmd("CLIENT").arg("UNBLOCK").arg(id);
            }
        }
        if !pipeline.is_empty() {
            // A failure only means that the read ends by itself, a block later.
            let _woken = self.shared.commands.ask("wake a reader", &pipeline).await;
        }
    }
}

/// How many events the source waits for.
pub(super) struct Demand(watch::Sender<usize>);

impl Demand {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Asks for events until the wish is dropped or met.
    pub(super) fn raise(&self, budget: usize) -> Wish<'_> {
        self.0.send_replace(budget);
        Wish(self)
    }

    /// What is asked for now.
    pub(super) fn now(&self) -> usize {
        *self.0.borrow()
    }

    /// Something was handed over. What is asked for beyond it is asked for again by the next
    /// fetch, so that nothing is read that nobody waits for.
    pub(super) fn meet(&self) {
        // Nobody waits for that: it wakes no reader.
        self.0.send_if_modified(|wanted| {
            *wanted = 0;
            false
        });
    }

    /// Waits until something is asked for.
    pub(super) async fn wait(&self) -> usize {
        let mut wanted = self.0.subscribe();
        let found = wanted.wait_for(|wanted| *wanted > 0).await.map(|wanted| *wanted);
        match found {
            Ok(wanted) => wanted,
            Err(_) => std::future::pending().await,
        }
    }
}

/// A standing demand.
pub(super) struct Wish<'a>(&'a Demand);

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.0.meet();
    }
}
