//! What a driver must do: append, subscribe, settle. Small traits, long contracts;
//! `conformance` (feature `testing`) is the suite that holds a driver to them.
//!
//! Two drivers come with the library: [`memory`], and `redis` for Redis Streams. Both have the
//! same meaning. A driver of one's own implements [`Driver`] and runs the suite.

pub mod admin;
#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod fault;
mod follow;
mod host;
pub mod memory;
pub mod monitor;
#[cfg(feature = "redis")]
pub mod redis;
mod routes;
mod tools;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

pub use follow::{Follow, Followed, Missed};
pub(crate) use host::host_name;
pub use routes::GroupRoutes;
pub use tools::{Backlog, Extent, TopicShape};

use self::admin::Admin;
use self::monitor::Monitor;
use crate::delivery::{
    Bits, DeadLetter, Delivery, Durability, Entry, EntryId, Outcome, Partition, Settled,
    Settlement, Start,
};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, PublishError};
use crate::event_type::{Topic, check_segment, refuse, text_newtype};
use crate::pattern::Pattern;

/// A store of events with groups that read it.
///
/// A driver is shared: every method takes `&self` and may be called from any task. It owns its
/// connections and their recovery: a transient fault never ends a [`Source`].
#[async_trait]
pub trait Driver: Publish + Subscribe {
    /// The powers that tools use, where the driver has them.
    fn tools(&self) -> Option<&dyn Tools> {
        None
    }

    /// The powers that operate the store, where the driver has them.
    fn admin(&self) -> Option<&dyn Admin> {
        None
    }

    /// Whether groups may [park keys](Subscription::park_keys).
    fn parks_keys(&self) -> bool {
        false
    }

    /// Whether it notes which events a group has handled, by their ids: it takes
    /// [`Outcome::AckOnce`](crate::delivery::Outcome::AckOnce), and answers [`Settler::handled`].
    fn marks_handled(&self) -> bool {
        false
    }

    /// Reading without a group, which broadcasts need, where the driver has it.
    fn broadcasts(&self) -> Option<&dyn Follow> {
        None
    }

    /// The runtime of the driver's connections, where it has one of its own. Answers come from
    /// there, and it runs whatever its callers' runtimes do.
    fn runtime(&self) -> Option<&tokio::runtime::Handle> {
        None
    }

    /// Where the driver says how it is and what it saw go wrong, where it does.
    fn monitor(&self) -> Option<&Arc<Monitor>> {
        None
    }

    /// Moves what is due of every topic and group that the store has, from now on until it is
    /// closed. Whoever calls it again adds what has come since; it tells what is looked after.
    ///
    /// No store needs it while each group has a consumer; it is for those that have none.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where nothing is left undone
    /// without a process; else where the store cannot be reached or refuses.
    async fn maintain(&self) -> Result<Maintained, Error> {
        let text = "cannot maintain the store: nothing in it outlives its processes";
        Err(Error::new(ErrorKind::Unsupported, text)
            .with_help("maintenance is for a store that is a server, such as redis://"))
    }

    /// Ends the driver: what was accepted is answered, connections are closed, tasks are joined.
    /// From then on appends are `NotStored` with
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), and sources end. A second call does
    /// nothing.
    async fn close(&self);
}

/// What [`Driver::maintain`] looks after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Topics, for events that are published later.
    pub topics: usize,
    /// Groups, for events that are tried again later.
    pub groups: usize,
}

/// The writing half.
#[async_trait]
pub trait Publish: Send + Sync + 'static {
    /// Makes `topic` known, so that subscriptions to wildcards find it before its first event,
    /// and tells its shape. Idempotent.
    ///
    /// # Errors
    /// Where the store cannot be reached or refuses.
    async fn declare(&self, topic: &Topic) -> Result<TopicShape, Error>;

    /// Stores batches: one [`Append`] is one entry, stored whole or not at all.
    ///
    /// The answers are as many as the appends and in their order. Appends to one partition are
    /// stored in the order given, and after those of every call that was polled before this one.
    /// The partition's topic was declared before.
    ///
    /// Waits while the store is full, bounded by the driver's deadline; drops nothing in silence.
    ///
    /// # Cancel safety
    /// Dropped before it is done, any of the appends may or may not be stored, each whole.
    async fn append(&self, appends: Vec<Append>) -> Vec<Result<Appended, PublishError>>;
}

/// The reading half.
#[async_trait]
pub trait Subscribe: Send + Sync + 'static {
    /// Makes the caller a consumer of a group.
    ///
    /// Returns when the group exists on every partition that matches now: what is published from
    /// then on reaches it. A group that exists goes on where it was; a new one begins at
    /// [`Subscription::start`]. A topic or a partition that appears later is read from its
    /// beginning.
    ///
    /// # Errors
    /// Where the store cannot be reached or refuses.
    ///
    /// # Cancel safety
    /// Dropped before it is done, the group may exist; nothing was delivered to it.
    async fn subscribe(&self, subscription: Subscription) -> Result<Feed, Error>;
}

/// One consumer's deliveries. Dropping it is the consumer's death: what it held comes back to the
/// group after the lease.
#[async_trait]
pub trait Source: Send + 'static {
    /// The next entries, about `budget` events; waits until there is one.
    ///
    /// `budget` (at least 1) says what the consumer can take; an entry may exceed it, and a driver
    /// may read a little ahead, but it never holds back events that another consumer of the group
    /// could run. Every entry returned is under a lease that the driver renews until its last
    /// event is settled, or the source is dropped. An entry whose lease was lost has its
    /// [`Entry::lease`] cancelled.
    ///
    /// After [`Source::close`], what was read ahead, then an empty vector for ever.
    ///
    /// # Errors
    /// Only what waiting will not mend.
    ///
    /// # Cancel safety
    /// Dropped before it is done, nothing is lost: the entries come with the next call.
    async fn fetch(&mut self, budget: usize) -> Result<Vec<Entry>, Error>;

    /// Stops reading. Entries that were read are still returned by `fetch`, and their leases are
    /// still renewed.
    async fn close(&mut self);
}

/// The one place where deliveries end.
#[async_trait]
pub trait Settler: Send + Sync + 'static {
    /// Ends deliveries; the answers are as many as the settlements and in their order.
    ///
    /// Everything that one settlement says is one atomic step: the event is done, retried,
    /// dead-lettered or handed over, and its outputs are in their logs, or nothing of it happened.
    /// Only the holder of the lease may do so, a plain ack of a whole entry excepted, which says
    /// what stays true whoever says it. A repeat answers [`Settled::Already`]. Order does not
    /// matter, and an entry may be settled in parts: the progress survives the consumer.
    ///
    /// # Errors
    /// Each for its own settlement: it may or may not have been applied, and may be repeated.
    ///
    /// # Cancel safety
    /// Dropped before it is done, each may or may not have been applied.
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled, Error>>;

    /// Ends the deliveries of all events of entries, each in a plain ack, as
    /// [`settle`](Settler::settle) of them does: what nearly all entries come to. One answer for
    /// each entry. The default calls `settle`.
    ///
    /// # Errors
    /// As `settle`; of an entry that has one, all may be repeated.
    ///
    /// # Cancel safety
    /// As `settle`.
    async fn ack(&self, entries: Vec<Arc<Entry>>) -> Vec<Result<Settled, Error>> {
        let answers = self.settle(ack_each(&entries)).await;
        sum_acks(&entries, answers)
    }

    /// Notes that a suspect of the retry queue ([`Entry::suspect`]) is about to run; answers how
    /// often those who took it over found it running. A repeat by the same holder answers the
    /// same. The note goes with the end of the delivery. `None` where another
    /// consumer holds the entry: it is not to be run here.
    ///
    /// The default keeps no notes: then nothing is ever found to kill its process. A driver that
    /// wraps another must pass the call on.
    ///
    /// # Errors
    /// The note may or may not have been taken; repeat the call before the event is run. Of an
    /// entry of a log, always: it is split first.
    ///
    /// # Cancel safety
    /// Dropped before it is done, the note may or may not have been taken.
    async fn begin(&self, delivery: &Delivery) -> Result<Option<u32>, Error> {
        let _kept_by_drivers_that_can = delivery;
        Ok(Some(0))
    }

    /// Whether an event is not to be run now, but parked ([`Outcome::Park`]): in a group that
    /// [parks keys](Subscription::park_keys), an earlier event of its key is a dead letter, or
    /// was one and is not handled yet, or waited for such a one and is not handled yet. Earlier is
    /// what lay first at an earlier [origin](Delivery::origin).
    ///
    /// The default parks nothing; see [`Driver::parks_keys`].
    ///
    /// # Errors
    /// Where the store cannot be reached or refuses; repeat the call before the event is run.
    async fn is_parked(&self, delivery: &Delivery) -> Result<bool, Error> {
        let _known_by_drivers_that_can = delivery;
        Ok(false)
    }

    /// Which of an entry's unsettled events the group has handled under their ids: an event of the
    /// id ended in [`Outcome::AckOnce`](crate::delivery::Outcome::AckOnce) within its window, in
    /// the same partition. Of what is handled meanwhile the settlement says so.
    ///
    /// The default keeps nothing; see [`Driver::marks_handled`]. What wraps a driver passes it on.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where nothing is kept; else where the store cannot be reached or
    /// refuses.
    async fn handled(&self, entry: &Entry) -> Result<Bits, Error> {
        let text = format!("nothing is kept here of what was handled of entry {}", entry.id);
        Err(Error::new(ErrorKind::Unsupported, text))
    }
}

/// A plain ack for every event of entries.
fn ack_each(entries: &[Arc<Entry>]) -> Vec<Settlement> {
    let each = entries.iter().flat_map(Entry::deliveries);
    each.map(|delivery| delivery.settle(Outcome::ack())).collect()
}

/// The answers to [`ack_each`], one for each entry.
fn sum_acks(
    entries: &[Arc<Entry>],
    answers: Vec<Result<Settled, Error>>,
) -> Vec<Result<Settled, Error>> {
    let mut answers = answers.into_iter();
    let sum = |entry: &Arc<Entry>| {
        let own = answers.by_ref().take(entry.deliveries().count());
        own.reduce(gravest).unwrap_or(Ok(Settled::Already))
    };
    entries.iter().map(sum).collect()
}

/// Of two answers for one entry the one that tells more.
fn gravest(one: Result<Settled, Error>, other: Result<Settled, Error>) -> Result<Settled, Error> {
    match (one?, other?) {
        (Settled::LeaseLost, _) | (_, Settled::LeaseLost) => Ok(Settled::LeaseLost),
        (Settled::Already, other) => Ok(other),
        (one, _) => Ok(one),
    }
}

/// From this hand-out on an entry is suspect. The first is nobody's fault, and three deaths in a
/// row may still be a bad deploy.
pub const SUSPECT_FROM: u64 = 4;

/// A consumer's two ends.
pub struct Feed {
    /// Where its deliveries come from.
    pub source: Box<dyn Source>,
    /// Where they end.
    pub settler: Arc<dyn Settler>,
    /// What the whole group can route.
    pub routes: Arc<GroupRoutes>,
    /// The consumer's name, unique per subscription.
    pub consumer: String,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

/// Powers that tools use; the path of an event does without.
#[async_trait]
pub trait Tools: Send + Sync {
    /// Every declared topic, by name.
    ///
    /// # Errors
    /// Where the store cannot be reached or refuses.
    async fn topics(&self) -> Result<Vec<TopicShape>, Error>;

    /// Entries of logs after the given ids, at most `count` per partition, oldest first within a
    /// partition; waits up to `wait` for the first. Joins no group and changes nothing.
    ///
    /// # Errors
    /// Where the store cannot be reached or refuses.
    async fn read(
        &self,
        after: &[(Partition, EntryId)],
        count: usize,
        wait: Duration,
    ) -> Result<Vec<Entry>, Error>;

    /// The last `count` entries of a log, oldest first.
    ///
    /// # Errors
    /// Where the store cannot be reached or refuses.
    async fn latest(&self, partition: &Partition, count: usize) -> Result<Vec<Entry>, Error>;

    /// The id that the last entry of a log had or has; [`EntryId::ZERO`] where there never was one.
    ///
    /// # Errors
    /// Where the store cannot be reached or refuses.
    async fn end(&self, partition: &Partition) -> Result<EntryId, Error>;

    /// How far a log reaches, and how much of it is gone: whoever reads it without a group finds
    /// out with this what was trimmed before it was read.
    ///
    /// # Errors
    /// Where the store cannot be reached or refuses.
    async fn extent(&self, partition: &Partition) -> Result<Extent, Error>;

    /// What a group has before it.
    ///
    /// # Errors
    /// Where the store cannot be reached or refuses.
    async fn backlog(&self, group: &GroupName) -> Result<Backlog, Error>;

    /// A group's dead letters, oldest first, at most `count` per partition.
    ///
    /// # Errors
    /// Where the store cannot be reached or refuses.
    async fn dead_letters(&self, group: &GroupName, count: usize)
    -> Result<Vec<DeadLetter>, Error>;
}

/// One entry to be stored.
#[derive(Clone, Debug)]
pub struct Append {
    /// Where.
    pub partition: Partition,
    /// The batch, at least one event.
    pub envelopes: Vec<Envelope>,
    /// How long from now on the events are kept back; zero: not at all.
    pub delay: Duration,
    /// Events whose ids the partition was given within the driver's window are not stored again.
    /// Only appends that ask for it are compared, and only with each other. Not for delayed ones.
    pub deduplicate: bool,
}

impl Append {
    /// The error for a delayed append that is to be deduplicated.
    pub(crate) fn refuse_delayed(&self) -> Error {
        let text = format!("append to {}: delayed events are not deduplicated", self.partition);
        Error::invalid(text).with_help("publish it without a delay, or without deduplication")
    }
}

/// An entry that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its id; `None` for a delayed one, which gets it when it is due, and where all events of a
    /// deduplicated one were there before.
    pub entry: Option<EntryId>,
    /// What the store does to keep it.
    pub durability: Durability,
    /// Where each event of a deduplicated append lies. Else empty: they lie in the entry, in their
    /// order.
    pub places: Vec<Placed>,
}

/// Where an event of a deduplicated append lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The entry.
    pub entry: EntryId,
    /// Its place in the entry's batch.
    pub index: u32,
    /// It was there before this append.
    pub repeated: bool,
}

/// The name of a group: all instances of one service. One segment of an event type.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(ByteString);

impl GroupName {
    /// Checks a group's name.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the value and the rule it breaks.
    pub fn new(name: impl Into<ByteString>) -> Result<Self, Error> {
        let name = name.into();
        match check_segment(name.as_bytes()) {
            Ok(()) => Ok(Self(name)),
            Err(flaw) => Err(refuse("group", &name, flaw)),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text_newtype!(GroupName);

/// A consumer's wish.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The group.
    pub group: GroupName,
    /// What this instance can route: patterns, each with the newest version it decodes; `None`
    /// where it takes any.
    pub routes: Vec<(Pattern, Option<u32>)>,
    /// Where the group begins if it is new.
    pub start: Start,
    /// The lease's times.
    pub lease: LeaseTimes,
    /// A dead letter parks the later events of its key; see [`Settler::is_parked`]. All consumers
    /// of a group say the same. What waits is run one by one, in order: the next when the one
    /// before it is handled.
    pub park_keys: bool,
}

/// How long a consumer may be silent before its work goes to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// Without a renewal for this long, an entry is anyone's. Default 30 s.
    pub lease: Duration,
    /// How often it is renewed. Default 10 s.
    pub renew: Duration,
    /// How often abandoned entries are looked for, give or take 20 %. Default 15 s.
    pub sweep: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            renew: Duration::from_secs(10),
            sweep: Duration::from_secs(15),
        }
    }
}

impl LeaseTimes {
    /// Checks that two renewals fit into a lease, so that one may fail.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the values.
    pub fn check(&self) -> Result<(), Error> {
        if self.renew.is_zero() || self.sweep.is_zero() || self.renew * 2 > self.lease {
            let text = format!(
                "lease of {:?} renewed every {:?} and swept every {:?} is not workable",
                self.lease, self.renew, self.sweep
            );
            return Err(Error::invalid(text).with_help("renew at least twice per lease"));
        }
        Ok(())
    }
}
