//! The only settler: collects ends per entry and settles them together.
//!
//! Natural batching again: one call is under way at a time, and what ends meanwhile goes with the
//! next. Acks without outputs wait for the rest of their entry, `settle_wait` at most, because a
//! whole entry costs one command; everything else goes with the next call.

mod ended;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

pub(crate) use self::ended::Ended;
use self::ended::More;
use super::channel::{Receiver, Sender, channel};
use super::in_flight::InFlight;
use super::suspects::Turn;
use super::switch::Switch;
use crate::alarm::Alarm;
use crate::delivery::{
    Delivery, Entry, EntryId, Outcome, Partition, Queue, Settled, Settlement, Site,
};
use crate::driver::{GroupName, Settler};
use crate::error::Error;
use crate::service::Skip;
use crate::trouble::Trouble;

/// Ends that wait for the settler task; then lanes wait.
const ENDED_MAX: usize = 1_024;
/// Most ends that are taken at once.
const TAKE_MAX: usize = 256;
/// Most settlements of one call.
const SETTLE_MAX: usize = 1_024;
/// Most entries of one call.
const ENTRIES_MAX: usize = 256;
/// How long a failed call is left alone.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

/// What a call answered.
enum Answers {
    Each(Vec<(Settlement, Result<Settled, Error>)>),
    Whole(Vec<(Arc<Entry>, Result<Settled, Error>)>),
}

type Call = Pin<Box<dyn Future<Output = Answers> + Send>>;

pub(crate) struct Settlements {
    settler: Arc<dyn Settler>,
    in_flight: Arc<InFlight>,
    settle_wait: Duration,
    group: GroupName,
    /// What a dead letter says of this instance.
    site: Site,
    kill: Switch,
    /// By the address of the entry, which lives as long as its record here.
    open: HashMap<usize, Open, BuildHasherDefault<OfAddress>>,
    /// When held settlements go without the rest of their entry, in order.
    deadlines: VecDeque<(Instant, usize)>,
    ready: VecDeque<Settlement>,
    /// Entries whose events all ended in plain acks.
    whole: VecDeque<Arc<Entry>>,
    /// Of suspects that ended, until they are settled.
    turns: HashMap<usize, Turn>,
    /// Of ends that somebody waits for, by the address of the entry and the index.
    stored: HashMap<(usize, u32), oneshot::Sender<()>>,
    /// Whose turn it is, where there are both.
    turn_of_whole: bool,
    /// The last call failed.
    failing: bool,
    trouble: Trouble,
}

/// Addresses come from nobody who wants them to collide: a multiplication spreads them.
#[derive(Default)]
struct OfAddress(u64);

impl Hasher for OfAddress {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// An entry of which some events have not ended.
struct Open {
    entry: Arc<Entry>,
    /// How many are to be settled, and how many of them have not ended.
    all: usize,
    left: usize,
    /// Which of them ended in plain acks, and those that ended otherwise.
    acked: Vec<u32>,
    held: Vec<Settlement>,
    /// When they go without the rest; nothing where none waits.
    due: Option<Instant>,
}

impl Open {
    fn new(entry: &Arc<Entry>) -> Self {
        let all = entry.records.len() - entry.settled.len();
        let (acked, held) = (Vec::with_capacity(all), Vec::new());
        Self { entry: Arc::clone(entry), all, left: all, acked, held, due: None }
    }

    fn ack(&self, index: u32) -> Settlement {
        Delivery { entry: Arc::clone(&self.entry), index }.settle(Outcome::ack())
    }
}

impl Settlements {
    /// The sender of ends, and the task that settles them until every sender is gone.
    pub(crate) fn start(
        settler: Arc<dyn Settler>,
        in_flight: Arc<InFlight>,
        settle_wait: Duration,
        group: &GroupName,
        site: Site,
        kill: Switch,
    ) -> (Sender<Ended>, impl Future<Output = ()> + Send + use<>) {
        let (ended, ends) = channel(ENDED_MAX);
        let settlements = Self {
            settler,
            in_flight,
            settle_wait,
            group: group.clone(),
            site,
            kill,
            open: HashMap::default(),
            deadlines: VecDeque::new(),
            ready: VecDeque::new(),
            whole: VecDeque::new(),
            turns: HashMap::new(),
            stored: HashMap::new(),
            turn_of_whole: false,
            failing: false,
            trouble: Trouble::default(),
        };
        (ended, settlements.run(ends))
    }

    async fn run(mut self, mut ends: Receiver<Ended>) {
        let mut call: Option<Call> = None;
        let mut batch = VecDeque::new();
        let mut more = true;
        let mut alarm = Alarm::default();
        loop {
            if call.is_none() {
                call = self.next_call();
            }
            if !more && call.is_none() {
                debug_assert!(
                    self.ready.is_empty()
                        && self.whole.is_empty()
                        && self.open.is_empty()
                        && self.turns.is_empty(),
                    "the settler ends when everything is settled"
                );
                return;
            }
            // The first to be set is the first to be due; what was flushed since rings in vain.
            if !alarm.is_set() {
                alarm.set(self.deadlines.front().map(|(at, _)| *at));
            }
            // What makes room goes first: the ends, of which there may always be more, go last.
            tokio::select! {
                biased;
                answers = wait(&mut call) => {
                    call = None;
                    self.answered(answers);
                }
                () = alarm.rings() => self.flush_due(),
                count = ends.take(&mut batch, TAKE_MAX), if more => {
                    batch.drain(..).for_each(|ended| self.take(ended));
                    if count == 0 {
                        more = false;
                        self.flush_all();
                    }
                    // Its thread is that of the connections.
                    consume_budget().await;
                }
            }
        }
    }

    fn take(&mut self, ended: Ended) {
        let (delivery, more) = ended.take_apart();
        if more.is_none() && delivery.entry.is_one_event() {
            // All of its entry, as where every event has an entry of its own.
            self.whole.push_back(delivery.entry);
            return;
        }
        let key = key_of(&delivery);
        let Some(more) = more else {
            let open = self.ended(key, &delivery, true);
            open.acked.push(delivery.index);
            if open.left == 0 {
                self.flush(key);
            }
            return;
        };
        let More { mut outcome, turn, stored } = more;
        self.sign(&mut outcome);
        if let (Some(turn), Some(_)) = (turn, &outcome) {
            self.turns.insert(key, turn);
        }
        if let (Some(stored), Some(_)) = (stored, &outcome) {
            self.stored.insert((key, delivery.index), stored);
        }
        let may_wait = outcome.as_ref().is_some_and(Outcome::may_wait);
        let open = self.ended(key, &delivery, may_wait);
        let is_over = open.left == 0;
        match outcome {
            None => self.in_flight.settled(1, delivery.weight()),
            Some(outcome) => open.held.push(delivery.settle(outcome)),
        }
        if is_over || !may_wait {
            self.flush(key);
        }
    }

    /// Counts the end of an event; what may wait for the rest of its entry waits from now on.
    fn ended(&mut self, key: usize, delivery: &Delivery, may_wait: bool) -> &mut Open {
        let open = self.open.entry(key).or_insert_with(|| Open::new(&delivery.entry));
        assert!(open.left > 0, "an event ends once per hand-out");
        open.left -= 1;
        if may_wait && open.left > 0 && open.due.is_none() {
            let due = Instant::now() + self.settle_wait;
            open.due = Some(due);
            self.deadlines.push_back((due, key));
        }
        open
    }

    /// Says which program gave an event up, and where.
    fn sign(&self, outcome: &mut Option<Outcome>) {
        if let Some(Outcome::DeadLetter { failure }) = outcome {
            failure.site.version.clone_from(&self.site.version);
            failure.site.host.clone_from(&self.site.host);
        }
    }

    fn flush(&mut self, key: usize) {
        let Some(open) = self.open.get_mut(&key) else { return };
        open.due = None;
        let is_over = open.left == 0;
        if is_over && open.acked.len() == open.all && open.all == open.entry.records.len() {
            self.whole.extend(self.open.remove(&key).map(|open| open.entry));
            return;
        }
        let acked = std::mem::take(&mut open.acked);
        self.ready.extend(acked.into_iter().map(|index| open.ack(index)));
        self.ready.append(&mut std::mem::take(&mut open.held).into());
        if is_over {
            self.open.remove(&key);
        }
    }

    fn flush_due(&mut self) {
        let now = Instant::now();
        while let Some((at, key)) = self.deadlines.front().copied() {
            if at > now {
                return;
            }
            self.deadlines.pop_front();
            // Another entry may have come to lie where one was that is settled.
            if self.open.get(&key).is_some_and(|open| open.due == Some(at)) {
                self.flush(key);
            }
        }
    }

    fn flush_all(&mut self) {
        self.deadlines.clear();
        let mut open: Vec<(usize, (Partition, Queue, EntryId))> =
            self.open.iter().map(|(key, open)| (*key, place_of(&open.entry))).collect();
        // Addresses differ from run to run, and the order of settlements must not.
        open.sort_by(|(_, one), (_, other)| one.cmp(other));
        open.into_iter().for_each(|(key, _)| self.flush(key));
        // Nothing comes any more: what did not end is settled by whoever takes it over.
        self.open.clear();
    }

    /// What is ready; neither kind keeps the other waiting.
    fn next_call(&mut self) -> Option<Call> {
        self.turn_of_whole = !self.turn_of_whole;
        let both = !self.ready.is_empty() && !self.whole.is_empty();
        match both && !self.turn_of_whole || self.whole.is_empty() {
            true if self.ready.is_empty() => None,
            true => Some(self.settle()),
            false => Some(self.ack_whole()),
        }
    }

    fn settle(&mut self) -> Call {
        let count = self.ready.len().min(SETTLE_MAX);
        let batch: Vec<_> = self.ready.drain(..count).collect();
        let (settler, pause) = (Arc::clone(&self.settler), self.pause());
        Box::pin(async move {
            wait_for(pause).await;
            let answers = settler.settle(batch.clone()).await;
            Answers::Each(batch.into_iter().zip(answers).collect())
        })
    }

    fn ack_whole(&mut self) -> Call {
        let count = self.whole.len().min(ENTRIES_MAX);
        let entries: Vec<_> = self.whole.drain(..count).collect();
        let (settler, pause) = (Arc::clone(&self.settler), self.pause());
        Box::pin(async move {
            wait_for(pause).await;
            let answers = settler.ack(entries.clone()).await;
            Answers::Whole(entries.into_iter().zip(answers).collect())
        })
    }

    /// What a failed call is left alone for.
    fn pause(&self) -> Duration {
        if self.failing { SETTLE_PAUSE } else { Duration::ZERO }
    }

    fn answered(&mut self, answers: Answers) {
        match answers {
            Answers::Each(answers) => {
                self.note(answers.iter().find_map(|(_, answer)| answer.as_ref().err()));
                self.each(answers);
            }
            Answers::Whole(answers) => {
                self.note(answers.iter().find_map(|(_, answer)| answer.as_ref().err()));
                self.entries(answers);
            }
        }
    }

    /// Notes whether a call failed.
    fn note(&mut self, failed: Option<&Error>) {
        self.failing = failed.is_some();
        let group = &self.group;
        if let Some(error) = failed {
            if let Some(times) = self.trouble.failed() {
                tracing::warn!(%group, %error, "cannot settle; trying again{times}");
            }
        } else if let Some(times) = self.trouble.over() {
            tracing::info!(%group, "settling again{times}");
        }
    }

    fn each(&mut self, answers: Vec<(Settlement, Result<Settled, Error>)>) {
        let (mut events, mut bytes) = (0, 0);
        for (settlement, answer) in answers {
            match answer {
                Ok(settled) => {
                    (events, bytes) = (events + 1, bytes + settlement.delivery.weight());
                    self.settled(&settlement, settled);
                }
                // A drain that is over its deadline does not wait for a store that is away: the
                // events come back to the group after the lease.
                Err(error) if self.kill.is_thrown() => {
                    self.done(&settlement.delivery);
                    let origin = settlement.delivery.origin();
                    tracing::error!(group = %self.group, %origin, %error, "not settled");
                }
                Err(_) => self.ready.push_back(settlement),
            }
        }
        self.free(events, bytes);
    }

    fn entries(&mut self, answers: Vec<(Arc<Entry>, Result<Settled, Error>)>) {
        let (mut events, mut bytes) = (0, 0);
        for (entry, answer) in answers {
            let over = self.kill.is_thrown();
            match answer {
                Err(_) if !over => {
                    self.whole.push_back(entry);
                    continue;
                }
                Err(error) => {
                    let (partition, id) = (&entry.partition, entry.id);
                    tracing::error!(group = %self.group, %partition, %id, %error, "not settled");
                }
                Ok(settled) => {
                    (events, bytes) = (events + entry.records.len(), bytes + entry.weight());
                    if settled == Settled::LeaseLost {
                        let (partition, id) = (&entry.partition, entry.id);
                        let group = &self.group;
                        let text = "lease lost: another instance runs it";
                        tracing::warn!(%group, %partition, %id, "{text}");
                    }
                }
            }
            if !self.turns.is_empty() {
                self.turns.remove(&(Arc::as_ptr(&entry) as usize));
            }
        }
        self.free(events, bytes);
    }

    fn free(&self, events: usize, bytes: usize) {
        if events > 0 {
            self.in_flight.settled(events, bytes);
        }
    }

    /// Lets go of who waits for the end of a delivery.
    fn done(&mut self, delivery: &Delivery) {
        let key = key_of(delivery);
        if !self.turns.is_empty() {
            self.turns.remove(&key);
        }
        if !self.stored.is_empty() {
            self.stored.remove(&(key, delivery.index));
        }
    }

    fn settled(&mut self, settlement: &Settlement, settled: Settled) {
        let Settlement { delivery, outcome } = settlement;
        self.done(delivery);
        if settled == Settled::LeaseLost {
            let origin = delivery.origin();
            tracing::warn!(group = %self.group, %origin, "lease lost: another instance runs it");
            return;
        }
        if settled == Settled::Duplicate {
            self.in_flight.skipped(Skip::Duplicate);
        }
        let is_broadcast = self.in_flight.is_broadcast();
        let failure = match outcome {
            Outcome::DeadLetter { failure } => failure,
            // Nobody brings an event of a broadcast back: what was not tried again in place ends.
            Outcome::Retry { failure, .. } if is_broadcast => failure,
            _ => return,
        };
        let (origin, cause) = (delivery.origin(), failure.cause);
        let error = failure.errors.join(": ");
        if is_broadcast {
            self.in_flight.gave_up(cause);
            tracing::warn!(broadcast = %self.group, %origin, %cause, error, "given up");
        } else {
            tracing::warn!(group = %self.group, %origin, %cause, error, "dead-lettered");
        }
    }
}

fn place_of(entry: &Entry) -> (Partition, Queue, EntryId) {
    (entry.partition.clone(), entry.queue, entry.id)
}

fn key_of(delivery: &Delivery) -> usize {
    Arc::as_ptr(&delivery.entry) as usize
}

async fn wait(call: &mut Option<Call>) -> Answers {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

async fn wait_for(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
