//! Handled once, with real processes: workers are killed at random while every event is published
//! several times; what they publish is there exactly once.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use rumormill::delivery::{Entry, EntryId};
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::{
    Append, Appended, Backlog, Driver, Feed, GroupName, LeaseTimes, Publish, Subscribe,
    Subscription, TopicShape,
};
use rumormill::middleware::Idempotent;
use rumormill::{
    Bus, Context, Error, ErrorKind, Event, EventId, HandlerError, PublishError, PublishOptions,
    ServiceOptions, Services, Topic,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

// Not all of it is needed here.
#[allow(dead_code, unreachable_pub)]
#[path = "fault/process.rs"]
mod process;
mod server;

use process::Process;
use server::Server;

const GROUP: &str = "shipping";
/// Tells the program that it is to be a worker.
const WORKER: &str = "RUMORMILL_TEST_IDEMPOTENT_WORKER";
const ORDERS: u64 = 400;
/// How often each is published: so often by two publishers at once, in entries of their own.
const ROUNDS: usize = 2;
const KILLS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: LeaseTimes = LeaseTimes {
    lease: Duration::from_millis(1500),
    renew: Duration::from_millis(400),
    sweep: Duration::from_millis(300),
};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.placed", key = customer)]
struct Placed {
    order: u64,
    customer: Option<String>,
}

/// The effect: published with the end of the delivery.
#[derive(Serialize, Deserialize, Event)]
#[event(type = "parcels.packed")]
struct Packed {
    order: u64,
}

/// That a handler ran: published at once.
#[derive(Serialize, Deserialize, Event)]
#[event(type = "runs.begun")]
struct Begun {
    order: u64,
}

async fn connect(url: &str) -> Bus {
    let builder = Bus::builder().url(url).services(Services::none());
    builder.with(Idempotent::default()).build().await.expect("the server is there")
}

/// The worker's process; in a run of the tests it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker() {
    let Ok(url) = std::env::var(WORKER) else { return };
    let bus = connect(&url).await;
    let options = ServiceOptions { lease: LEASE, lanes: 8, ..ServiceOptions::default() };
    let at_once = bus.clone();
    let handler = move |placed: Placed, ctx: Context| {
        let bus = at_once.clone();
        async move {
            bus.publish(&Begun { order: placed.order }).await?;
            ctx.publish(&Packed { order: placed.order })?;
            // waits: as work does, so that a kill finds handlers running
            sleep(Duration::from_millis(fastrand::u64(0..8))).await;
            match (placed.order % 10, ctx.attempt()) {
                (3 | 7, 1) => Err(HandlerError::retry_after(Duration::from_millis(20), "not now")),
                _ => Ok(()),
            }
        }
    };
    bus.subscribe_routes(GROUP, options, |routes| routes.on_fn(handler)).await.expect("a group");
    pending::<()>().await;
}

fn start(server: &Server) -> Process {
    Process::start("the_worker", WORKER, &server.url())
}

async fn publish(bus: &Bus, order: u64, id: EventId) {
    // Half of them have a key.
    let customer = order.is_multiple_of(2).then(|| format!("customer-{}", order % 20));
    let placed = Placed { order, customer };
    bus.publish_with(&placed, PublishOptions::default().id(id)).await.expect("stored");
}

/// Publishes every order several times.
async fn publish_copies([one, other]: [Bus; 2], ids: Vec<EventId>) {
    for _ in 0..ROUNDS {
        let mut orders: Vec<u64> = (0..ORDERS).collect();
        fastrand::shuffle(&mut orders);
        for some in orders.chunks(10) {
            for order in some {
                let id = ids[usize::try_from(*order).expect("small")];
                tokio::join!(publish(&one, *order, id), publish(&other, *order, id));
            }
            // waits: for the workers to be in the middle of it
            sleep(Duration::from_millis(25)).await;
        }
    }
}

/// How often each order is named in a topic.
async fn count(bus: &Bus, topic: &str, order: impl Fn(&Entry) -> Vec<u64>) -> BTreeMap<u64, u64> {
    let topic = Topic::new(topic.to_owned()).expect("valid");
    let tools = bus.driver().tools().expect("Redis has them");
    let shape = bus.driver().declare(&topic).await.expect("declared");
    let (mut counts, mut after) = (BTreeMap::new(), EntryId::ZERO);
    let partition = shape.partitions().next().expect("one at least");
    loop {
        let from = [(partition.clone(), after)];
        let entries = tools.read(&from, 500, Duration::ZERO).await.expect("the server tells");
        let Some(last) = entries.last() else { return counts };
        after = last.id;
        for order in entries.iter().flat_map(&order) {
            *counts.entry(order).or_default() += 1;
        }
    }
}

fn orders<E: Event>(entry: &Entry, order: impl Fn(E) -> u64) -> Vec<u64> {
    let events = entry.records.iter().map(|record| record.as_ref().expect("an event"));
    events.map(|event| order(event.payload_as().expect("its own type"))).collect()
}

async fn settled(bus: &Bus) {
    let (group, begun) = (GroupName::new(GROUP).expect("valid"), Instant::now());
    let tools = bus.driver().tools().expect("Redis has them");
    loop {
        let backlog = tools.backlog(&group).await.expect("the server tells");
        if backlog == Backlog::default() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "not settled: {backlog:?}");
        // waits: for the group to have nothing left, with a deadline
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_publish_exactly_once_what_is_published_again_and_again() {
    let seed = fastrand::get_seed();
    println!("seed {seed}");
    let server = Server::start();
    let bus = connect(&server.url()).await;
    let ids: Vec<EventId> =
        (0..ORDERS).map(|order| EventId::derived(format!("order {order}").as_bytes())).collect();
    let mut workers: Vec<Process> = (0..3).map(|_| start(&server)).collect();
    let publishers = [bus.clone(), connect(&server.url()).await];
    let publishing = tokio::spawn(publish_copies(publishers, ids));
    let mut kills = 0;
    while kills < KILLS || !publishing.is_finished() {
        // waits: a random while between two kills
        sleep(Duration::from_millis(fastrand::u64(100..400))).await;
        let place = fastrand::usize(..workers.len());
        workers[place].kill();
        workers[place].wait();
        workers[place] = start(&server);
        kills += 1;
    }
    publishing.await.expect("everything was published");
    settled(&bus).await;
    let packed = count(&bus, "parcels", |entry| orders(entry, |packed: Packed| packed.order)).await;
    let begun = count(&bus, "runs", |entry| orders(entry, |begun: Begun| begun.order)).await;
    let twice: Vec<_> = packed.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "published more than once: {twice:?}, after {kills} kills");
    assert_eq!(packed.len() as u64, ORDERS, "one effect each");
    let runs: u64 = begun.values().sum();
    println!("{runs} runs of {ORDERS} orders, {kills} kills");
    // The retries alone are a fifth. Copies that are run at the same time come on top of that.
    assert!(runs > ORDERS + ORDERS / 4, "{runs} runs: no copy came into the way of another");
    drop(workers);
    bus.drain(Duration::from_secs(5)).await;
}

/// A driver that keeps no marks.
struct Markless(Arc<MemoryDriver>);

#[rumormill::async_trait]
impl Driver for Markless {
    async fn close(&self) {
        self.0.close().await;
    }
}

#[rumormill::async_trait]
impl Publish for Markless {
    async fn declare(&self, topic: &Topic) -> Result<TopicShape, Error> {
        self.0.declare(topic).await
    }

    async fn append(&self, appends: Vec<Append>) -> Vec<Result<Appended, PublishError>> {
        self.0.append(appends).await
    }
}

#[rumormill::async_trait]
impl Subscribe for Markless {
    async fn subscribe(&self, subscription: Subscription) -> Result<Feed, Error> {
        self.0.subscribe(subscription).await
    }
}

#[tokio::test]
async fn a_driver_without_marks_is_refused() {
    let driver = || Arc::new(Markless(MemoryDriver::new(MemoryOptions::default())));
    let handler = |_: Placed, _: Context| async { Ok(()) };
    let bus = Bus::builder().driver(driver()).services(Services::none());
    let bus = bus.build().await.expect("a bus");
    let routes = |routes: rumormill::Routes<()>| routes.on_fn(handler);
    let careful = |routes: rumormill::Routes<()>| routes.on_fn(handler).with(Idempotent::default());
    bus.subscribe_routes("plain", ServiceOptions::default(), routes)
        .await
        .expect("no marks needed");
    let refused = bus.subscribe_routes(GROUP, ServiceOptions::default(), careful).await;
    let error = refused.expect_err("it would not be idempotent");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("group shipping"), "{error}");
    assert!(error.help().is_some_and(|help| help.contains("Deduplicate")));
    let bus =
        Bus::builder().driver(driver()).services(Services::none()).with(Idempotent::default());
    let bus = bus.build().await.expect("a bus");
    let refused = bus.subscribe_routes(GROUP, ServiceOptions::default(), routes).await;
    assert_eq!(refused.expect_err("nor would this").kind(), ErrorKind::Unsupported);
}
