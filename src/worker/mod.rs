//! What runs a service: one consumer that reads, lanes that handle, one settler that settles.

mod batch;
mod broadcast;
mod channel;
mod consumer;
mod dispatcher;
mod in_flight;
mod lane;
mod meeting;
mod parking;
mod settlements;
mod suspects;
mod switch;
mod verdict;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use broadcast::BroadcastCounts;
pub(crate) use broadcast::{Progress, feed};

use consumer::Consumer;
use dispatcher::{Dispatcher, Run};
use in_flight::InFlight;
use lane::{Lane, LaneShared};
use parking::Parking;
use settlements::Settlements;
use suspects::Suspects;
pub(crate) use switch::Switch;

use crate::delivery::Site;
use crate::driver::{Driver, Feed};
use crate::publisher::Publisher;
use crate::service::{Handled, Outbox, Router, ServiceOptions};
use crate::time::Clock;

/// What a drain did, in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Handlers that were running and ended.
    pub finished: u64,
    /// Events that were waiting here and went to the other instances.
    pub handed_over: u64,
    /// Events of broadcasts that were waiting here and ended with this instance: what a broadcast
    /// has read is nobody else's.
    pub dropped: u64,
    /// Handlers that were cancelled at the deadline; their events went to the other instances,
    /// those of broadcasts ended here.
    pub forced: u64,
}

impl DrainReport {
    /// Whether no handler had to be cancelled.
    pub fn is_clean(&self) -> bool {
        self.forced == 0
    }

    pub(crate) fn add(&mut self, other: Self) {
        let Self { finished, handed_over, dropped, forced } = other;
        self.finished += finished;
        self.handed_over += handed_over;
        self.dropped += dropped;
        self.forced += forced;
    }
}

/// How many events of a group were acknowledged here without a handler, since the group was
/// subscribed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct GroupCounts {
    /// Nobody in the group routes their type.
    pub unrouted: u64,
    /// They do not pass their route's [`Filter`](crate::Filter).
    pub filtered: u64,
    /// They were handled before; see [`Idempotent`](crate::middleware::Idempotent) and
    /// [`Deduplicate`](crate::middleware::Deduplicate). Those of which the store said so only when
    /// they were settled are among them.
    pub duplicates: u64,
}

/// What a worker is made of.
pub(crate) struct Parts {
    pub(crate) feed: Feed,
    /// Wrapped already.
    pub(crate) router: Router,
    pub(crate) options: ServiceOptions,
    pub(crate) publisher: Publisher,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) group: crate::driver::GroupName,
    /// What a dead letter says of this instance.
    pub(crate) site: Site,
    /// Cancelled already: the worker only gives back what was read ahead.
    pub(crate) stop: Switch,
    /// Of a broadcast.
    pub(crate) progress: Option<Progress>,
    /// One permit: of all the workers of a process, one runs one suspect at a time.
    pub(crate) suspects: Arc<Semaphore>,
    /// Of the feed.
    pub(crate) driver: Arc<dyn Driver>,
}

/// Keeps the driver, where nobody else has it any more, until all is settled.
async fn run_with(driver: Arc<dyn Driver>, consumer: Consumer, finished: CancellationToken) {
    consumer.run(finished).await;
    drop(driver);
}

/// Settles beside the driver's connections, where those have a runtime of their own: an answer
/// wakes no other thread there, and no handler holds it up. However it ends, be it with that
/// runtime, the token tells.
fn spawn_beside(
    driver: &dyn Driver,
    settlements: impl Future<Output = ()> + Send + 'static,
) -> (JoinHandle<()>, CancellationToken) {
    let finished = CancellationToken::new();
    let finishes = finished.clone().drop_guard();
    let settlements = async move {
        settlements.await;
        drop(finishes);
    };
    let task = match driver.runtime() {
        Some(runtime) => runtime.spawn(settlements),
        None => tokio::spawn(settlements),
    };
    (task, finished)
}

/// A running service.
///
/// Shutdown order, with its reason: the consumer stops reading first, so that nothing new comes;
/// lanes hand over what waits and finish what runs; they end when the consumer drops their
/// senders; the settler ends when all lanes dropped theirs, with everything settled; only then is
/// the source dropped, as its leases are renewed until then.
///
/// Dropped without a drain, it does the same with no grace for what runs.
pub(crate) struct Worker {
    stop: Switch,
    kill: Switch,
    in_flight: Arc<InFlight>,
    consumer: JoinHandle<()>,
    lanes: Vec<JoinHandle<()>>,
    settlements: JoinHandle<()>,
    progress: Option<Progress>,
    dropped: [switch::Guard; 2],
}

impl Worker {
    pub(crate) fn start(parts: Parts) -> Self {
        let Parts {
            feed,
            router,
            options,
            publisher,
            clock,
            group,
            site,
            stop,
            progress,
            suspects,
            driver,
        } = parts;
        let Feed { source, settler, routes, consumer } = feed;
        let parking = Parking::new(options.park_keys, &settler);
        let handled = Handled::new(Arc::clone(&settler));
        let kill = Switch::default();
        let in_flight = Arc::new(InFlight::new(&options));
        let suspects = Suspects::new(Arc::clone(&settler), suspects);
        let (ended, settlements) = Settlements::start(
            settler,
            Arc::clone(&in_flight),
            options.settle_wait,
            &group,
            site,
            kill.clone(),
        );
        let shared = Arc::new(LaneShared {
            handlers: router.routes().to_vec(),
            routes: Arc::clone(&routes),
            retry: options.retry,
            outbox: Arc::new(Outbox {
                group,
                consumer,
                encoder: Arc::clone(publisher.encoder()),
                handled,
                is_broadcast: in_flight.is_broadcast(),
            }),
            publisher,
            in_flight: Arc::clone(&in_flight),
            suspects,
            parking: parking.clone(),
            stop: stop.clone(),
            kill: kill.clone(),
        });
        let (lanes, handles): (Vec<_>, Vec<_>) = (0..options.lanes)
            .map(|_| Lane::start(options.lane_depth, Arc::clone(&shared), ended.clone()))
            .unzip();
        let dispatcher = Dispatcher {
            router,
            routes,
            stashes: lanes.iter().map(|_| VecDeque::new()).collect(),
            lanes,
            run: Run::default(),
            gathering: HashMap::new(),
            ended,
            in_flight: Arc::clone(&in_flight),
            clock,
            parking,
        };
        let held = Arc::clone(&in_flight);
        let consumer = Consumer { source, dispatcher, in_flight: held, stop: stop.clone() };
        let (settlements, finished) = spawn_beside(&*driver, settlements);
        let consumer = tokio::spawn(run_with(driver, consumer, finished));
        let dropped = [stop.guard(), kill.guard()];
        Self { stop, kill, in_flight, consumer, lanes: handles, settlements, progress, dropped }
    }

    /// What became of a broadcast's events; `None` where this is a group.
    pub(crate) fn broadcast_counts(&self) -> Option<BroadcastCounts> {
        Some(self.in_flight.broadcast_counts(self.progress.as_ref()?.missed()))
    }

    /// Where a broadcast is, and whether everything fetched has ended; `None` where this is a
    /// group.
    pub(crate) fn progress(&self) -> Option<(Progress, bool)> {
        Some((self.progress.clone()?, self.in_flight.is_empty()))
    }

    pub(crate) fn counts(&self) -> GroupCounts {
        self.in_flight.counts()
    }

    /// What cancels the running handlers at once, whatever a drain's deadline is.
    pub(crate) fn kill_switch(&self) -> Switch {
        self.kill.clone()
    }

    /// Stops reading, finishes what runs within `deadline`, hands the rest to the others.
    pub(crate) async fn drain(self, deadline: Duration) -> DrainReport {
        let Self { stop, kill, in_flight, consumer, lanes, settlements, progress: _, dropped } =
            self;
        in_flight.begin_drain();
        stop.throw();
        let killer = tokio::spawn(async move {
            tokio::time::sleep(deadline).await;
            kill.throw();
        });
        for task in lanes.into_iter().chain([settlements, consumer]) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a worker task failed");
            }
        }
        killer.abort();
        drop(dropped);
        in_flight.report()
    }
}
