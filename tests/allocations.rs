//! How many allocations an event costs, held to limits. Unlike a time, a count says the same on a
//! busy machine and on an idle one. Alone in its program, since it counts all there are.

mod server;

use std::alloc::System;
use std::future::{Future, ready};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumormill::{Bus, Event, PublishLimits, Services};
use serde::{Deserialize, Serialize};
use server::Server;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Allocations and reallocations per event: what was measured, and what is allowed. The tolerance
/// is for what depends on the moment: how full batches are, how often a task is woken. Whoever
/// makes it cheaper lowers the row.
const LIMITS: [(&str, f64, f64); 8] = [
    ("memory, publish", 16.2, 17.0),
    ("memory, publish_many", 1.4, 1.9),
    ("memory, fetch to settle", 1.1, 1.7),
    ("memory, fetch to settle, envelopes", 1.1, 1.7),
    ("redis, publish", 37.0, 40.0),
    ("redis, publish_many", 1.7, 2.2),
    ("redis, fetch to settle", 1.9, 2.6),
    ("redis, fetch to settle, envelopes", 1.8, 2.6),
];

/// The memory driver keeps so many for a group that comes later.
const EVENTS: u64 = 10_000;
/// Events that wait for each other's receipt.
const LONE_EVENTS: u64 = 2_000;
/// Events of one call of `publish_many`.
const AT_ONCE: u64 = 500;
/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(120);

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test at a time: what one allocates must not be counted for another.
static ALONE: Mutex<()> = Mutex::new(());

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.order.placed", key = customer)]
struct Placed {
    number: u64,
    customer: u32,
}

impl Placed {
    fn new(number: u64) -> Self {
        // As many keys as a consumer has places for.
        Self { number, customer: u32::try_from(number % 512).unwrap_or_default() }
    }

    fn some(from: u64, count: u64) -> Vec<Self> {
        (from..from + count).map(Self::new).collect()
    }
}

/// Runs a test with nobody beside it, on one thread beside the driver's own.
fn alone<T>(work: impl Future<Output = T>) -> T {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// Counts while `work` is done; fails where each of `events` costs more than is allowed.
async fn hold(name: &str, events: u64, work: impl Future<Output = ()>) {
    let (_, _, limit) =
        LIMITS.into_iter().find(|(of, ..)| *of == name).expect("every name has a limit");
    let region = Region::new(COUNTED);
    timeout(PATIENCE, work).await.expect("in time");
    let counted = region.change();
    let calls = (counted.allocations + counted.reallocations) as f64;
    let each = calls / events as f64;
    println!("{name}: {each:.2} allocations per event, {limit} are allowed");
    assert!(each <= limit, "{name}: {each:.2} allocations per event, {limit} are allowed");
}

async fn connect(url: &str) -> Bus {
    // A machine that is busy with other things may let it wait.
    let limits = PublishLimits { deadline: PATIENCE, ..PublishLimits::default() };
    let bus = Bus::builder().url(url).limits(limits).services(Services::none()).build();
    let bus = bus.await.expect("connects");
    // Topic, partition, batches: what is made once is made.
    publish_many(&bus, AT_ONCE).await;
    bus
}

async fn publish_many(bus: &Bus, count: u64) {
    for from in (0..count).step_by(usize::try_from(AT_ONCE).expect("a small number")) {
        for receipt in bus.publish_many(&Placed::some(from, AT_ONCE)).await {
            receipt.expect("stored");
        }
    }
}

async fn publishing(url: &str, store: &str) {
    let bus = connect(url).await;
    let one_by_one = async {
        for number in 0..LONE_EVENTS {
            bus.publish(&Placed::new(number)).await.expect("stored");
        }
    };
    hold(&format!("{store}, publish"), LONE_EVENTS, one_by_one).await;
    hold(&format!("{store}, publish_many"), EVENTS, publish_many(&bus, EVENTS)).await;
    bus.drain(Duration::ZERO).await;
}

/// Knows when all have come.
#[derive(Default)]
struct Seen {
    events: AtomicU64,
    sum: AtomicU64,
    all: Notify,
}

impl Seen {
    fn note(&self, number: u64) {
        self.sum.fetch_add(number, Ordering::Relaxed);
        if self.events.fetch_add(1, Ordering::Relaxed) + 1 == EVENTS {
            self.all.notify_one();
        }
    }
}

/// Publishes first and subscribes then, so that nothing of the publishing is counted.
async fn consuming(url: &str, store: &str, envelopes: bool) {
    let bus = connect(url).await;
    publish_many(&bus, EVENTS - AT_ONCE).await;
    let seen = Arc::new(Seen::default());
    let note = Arc::clone(&seen);
    let work = async {
        if envelopes {
            let handle = move |envelope: rumormill::Envelope, _| {
                note.note(envelope.payload().len() as u64);
                ready(Ok(()))
            };
            bus.subscribe_any("counting", "shop.>", handle).await.expect("subscribes");
        } else {
            let handle = move |event: Placed, _| {
                note.note(event.number);
                ready(Ok(()))
            };
            bus.subscribe("counting", handle).await.expect("subscribes");
        }
        seen.all.notified().await;
        bus.settled().await.expect("told");
    };
    let kind = if envelopes { ", envelopes" } else { "" };
    hold(&format!("{store}, fetch to settle{kind}"), EVENTS, work).await;
    assert!(seen.sum.load(Ordering::Relaxed) > 0);
    bus.drain(Duration::ZERO).await;
}

#[test]
fn publishing_in_memory_allocates_no_more_than_it_did() {
    alone(publishing("memory:", "memory"));
}

#[test]
fn consuming_from_memory_allocates_no_more_than_it_did() {
    alone(consuming("memory:", "memory", false));
}

#[test]
fn consuming_envelopes_from_memory_allocates_no_more_than_it_did() {
    alone(consuming("memory:", "memory", true));
}

#[test]
fn publishing_to_redis_allocates_no_more_than_it_did() {
    let server = Server::start();
    alone(publishing(&server.url(), "redis"));
}

#[test]
fn consuming_from_redis_allocates_no_more_than_it_did() {
    let server = Server::start();
    alone(consuming(&server.url(), "redis", false));
}

#[test]
fn consuming_envelopes_from_redis_allocates_no_more_than_it_did() {
    let server = Server::start();
    alone(consuming(&server.url(), "redis", true));
}
