//! Handles a batch: each event goes through its own middleware, and where the handler would stand
//! they wait for one another.
//!
//! So a middleware means the same for a batch as for a single event: one that stops an event
//! keeps it out of the batch, one that calls again brings it into another round.

use std::any::Any;
use std::collections::HashSet;
use std::future::{Future, pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::lane::End;
use super::switch::Switch;
use crate::error::HandlerError;
use crate::middleware::panicked;
use crate::service::{BatchEndpoint, Context, Endpoint, Guest, Handling, Route, Slot};

type Answer = Result<(), HandlerError>;
type Round<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// One event that waits for the others.
struct Seated {
    place: usize,
    event: Box<dyn Any + Send>,
    ctx: Context,
    answer: oneshot::Sender<Answer>,
}

/// Whom a round has to answer.
struct Asked {
    answer: oneshot::Sender<Answer>,
    failure: Arc<Slot>,
}

/// Where the events of a batch wait for one another.
#[derive(Default)]
struct Table(Mutex<Vec<Seated>>);

impl Table {
    fn seated(&self) -> MutexGuard<'_, Vec<Seated>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands at the end of each event's list in place of a handler.
struct Seat {
    place: usize,
    table: Arc<Table>,
    endpoint: Arc<dyn BatchEndpoint>,
}

impl Endpoint for Seat {
    fn call<'a>(&'a self, ctx: &'a Context) -> Handling<'a> {
        Box::pin(async move {
            let Some(event) = self.endpoint.decode(ctx)? else { return Ok(()) };
            let (answer, answered) = oneshot::channel();
            let seated = Seated { place: self.place, event, ctx: ctx.clone(), answer };
            self.table.seated().push(seated);
            answered.await.unwrap_or_else(|_| Err(HandlerError::retry("the batch was dropped")))
        })
    }
}

/// Handles the events of one batch; as many ends, in their order.
pub(super) async fn run(
    kill: &Switch,
    route: &Route,
    endpoint: &Arc<dyn BatchEndpoint>,
    patience: Duration,
    contexts: &[Context],
) -> Vec<End> {
    let table = Arc::new(Table::default());
    let seats: Vec<_> = (0..contexts.len())
        .map(|place| {
            let (table, endpoint) = (Arc::clone(&table), Arc::clone(endpoint));
            Seat { place, table, endpoint }
        })
        .collect();
    let chains = seats.iter().zip(contexts).map(|(seat, ctx)| async {
        let handling = route.run(seat, ctx);
        let end = tokio::select! {
            biased;
            answer = handling => End::Answered(answer),
            () = ctx.lease().cancelled() => End::LeaseLost,
        };
        (seat.place, end)
    });
    let mut chains: FuturesUnordered<_> = chains.collect();
    let mut meeting = Meeting {
        table: &table,
        endpoint: &**endpoint,
        contexts,
        patience,
        open: (0..contexts.len()).collect(),
        since: None,
        asked: Vec::new(),
        round: None,
    };
    let mut ends: Vec<End> = contexts.iter().map(|_| End::Killed).collect();
    while !meeting.open.is_empty() {
        meeting.begin();
        let (noticed, due) = (table.seated().len(), meeting.due());
        tokio::select! {
            biased;
            () = kill.thrown() => return ends,
            Some((place, end)) = chains.next() => {
                meeting.open.remove(&place);
                ends[place] = end;
            }
            answer = running(&mut meeting.round) => meeting.answer(answer),
            () = more_seated(&table, noticed) => {}
            () = patience_over(due) => {}
        }
    }
    ends
}

/// Only the chains change the table, and they are polled before this is.
async fn more_seated(table: &Table, noticed: usize) {
    let more = poll_fn(|_| match table.seated().len() > noticed {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    more.await;
}

async fn running(round: &mut Option<Round<'_>>) -> Answer {
    match round {
        Some(round) => round.await,
        None => pending().await,
    }
}

async fn patience_over(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// The rounds of one batch: who is there, whom to wait for, who is being handled.
struct Meeting<'a> {
    table: &'a Table,
    endpoint: &'a dyn BatchEndpoint,
    contexts: &'a [Context],
    /// How long who is there waits for who is held up in a middleware. Without this bound a
    /// limiter that lets through fewer than a batch has would stop all of it.
    patience: Duration,
    /// Whose handling has not ended.
    open: HashSet<usize>,
    /// When the first of those who wait came.
    since: Option<Instant>,
    asked: Vec<Asked>,
    round: Option<Round<'a>>,
}

impl Meeting<'_> {
    /// When those who wait go without the others.
    fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + self.patience)
    }

    /// Begins a round when everyone is there, or patience is over.
    fn begin(&mut self) {
        if self.round.is_some() {
            return;
        }
        let mut seated = self.table.seated();
        // Who timed out or lost its lease while waiting does not come along.
        seated.retain(|seated| !seated.answer.is_closed());
        if seated.is_empty() {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if seated.len() < self.open.len() && since + self.patience > Instant::now() {
            return;
        }
        let held = held_back(&seated, &self.open, self.contexts);
        let mut going: Vec<_> = seated.extract_if(.., |own| !held.contains(&own.place)).collect();
        drop(seated);
        self.since = None;
        going.sort_unstable_by_key(|seated| seated.place);
        if !going.is_empty() {
            self.start(going);
        }
    }

    fn start(&mut self, going: Vec<Seated>) {
        let mut guests = Vec::with_capacity(going.len());
        for Seated { place: _, event, ctx, answer } in going {
            let failure = Arc::new(Slot::default());
            self.asked.push(Asked { answer, failure: Arc::clone(&failure) });
            guests.push(Guest { event, ctx, failure });
        }
        let first = &guests[0].ctx;
        let span = tracing::info_span!(
            "handle_batch",
            group = first.group(),
            event = %first.envelope().event_type(),
            events = guests.len(),
        );
        let endpoint = self.endpoint;
        let handling =
            AssertUnwindSafe(async move { endpoint.call(guests).await }.instrument(span));
        self.round = Some(Box::pin(async move {
            handling.catch_unwind().await.unwrap_or_else(|panic| Err(panicked(&*panic)))
        }));
    }

    /// Tells each event of the round its own failure, or else how the whole ended.
    fn answer(&mut self, whole: Answer) {
        self.round = None;
        let whole = whole.map_err(HandlerError::shared);
        for Asked { answer, failure } in self.asked.drain(..) {
            let own = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
            let all = || match &whole {
                Ok(()) => Ok(()),
                Err(shared) => Err(shared()),
            };
            // Nobody listens where the event timed out meanwhile.
            let _gone = answer.send(own.map_or_else(all, Err));
        }
    }
}

/// Who is there, but after someone of the same key who is not: order per key.
fn held_back(seated: &[Seated], open: &HashSet<usize>, contexts: &[Context]) -> HashSet<usize> {
    let there: HashSet<usize> = seated.iter().map(|seated| seated.place).collect();
    let key = |place: usize| contexts[place].envelope().key();
    let behind = |place: usize| {
        let missing = open.difference(&there);
        key(place).is_some_and(|own| missing.clone().any(|m| *m < place && key(*m) == Some(own)))
    };
    if there.len() == open.len() {
        return HashSet::new();
    }
    there.iter().copied().filter(|place| behind(*place)).collect()
}
