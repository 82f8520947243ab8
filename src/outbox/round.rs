//! One round of a relay: rows that were read are published, each partition's in order.
//!
//! A partition has one batch under way at a time: of two, the first could be refused and the
//! second stored, and then an event would have overtaken another one of its key. Partitions go
//! side by side.
//!
//! A batch is stored whole or not at all. Where it is refused, its events go one by one, so that
//! only the one which is at fault is held; behind it, those of its key wait.

use std::collections::{HashMap, HashSet, VecDeque};
use std::error::Error as _;

use tokio::time::Instant;

use super::holds::{Failure, Holds, Next};
use super::{End, Lane, RelayOptions, Row};
use crate::delivery::Partition;
use crate::driver::{Append, Appended, Driver};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, PublishError};
use crate::event_type::Topic;
use crate::publisher::Publisher;
use crate::trouble::Troubles;

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Round {
    /// This relay is the one that works; else it did nothing.
    pub leads: bool,
    /// Rows that were taken.
    pub taken: usize,
    /// Events that the bus has now.
    pub sent: usize,
    /// Those of them that it had before.
    pub deduplicated: usize,
    /// Events that were set aside.
    pub set_aside: usize,
    /// Events that failed, or were not tried behind one that did; they are tried again.
    pub left: usize,
    /// Tries that stored nothing: each of an event, of a batch, or of asking for a topic.
    pub failed: usize,
}

/// Two events in a row that fail alone: it is hardly the events' fault.
const MISSES_MAX: u32 = 2;

/// A row whose event can be published.
struct Ready {
    number: i64,
    lane: Lane,
    event: Envelope,
}

/// The rows of one partition, in order, those in doubt behind the others.
struct Course {
    partition: Partition,
    rows: VecDeque<Ready>,
    /// How many at the end go alone, at most: a lane is in doubt as a whole.
    doubtful: usize,
    /// All of them go alone.
    careful: bool,
    /// Failures of single events since the last one that was stored.
    misses: u32,
    stored: bool,
    stopped: bool,
    failed: Vec<Missed>,
}

/// An event that went alone and was not stored.
struct Missed {
    row: Ready,
    reason: String,
    of_event: bool,
}

/// A round under way.
pub(super) struct Publishing<'a> {
    pub(super) driver: &'a dyn Driver,
    pub(super) publisher: &'a Publisher,
    pub(super) options: &'a RelayOptions,
    pub(super) holds: &'a mut Holds,
    pub(super) troubles: &'a Troubles,
    pub(super) ends: &'a mut Vec<(i64, End)>,
    pub(super) round: Round,
    /// The bus is closed: nothing will be published any more.
    pub(super) closed: bool,
    /// More may wait than was read.
    pub(super) full: bool,
    /// The first row that was set aside, and why.
    pub(super) aside: Option<(i64, String)>,
}

impl Publishing<'_> {
    /// Publishes what can be published; `goes_on` is asked before each batch, and each topic.
    pub(super) async fn run(&mut self, rows: Vec<Row>, goes_on: impl Fn() -> bool) {
        self.round.taken = rows.len();
        self.full = self.is_full(&rows);
        let mut courses = self.sort(rows, &goes_on).await;
        while goes_on() && !self.closed {
            let batches: Vec<_> =
                courses.iter_mut().map(|course| course.take(self.options)).collect();
            let appends = courses.iter().zip(&batches).filter_map(|(course, batch)| {
                let envelopes: Vec<_> = batch.iter().map(|row| row.event.clone()).collect();
                let partition = course.partition.clone();
                let (delay, deduplicate) = (std::time::Duration::ZERO, true);
                (!envelopes.is_empty()).then_some(Append {
                    partition,
                    envelopes,
                    delay,
                    deduplicate,
                })
            });
            let appends: Vec<_> = appends.collect();
            if appends.is_empty() {
                break;
            }
            let mut answers = self.driver.append(appends).await.into_iter();
            for (course, batch) in courses.iter_mut().zip(batches) {
                if !batch.is_empty() {
                    let answer = answers.next().unwrap_or_else(no_answer);
                    self.take_answer(course, batch, answer);
                }
            }
        }
        self.conclude(courses);
    }

    /// Whether rows may have been left out. Bytes are not as sure as rows: what came next did not
    /// fit, and may have been large.
    fn is_full(&self, rows: &[Row]) -> bool {
        let events = rows.iter().filter_map(|row| row.event.as_ref().ok());
        let bytes: usize = events.map(|event| event.payload().len()).sum();
        let most = self.options.round_bytes_max;
        let largest = self.publisher.encoder().payload_bytes_max.max(most / 2);
        rows.len() >= self.options.round_events_max || bytes > most.saturating_sub(largest)
    }

    /// By partition. What is no event, or is too large for the bus, is set aside at once.
    async fn sort(&mut self, rows: Vec<Row>, goes_on: impl Fn() -> bool) -> Vec<Course> {
        let mut courses: HashMap<Partition, Vec<Ready>> = HashMap::new();
        let mut lost: HashSet<Topic> = HashSet::new();
        for Row { number, event } in rows {
            let event = match event.and_then(|event| self.publisher.check(event)) {
                Ok(event) => event,
                Err(error) => {
                    self.set_aside(number, chain(&error));
                    continue;
                }
            };
            let topic = event.event_type().topic();
            if lost.contains(&topic) || !goes_on() {
                continue;
            }
            match self.publisher.partition_of_id(&event).await {
                Ok(partition) => {
                    let lane = Lane::new(number, event.event_type(), event.key());
                    courses.entry(partition).or_default().push(Ready { number, lane, event });
                }
                Err(error) => {
                    self.say(&topic, &error);
                    self.closed |= error.is_closed();
                    self.holds.topic_failed(&topic, false, Instant::now(), fastrand::f64());
                    lost.insert(topic);
                }
            }
        }
        courses.into_iter().map(|(partition, rows)| self.course(partition, rows)).collect()
    }

    fn course(&self, partition: Partition, rows: Vec<Ready>) -> Course {
        let (doubtful, others): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| self.holds.doubts(&row.lane));
        let careful = self.holds.is_careful(&partition.topic);
        let count = doubtful.len();
        Course {
            partition,
            rows: others.into_iter().chain(doubtful).collect(),
            doubtful: count,
            careful,
            misses: 0,
            stored: false,
            stopped: false,
            failed: Vec::new(),
        }
    }

    fn take_answer(
        &mut self,
        course: &mut Course,
        mut batch: Vec<Ready>,
        answer: Result<Appended, PublishError>,
    ) {
        match answer {
            Ok(appended) => self.stored(course, &batch, &appended),
            Err(error) if batch.len() > 1 => {
                self.closed |= error.error().is_closed();
                course.refuse(batch, error.error());
                self.say(&course.partition.topic, error.error());
            }
            Err(error) => {
                let row = batch.remove(0);
                self.failed(course, row, &error);
            }
        }
    }

    fn stored(&mut self, course: &mut Course, batch: &[Ready], appended: &Appended) {
        course.stored = true;
        course.misses = 0;
        for row in batch {
            self.holds.lane_worked(&row.lane);
            self.ends.push((row.number, End::Sent));
        }
        self.round.sent += batch.len();
        self.round.deduplicated += appended.places.iter().filter(|place| place.repeated).count();
    }

    /// An event that went alone was not stored, as far as anybody knows.
    fn failed(&mut self, course: &mut Course, row: Ready, outcome: &PublishError) {
        let error = outcome.error();
        if error.is_permanent() && outcome.is_not_stored() {
            self.holds.lane_worked(&row.lane);
            self.set_aside(row.number, chain(error));
            return;
        }
        self.say(&course.partition.topic, error);
        self.closed |= error.is_closed();
        course.miss(row, outcome);
    }

    fn set_aside(&mut self, number: i64, reason: String) {
        self.aside.get_or_insert_with(|| (number, reason.clone()));
        self.ends.push((number, End::SetAside(reason)));
        self.round.set_aside += 1;
    }

    /// One line for a round: a thousand bad rows at once fill no log.
    fn say_what_is_set_aside(&mut self) {
        if let Some((number, reason)) = self.aside.take() {
            let count = self.round.set_aside;
            tracing::warn!(
                "rows of the outbox set aside: {count}, the first is {number}: {reason}"
            );
        }
    }

    fn say(&mut self, topic: &Topic, error: &Error) {
        self.round.failed += 1;
        self.troubles.failed(of(topic), error);
    }

    /// Draws the conclusions for the rounds to come.
    fn conclude(&mut self, courses: Vec<Course>) {
        let now = Instant::now();
        let mut topics: HashMap<Topic, Outcome> = HashMap::new();
        if !self.full {
            self.holds.all_was_seen(now);
        }
        for course in courses {
            let outcome = topics.entry(course.partition.topic.clone()).or_default();
            outcome.worked |= course.stored;
            outcome.troubled |= course.is_troubled();
            if course.stored {
                self.holds.partition_worked(&course.partition, now);
            } else if self.full && course.is_troubled() {
                outcome.looks_on |= self.stand_aside(&course, now);
            }
            for missed in course.failed {
                let failure = Failure { by_itself: course.stored, of_event: missed.of_event };
                let (lane, jitter) = (&missed.row.lane, fastrand::f64());
                let next = self.holds.lane_failed(lane, &course.partition, failure, now, jitter);
                if next == Next::SetAside {
                    self.set_aside(missed.row.number, missed.reason);
                }
            }
        }
        for (topic, Outcome { worked, troubled, looks_on }) in topics {
            if worked {
                self.holds.topic_worked(&topic);
            } else if troubled {
                self.holds.topic_failed(&topic, looks_on, now, fastrand::f64());
            }
            if worked && !troubled {
                self.troubles.over(of(&topic));
            }
        }
        self.say_what_is_set_aside();
        let Round { taken, sent, set_aside, .. } = self.round;
        self.round.left = taken - sent - set_aside;
    }

    /// Nothing of the course was stored, and it may be all that a round sees: its rows make way
    /// for those behind them. False where too many do already.
    fn stand_aside(&mut self, course: &Course, now: Instant) -> bool {
        let untried = course.rows.iter().filter(|_| course.stopped);
        let mut rows = course.failed.iter().map(|missed| &missed.row).chain(untried);
        let partition = &course.partition;
        rows.all(|row| self.holds.stand_aside(&row.lane, partition, now))
    }
}

/// What became of a topic in a round.
#[derive(Default)]
struct Outcome {
    worked: bool,
    troubled: bool,
    looks_on: bool,
}

impl Course {
    /// The next batch: the oldest row and what fits beside it.
    fn take(&mut self, options: &RelayOptions) -> Vec<Ready> {
        let mut batch: Vec<Ready> = Vec::new();
        if self.stopped {
            return batch;
        }
        let mut bytes = 0;
        while let Some(next) = self.rows.front() {
            let alone = self.careful || self.rows.len() <= self.doubtful;
            bytes += next.event.weight();
            let fits = bytes <= options.batch_bytes_max && batch.len() < options.batch_events_max;
            if !batch.is_empty() && (alone || !fits) {
                break;
            }
            batch.extend(self.rows.pop_front());
            if alone {
                break;
            }
        }
        batch
    }

    /// A batch of several was not stored.
    fn refuse(&mut self, batch: Vec<Ready>, error: &Error) {
        // A bus that does not answer does not do so for a single event either.
        self.stopped = error.is_transient() || error.is_closed();
        self.careful = true;
        for row in batch.into_iter().rev() {
            self.rows.push_front(row);
        }
    }

    /// A single event was not stored: those of its key wait behind it.
    fn miss(&mut self, row: Ready, outcome: &PublishError) {
        let error = outcome.error();
        self.rows.retain(|other| other.lane != row.lane);
        self.misses += 1;
        self.stopped = self.misses >= MISSES_MAX || error.is_closed();
        self.failed.push(Missed { row, reason: chain(error), of_event: is_of_event(outcome) });
    }

    fn is_troubled(&self) -> bool {
        self.stopped || !self.failed.is_empty()
    }
}

/// A refusal that may be the event's own fault: not that of a server which is away, full or
/// forbidden, and none after which the event may be there all the same.
fn is_of_event(outcome: &PublishError) -> bool {
    let error = outcome.error();
    let of_server = error.is_transient() || error.is_passing() || error.kind() == ErrorKind::Denied;
    outcome.is_not_stored() && !of_server && !error.is_closed()
}

fn of(topic: &Topic) -> String {
    format!("publish what waits in the outbox for {topic}")
}

/// The error and its causes, outermost first.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn no_answer() -> Result<Appended, PublishError> {
    let text = "the driver gave no answer";
    Err(PublishError::Unknown(Error::new(ErrorKind::Server, text)))
}
