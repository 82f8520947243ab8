//! The events of one partition that wait to be written, and the task that writes them.
//!
//! Natural batching: a lone event goes at once; while `inflight_appends_max` calls are under way,
//! what arrives waits, and goes together when one of them is answered: in one call, in as many
//! entries as it takes. No timer on the way, but with a `linger`: then the first event of a batch
//! waits for others, and wakes nobody meanwhile.
//!
//! The writer keeps the deadlines as well: one timer for all that waits here, where a timer for
//! each event would cost more than encoding it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::flight::{Asker, Flight, Flights};
use super::room::{Held, Room};
use super::tell::Tell;
use super::{PublishLimits, Shared};
use crate::alarm::Alarm;
use crate::delivery::Partition;
use crate::driver::{Append, Appended, Driver};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, PublishError};

/// Most events and bytes of one call; an entry has fewer.
const CALL_EVENTS_MAX: usize = 1024;
const CALL_BYTES_MAX: usize = 1 << 20;

type Answers = Vec<Result<Appended, PublishError>>;

/// An event that waits, with who is to be told.
pub(super) struct Waiting {
    pub(super) envelope: Envelope,
    pub(super) deduplicate: bool,
    /// When it is late.
    pub(super) until: Instant,
    pub(super) tell: Tell,
    /// Of the room for bytes, what it takes.
    pub(super) bytes: usize,
}

pub(super) struct Queue {
    partition: Partition,
    state: Mutex<State>,
    /// Something was pushed while the writer runs.
    pushed: Notify,
    /// What was pushed is late before all the rest.
    sooner: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Of the room for bytes, what all that waits takes.
    bytes: usize,
    /// Until when what waits waits for more. Nothing where it does not.
    lingers: Option<Instant>,
    /// Nothing that waits or is under way is late before this.
    earliest: Option<Instant>,
    /// The calls under way.
    flights: Flights,
    /// A writer task runs. Set and cleared under the lock together with `waiting`, so a push
    /// either finds a writer that will look again or starts one.
    writing: bool,
}

/// A writer that is dropped before its end or its start, with its runtime or in a panic, leaves
/// room for the next. That runs beside the driver's connections, where those have a runtime, and
/// is the last: else nobody would watch the deadlines, and what waits is told now.
struct Writing {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    is_last: bool,
    ended: bool,
}

impl Writing {
    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Nobody waits for the answers to what is under way: their callers are told that.
        let under_way = std::mem::take(&mut self.queue.state().flights);
        drop(under_way);
        if let (false, Some(runtime)) = (self.is_last, self.shared.driver.runtime()) {
            self.queue.write_on(Some(runtime), &self.shared, true);
            return;
        }
        let waiting = {
            let mut state = self.queue.state();
            state.writing = false;
            (state.bytes, state.lingers) = (0, None);
            std::mem::take(&mut state.waiting)
        };
        for mut waiting in waiting {
            let _held = self.shared.room.held(1, waiting.bytes);
            waiting.tell.tell(Err(PublishError::NotStored(no_answer_text())));
        }
    }
}

impl Queue {
    pub(super) fn new(partition: Partition) -> Arc<Self> {
        Arc::new(Self {
            partition,
            state: Mutex::default(),
            pushed: Notify::new(),
            sooner: Notify::new(),
        })
    }

    /// Adds an event and sees to it that somebody writes.
    pub(super) fn push(self: &Arc<Self>, waiting: Waiting, shared: &Arc<Shared>) {
        let until = waiting.until;
        let (runs, lingers, sooner) = {
            let mut state = self.state();
            let lingers = state.push(waiting, &shared.limits);
            let sooner = state.earliest.is_none_or(|earliest| until < earliest);
            if sooner {
                state.earliest = Some(until);
            }
            (std::mem::replace(&mut state.writing, true), lingers, sooner)
        };
        if !runs {
            self.start(shared);
            return;
        }
        if !lingers {
            self.pushed.notify_one();
        }
        if sooner {
            self.sooner.notify_one();
        }
    }

    /// The writer runs where the event was published: a thread of that runtime hands it to the
    /// socket, and its answer alone crosses to another. Beside the driver's connections the event
    /// would cross as well, which cost a fourth of the events a second.
    ///
    /// It does not where that runtime has one thread, which may have nobody to run it once
    /// its own event has its answer.
    fn start(self: &Arc<Self>, shared: &Arc<Shared>) {
        let here = Handle::try_current().ok();
        let here = here.filter(|here| here.runtime_flavor() == RuntimeFlavor::MultiThread);
        self.write_on(here.as_ref().or(shared.driver.runtime()), shared, false);
    }

    fn write_on(self: &Arc<Self>, runtime: Option<&Handle>, shared: &Arc<Shared>, is_last: bool) {
        let (queue, own) = (Arc::clone(self), Arc::clone(shared));
        let writing = Writing { queue, shared: own, is_last, ended: false };
        let writer = async move {
            let Shared { driver, limits, room, .. } = &*writing.shared;
            writing.queue.write(&**driver, *limits, room).await;
            writing.end();
        };
        match runtime {
            Some(runtime) => shared.writers.spawn_on(writer, runtime),
            None => shared.writers.spawn(writer),
        };
    }

    /// Writes until nothing waits. Appends are first polled in the order in which they are made,
    /// which is the order in which the driver stores them.
    async fn write(&self, driver: &dyn Driver, limits: PublishLimits, room: &Arc<Room>) {
        let mut under_way = FuturesUnordered::new();
        let mut alarm = Alarm::default();
        loop {
            while under_way.len() < limits.inflight_appends_max {
                let Some((number, appends)) = self.take(&limits, room) else { break };
                under_way.push(async move { (number, driver.append(appends).await) });
            }
            if under_way.is_empty() && self.stop() {
                return;
            }
            let has_room = under_way.len() < limits.inflight_appends_max;
            alarm.set(self.state().next_alarm(has_room));
            tokio::select! {
                biased;
                Some((number, answers)) = under_way.next() => {
                    let flight = self.state().flights.remove(number);
                    self.land(flight, answers);
                }
                () = self.pushed.notified(), if has_room => {}
                () = self.sooner.notified() => {}
                () = alarm.rings() => self.tell_late(&limits, room),
            }
        }
    }

    /// The next call: the oldest event and what fits beside it, in entries. Events that are
    /// deduplicated go apart: their batches cost more. Gives the number of the call as well.
    fn take(&self, limits: &PublishLimits, room: &Arc<Room>) -> Option<(usize, Vec<Append>)> {
        let mut state = self.state();
        if state.lingers.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let deduplicate = state.waiting.front()?.deduplicate;
        // What is left has waited long enough.
        state.lingers = None;
        let (mut askers, mut appends) = (Vec::new(), Vec::new());
        let (mut bytes, mut held) = (0, room.held(0, 0));
        while askers.len() < CALL_EVENTS_MAX && bytes < CALL_BYTES_MAX {
            let most = limits.batch_events_max.min(CALL_EVENTS_MAX - askers.len());
            let batch = state.batch(deduplicate, most, limits, &mut askers, &mut held);
            if batch.is_empty() {
                break;
            }
            bytes += batch.iter().map(Envelope::weight).sum::<usize>();
            let partition = self.partition.clone();
            appends.push(Append {
                partition,
                envelopes: batch,
                delay: Duration::ZERO,
                deduplicate,
            });
        }
        let sizes = appends.iter().map(|append| append.envelopes.len()).collect();
        Some((state.flights.add(Flight { askers, sizes, held }), appends))
    }

    fn stop(&self) -> bool {
        let mut state = self.state();
        debug_assert!(state.writing, "one writer at a time, and it is this one");
        let idle = state.waiting.is_empty();
        state.writing = !idle;
        if idle {
            (state.earliest, state.lingers) = (None, None);
        }
        idle
    }

    /// Tells everybody of a call what became of their event.
    fn land(&self, flight: Flight, answers: Answers) {
        let Flight { askers, sizes, held } = flight;
        // Whoever has an answer may publish again.
        drop(held);
        let (mut askers, mut answers) = (askers.into_iter(), answers.into_iter());
        for size in sizes {
            let answer = answers.next().unwrap_or_else(|| Err(no_answer()));
            for (index, mut asker) in askers.by_ref().take(size).enumerate() {
                let id = asker.id;
                asker.tell.tell(match &answer {
                    Ok(appended) => Ok(super::receipt(id, &self.partition, index, appended)),
                    Err(error) => Err(repeat(error)),
                });
            }
        }
    }

    /// Answers what is late. What still waits here was never sent, which makes that certain.
    fn tell_late(&self, limits: &PublishLimits, room: &Arc<Room>) {
        let (now, late) = (Instant::now(), || super::late(limits));
        let mut state = self.state();
        if state.earliest.is_none_or(|earliest| now < earliest) {
            return;
        }
        let mut earliest = state.flights.tell_late(now, || PublishError::Unknown(late()));
        for mut waiting in std::mem::take(&mut state.waiting) {
            if waiting.until <= now {
                state.bytes -= waiting.bytes;
                let _held = room.held(1, waiting.bytes);
                waiting.tell.tell(Err(PublishError::NotStored(late())));
            } else {
                earliest = Some(earliest.map_or(waiting.until, |own| own.min(waiting.until)));
                state.waiting.push_back(waiting);
            }
        }
        state.earliest = earliest;
    }

    /// The same where the writer should have, so long ago: its runtime stands still.
    pub(super) fn tell_overdue(&self, since: Duration, limits: &PublishLimits, room: &Arc<Room>) {
        let earliest = self.state().earliest;
        if earliest.is_some_and(|earliest| earliest.elapsed() >= since) {
            self.tell_late(limits, room);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds an event. Says whether nobody has to wake up for it, since it waits with others.
    fn push(&mut self, waiting: Waiting, limits: &PublishLimits) -> bool {
        let is_first = self.waiting.is_empty();
        self.bytes += waiting.bytes;
        self.waiting.push_back(waiting);
        if limits.linger.is_zero() {
            return false;
        }
        let is_full =
            self.waiting.len() >= limits.batch_events_max || self.bytes >= limits.batch_bytes_max;
        let waits = match is_first {
            true => {
                self.lingers = Some(Instant::now() + limits.linger);
                false
            }
            false => self.lingers.is_some(),
        };
        if is_full {
            self.lingers = None;
        }
        waits && !is_full
    }

    /// When the writer has something to do that nobody tells it.
    fn next_alarm(&self, has_room: bool) -> Option<Instant> {
        let lingers = self.lingers.filter(|_| has_room && !self.waiting.is_empty());
        [self.earliest, lingers].into_iter().flatten().min()
    }

    /// The events of the next entry, `most` of them at most.
    fn batch(
        &mut self,
        deduplicate: bool,
        most: usize,
        limits: &PublishLimits,
        askers: &mut Vec<Asker>,
        held: &mut Held,
    ) -> Vec<Envelope> {
        let mut batch = Vec::with_capacity(most.min(self.waiting.len()));
        let mut bytes = 0;
        while batch.len() < most {
            let Some(next) = self.waiting.front() else { break };
            bytes += next.envelope.weight();
            let fits = bytes <= limits.batch_bytes_max || batch.is_empty();
            if next.deduplicate != deduplicate || !fits {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            self.bytes -= next.bytes;
            held.add(1, next.bytes);
            askers.push(Asker { id: next.envelope.id(), until: next.until, tell: next.tell });
            batch.push(next.envelope);
        }
        batch
    }
}

/// The same answer for each event of a batch.
fn repeat(error: &PublishError) -> PublishError {
    match error {
        PublishError::NotStored(error) => PublishError::NotStored(error.copy()),
        PublishError::Unknown(error) => PublishError::Unknown(error.copy()),
    }
}

/// For a driver that breaks its contract, or a runtime that was shut down under way.
pub(super) fn no_answer() -> PublishError {
    PublishError::Unknown(no_answer_text())
}

fn no_answer_text() -> Error {
    Error::new(ErrorKind::Closed, "the driver gave no answer")
}
