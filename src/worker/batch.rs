//! Batches of a lane: what goes together, and how each of its events ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::channel::{Receiver, Sender};
use super::lane::{End, Job, LaneShared, Load};
use super::meeting;
use super::settlements::Ended;
use crate::delivery::Delivery;
use crate::envelope::Envelope;
use crate::service::{BatchEndpoint, BatchOptions, Context, Handler, Route};

/// How long the events of a batch wait at least for one that a middleware holds up.
const PATIENCE_MIN: Duration = Duration::from_millis(10);

/// The lane's end of its queue.
pub(super) struct LaneQueue {
    waiting: Receiver<Job>,
    /// Taken from the queue, and not for a handler yet.
    ahead: VecDeque<Job>,
    /// How much is taken at once.
    most: usize,
    shared: Arc<LaneShared>,
}

/// Most events that a lane takes from its queue at once, and less than half of its depth: until
/// they are run their room in the queue is given away.
const TAKE_MAX: usize = 32;

impl LaneQueue {
    pub(super) fn new(waiting: Receiver<Job>, shared: Arc<LaneShared>) -> Self {
        let most = (waiting.bound() / 2).clamp(1, TAKE_MAX);
        Self { waiting, ahead: VecDeque::new(), most, shared }
    }

    /// # Cancel safety
    /// Dropped before it is done, nothing was taken.
    pub(super) async fn next(&mut self) -> Option<Job> {
        if self.ahead.is_empty() {
            self.waiting.take(&mut self.ahead, self.most).await;
            self.shared.in_flight.freed.notify_one();
        }
        self.ahead.pop_front()
    }

    /// Whether the next event may have to be waited for.
    pub(super) fn is_dry(&self) -> bool {
        self.ahead.is_empty() && self.waiting.is_empty()
    }

    /// Once the worker stops, gives what waits to the other instances, whatever runs.
    ///
    /// # Cancel safety
    /// Dropped before it is done, what waits still waits.
    pub(super) async fn hand_over(&mut self, ended: &Sender<Ended>, load: &Load) {
        self.shared.stop.thrown().await;
        loop {
            if self.ahead.is_empty() {
                self.waiting.take(&mut self.ahead, 1).await;
            }
            if self.ahead.is_empty() {
                return;
            }
            let Ok(room) = ended.reserve(1).await else { return };
            if let Some(Job { delivery, .. }) = self.ahead.pop_front() {
                let outcome = self.shared.before(&delivery).flatten();
                room.send([Ended::new(delivery, outcome)]);
                load.sub(1);
            }
        }
    }

    /// An event, with what its handler takes beside it.
    pub(super) async fn together(
        &mut self,
        delivery: Delivery,
        route: usize,
        handler: &Handler,
    ) -> Vec<Delivery> {
        match handler {
            Handler::Batch(_, options) if !delivery.entry.suspect => {
                self.collect(delivery, route, *options).await
            }
            _ => vec![delivery],
        }
    }

    /// What goes with `first`: its neighbours of the same route and version, until there are
    /// enough, one is of another kind (it may be of a key that is in the batch), or time is up.
    async fn collect(
        &mut self,
        first: Delivery,
        route: usize,
        options: BatchOptions,
    ) -> Vec<Delivery> {
        let (stop, due) = (self.shared.stop.clone(), Instant::now() + options.linger);
        let mut batch = vec![first];
        while batch.len() < options.size {
            let next = tokio::select! {
                biased;
                () = stop.thrown() => break,
                next = self.next() => next,
                () = sleep_until(due) => break,
            };
            match next {
                Some(job) if goes_with(&job, route, &batch[0]) => batch.push(job.delivery),
                other => {
                    other.into_iter().for_each(|job| self.ahead.push_front(job));
                    break;
                }
            }
        }
        batch
    }
}

fn goes_with(job: &Job, route: usize, first: &Delivery) -> bool {
    let version = |delivery: &Delivery| delivery.envelope().map(Envelope::version);
    job.route == route && version(&job.delivery) == version(first) && !job.delivery.entry.suspect
}

impl LaneShared {
    /// How the events of a batch end, each by itself.
    pub(super) async fn batch(
        &self,
        batch: Vec<Delivery>,
        route: &Route,
        endpoint: &Arc<dyn BatchEndpoint>,
        options: BatchOptions,
    ) -> Vec<Ended> {
        let mut ended = Vec::with_capacity(batch.len());
        let mut contexts = Vec::with_capacity(batch.len());
        for delivery in batch {
            match self.before(&delivery) {
                Some(outcome) => ended.push(Ended::new(delivery, outcome)),
                None => {
                    let (attempt, outbox) = (delivery.attempt(), Arc::clone(&self.outbox));
                    let ctx = Context::new(delivery, attempt, outbox);
                    match self.look_first(&ctx, route).await {
                        Some(outcome) => ended.push(Ended::new(ctx.delivery().clone(), outcome)),
                        None => contexts.push(ctx),
                    }
                }
            }
        }
        let started = Instant::now();
        let ends = self.handle_batch(&contexts, route, endpoint, options).await;
        let each = started.elapsed() / u32::try_from(ends.len().max(1)).unwrap_or(u32::MAX);
        for (ctx, end) in contexts.into_iter().zip(ends) {
            let outcome = self.after(&ctx, route, end, each).await;
            ended.push(Ended::new(ctx.delivery().clone(), outcome));
        }
        ended
    }

    async fn handle_batch(
        &self,
        contexts: &[Context],
        route: &Route,
        endpoint: &Arc<dyn BatchEndpoint>,
        options: BatchOptions,
    ) -> Vec<End> {
        if contexts.is_empty() {
            return Vec::new();
        }
        let turn = async {
            match &route.concurrency {
                Some(bulkhead) => Some(bulkhead.turn().await),
                None => None,
            }
        };
        let _turn = tokio::select! {
            biased;
            () = self.kill.thrown() => return contexts.iter().map(|_| End::Killed).collect(),
            turn = turn => turn,
        };
        let patience = options.linger.max(PATIENCE_MIN);
        meeting::run(&self.kill, route, endpoint, patience, contexts).await
    }
}
