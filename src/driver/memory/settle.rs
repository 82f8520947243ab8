//! Settling: the decision table of the settle script, on memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::group_part::{GroupPart, Key, Pending, Retried, Running};
use super::parking::{Spot, spot_of};
use super::state::{Member, State};
use super::{Store, after, closed};
use crate::delivery::{
    Bits, DeadLetter, Delivery, Entry, Failure, Outcome, Output, Queue, Record, Settled, Settlement,
};
use crate::driver::{Settler, ack_each, sum_acks};
use crate::error::Error;

pub(super) struct MemorySettler {
    store: Arc<Store>,
    closed: CancellationToken,
    member: Member,
    consumer: String,
    park_keys: bool,
}

impl MemorySettler {
    pub(super) fn new(
        store: Arc<Store>,
        driver_closed: CancellationToken,
        member: Member,
        consumer: String,
        park_keys: bool,
    ) -> Self {
        Self { store, closed: driver_closed, member, consumer, park_keys }
    }

    /// Makes one round under the lock, and wakes whom it concerns.
    fn round<T>(&self, make: impl FnOnce(&mut Round<'_>) -> T) -> T {
        let mut state = self.store.state();
        let mut round = Round {
            state: &mut state,
            member: self.member,
            consumer: &self.consumer,
            park_keys: self.park_keys,
            now: Instant::now(),
            more: false,
        };
        let made = make(&mut round);
        let (more, full) = (round.more, !state.waiting.is_empty());
        drop(state);
        if more {
            self.store.changed.notify_waiters();
        }
        if full {
            self.store.room.notify_waiters();
        }
        made
    }
}

#[async_trait]
impl Settler for MemorySettler {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled, Error>> {
        if self.closed.is_cancelled() {
            return settlements.iter().map(|_| Err(closed())).collect();
        }
        self.round(|round| round.settle_all(&settlements))
    }

    async fn ack(&self, entries: Vec<Arc<Entry>>) -> Vec<Result<Settled, Error>> {
        if self.closed.is_cancelled() {
            return entries.iter().map(|_| Err(closed())).collect();
        }
        if self.park_keys {
            // What waits behind each event is looked up.
            return sum_acks(&entries, self.settle(ack_each(&entries)).await);
        }
        self.round(|round| entries.iter().map(|entry| round.ack(entry)).collect())
    }

    async fn is_parked(&self, delivery: &Delivery) -> Result<bool, Error> {
        if self.closed.is_cancelled() {
            return Err(closed());
        }
        let Some(spot) = spot_of(delivery).filter(|_| self.park_keys) else { return Ok(false) };
        let state = self.store.state();
        let place = state.part(&delivery.entry.partition)?;
        let own = state.parts[place].groups.get(&self.member.group);
        Ok(own.is_some_and(|own| own.parking.holds(&spot)))
    }

    async fn handled(&self, entry: &Entry) -> Result<Bits, Error> {
        if self.closed.is_cancelled() {
            return Err(closed());
        }
        let now = Instant::now();
        let state = self.store.state();
        let place = state.part(&entry.partition)?;
        let mut handled = Bits::new();
        let Some(own) = state.parts[place].groups.get(&self.member.group) else {
            return Ok(handled);
        };
        for (index, record) in (0..).zip(&*entry.records) {
            let known = record.as_ref().is_ok_and(|event| own.handled.contains(event.id(), now));
            if known && !entry.settled.contains(index) {
                handled.insert(index);
            }
        }
        Ok(handled)
    }

    async fn begin(&self, delivery: &Delivery) -> Result<Option<u32>, Error> {
        if self.closed.is_cancelled() {
            return Err(closed());
        }
        let entry = &delivery.entry;
        if entry.queue == Queue::Log {
            let text = format!("entry {} of a log is split before its events run", entry.id);
            return Err(Error::invalid(text));
        }
        let mut state = self.store.state();
        let place = state.part(&entry.partition)?;
        let own = state.parts[place].groups.get_mut(&self.member.group);
        let pending = own.and_then(|own| own.pending.get_mut(&(entry.queue, entry.id)));
        Ok(pending.filter(|own| own.is_held_by(self.member, entry.token)).map(begin))
    }
}

/// Notes that a suspect is about to run; gives how often it was found running.
fn begin(pending: &mut Pending) -> u32 {
    let count = pending.count;
    let found = match pending.running {
        None => 0,
        Some(note) if note.count == count => note.found,
        Some(note) => note.found + 1,
    };
    pending.running = Some(Running { found, count });
    found
}

/// One call under the lock.
struct Round<'a> {
    state: &'a mut State,
    member: Member,
    consumer: &'a str,
    park_keys: bool,
    now: Instant,
    /// Whether there is more to be taken than before, now or later.
    more: bool,
}

type Answers = Vec<Result<Settled, Error>>;

impl Round<'_> {
    fn settle_all(&mut self, all: &[Settlement]) -> Answers {
        let mut answers = Vec::with_capacity(all.len());
        while let Some(first) = all.get(answers.len()) {
            let goes_on = |own: &&Settlement| {
                Arc::ptr_eq(&own.delivery.entry, &first.delivery.entry)
                    && own.outcome.is_plain_ack()
            };
            let run = all[answers.len()..].iter().take_while(goes_on).count();
            let run = &all[answers.len()..answers.len() + run];
            if run.is_empty() || !self.acknowledge(run, &mut answers) {
                answers.push(self.settle(first, all));
            }
        }
        answers
    }

    /// Ends neighbours of one entry that were handled and published nothing, as nearly all are:
    /// its place is looked up once. False where there is more to it; then nothing was changed.
    fn acknowledge(&mut self, run: &[Settlement], answers: &mut Answers) -> bool {
        let entry = &run[0].delivery.entry;
        let key = (entry.queue, entry.id);
        let Ok(place) = self.state.part(&entry.partition) else { return false };
        let own = self.state.parts[place].groups.get_mut(&self.member.group);
        let Some(pending) = own.and_then(|own| own.pending.get_mut(&key)) else { return false };
        let is_plain = !self.park_keys
            && pending.is_held_by(self.member, entry.token)
            && run.iter().all(|own| (own.delivery.index as usize) < pending.size);
        if !is_plain {
            return false;
        }
        for own in run {
            let fresh = pending.settled.insert(own.delivery.index);
            answers.push(Ok(if fresh { Settled::Done } else { Settled::Already }));
        }
        self.finish(place, key);
        true
    }

    /// Ends a whole entry whose events were handled, each in a plain ack.
    fn ack(&mut self, entry: &Entry) -> Result<Settled, Error> {
        let key = (entry.queue, entry.id);
        let place = self.state.part(&entry.partition)?;
        let own = self.state.parts[place].groups.get(&self.member.group);
        let Some(pending) = own.and_then(|own| own.pending.get(&key)) else {
            return Ok(Settled::Already);
        };
        // That all of a first hand-out was handled stays true whoever says it.
        if !pending.is_held_by(self.member, entry.token) && entry.token.0 != 1 {
            return Ok(Settled::LeaseLost);
        }
        self.close(place, key);
        Ok(Settled::Done)
    }

    fn settle(&mut self, settlement: &Settlement, all: &[Settlement]) -> Result<Settled, Error> {
        let Settlement { delivery, outcome } = settlement;
        let entry = &delivery.entry;
        let place = self.state.part(&entry.partition)?;
        let outputs = self.resolve(outcome)?;
        match self.fence(place, delivery, all)? {
            Settled::Done => {}
            refused => return Ok(refused),
        }
        let repeated = self.is_repeated(place, delivery, outcome);
        self.apply(place, delivery, outcome);
        for (target, records) in outputs.into_iter().filter(|_| !repeated) {
            // Outputs never wait for room: settling is what makes room, and would wait for itself.
            self.state.store(target, records.into());
            self.more = true;
        }
        self.finish(place, (entry.queue, entry.id));
        Ok(if repeated { Settled::Duplicate } else { Settled::Done })
    }

    /// Whether an event that is to be handled once was handled before; if not, it is now.
    fn is_repeated(&mut self, place: usize, delivery: &Delivery, outcome: &Outcome) -> bool {
        let (Outcome::AckOnce { window, .. }, Some(envelope)) = (outcome, delivery.envelope())
        else {
            return false;
        };
        let now = self.now;
        !self.own(place).handled.insert(envelope.id(), now, after(now, *window))
    }

    /// The outputs as entries, one per target; refused before anything is changed.
    fn resolve(&self, outcome: &Outcome) -> Result<Vec<(usize, Vec<Record>)>, Error> {
        let mut entries: Vec<(usize, Vec<Record>)> = Vec::new();
        for Output { partition, envelope } in outcome.outputs() {
            let target = self.state.part(partition)?;
            let record = Ok(envelope.clone());
            match entries.iter_mut().find(|(place, _)| *place == target) {
                Some((_, records)) => records.push(record),
                None => entries.push((target, vec![record])),
            }
        }
        Ok(entries)
    }

    /// Whether this consumer may end the delivery; if so, the event counts as settled.
    fn fence(
        &mut self,
        place: usize,
        delivery: &Delivery,
        all: &[Settlement],
    ) -> Result<Settled, Error> {
        let entry = &delivery.entry;
        let Some(own) = self.state.parts[place].groups.get_mut(&self.member.group) else {
            return Ok(Settled::Already);
        };
        let Some(pending) = own.pending.get_mut(&(entry.queue, entry.id)) else {
            return Ok(Settled::Already);
        };
        if delivery.index as usize >= pending.size {
            let text = format!("entry {} has no event {}", entry.id, delivery.index);
            return Err(Error::invalid(text));
        }
        if !pending.is_held_by(self.member, entry.token) && !is_whole_plain_ack(entry, all) {
            return Ok(Settled::LeaseLost);
        }
        let fresh = pending.settled.insert(delivery.index);
        Ok(if fresh { Settled::Done } else { Settled::Already })
    }

    fn apply(&mut self, place: usize, delivery: &Delivery, outcome: &Outcome) {
        match outcome {
            Outcome::Ack { .. } | Outcome::AckOnce { .. } => {
                if let Some(spot) = self.spot(delivery) {
                    let next = self.own(place).parking.release(&spot);
                    self.run_next(place, next);
                }
            }
            Outcome::Park => self.park(place, delivery),
            Outcome::Retry { after, .. } => {
                let attempt = delivery.attempt().saturating_add(1);
                // Its handler ended without ending the process.
                self.reschedule(place, event_of(delivery, attempt, false), *after);
            }
            Outcome::Split { after } => {
                let event = event_of(delivery, delivery.attempt(), delivery.entry.suspect);
                self.reschedule(place, event, *after);
            }
            Outcome::DeadLetter { failure } => self.bury(place, delivery, failure),
        }
    }

    /// Where an event stands in the order of its key, in a group that parks keys.
    fn spot(&self, delivery: &Delivery) -> Option<Spot> {
        spot_of(delivery).filter(|_| self.park_keys)
    }

    fn park(&mut self, place: usize, delivery: &Delivery) {
        let event = event_of(delivery, delivery.attempt(), delivery.entry.suspect);
        self.state.unsettled_bytes += event.weight();
        let next = match self.spot(delivery) {
            Some(spot) => self.own(place).parking.park(spot, event),
            None => Some(event),
        };
        self.run_next(place, next);
    }

    /// What waited is handed out now; its weight was counted when it began to wait.
    fn run_next(&mut self, place: usize, next: Option<Retried>) {
        let (now, wall) = (self.now, self.state.now());
        if let Some(event) = next {
            self.own(place).schedule(event, Duration::ZERO, now, wall);
            self.more = true;
        }
    }

    fn reschedule(&mut self, place: usize, event: Retried, delay: Duration) {
        let wall = self.state.now();
        self.state.unsettled_bytes += event.weight();
        let now = self.now;
        self.own(place).schedule(event, delay, now, wall);
        self.more = true;
    }

    fn bury(&mut self, place: usize, delivery: &Delivery, failure: &Failure) {
        let (wall, max) = (self.state.now(), self.state.dead_letters_max);
        let consumer = self.consumer.to_owned();
        let spot = self.spot(delivery);
        let own = self.own(place);
        let id = own.dead_ids.next(wall);
        if let Some(spot) = spot {
            own.parking.bury(id, spot);
        }
        own.dead.push_back(DeadLetter {
            id,
            first_id: id,
            origin: delivery.origin(),
            record: delivery.record().clone(),
            failure: failure.clone(),
            attempts: delivery.attempt(),
            consumer,
            given_up: wall,
            original: None,
        });
        if own.dead.len() == max {
            let (consumer, partition) = (self.consumer, &delivery.entry.partition);
            tracing::error!(%partition, consumer, max, "dead letters at their limit: group pauses");
        }
    }

    /// Ends the entry where that was its last event.
    fn finish(&mut self, place: usize, key: Key) {
        if self.own(place).pending.get(&key).is_some_and(|pending| pending.is_done()) {
            self.close(place, key);
        }
    }

    /// Takes an entry that has ended off the books.
    fn close(&mut self, place: usize, key: Key) {
        let own = self.own(place);
        own.finish(key);
        match key {
            (Queue::Log, id) => self.state.settled(place, id),
            (Queue::Retry, id) => {
                let weight = own.retry.remove(&id).map_or(0, |event| event.weight());
                self.state.unsettled_bytes -= weight;
            }
        }
    }

    fn own(&mut self, place: usize) -> &mut GroupPart {
        let groups = &mut self.state.parts[place].groups;
        groups.get_mut(&self.member.group).expect("the fence found the group here")
    }
}

fn event_of(delivery: &Delivery, attempt: u32, suspect: bool) -> Retried {
    let (record, origin) = (delivery.record().clone(), delivery.origin());
    Retried { record, attempt, origin, suspect }
}

/// An entry that was handed out once and whose events all end in plain acks: that they were
/// handled stays true whoever says it.
fn is_whole_plain_ack(entry: &Arc<Entry>, all: &[Settlement]) -> bool {
    let acks = |index: usize| {
        all.iter().any(|settlement| {
            Arc::ptr_eq(&settlement.delivery.entry, entry)
                && settlement.delivery.index as usize == index
                && settlement.outcome.is_plain_ack()
        })
    };
    entry.token.0 == 1 && (0..entry.records.len()).all(acks)
}
