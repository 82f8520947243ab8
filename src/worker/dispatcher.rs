//! Routes each event on its header and places it by its key.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::channel::Sender;
use super::in_flight::InFlight;
use super::lane::{Job, Lane};
use super::parking::Parking;
use super::settlements::Ended;
use super::verdict::{HAND_OVER_DELAY, at, expired};
use crate::delivery::{Cause, Delivery, Entry, Failure, Outcome, Queue, weigh as weigh_record};
use crate::driver::GroupRoutes;
use crate::envelope::Envelope;
use crate::service::{Router, Skip};
use crate::time::Clock;

/// Another hash than the partition's, so that the keys of one partition spread over all lanes.
const LANE_SEED: u64 = 0x6c61_6e65;

/// What is read together goes together, also where a batch does not linger.
const GATHER_MIN: Duration = Duration::from_millis(1);

/// An event without a key that would wait longer than this goes to whoever is free.
const HOARD_MAX: Duration = Duration::from_secs(1);

/// Of many events that fast handlers are to have, so many go to one lane at a time at most: to find
/// the one that has least to do takes a look at what all of them do.
const RUN_MAX: usize = 16;

/// How many events are placed before the lanes are told.
const FILL_EVERY: usize = 32;

/// Where suspects go: they wait for one another, and the other lanes must not wait with them.
const SUSPECT_LANE: usize = 0;

pub(crate) struct Dispatcher {
    pub(crate) router: Router,
    pub(crate) routes: Arc<GroupRoutes>,
    pub(crate) lanes: Vec<Lane>,
    /// What waits for a full lane, so that it does not stop the others. What is in flight bounds
    /// it.
    pub(crate) stashes: Vec<VecDeque<Job>>,
    /// Where the next events without a key go.
    pub(crate) run: Run,
    /// By the place of the route.
    pub(crate) gathering: HashMap<usize, Gathering>,
    pub(crate) ended: Sender<Ended>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) parking: Parking,
}

/// Where the events without a key of a batch route go together.
pub(crate) struct Gathering {
    lane: usize,
    /// How many more fit into the batch.
    left: usize,
    /// When the lane waits for no more.
    until: Instant,
}

/// Events without a key that go to one lane.
#[derive(Default)]
pub(crate) struct Run {
    lane: usize,
    left: usize,
    /// How many go together, of those that were read together.
    length: usize,
}

/// Where an event goes.
enum Place {
    /// With the place of its route.
    Lane(usize),
    End(Outcome),
}

impl Dispatcher {
    pub(crate) async fn dispatch(&mut self, entries: Vec<Entry>) {
        let mut placed = 0;
        let all: usize = entries.iter().map(|entry| entry.records.len()).sum();
        self.in_flight.came(all, entries.len());
        // As many as would be in each lane anyway, and a few lanes more than once.
        let length = if self.in_flight.is_fast() { all / self.lanes.len() / 4 } else { 1 };
        self.run = Run { lane: 0, left: 0, length: length.clamp(1, RUN_MAX) };
        for entry in entries {
            let entry = Arc::new(entry);
            let is_split = entry.suspect && entry.queue == Queue::Log;
            let (events, bytes) = weigh(&entry);
            self.in_flight.took(events, bytes);
            for delivery in entry.deliveries() {
                // Rule 7: of a suspect each event is looked at alone.
                let place = match is_split {
                    true => Place::End(Outcome::Split { after: Duration::ZERO }),
                    false => self.place(&delivery),
                };
                match place {
                    Place::End(outcome) => {
                        if self.parking.is_on() {
                            // This may wait for the store, and what was placed not with it.
                            self.fill();
                        }
                        self.end(delivery, outcome).await;
                    }
                    Place::Lane(route) => self.queue(Job { delivery, route }).await,
                }
            }
            // Many at once: a lane is woken once for them.
            placed += events;
            if placed >= FILL_EVERY {
                placed = 0;
                self.fill();
            }
        }
        self.fill();
    }

    /// What is not for a handler of this instance ends here; see rules 5 and 9.
    fn place(&mut self, delivery: &Delivery) -> Place {
        let failed =
            |cause, text| Place::End(Outcome::DeadLetter { failure: Failure::new(cause, text) });
        let envelope = match delivery.record() {
            Ok(envelope) => envelope,
            Err(malformed) => return failed(Cause::Malformed, malformed.reason.clone()),
        };
        let (name, version) = (envelope.event_type(), envelope.version());
        let place = self.router.route(name);
        let route = place.map(|place| &self.router.routes()[place]);
        if let (Some(place), Some(route)) = (place, route)
            && route.version.is_none_or(|newest| version <= newest)
        {
            if route.filter.decide(envelope) == Some(false) {
                self.in_flight.skipped(Skip::Filtered);
                return Place::End(Outcome::ack());
            }
            return match expired(envelope, || self.clock.now()) {
                Some(outcome) => Place::End(at(outcome, &route.pattern)),
                None => Place::Lane(place),
            };
        }
        // The handler of the type itself has the last word on its versions: a pattern beside it
        // does not stand in for it, here or elsewhere.
        let elsewhere = match &route {
            Some(_) => self.routes.newest_version(name) >= Some(version),
            None => self.routes.covers(name, version),
        };
        if elsewhere {
            return Place::End(Outcome::Split { after: HAND_OVER_DELAY });
        }
        if route.is_some() {
            let text = format!("no instance of the group knows version {version} of {name}");
            return failed(Cause::NewerVersion, text);
        }
        tracing::debug!(event = %name, id = %envelope.id(), "unrouted");
        self.in_flight.unrouted();
        Place::End(Outcome::ack())
    }

    /// Puts a job into its lane, behind what waits for it already.
    async fn queue(&mut self, job: Job) {
        let lane = match job.delivery.envelope().and_then(Envelope::key) {
            _ if job.delivery.entry.suspect => SUSPECT_LANE,
            Some(_) if planted!(LaneByChance) => fastrand::usize(..self.lanes.len()),
            Some(key) => {
                let hash = xxh3_64_with_seed(key.as_bytes(), LANE_SEED);
                usize::try_from(hash % self.lanes.len() as u64).unwrap_or_default()
            }
            None => {
                let lane = self.without_key(job.route);
                let wait =
                    self.in_flight.handler_micros().saturating_mul(self.waiting(lane) as u64);
                let wait = Duration::from_micros(wait);
                if is_hoarding(&job.delivery.entry, self.in_flight.is_broadcast(), wait) {
                    let outcome = Outcome::Split { after: Duration::ZERO };
                    return self.end(job.delivery, outcome).await;
                }
                lane
            }
        };
        self.stashes[lane].push_back(job);
    }

    /// An event without a key goes to the lane that has least to do; events of a batch go
    /// together, as long as the first of them waits for more.
    fn without_key(&mut self, route: usize) -> usize {
        let Some(options) = self.router.routes()[route].batch() else {
            if self.run.left == 0 {
                (self.run.lane, self.run.left) = (self.shortest(), self.run.length);
            }
            self.run.left -= 1;
            return self.run.lane;
        };
        let shortest = self.shortest();
        let (now, linger) = (Instant::now(), options.linger.max(GATHER_MIN));
        let fresh = || Gathering { lane: shortest, left: options.size, until: now + linger };
        let own = self.gathering.entry(route).or_insert_with(fresh);
        if own.left == 0 || own.until <= now {
            *own = fresh();
        }
        own.left -= 1;
        own.lane
    }

    fn shortest(&self) -> usize {
        let lanes = 0..self.lanes.len();
        lanes.min_by_key(|lane| self.waiting(*lane)).unwrap_or_default()
    }

    fn waiting(&self, lane: usize) -> usize {
        self.lanes[lane].load() + self.stashes[lane].len()
    }

    /// Whether something waits for a full lane.
    pub(crate) fn is_full(&self) -> bool {
        self.stashes.iter().any(|stash| !stash.is_empty())
    }

    /// Moves what waits for a full lane on, where there is room.
    pub(crate) fn fill(&mut self) {
        for lane in 0..self.lanes.len() {
            self.fill_lane(lane);
        }
    }

    fn fill_lane(&mut self, lane: usize) {
        self.lanes[lane].fill(&mut self.stashes[lane]);
        debug_assert!(
            self.stashes[lane].is_empty() || self.lanes[lane].load() > 0,
            "nothing waits for a lane that has nothing to do"
        );
    }

    async fn end(&self, delivery: Delivery, outcome: Outcome) {
        // The settler outlives the consumer; see the shutdown order.
        let end = Ended::new(delivery, Some(outcome));
        let _never_closed = self.parking.send(&self.ended, end).await;
    }

    /// Counts an event as held.
    pub(crate) fn take(&self, delivery: &Delivery) {
        self.in_flight.took(1, delivery.weight());
    }

    /// Gives an event that was not started to the other instances.
    pub(crate) async fn hand_over(&self, delivery: Delivery, outcome: Outcome) {
        self.in_flight.handed_over();
        self.end(delivery, outcome).await;
    }

    /// Gives what waits for a full lane to the other instances.
    pub(crate) async fn hand_over_waiting(&mut self) {
        for job in self.stashes.iter_mut().flat_map(std::mem::take).collect::<Vec<_>>() {
            self.hand_over(job.delivery, Outcome::Split { after: Duration::ZERO }).await;
        }
    }
}

/// How many events of an entry are to be settled, and what they weigh.
fn weigh(entry: &Entry) -> (usize, usize) {
    let all = (entry.records.len(), entry.weight());
    if entry.settled.is_empty() {
        return all;
    }
    let done = (0..).zip(&*entry.records).filter(|(index, _)| entry.settled.contains(*index));
    done.fold(all, |(events, bytes), (_, record)| (events - 1, bytes - weigh_record(record)))
}

/// Rule 6: slow jobs are not hoarded. Only an event of a batch is handed on, so that each is at
/// most once; of a broadcast there is nobody to hand it to.
fn is_hoarding(entry: &Entry, is_broadcast: bool, wait: Duration) -> bool {
    !is_broadcast && entry.queue == Queue::Log && entry.records.len() > 1 && wait > HOARD_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Bits, EntryId, Malformed, Token};

    fn entry(queue: Queue, events: usize) -> Entry {
        let record = || Err(Malformed { reason: String::new(), fields: Vec::new() });
        Entry {
            partition: "a:0".parse().expect("valid"),
            queue,
            id: EntryId::ZERO,
            records: (0..events).map(|_| record()).collect(),
            settled: Bits::new(),
            attempt: 1,
            origin: None,
            token: Token(1),
            suspect: false,
            lease: tokio_util::sync::CancellationToken::new(),
        }
    }

    #[test]
    fn only_a_slow_event_of_a_groups_batch_is_handed_on() {
        let long = HOARD_MAX + Duration::from_micros(1);
        let batch = entry(Queue::Log, 2);
        assert!(is_hoarding(&batch, false, long));
        assert!(!is_hoarding(&batch, false, HOARD_MAX));
        assert!(!is_hoarding(&batch, true, long), "a broadcast has nobody to hand it to");
        assert!(!is_hoarding(&entry(Queue::Retry, 2), false, long), "it was handed on before");
        assert!(!is_hoarding(&entry(Queue::Log, 1), false, long), "it would circle");
    }
}
