//! A lane: a bounded FIFO and the task that handles its events one at a time.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::task::{JoinHandle, unconstrained};
use tokio::time::Instant;

use super::batch::LaneQueue;
use super::channel::{Gone, Receiver, Sender, channel};
use super::in_flight::InFlight;
use super::parking::Parking;
use super::settlements::Ended;
use super::suspects::Suspects;
use super::switch::Switch;
use super::verdict::{HAND_OVER_DELAY, at, decide, expired, once};
use crate::delivery::{Delivery, Outcome, Output};
use crate::driver::GroupRoutes;
use crate::envelope::Envelope;
use crate::error::HandlerError;
use crate::publisher::Publisher;
use crate::service::RetryPolicy;
use crate::service::{Context, Endpoint, Handler, Outbox, Route};

/// An event with its handler.
pub(crate) struct Job {
    pub(crate) delivery: Delivery,
    /// The place of its route.
    pub(crate) route: usize,
}

/// The consumer's end of a lane.
pub(crate) struct Lane {
    jobs: Sender<Job>,
    load: Arc<Load>,
}

/// Events that wait in a lane or run in it.
#[derive(Default)]
pub(super) struct Load(AtomicUsize);

impl Load {
    fn add(&self, events: usize) {
        self.0.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, events: usize) {
        let before = self.0.fetch_sub(events, Ordering::Relaxed);
        debug_assert!(before >= events, "{events} events end of {before} in the lane");
    }
}

/// What the lanes of a worker share.
pub(crate) struct LaneShared {
    /// Of this instance, by place.
    pub(crate) handlers: Vec<Arc<Route>>,
    /// Of the whole group.
    pub(crate) routes: Arc<GroupRoutes>,
    pub(crate) retry: RetryPolicy,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) publisher: Publisher,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) suspects: Suspects,
    pub(crate) parking: Parking,
    /// What waits is handed over.
    pub(crate) stop: Switch,
    /// What runs is handed over.
    pub(crate) kill: Switch,
}

impl Lane {
    pub(crate) fn start(
        depth: usize,
        shared: Arc<LaneShared>,
        ended: Sender<Ended>,
    ) -> (Self, JoinHandle<()>) {
        let (jobs, waiting) = channel(depth);
        let load = Arc::new(Load::default());
        let task = tokio::spawn(run(waiting, Arc::clone(&load), shared, ended));
        (Self { jobs, load }, task)
    }

    /// How many events wait in the lane or run in it.
    pub(crate) fn load(&self) -> usize {
        self.load.0.load(Ordering::Relaxed)
    }

    /// Moves jobs over, oldest first, while there is room.
    pub(crate) fn fill(&self, stash: &mut VecDeque<Job>) {
        if stash.is_empty() {
            return;
        }
        // Before they can end.
        let count = stash.len();
        self.load.add(count);
        let moved = self.jobs.fill(stash);
        self.load.sub(count - moved);
    }
}

/// Most ends that a lane keeps while it goes on without waiting.
const DONE_MAX: usize = 32;
/// From this average on no end waits for the next handler.
const SLOW_MICROS: u64 = 200;

async fn run(
    waiting: Receiver<Job>,
    load: Arc<Load>,
    shared: Arc<LaneShared>,
    ended: Sender<Ended>,
) {
    let mut queue = LaneQueue::new(waiting, Arc::clone(&shared));
    let mut done = Done { ends: Vec::with_capacity(DONE_MAX), ended: ended.clone(), load: &load };
    let mut kept = Kept::default();
    loop {
        if queue.is_dry() {
            kept.ended = None;
            if done.send().await.is_err() {
                return;
            }
        }
        let Some(Job { delivery, route: place }) = queue.next().await else { return };
        let route = &shared.handlers[place];
        if let Handler::Single(endpoint) = &route.handler
            && shared.is_simple(&delivery)
        {
            let end = {
                let mut handling = pin!(shared.single(delivery, route, &**endpoint, &mut kept));
                // Neither what ended nor what waits waits for this handler, or has its budget.
                let waiting = async {
                    if done.send().await.is_ok() {
                        queue.hand_over(&ended, &load).await;
                    }
                };
                tokio::select! {
                    biased;
                    end = &mut handling => end,
                    () = unconstrained(waiting) => handling.await,
                }
            };
            done.ends.push(end);
            let is_slow = shared.in_flight.handler_micros() >= SLOW_MICROS;
            if is_slow || done.ends.len() >= DONE_MAX {
                kept.ended = None;
                if done.send().await.is_err() {
                    return;
                }
            }
            continue;
        }
        kept.ended = None;
        if done.send().await.is_err() {
            return;
        }
        let job = Job { delivery, route: place };
        if together(job, &mut queue, &shared, &ended, &load).await.is_err() {
            return;
        }
    }
}

/// Handles an event with what goes with it, where its handler takes several or nothing is simple.
async fn together(
    Job { delivery, route }: Job,
    queue: &mut LaneQueue,
    shared: &LaneShared,
    ended: &Sender<Ended>,
    load: &Load,
) -> Result<(), Gone> {
    let (place, route) = (route, &shared.handlers[route]);
    let batch = queue.together(delivery, place, &route.handler).await;
    if planted!(AckBeforeHandle) {
        let ack = |own: &Delivery| Ended::new(own.clone(), Some(Outcome::ack()));
        let ends = batch.iter().map(ack).collect();
        shared.send_all(ended, ends).await?;
    }
    let mut handling = pin!(shared.handle(batch, route));
    // What waits behind a handler does not wait for its end to be handed over.
    let ends = tokio::select! {
        biased;
        ends = &mut handling => ends,
        () = unconstrained(queue.hand_over(ended, load)) => handling.await,
    };
    let count = match planted!(AckBeforeHandle) {
        true => ends.len(),
        false => shared.send_all(ended, ends).await?,
    };
    load.sub(count);
    Ok(())
}

/// What the call of a handler leaves to the next.
#[derive(Default)]
pub(super) struct Kept {
    /// A context that nobody kept.
    context: Option<Context>,
    /// When it ended: the next begins then, where nothing is waited for between them. Two looks at
    /// the clock are a twentieth of what a fast handler's event costs here.
    ended: Option<Instant>,
}

/// What ended in a lane and was not sent on yet.
struct Done<'a> {
    ends: Vec<Ended>,
    ended: Sender<Ended>,
    load: &'a Load,
}

impl Done<'_> {
    /// Sends it on; an error where nobody takes it any more.
    ///
    /// # Cancel safety
    /// Dropped before it is done, nothing was sent.
    async fn send(&mut self) -> Result<(), Gone> {
        let count = self.ends.len();
        if count > 0 {
            self.ended.reserve(count).await?.send(self.ends.drain(..));
            self.load.sub(count);
        }
        Ok(())
    }
}

/// How the handling of an event ended.
pub(super) enum End {
    Answered(Result<(), HandlerError>),
    /// Another instance took it over.
    LeaseLost,
    /// The drain's deadline came first.
    Killed,
}

impl LaneShared {
    /// How many were sent: all, or nobody takes them any more.
    async fn send_all(&self, ended: &Sender<Ended>, ends: Vec<Ended>) -> Result<usize, Gone> {
        let count = ends.len();
        for end in ends {
            self.parking.send(ended, end).await?;
        }
        Ok(count)
    }

    /// Whether there is nothing to do but to run the handler.
    fn is_simple(&self, delivery: &Delivery) -> bool {
        !self.parking.is_on() && !delivery.entry.suspect && !planted!(AckBeforeHandle)
    }

    /// Whether an event waits behind a dead letter of its key. What is not to be run here any more
    /// is ended otherwise.
    async fn is_parked(&self, delivery: &Delivery) -> bool {
        if !self.parking.is_on() {
            return false;
        }
        tokio::select! {
            biased;
            () = self.stop.thrown() => false,
            () = delivery.entry.lease.cancelled() => false,
            parked = self.parking.holds(delivery) => parked,
        }
    }

    /// Handles what goes together: one event, or a batch.
    async fn handle(&self, mut batch: Vec<Delivery>, route: &Arc<Route>) -> Vec<Ended> {
        // Who parks keys has no batches.
        if self.is_parked(&batch[0]).await {
            return vec![Ended::new(batch.remove(0), Some(Outcome::Park))];
        }
        match &route.handler {
            Handler::Batch(endpoint, options) if !batch[0].entry.suspect => {
                self.batch(batch, route, endpoint, *options).await
            }
            Handler::Single(endpoint) if !batch[0].entry.suspect => {
                vec![self.single(batch.remove(0), route, &**endpoint, &mut Kept::default()).await]
            }
            _ => vec![self.suspect(batch.remove(0), route).await],
        }
    }

    /// Runs the handler, of a broadcast again in place where it failed.
    pub(super) async fn single(
        &self,
        mut delivery: Delivery,
        route: &Route,
        endpoint: &dyn Endpoint,
        kept: &mut Kept,
    ) -> Ended {
        let mut attempt = delivery.attempt();
        loop {
            let outcome;
            (delivery, outcome) = self.once(delivery, attempt, (route, endpoint), kept).await;
            if !self.is_again(&outcome) {
                return Ended::new(delivery, outcome);
            }
            match Box::pin(self.in_place(attempt, outcome)).await {
                ControlFlow::Continue(next) => attempt = next,
                ControlFlow::Break(outcome) => return Ended::new(delivery, outcome),
            }
        }
    }

    /// One attempt; no outcome where another instance took the event over meanwhile.
    ///
    /// What few handlers need is boxed on the way: each lane has room for one such call, and it is
    /// moved for each event.
    async fn once(
        &self,
        delivery: Delivery,
        attempt: u32,
        (route, endpoint): (&Route, &dyn Endpoint),
        kept: &mut Kept,
    ) -> (Delivery, Option<Outcome>) {
        if let Some(outcome) = self.before(&delivery) {
            return (delivery, outcome);
        }
        let ctx = Context::again(&mut kept.context, delivery, attempt, &self.outbox);
        if route.needs_marks() {
            kept.ended = None;
            if let Some(outcome) = Box::pin(self.look_first(&ctx, route)).await {
                return (ctx.into_delivery(&mut kept.context), outcome);
            }
        }
        let started = kept.ended.take().unwrap_or_else(Instant::now);
        let end = self.attempt(&ctx, route, endpoint).await;
        let now = Instant::now();
        let took = now.duration_since(started);
        let outcome = match self.plain(&ctx, &end) {
            true => {
                kept.ended = Some(now);
                self.in_flight.handled(took);
                Some(Outcome::ack())
            }
            false => Box::pin(self.after(&ctx, route, end, took)).await,
        };
        (ctx.into_delivery(&mut kept.context), outcome)
    }

    async fn attempt(&self, ctx: &Context, route: &Route, endpoint: &dyn Endpoint) -> End {
        let mut handling = pin!(route.run(endpoint, ctx));
        let mut cut_short = None;
        poll_fn(|cx| {
            // First: who is cancelled makes room at a bulkhead, and nobody is to begin in it.
            if self.kill.is_thrown() {
                return Poll::Ready(End::Killed);
            }
            if let Poll::Ready(answer) = handling.as_mut().poll(cx) {
                return Poll::Ready(End::Answered(answer));
            }
            // Only who has to wait asks to be told.
            cut_short.get_or_insert_with(|| Box::pin(self.cut_short(ctx))).as_mut().poll(cx)
        })
        .await
    }

    /// Waits for what ends a handler before its own end.
    async fn cut_short(&self, ctx: &Context) -> End {
        let (mut killed, mut lost) = (pin!(self.kill.thrown()), pin!(ctx.lease().cancelled()));
        poll_fn(|cx| {
            if killed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Killed);
            }
            lost.as_mut().poll(cx).map(|()| End::LeaseLost)
        })
        .await
    }

    /// Whether a handler ended well, and there is nothing to be done beside.
    fn plain(&self, ctx: &Context, end: &End) -> bool {
        matches!(end, End::Answered(Ok(()))) && ctx.is_plain() && ctx.end_without_outputs()
    }

    /// Asks what the group has handled, where the route wants to know: waiting for the store is not
    /// the handler's time. The end of what is not to be started after that.
    pub(super) async fn look_first(&self, ctx: &Context, route: &Route) -> Option<Option<Outcome>> {
        if !route.needs_marks() {
            return None;
        }
        tokio::select! {
            biased;
            () = self.stop.thrown() => {}
            () = ctx.lease().cancelled() => {}
            () = ctx.look() => {}
        }
        self.before(ctx.delivery())
    }

    /// The end of what is not started, or not any more.
    pub(super) fn before(&self, delivery: &Delivery) -> Option<Option<Outcome>> {
        if self.stop.is_thrown() {
            if planted!(DrainDrops) {
                return Some(Some(Outcome::ack()));
            }
            self.in_flight.handed_over();
            return Some(Some(Outcome::Split { after: Duration::ZERO }));
        }
        if delivery.entry.lease.is_cancelled() {
            return Some(None);
        }
        // It may have expired while it waited here.
        let now = || self.outbox.encoder.clock.now();
        delivery.envelope().and_then(|envelope| expired(envelope, now)).map(Some)
    }

    /// The end of what was started; `took` is this event's share of the time.
    pub(super) async fn after(
        &self,
        ctx: &Context,
        route: &Route,
        end: End,
        took: Duration,
    ) -> Option<Outcome> {
        let published = ctx.take_outputs();
        let answer = match end {
            End::Answered(answer) => answer,
            End::LeaseLost => {
                tracing::warn!(id = %ctx.envelope().id(), "lease lost while the handler ran");
                return None;
            }
            End::Killed => {
                self.in_flight.forced();
                return Some(Outcome::Split { after: Duration::ZERO });
            }
        };
        self.in_flight.handled(took);
        if answer.is_ok() && published.is_empty() && ctx.is_plain() {
            return Some(Outcome::ack());
        }
        if let (Ok(()), Some(why)) = (&answer, ctx.skipped()) {
            self.in_flight.skipped(why);
        }
        let result = match answer {
            Ok(()) => self.outputs(published).await,
            Err(error) => Err(error),
        };
        Some(self.end(ctx, route, result))
    }

    /// Decides the end, except that what another version of the service can read goes there.
    fn end(
        &self,
        ctx: &Context,
        route: &Route,
        result: Result<Vec<Output>, HandlerError>,
    ) -> Outcome {
        let newest = || self.routes.newest_version(ctx.envelope().event_type());
        let undecodable = result.as_ref().is_err_and(HandlerError::is_undecodable);
        if undecodable && newest() > route.version {
            return Outcome::Split { after: HAND_OVER_DELAY };
        }
        let outcome = decide(ctx.attempt(), result, &self.retry, fastrand::f64());
        at(once(outcome, ctx.is_once()), &route.pattern)
    }

    async fn outputs(&self, published: Vec<Envelope>) -> Result<Vec<Output>, HandlerError> {
        let mut outputs = Vec::with_capacity(published.len());
        for envelope in published {
            let partition = self.publisher.partition(&envelope).await?;
            outputs.push(Output { partition, envelope });
        }
        Ok(outputs)
    }
}
