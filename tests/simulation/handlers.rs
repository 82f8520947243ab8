//! What the services of a world do: nothing but what the plan says, noting each step.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rumormill::driver::fault::FaultDriver;
use rumormill::middleware::{Deduplicate, Idempotent};
use rumormill::{
    Batch, Context, Event, Filter, GroupSubscription, HandlerError, PublishOptions, Routes,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::history::{Fact, History, How, Name, Process, Run, key_of, name_of};
use crate::plan::{Act, GroupPlan, Kind, Plan};
use crate::world::now;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.order.placed")]
pub struct Order {}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.note.made")]
pub struct Note {}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.odd.thing")]
pub struct Odd {}

/// What handlers publish.
#[derive(Serialize, Deserialize, Event)]
#[event(type = "mail.letter.sent")]
pub struct Letter {}

/// What panics when a handler is to panic.
pub const SIMULATED: &str = "simulated panic";

/// What the handlers of one process know.
pub struct Stage {
    pub plan: Arc<Plan>,
    pub history: History,
    pub process: Process,
    pub driver: Arc<FaultDriver>,
    pub dead: CancellationToken,
    pub runs: Arc<AtomicU64>,
}

impl Stage {
    /// The process dies, here and now.
    pub fn crash(&self) {
        if !self.dead.is_cancelled() {
            self.history.note(Fact::Crashed(self.process));
            self.dead.cancel();
            self.driver.crash();
        }
    }

    /// Nothing goes on in a process that died.
    pub async fn alive<F: Future>(&self, work: F) -> F::Output {
        tokio::select! {
            biased;
            () = self.dead.cancelled() => pending().await,
            done = work => done,
        }
    }

    async fn single(
        self: &Arc<Self>,
        group: &'static str,
        ctx: &Context,
    ) -> Result<(), HandlerError> {
        let mut running = self.alive(async { Running::begin(self, group, ctx) }).await;
        let act = running.act();
        let answer = self.alive(running.perform(act, ctx)).await;
        running.end(answer)
    }

    /// The slowest of a batch makes all wait; each ends by itself.
    async fn batch<E>(
        self: &Arc<Self>,
        group: &'static str,
        batch: Batch<E>,
    ) -> Result<(), HandlerError> {
        let begin = |ctx| Running::begin(self, group, ctx);
        let all = self.alive(async { batch.iter().map(|item| begin(&item.ctx)).collect() });
        let mut all: Vec<Running> = all.await;
        for (item, running) in batch.iter().zip(&mut all) {
            let act = running.act();
            let answer = self.alive(running.perform(act, &item.ctx)).await;
            running.answer = Some(answer);
        }
        for (item, mut running) in batch.iter().zip(all) {
            let answer = running.answer.take().unwrap_or(Ok(Vec::new()));
            if let Err(error) = running.end(answer) {
                item.fail(error);
            }
        }
        Ok(())
    }
}

type Answer = Result<Vec<Name>, HandlerError>;

/// A run under way.
struct Running {
    stage: Arc<Stage>,
    run: Run,
    ended: bool,
    answer: Option<Answer>,
}

impl Running {
    fn begin(stage: &Arc<Stage>, group: &'static str, ctx: &Context) -> Self {
        let envelope = ctx.envelope();
        let run = Run {
            number: stage.runs.fetch_add(1, Ordering::Relaxed),
            group,
            name: name_of(envelope),
            key: key_of(envelope),
            origin: ctx.position(),
            attempt: ctx.attempt(),
            expired: envelope.is_expired(now()),
        };
        stage.history.note(Fact::Begun(stage.process, run.clone()));
        Self { stage: Arc::clone(stage), run, ended: false, answer: None }
    }

    fn act(&self) -> Act {
        self.stage.plan.act(self.run.group, &self.run.name, self.run.attempt)
    }

    async fn perform(&mut self, act: Act, ctx: &Context) -> Answer {
        match act {
            Act::Handle { after, outputs } => {
                let mut published = Vec::new();
                // What handlers publish makes them publish no more.
                let count = if ctx.envelope().event_type().as_str() == "mail.letter.sent" {
                    0
                } else {
                    outputs
                };
                for number in 0..count {
                    let name = format!("{}/{}.{number}", self.run.group, self.run.name);
                    let options = PublishOptions::default().header("name", name.clone());
                    ctx.publish_with(&Letter {}, options)?;
                    published.push(name.into());
                }
                pause(after).await;
                Ok(published)
            }
            Act::Fail { after } => {
                let name = format!("never/{}", self.run.name);
                ctx.publish_with(&Letter {}, PublishOptions::default().header("name", name))?;
                pause(after).await;
                Err(HandlerError::retry("simulated failure"))
            }
            Act::FailUntil(after) => Err(HandlerError::retry_after(after, "simulated failure")),
            Act::Reject => Err(HandlerError::reject("simulated rejection")),
            Act::Panic => {
                self.note(How::Panicked);
                panic!("{SIMULATED}");
            }
            Act::Kill => {
                self.stage.crash();
                pending().await
            }
        }
    }

    fn end(&mut self, answer: Answer) -> Result<(), HandlerError> {
        self.note(match &answer {
            Ok(outputs) => How::Handled { outputs: outputs.clone() },
            Err(error) if error.is_reject() => How::Rejected,
            Err(_) => How::Failed,
        });
        answer.map(drop)
    }

    fn note(&mut self, how: How) {
        self.ended = true;
        self.stage.history.note(Fact::Ended(self.stage.process, self.run.clone(), how));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended && !self.stage.dead.is_cancelled() {
            self.note(How::Dropped);
        }
    }
}

/// A pause of nothing is none: not even a tick of the timer.
async fn pause(after: Duration) {
    if !after.is_zero() {
        // waits: as long as the plan's handler takes, on paused time
        sleep(after).await;
    }
}

/// A group as the plan says.
pub fn subscription(stage: &Arc<Stage>, group: &GroupPlan) -> GroupSubscription {
    let routes = |routes| {
        let routes = match group.deduplicates {
            true => Routes::with(routes, Deduplicate::new(Duration::from_secs(3_600), 1_000)),
            false => routes,
        };
        let routes = match group.idempotent {
            true => Routes::with(routes, Idempotent::default()),
            false => routes,
        };
        let dress = |routes| dress(routes, group);
        match group.kind {
            Kind::Any => {
                let work = worker(stage, group.name);
                dress(Routes::on_any_fn(routes, ">", move |_, ctx| work(ctx)))
            }
            Kind::Typed => notes(stage, group, orders(stage, group, routes)),
            Kind::Batch(options) => {
                let (stage_of, name) = (Arc::clone(stage), group.name);
                let routes = dress(routes.on_batch_fn(options, move |batch: Batch<Order>| {
                    let stage = Arc::clone(&stage_of);
                    async move { stage.batch(name, batch).await }
                }));
                notes(stage, group, routes)
            }
        }
    };
    GroupSubscription::new(group.name, routes).options(group.options)
}

fn orders(stage: &Arc<Stage>, group: &GroupPlan, routes: Routes<()>) -> Routes<()> {
    let work = worker(stage, group.name);
    dress(routes.on_fn(move |_: Order, ctx| work(ctx)), group)
}

fn notes(stage: &Arc<Stage>, group: &GroupPlan, routes: Routes<()>) -> Routes<()> {
    let work = worker(stage, group.name);
    dress(routes.on_fn(move |_: Note, ctx| work(ctx)), group)
}

fn dress(mut routes: Routes<()>, group: &GroupPlan) -> Routes<()> {
    if let Some(prefix) = group.key_prefix {
        routes = routes.when(Filter::key_prefix(prefix));
    }
    if let Some(limit) = group.concurrency {
        routes = routes.concurrency(limit);
    }
    routes
}

type Handling = std::pin::Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

fn worker(
    stage: &Arc<Stage>,
    group: &'static str,
) -> impl Fn(Context) -> Handling + Send + Sync + use<> {
    let stage = Arc::clone(stage);
    move |ctx| {
        let stage = Arc::clone(&stage);
        Box::pin(async move { stage.single(group, &ctx).await })
    }
}
