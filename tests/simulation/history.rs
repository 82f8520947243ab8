//! What happened, in order: the whole truth about a run, which the audit judges and a failing seed
//! prints.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rumormill::delivery::{Cause, EntryId, Position, Queue, Settled};
use rumormill::driver::fault::Fault;
use rumormill::{DrainReport, Envelope, GroupCounts};
use tokio::time::Instant;

/// What an event is called: its header `name`.
pub type Name = Arc<str>;

/// One life of a process.
pub type Process = u32;

#[derive(Clone, Debug)]
pub enum Fact {
    Started(Process),
    Crashed(Process),
    Draining(Process),
    Drained(Process, DrainReport),
    Subscribed(Process, &'static str),
    Unsubscribing(Process, &'static str),
    Unsubscribed(Process, &'static str),
    Fault(Process, Fault),
    Publishing(Process, Name),
    Published(Process, Name, Answer),
    /// The store handed an entry out: the truth behind the fault driver, as all that follow.
    Handed(Process, Handed),
    Settled(Process, Ended),
    /// The source of a consumer was dropped.
    Left(Process, Arc<str>),
    /// A handler begins.
    Begun(Process, Run),
    Ended(Process, Run, How),
    /// What a process that is calm says of the events it ran no handler for.
    Counted(Process, &'static str, GroupCounts),
    /// The broadcast of a process is subscribed.
    Listening(Process),
    Heard(Process, Name, Option<Arc<str>>, Position),
    Redriven(&'static str, Position),
    Purged(&'static str, Position),
}

/// What a publisher was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Stored { position: Option<Position>, deduplicated: bool },
    NotStored,
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Handed {
    pub group: &'static str,
    pub consumer: Arc<str>,
    pub queue: Queue,
    pub entry: EntryId,
    pub token: u64,
    pub attempt: u32,
    pub suspect: bool,
    pub events: Vec<(Name, Position)>,
}

#[derive(Clone, Debug)]
pub struct Ended {
    pub group: &'static str,
    pub consumer: Arc<str>,
    pub name: Name,
    pub key: Option<Arc<str>>,
    pub origin: Position,
    pub attempt: u32,
    pub end: End,
    pub answer: Option<Settled>,
}

impl Ended {
    /// Whether the store did what it says.
    pub fn is_applied(&self) -> bool {
        matches!(self.answer, Some(Settled::Done | Settled::Duplicate))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Ack { outputs: Vec<Name> },
    Retry { after: Duration, cause: Cause },
    DeadLetter { cause: Cause },
    Park,
    Split { after: Duration },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub number: u64,
    pub group: &'static str,
    pub name: Name,
    pub key: Option<Arc<str>>,
    pub origin: Position,
    pub attempt: u32,
    /// Milliseconds of the wall clock.
    pub expired: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    Handled {
        outputs: Vec<Name>,
    },
    Failed,
    Rejected,
    Panicked,
    /// Its future was dropped.
    Dropped,
}

/// The facts of one run. Cloning shares.
#[derive(Clone)]
pub struct History(Arc<Mutex<Vec<(Duration, Fact)>>>, Instant);

impl History {
    pub fn new() -> Self {
        Self(Arc::default(), Instant::now())
    }

    pub fn note(&self, fact: Fact) {
        self.facts().push((self.1.elapsed(), fact));
    }

    pub fn facts(&self) -> MutexGuard<'_, Vec<(Duration, Fact)>> {
        self.0.lock().expect("nothing panics under it")
    }

    pub fn print(&self) -> String {
        let facts = self.facts();
        let lines = facts.iter().map(|(at, fact)| format!("{:>9.3} {fact}\n", at.as_secs_f64()));
        lines.collect()
    }
}

/// The name of an event.
pub fn name_of(envelope: &Envelope) -> Name {
    envelope.header("name").unwrap_or("(no name)").into()
}

pub fn key_of(envelope: &Envelope) -> Option<Arc<str>> {
    envelope.key().map(Into::into)
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(process) => write!(f, "P{process} starts"),
            Self::Crashed(process) => write!(f, "P{process} CRASHES"),
            Self::Draining(process) => write!(f, "P{process} drains"),
            Self::Drained(process, report) => write!(f, "P{process} has drained: {report:?}"),
            Self::Subscribed(process, group) => write!(f, "P{process} subscribes {group}"),
            Self::Unsubscribing(process, group) => write!(f, "P{process} leaves {group}"),
            Self::Unsubscribed(process, group) => write!(f, "P{process} has left {group}"),
            Self::Fault(process, fault) => write!(f, "P{process} fault: {fault:?}"),
            Self::Publishing(process, name) => write!(f, "P{process} publishes {name}"),
            Self::Published(process, name, answer) => {
                write!(f, "P{process} is told of {name}: {answer:?}")
            }
            Self::Handed(process, handed) => write!(f, "P{process} {handed}"),
            Self::Settled(process, ended) => write!(f, "P{process} {ended}"),
            Self::Left(process, consumer) => write!(f, "P{process} {consumer} is gone"),
            Self::Begun(process, run) => write!(f, "P{process} {run} begins"),
            Self::Ended(process, run, how) => write!(f, "P{process} {run}: {how:?}"),
            Self::Counted(process, group, counts) => write!(f, "P{process} {group}: {counts:?}"),
            Self::Listening(process) => write!(f, "P{process} listens"),
            Self::Heard(process, name, _, at) => write!(f, "P{process} hears {name}@{at}"),
            Self::Redriven(group, origin) => write!(f, "{group}: {origin} is redriven"),
            Self::Purged(group, origin) => write!(f, "{group}: {origin} is purged"),
        }
    }
}

impl fmt::Display for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { consumer, queue, entry, token, attempt, suspect, events, .. } = self;
        let suspect = if *suspect { ", suspect" } else { "" };
        write!(
            f,
            "{consumer} gets {queue:?} {entry}, hand-out {token}, attempt {attempt}{suspect}:"
        )?;
        events.iter().try_for_each(|(name, origin)| write!(f, " {name}@{origin}"))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { consumer, name, origin, attempt, end, answer, .. } = self;
        write!(f, "{consumer} settles {name}@{origin} attempt {attempt} {end:?}: {answer:?}")
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, group, name, attempt, .. } = self;
        write!(f, "{group} run {number} of {name}, attempt {attempt}")
    }
}
