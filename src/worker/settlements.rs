//! The only settler: collects ends per entry and settles them together.
//!
//! Natural batching again: one call is under way at a time, and what ends meanwhile goes with the
//! next. Acks without outputs wait for the rest of their entry, `settle_wait` at most, because a
//! whole entry costs one command; everything else goes with the next call.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::in_flight::InFlight;
use super::suspects::Turn;
use crate::delivery::{Delivery, EntryId, Outcome, Partition, Queue, Settled, Settlement, Site};
use crate::driver::{GroupName, Settler};
use crate::error::Error;
use crate::service::Skip;
use crate::trouble::Trouble;

/// Ends that wait for the settler task; then lanes wait.
const ENDED_MAX: usize = 1_024;
/// Most settlements of one call.
const SETTLE_MAX: usize = 1_024;
/// How long a failed call is left alone.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

/// A delivery that ended. No outcome: another instance holds it now.
pub(crate) struct Ended {
    pub(crate) delivery: Delivery,
    pub(crate) outcome: Option<Outcome>,
    /// Of a suspect: no other runs until it is settled.
    pub(crate) turn: Option<Turn>,
    /// Dropped when the settlement was answered.
    stored: Option<oneshot::Sender<()>>,
}

impl Ended {
    pub(crate) fn new(delivery: Delivery, outcome: Option<Outcome>) -> Self {
        Self { delivery, outcome, turn: None, stored: None }
    }

    pub(super) fn with(self, turn: Turn) -> Self {
        Self { turn: Some(turn), ..self }
    }

    /// Answers, with an error, when it is settled or will not be.
    pub(super) fn wait(&mut self) -> oneshot::Receiver<()> {
        let (stored, waits) = oneshot::channel();
        self.stored = Some(stored);
        waits
    }
}

type Answers = Vec<(Settlement, Result<Settled, Error>)>;
type Call = Pin<Box<dyn Future<Output = Answers> + Send>>;

pub(crate) struct Settlements {
    settler: Arc<dyn Settler>,
    in_flight: Arc<InFlight>,
    settle_wait: Duration,
    group: GroupName,
    /// What a dead letter says of this instance.
    site: Site,
    kill: CancellationToken,
    /// By the address of the entry, which lives as long as its record here.
    open: HashMap<usize, Open, BuildHasherDefault<OfAddress>>,
    /// When held settlements go without the rest of their entry, in order.
    deadlines: VecDeque<(Instant, usize)>,
    ready: VecDeque<Settlement>,
    /// Of suspects that ended, until they are settled.
    turns: HashMap<usize, Turn>,
    /// Of ends that somebody waits for, by the address of the entry and the index.
    stored: HashMap<(usize, u32), oneshot::Sender<()>>,
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
    left: usize,
    held: Vec<Settlement>,
}

impl Settlements {
    /// The sender of ends, and the task that settles them until every sender is gone.
    pub(crate) fn start(
        settler: Arc<dyn Settler>,
        in_flight: Arc<InFlight>,
        settle_wait: Duration,
        group: &GroupName,
        site: Site,
        kill: CancellationToken,
    ) -> (mpsc::Sender<Ended>, impl Future<Output = ()> + Send + use<>) {
        let (ended, ends) = mpsc::channel(ENDED_MAX);
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
            turns: HashMap::new(),
            stored: HashMap::new(),
            failing: false,
            trouble: Trouble::default(),
        };
        (ended, settlements.run(ends))
    }

    async fn run(mut self, mut ends: mpsc::Receiver<Ended>) {
        let mut call: Option<Call> = None;
        let mut batch = Vec::with_capacity(64);
        let mut more = true;
        loop {
            if call.is_none() && !self.ready.is_empty() {
                call = Some(self.settle());
            }
            if !more && call.is_none() {
                debug_assert!(
                    self.ready.is_empty() && self.open.is_empty() && self.turns.is_empty(),
                    "the settler ends when everything is settled"
                );
                return;
            }
            let deadline = self.deadlines.front().map(|(at, _)| *at);
            // What makes room goes first: the ends, of which there may always be more, go last.
            tokio::select! {
                biased;
                answers = wait(&mut call) => {
                    call = None;
                    self.answered(answers);
                }
                () = sleep_until(deadline) => self.flush_due(),
                count = ends.recv_many(&mut batch, 64), if more => {
                    batch.drain(..).for_each(|ended| self.take(ended));
                    if count == 0 {
                        more = false;
                        self.flush_all();
                    }
                }
            }
        }
    }

    fn take(&mut self, ended: Ended) {
        let Ended { delivery, mut outcome, turn, stored } = ended;
        self.sign(&mut outcome);
        let key = key_of(&delivery);
        if let (Some(turn), Some(_)) = (turn, &outcome) {
            self.turns.insert(key, turn);
        }
        if let (Some(stored), Some(_)) = (stored, &outcome) {
            self.stored.insert((key, delivery.index), stored);
        }
        let fresh = || {
            let left = delivery.entry.records.len() - delivery.entry.settled.len();
            Open { left, held: Vec::with_capacity(left) }
        };
        let open = self.open.entry(key).or_insert_with(fresh);
        assert!(open.left > 0, "an event ends once per hand-out");
        open.left -= 1;
        let urgent = match outcome {
            None => {
                self.in_flight.settled(1, delivery.weight());
                false
            }
            Some(outcome) => {
                let may_wait = outcome.may_wait();
                if open.held.is_empty() && may_wait && open.left > 0 {
                    self.deadlines.push_back((Instant::now() + self.settle_wait, key));
                }
                open.held.push(delivery.settle(outcome));
                !may_wait
            }
        };
        if open.left == 0 || urgent {
            self.flush(key);
        }
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
        self.ready.extend(open.held.drain(..));
        if open.left == 0 {
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
            self.flush(key);
        }
    }

    fn flush_all(&mut self) {
        self.deadlines.clear();
        let held = self.open.drain().flat_map(|(_, open)| open.held);
        let mut held: Vec<_> = held.collect();
        // Addresses differ from run to run, and the order of settlements must not.
        held.sort_by_cached_key(|settlement| place_of(&settlement.delivery));
        self.ready.extend(held);
    }

    fn settle(&mut self) -> Call {
        let count = self.ready.len().min(SETTLE_MAX);
        let batch: Vec<_> = self.ready.drain(..count).collect();
        let settler = Arc::clone(&self.settler);
        let pause = if self.failing { SETTLE_PAUSE } else { Duration::ZERO };
        Box::pin(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let answers = settler.settle(batch.clone()).await;
            batch.into_iter().zip(answers).collect()
        })
    }

    fn answered(&mut self, answers: Answers) {
        let failed = answers.iter().find_map(|(_, answer)| answer.as_ref().err());
        self.failing = failed.is_some();
        let group = &self.group;
        if let Some(error) = failed {
            if let Some(times) = self.trouble.failed() {
                tracing::warn!(%group, %error, "cannot settle; trying again{times}");
            }
        } else if let Some(times) = self.trouble.over() {
            tracing::info!(%group, "settling again{times}");
        }
        let (mut events, mut bytes) = (0, 0);
        for (settlement, answer) in answers {
            match answer {
                Ok(settled) => {
                    (events, bytes) = (events + 1, bytes + settlement.delivery.weight());
                    self.settled(&settlement, settled);
                }
                // A drain that is over its deadline does not wait for a store that is away: the
                // events come back to the group after the lease.
                Err(error) if self.kill.is_cancelled() => {
                    self.done(&settlement.delivery);
                    let origin = settlement.delivery.origin();
                    tracing::error!(group = %self.group, %origin, %error, "not settled");
                }
                Err(_) => self.ready.push_back(settlement),
            }
        }
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

fn place_of(Delivery { entry, index }: &Delivery) -> (Partition, Queue, EntryId, u32) {
    (entry.partition.clone(), entry.queue, entry.id, *index)
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

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
