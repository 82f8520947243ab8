//! The powers that operate a store: looking at groups and topics, moving a group, growing a
//! topic, and dealing with dead letters. Optional, for tools; the path of an event does without.
//!
//! Every answer is a plain struct with stable field names, so that a tool may print it as it is.
//! Nothing here holds the store up: what may be long is done in steps of at most [`STEP_MAX`],
//! and a count that would take too many of them says that it is a lower bound ([`Count`]).

mod diagnosis;
mod groups;
mod letters;
mod retention;
mod seek;
mod topics;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

pub use self::diagnosis::{Check, Checked, Diagnosis, Finding, Severity, Store, Verdict};
pub use self::groups::{
    ConsumerPending, ConsumerReport, Dead, GroupPartition, GroupReport, Pending, RouteReport,
};
pub use self::letters::{DeadLetterPage, DeadLetterSummary, EventSummary, Redriven};
pub use self::retention::{Holds, Kept, Retention, TopicLimits, Why};
pub use self::seek::{SeekDone, SeekPlan, SeekReport, SeekStep};
pub(crate) use self::seek::{has_moved, not_alone, not_on, target};
pub use self::topics::{
    GroupOnPartition, PARTITIONS_MAX, TopicChange, TopicPartition, TopicReport,
};
pub(crate) use self::topics::{check_partitions, shrinking};

use crate::delivery::{DeadLetter, EntryId, Partition, Start};
use crate::driver::GroupName;
use crate::error::Error;
use crate::event_type::Topic;
use crate::time::Timestamp;

/// Most entries that one step looks at, moves or removes. A step is one script on a server that
/// does nothing else meanwhile.
pub const STEP_MAX: usize = 100;

/// Most steps of one count; beyond it, [`Count::exact`] is false.
pub const COUNT_STEPS_MAX: usize = 100;

/// A consumer that was heard of within this time is live: three times the default interval of
/// [`LeaseTimes::renew`](crate::driver::LeaseTimes::renew), at which heartbeats are sent.
pub const LIVE_WITHIN: Duration = Duration::from_secs(30);

/// Looks at groups and topics, and changes them.
///
/// # Errors
/// Every method fails where the store cannot be reached or refuses: a missing permission, a key
/// of another program's. The error names the key and what mends it. A group or topic that is not
/// known is [`ErrorKind::Invalid`](crate::ErrorKind::Invalid).
#[async_trait]
pub trait Admin: DeadLetters {
    /// Every known group, by name: those that are on a topic's partition, and those that have a
    /// consumer.
    async fn groups(&self) -> Result<Vec<GroupName>, Error>;

    /// Where a group is, what it has before it, what it routes, and who its consumers are.
    async fn group(&self, group: &GroupName) -> Result<GroupReport, Error>;

    /// What a topic holds, per partition, and who reads it.
    async fn topic(&self, topic: &Topic) -> Result<TopicReport, Error>;

    /// Gives a topic so many partitions, 1 to [`PARTITIONS_MAX`]; makes it known where it is not.
    ///
    /// The groups that read the topic are put on the new partitions, at their beginning, before
    /// any publisher can learn of them: nothing is missed. Live consumers take them up within one
    /// read, publishers within ten seconds. **Keys move**: an event's partition is its key's hash
    /// modulo their number, so while the old partitions are being read out, later events of a key
    /// may be handled before earlier ones.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) where the topic has more: nobody would
    /// read what lies in the partitions that went away.
    async fn set_partitions(&self, topic: &Topic, partitions: u32) -> Result<TopicChange, Error>;

    /// Sets what is kept of a topic. All limits are replaced: what is not set is as the store has
    /// it. Every process keeps to it from its next round of trimming on.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a topic that is not known and for
    /// limits that [`TopicLimits::check`] refuses;
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the store has no limits of
    /// a topic.
    async fn set_retention(&self, topic: &Topic, limits: TopicLimits) -> Result<(), Error> {
        let _ = limits;
        let text =
            format!("cannot set what is kept of topic {topic}: the store knows no such limits");
        Err(Error::new(crate::error::ErrorKind::Unsupported, text)
            .with_help("the memory driver has its limits in `MemoryOptions`"))
    }

    /// What moving a group would do, on `partitions` or on all it reads. Changes nothing.
    ///
    /// [`Start::After`] and [`Start::At`] beyond the end of a log mean its end as it is now:
    /// nothing that comes later is skipped.
    async fn plan_seek(
        &self,
        group: &GroupName,
        to: Start,
        partitions: Option<&[Partition]>,
    ) -> Result<SeekPlan, Error>;

    /// Moves a group as planned: one atomic step per partition, in the plan's order.
    ///
    /// - **Back**: what lies after the new position is unread again, pending entries among them.
    ///   What is pending before it stays so.
    /// - **Forward**: what lies up to the new position is skipped; what is pending there is given
    ///   up, and counted in [`SeekDone::pending_dropped`].
    /// - The records of half settled entries go with what is dropped: a repeated entry is handled
    ///   whole.
    /// - The group's retry stream, due set and dead letters stay as they are: their events are
    ///   handled besides what is repeated, and are not skipped. [`SeekStep::retrying`] counts
    ///   them.
    ///
    /// Pending entries do not stand in the way, since a group without consumers may have some.
    /// Beyond [`STEP_MAX`] of them, the rest is dropped in further steps after the move; a caller
    /// that dies between them leaves pending entries behind, never a gap. The same plan may be
    /// applied again then.
    ///
    /// With `force`, a live group is moved as well: an event that is being handled at that moment
    /// may be handled once or twice, and what was read since the plan is repeated besides it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict), unless forced, where a consumer of
    /// the group was heard of within [`LIVE_WITHIN`], or the group has moved since the plan. The
    /// partitions before the one that failed were moved.
    async fn seek(&self, plan: &SeekPlan, force: bool) -> Result<SeekReport, Error>;

    /// Looks at the store from all sides: its settings, its keys, its groups. Changes nothing, and
    /// what may not be asked is [`Verdict::Unknown`], not an error.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where there is nothing to look
    /// at, as in a process' own memory.
    async fn diagnose(&self) -> Result<Diagnosis, Error> {
        let text = "cannot diagnose the store: its driver has nothing to look at";
        Err(Error::new(crate::error::ErrorKind::Unsupported, text)
            .with_help("a diagnosis is for a store that is a server, such as redis://"))
    }
}

/// Deals with what a group gave up.
///
/// # Errors
/// As [`Admin`].
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// A group's dead letters on a partition after an id, oldest first, at most `count` and
    /// [`STEP_MAX`]. For one by its id, ask for one after [`EntryId::previous`].
    async fn page(
        &self,
        group: &GroupName,
        partition: &Partition,
        after: EntryId,
        count: usize,
    ) -> Result<DeadLetterPage, Error>;

    /// Gives the group dead letters to handle again, as attempt 1 and with the origin they had:
    /// one atomic step of at most [`STEP_MAX`] ids.
    ///
    /// An id that is not there counts as missing, so a repeat moves nothing twice; what was moved
    /// before a lost connection counts as missing, too. What holds no
    /// event stays where it is, and counts as malformed. A letter that dies again is a new one,
    /// at the end: whoever redrives all first asks where the end is.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) for more ids; nothing was moved.
    async fn redrive(
        &self,
        group: &GroupName,
        partition: &Partition,
        ids: &[EntryId],
    ) -> Result<Redriven, Error>;

    /// Gives the event of a dead letter another payload: one atomic step. The payload it was
    /// published with is kept in [`DeadLetter::original`](crate::delivery::DeadLetter::original).
    ///
    /// The edited letter is a new one, at the end, and its id is the answer; a letter never
    /// changes under its id. So of an edit and a redrive, a purge or another edit only one comes
    /// true; nothing where another did before.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) where the letter holds no event,
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) for a payload beyond
    /// [`PAYLOAD_BYTES_MAX`](crate::envelope::PAYLOAD_BYTES_MAX) and beyond the present one.
    async fn edit(
        &self,
        group: &GroupName,
        partition: &Partition,
        id: EntryId,
        payload: Bytes,
    ) -> Result<Option<EntryId>, Error>;

    /// Adds letters that were exported, at most [`STEP_MAX`]: one atomic step. They get new ids
    /// and keep the rest.
    ///
    /// Who restores looks first at what is there, and leaves out what
    /// [is the same](crate::delivery::DeadLetter::is_same). `last` is the last letter that was
    /// seen ([`EntryId::ZERO`] for none): where there is one after it, nothing is added and the
    /// answer is nothing, so that two who restore one export at a time add nothing twice. Else
    /// the answer is the id of the last letter that was added, or `last`.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) for more letters, and
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) where the group does not read the
    /// partition; nothing was added.
    async fn restore(
        &self,
        group: &GroupName,
        partition: &Partition,
        letters: &[DeadLetter],
        last: EntryId,
    ) -> Result<Option<EntryId>, Error>;

    /// Deletes dead letters by their ids, at most [`STEP_MAX`]; tells how many there were.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) for more ids; nothing was deleted.
    async fn purge(
        &self,
        group: &GroupName,
        partition: &Partition,
        ids: &[EntryId],
    ) -> Result<u64, Error>;

    /// Deletes the oldest dead letters up to an id, the id included, at most [`STEP_MAX`]; tells
    /// how many. 0 means that none is left.
    async fn purge_until(
        &self,
        group: &GroupName,
        partition: &Partition,
        last: EntryId,
    ) -> Result<u64, Error>;
}

/// A number that is exact, or a lower bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The number.
    pub count: u64,
    /// False where there may be more.
    pub exact: bool,
}

impl Count {
    /// None.
    pub const ZERO: Self = Self::exact(0);

    /// Exactly so many.
    pub const fn exact(count: u64) -> Self {
        Self { count, exact: true }
    }

    /// So many, or more.
    pub const fn at_least(count: u64) -> Self {
        Self { count, exact: false }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { count: self.count + other.count, exact: self.exact && other.exact }
    }
}

/// What waits for its moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// How many events.
    pub count: u64,
    /// When the first of them is due, by the store's clock.
    pub next: Option<Timestamp>,
}

/// When an entry was stored; nothing for the place before all.
pub(crate) fn time_of(id: EntryId) -> Option<Timestamp> {
    (id != EntryId::ZERO).then(|| Timestamp::from_millis(id.millis))
}

/// The error for a group that nobody has heard of.
pub(crate) fn unknown_group(group: &GroupName) -> Error {
    Error::invalid(format!("group {group} is not known: it reads no topic here"))
        .with_help("list the groups; check the name, the address and the namespace")
}

/// The error for a topic that was not declared.
pub(crate) fn unknown_topic(topic: &Topic) -> Error {
    Error::invalid(format!("topic {topic} is not known"))
        .with_help("list the topics; a topic is known from its first event or subscription on")
}

/// Refuses more ids than one step takes.
pub(crate) fn check_step<T>(ids: &[T]) -> Result<(), Error> {
    if ids.len() <= STEP_MAX {
        return Ok(());
    }
    let text = format!("{} dead letters at once, {STEP_MAX} at most", ids.len());
    Err(Error::new(crate::error::ErrorKind::TooLarge, text).with_help("go on in several steps"))
}
