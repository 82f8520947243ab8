//! A lane: a bounded FIFO and the task that handles its events one at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::RetryPolicy;
use super::in_flight::InFlight;
use super::settlements::Ended;
use super::verdict::{HAND_OVER_DELAY, decide};
use crate::delivery::{Delivery, Outcome, Output};
use crate::driver::GroupRoutes;
use crate::error::HandlerError;
use crate::middleware::Next;
use crate::publisher::Publisher;
use crate::service::{Context, Outbox, Route};

/// An event with its handler.
pub(crate) struct Job {
    pub(crate) delivery: Delivery,
    pub(crate) route: Arc<Route>,
}

/// The consumer's end of a lane.
pub(crate) struct Lane {
    pub(crate) jobs: mpsc::Sender<Job>,
}

/// What the lanes of a worker share.
pub(crate) struct LaneShared {
    pub(crate) routes: Arc<GroupRoutes>,
    pub(crate) retry: RetryPolicy,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) publisher: Publisher,
    pub(crate) in_flight: Arc<InFlight>,
    /// What waits is handed over.
    pub(crate) stop: CancellationToken,
    /// What runs is handed over.
    pub(crate) kill: CancellationToken,
}

impl Lane {
    pub(crate) fn start(
        depth: usize,
        shared: Arc<LaneShared>,
        ended: mpsc::Sender<Ended>,
    ) -> (Self, JoinHandle<()>) {
        let (jobs, waiting) = mpsc::channel(depth);
        (Self { jobs }, tokio::spawn(run(waiting, shared, ended)))
    }
}

async fn run(
    mut waiting: mpsc::Receiver<Job>,
    shared: Arc<LaneShared>,
    ended: mpsc::Sender<Ended>,
) {
    while let Some(job) = waiting.recv().await {
        shared.in_flight.freed.notify_one();
        let delivery = job.delivery.clone();
        let outcome = if shared.stop.is_cancelled() {
            shared.in_flight.handed_over();
            Some(Outcome::Split { after: Duration::ZERO })
        } else if delivery.entry.lease.is_cancelled() {
            None
        } else {
            shared.handle(job).await
        };
        if ended.send(Ended { delivery, outcome }).await.is_err() {
            return;
        }
    }
}

impl LaneShared {
    /// Runs the handler; `None` where another instance took the event over meanwhile.
    async fn handle(&self, job: Job) -> Option<Outcome> {
        let Job { delivery, route } = job;
        let ctx = Context::new(delivery.clone(), Arc::clone(&self.outbox));
        let started = Instant::now();
        let result = tokio::select! {
            biased;
            result = Next::new(&route.middleware, &*route.endpoint).run(&ctx) => result,
            () = delivery.entry.lease.cancelled() => {
                tracing::warn!(id = %ctx.envelope().id(), "lease lost while the handler ran");
                return None;
            }
            () = self.kill.cancelled() => {
                self.in_flight.forced();
                return Some(Outcome::Split { after: Duration::ZERO });
            }
        };
        self.in_flight.handled(started.elapsed());
        if let (Ok(()), Some(why)) = (&result, ctx.skipped()) {
            self.in_flight.skipped(why);
        }
        let result = match result {
            Ok(()) => self.outputs(&ctx).await,
            Err(error) => Err(error),
        };
        Some(self.end(&ctx, &route, result))
    }

    /// Decides the end, except that what another version of the service can read goes there.
    fn end(
        &self,
        ctx: &Context,
        route: &Route,
        result: Result<Vec<Output>, HandlerError>,
    ) -> Outcome {
        let newest = self.routes.newest_version(ctx.envelope().event_type());
        let undecodable = result.as_ref().is_err_and(HandlerError::is_undecodable);
        if undecodable && newest > route.version {
            return Outcome::Split { after: HAND_OVER_DELAY };
        }
        decide(ctx.attempt(), result, &self.retry, fastrand::f64())
    }

    async fn outputs(&self, ctx: &Context) -> Result<Vec<Output>, HandlerError> {
        let mut outputs = Vec::new();
        for envelope in ctx.take_outputs() {
            let partition = self.publisher.partition(&envelope).await?;
            outputs.push(Output { partition, envelope });
        }
        Ok(outputs)
    }
}
