//! The only reader: fetches what the lanes can take, routes on the header, places by key.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::in_flight::InFlight;
use super::lane::{Job, Lane};
use super::settlements::Ended;
use super::verdict::HAND_OVER_DELAY;
use crate::delivery::{Cause, Delivery, Entry, Failure, Outcome, Queue};
use crate::driver::{GroupRoutes, Source};
use crate::envelope::Envelope;
use crate::service::Router;
use crate::time::Clock;

/// Another hash than the partition's, so that the keys of one partition spread over all lanes.
const LANE_SEED: u64 = 0x6c61_6e65;

/// An event without a key that would wait longer than this goes to whoever is free.
const HOARD_MAX: Duration = Duration::from_secs(1);

/// How long a source that failed is left alone.
const FETCH_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Consumer {
    pub(crate) source: Box<dyn Source>,
    pub(crate) router: Router,
    pub(crate) routes: Arc<GroupRoutes>,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) ended: mpsc::Sender<Ended>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) stop: CancellationToken,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Where an event goes.
enum Place {
    Lane(Arc<crate::service::Route>, Envelope),
    End(Outcome),
}

impl Consumer {
    /// Reads until `stop`; hands over what it still holds; keeps the source, and with it the
    /// leases, until `finished`.
    pub(crate) async fn run(mut self, finished: CancellationToken) {
        let mut stashes: Vec<VecDeque<Job>> = self.lanes.iter().map(|_| VecDeque::new()).collect();
        while !self.stop.is_cancelled() {
            self.fill(&mut stashes);
            let budget = self.in_flight.budget();
            let entries = tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.in_flight.freed.notified() => continue,
                entries = self.source.fetch(budget), if budget > 0 => entries,
            };
            match entries {
                Ok(entries) if entries.is_empty() => break,
                Ok(entries) => self.dispatch(entries, &mut stashes).await,
                Err(error) => self.pause(error).await,
            }
        }
        self.source.close().await;
        self.hand_over(stashes).await;
        let Self { source, lanes, ended, .. } = self;
        drop((lanes, ended));
        finished.cancelled().await;
        drop(source);
    }

    async fn pause(&self, error: crate::Error) {
        tracing::error!(%error, "cannot fetch; trying again in {FETCH_PAUSE:?}");
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(FETCH_PAUSE) => {}
        }
    }

    async fn dispatch(&mut self, entries: Vec<Entry>, stashes: &mut [VecDeque<Job>]) {
        for entry in entries {
            let entry = Arc::new(entry);
            for delivery in entry.deliveries() {
                self.in_flight.took(1, delivery.weight());
                match self.place(&delivery) {
                    Place::End(outcome) => self.end(delivery, outcome).await,
                    Place::Lane(route, envelope) => {
                        let job = Job { delivery, envelope, route };
                        self.queue(job, stashes).await;
                    }
                }
            }
        }
    }

    /// What is not for a handler of this instance ends here; see rules 5 and 9.
    fn place(&self, delivery: &Delivery) -> Place {
        let failed = |cause, text| {
            Place::End(Outcome::DeadLetter { failure: Failure::new(cause, text) })
        };
        let envelope = match delivery.record() {
            Ok(envelope) => envelope,
            Err(malformed) => return failed(Cause::Malformed, malformed.reason.clone()),
        };
        if let Some(expires) = envelope.expires().filter(|_| envelope.is_expired(self.clock.now())) {
            return failed(Cause::Expired, format!("expired at {expires}"));
        }
        let (name, version) = (envelope.event_type(), envelope.version());
        let route = self.router.route(name);
        if let Some(route) = &route
            && route.version.is_none_or(|newest| version <= newest)
        {
            return Place::Lane(Arc::clone(route), envelope.clone());
        }
        if self.routes.covers(name, version) {
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
    async fn queue(&self, job: Job, stashes: &mut [VecDeque<Job>]) {
        let lane = match job.envelope.key() {
            Some(key) => {
                let hash = xxh3_64_with_seed(key.as_bytes(), LANE_SEED);
                usize::try_from(hash % self.lanes.len() as u64).unwrap_or_default()
            }
            None => {
                let lane = self.shortest(stashes);
                if self.is_hoarding(&job, self.waiting(lane, stashes)) {
                    let outcome = Outcome::Split { after: Duration::ZERO };
                    return self.end(job.delivery, outcome).await;
                }
                lane
            }
        };
        stashes[lane].push_back(job);
        self.fill_lane(lane, &mut stashes[lane]);
    }

    /// Rule 6: slow jobs are not hoarded. Only an event of a batch is handed on, so that each is
    /// at most once.
    fn is_hoarding(&self, job: &Job, waiting: usize) -> bool {
        let entry = &job.delivery.entry;
        let wait = self.in_flight.handler_micros().saturating_mul(waiting as u64);
        entry.queue == Queue::Log
            && entry.records.len() > 1
            && Duration::from_micros(wait) > HOARD_MAX
    }

    fn shortest(&self, stashes: &[VecDeque<Job>]) -> usize {
        let lanes = 0..self.lanes.len();
        lanes.min_by_key(|lane| self.waiting(*lane, stashes)).unwrap_or_default()
    }

    fn waiting(&self, lane: usize, stashes: &[VecDeque<Job>]) -> usize {
        let jobs = &self.lanes[lane].jobs;
        jobs.max_capacity() - jobs.capacity() + stashes[lane].len()
    }

    fn fill(&self, stashes: &mut [VecDeque<Job>]) {
        for (lane, stash) in stashes.iter_mut().enumerate() {
            self.fill_lane(lane, stash);
        }
    }

    fn fill_lane(&self, lane: usize, stash: &mut VecDeque<Job>) {
        while let Ok(permit) = self.lanes[lane].jobs.try_reserve() {
            match stash.pop_front() {
                Some(job) => permit.send(job),
                None => return,
            }
        }
    }

    async fn end(&self, delivery: Delivery, outcome: Outcome) {
        // The settler outlives the consumer; see the shutdown order.
        let _never_closed = self.ended.send(Ended { delivery, outcome: Some(outcome) }).await;
    }

    /// Gives what was read and not placed to the other instances.
    async fn hand_over(&mut self, stashes: Vec<VecDeque<Job>>) {
        let outcome = || Outcome::Split { after: Duration::ZERO };
        for job in stashes.into_iter().flatten() {
            self.in_flight.handed_over();
            self.end(job.delivery, outcome()).await;
        }
        loop {
            let entries = self.source.fetch(1).await.unwrap_or_default();
            if entries.is_empty() {
                return;
            }
            for entry in entries.into_iter().map(Arc::new) {
                for delivery in entry.deliveries() {
                    self.in_flight.took(1, delivery.weight());
                    self.in_flight.handed_over();
                    self.end(delivery, outcome()).await;
                }
            }
        }
    }
}
