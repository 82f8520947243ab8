//! How many commands an event costs the server, held to limits. Unlike a time, a count says the
//! same on a busy machine and on an idle one. What scripts call is counted beside what is sent.

mod server;

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rumormill::{Bus, Context, Event, HandlerError, PublishLimits, Services};
use serde::{Deserialize, Serialize};
use server::Server;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Commands per event, by what is done: `*` is all commands together. Whoever makes it cheaper
/// lowers the row.
const LIMITS: [(&str, &str, f64); 13] = [
    // One entry each: nothing waits for company.
    ("lone events", "xadd", 1.0),
    ("lone events", "*", 1.3),
    // Full batches of 50, but for the last of each call: what waits goes, as many as it takes.
    ("a saturated publisher", "xadd", 0.035),
    ("a saturated publisher", "*", 0.045),
    // Handled before the next one is published: a read and an ack each, and what a reader that
    // may be behind asks of the log.
    ("lone events, handled", "xadd", 1.0),
    ("lone events, handled", "xreadgroup", 1.1),
    ("lone events, handled", "xack", 1.05),
    ("lone events, handled", "*", 6.5),
    // Entries of 50: reads and acks are of several, and before each read goes what a reader that
    // may be behind asks of the log.
    ("a backlog, handled", "xreadgroup", 0.01),
    ("a backlog, handled", "xack", 0.015),
    ("a backlog, handled", "*", 0.12),
    // One dead letter each, and a script for all that ends at a time.
    ("a backlog, rejected", "evalsha", 0.015),
    ("a backlog, rejected", "*", 1.5),
];
/// Commands per second that the clock asks for, of one consumer of one partition that has nothing
/// to do: 19 were measured. Those of a publisher are fewer.
const IDLE_PER_SECOND: f64 = 25.0;

/// Events of a backlog.
const MANY: u64 = 10_000;
/// Events one after the other, and how often that is counted.
const STRETCH: u64 = 50;
const STRETCHES: u64 = 20;
/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.order.placed", key = number)]
struct Placed {
    number: u64,
}

/// Calls by command since the last reset; those of this test's own questions left out.
fn calls(server: &Server) -> BTreeMap<String, u64> {
    let stats = server.say("INFO commandstats").text();
    let read = |line: &str| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse().ok()?;
        Some((command.to_owned(), calls))
    };
    let ours = ["info", "config|resetstat", "ping"];
    stats.lines().filter_map(read).filter(|(command, _)| !ours.contains(&&**command)).collect()
}

/// Counts while `work` is done; fails where each of `events` costs more than is allowed.
async fn hold(server: &Server, name: &str, events: u64, work: impl Future<Output = ()>) {
    server.say("CONFIG RESETSTAT");
    let began = Instant::now();
    timeout(PATIENCE, work).await.expect("in time");
    let calls = calls(server);
    // A slow machine is not to be held against the events.
    judge(name, events, &calls, IDLE_PER_SECOND * (began.elapsed().as_secs_f64() + 1.0));
}

/// The same for the cheapest of several stretches of events: what the clock asks for falls into
/// the others, however slow the machine is. `work` is given the number before its first event.
async fn hold_cheapest(server: &Server, name: &str, work: impl AsyncFn(u64)) {
    let mut cheapest: Option<BTreeMap<String, u64>> = None;
    for stretch in 0..STRETCHES {
        server.say("CONFIG RESETSTAT");
        timeout(PATIENCE, work(stretch * STRETCH)).await.expect("in time");
        let calls = calls(server);
        let is_cheaper =
            |other: &BTreeMap<_, u64>| calls.values().sum::<u64>() < other.values().sum::<u64>();
        if cheapest.as_ref().is_none_or(is_cheaper) {
            cheapest = Some(calls);
        }
    }
    judge(name, STRETCH, &cheapest.expect("one stretch at least"), 0.0);
}

fn judge(name: &str, events: u64, calls: &BTreeMap<String, u64>, of_the_clock: f64) {
    let mut over = Vec::new();
    for (of, command, limit) in LIMITS.into_iter().filter(|(of, ..)| *of == name) {
        let count = match command {
            "*" => (calls.values().sum::<u64>() as f64 - of_the_clock).max(0.0),
            command => calls.get(command).copied().unwrap_or_default() as f64,
        };
        let each = count / events as f64;
        println!("{of}: {each:.4} of {command} per event, {limit} are allowed");
        if each > limit {
            over.push(format!("{each:.4} of {command} per event, {limit} are allowed"));
        }
    }
    assert!(over.is_empty(), "{name}: {over:?}: {calls:?}");
}

async fn connect(server: &Server) -> Bus {
    // A machine that is busy with other things may let it wait.
    let limits = PublishLimits { deadline: PATIENCE, ..PublishLimits::default() };
    let bus = Bus::builder().url(server.url()).limits(limits).services(Services::none()).build();
    let bus = bus.await.expect("connects");
    bus.publish(&Placed { number: 0 }).await.expect("stored");
    bus
}

async fn publish_backlog(bus: &Bus) {
    let events: Vec<Placed> = (0..MANY).map(|number| Placed { number }).collect();
    for receipt in bus.publish_many(&events).await {
        receipt.expect("stored");
    }
}

/// How many came, and somebody who waits for it.
#[derive(Default)]
struct Seen {
    count: AtomicU64,
    come: Notify,
}

impl Seen {
    fn note(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.come.notify_one();
    }

    async fn until(&self, count: u64) {
        while self.count.load(Ordering::Relaxed) < count {
            self.come.notified().await;
        }
    }
}

async fn subscribe(bus: &Bus, accept: bool) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let note = Arc::clone(&seen);
    let handle = move |_: Placed, _: Context| {
        note.note();
        ready(if accept { Ok(()) } else { Err(HandlerError::reject("never")) })
    };
    bus.subscribe("counting", handle).await.expect("subscribes");
    seen
}

#[tokio::test]
async fn a_lone_event_is_one_append_and_nothing_else() {
    let server = Server::start();
    let bus = connect(&server).await;
    let work = async |before: u64| {
        for number in before..before + STRETCH {
            bus.publish(&Placed { number }).await.expect("stored");
        }
    };
    hold_cheapest(&server, "lone events", work).await;
    bus.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_saturated_publisher_fills_its_batches() {
    let server = Server::start();
    let bus = connect(&server).await;
    hold(&server, "a saturated publisher", MANY, publish_backlog(&bus)).await;
    bus.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_lone_event_is_read_and_acknowledged_in_few_commands() {
    let server = Server::start();
    let bus = connect(&server).await;
    let seen = subscribe(&bus, true).await;
    seen.until(1).await;
    let work = async |before: u64| {
        for number in before + 1..=before + STRETCH {
            bus.publish(&Placed { number }).await.expect("stored");
            seen.until(number + 1).await;
        }
    };
    hold_cheapest(&server, "lone events, handled", work).await;
    bus.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_backlog_is_read_and_acknowledged_batch_by_batch() {
    let server = Server::start();
    let bus = connect(&server).await;
    publish_backlog(&bus).await;
    let work = async {
        let seen = subscribe(&bus, true).await;
        seen.until(MANY + 1).await;
        bus.settled().await.expect("told");
    };
    hold(&server, "a backlog, handled", MANY, work).await;
    bus.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn one_script_ends_many_entries() {
    let server = Server::start();
    let bus = connect(&server).await;
    publish_backlog(&bus).await;
    let work = async {
        let seen = subscribe(&bus, false).await;
        seen.until(MANY + 1).await;
        bus.settled().await.expect("told");
    };
    hold(&server, "a backlog, rejected", MANY, work).await;
    bus.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn an_idle_consumer_asks_for_little() {
    let server = Server::start();
    let bus = connect(&server).await;
    let seen = subscribe(&bus, true).await;
    seen.until(1).await;
    bus.settled().await.expect("told");
    server.say("CONFIG RESETSTAT");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        // waits: for a stretch in which nothing happens, to count what is asked meanwhile
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let calls = calls(&server);
    let each = calls.values().sum::<u64>() as f64 / began.elapsed().as_secs_f64();
    println!("an idle consumer: {each:.1} commands per second, {IDLE_PER_SECOND} are allowed");
    assert!(each <= IDLE_PER_SECOND, "{each:.1} commands per second: {calls:?}");
    bus.drain(Duration::ZERO).await;
}
