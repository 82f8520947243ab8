//! The way of an event through a bus on the memory driver.

use std::future::{Future, ready};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::{Bus, Envelope, Event, Services};
use serde::{Deserialize, Serialize};

/// Events of one call of `publish_many`.
const AT_ONCE: u64 = 500;

/// About a hundred bytes.
#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.order.placed", key = customer)]
pub(crate) struct Placed {
    number: u64,
    customer: u32,
    note: String,
}

impl Placed {
    pub(crate) fn new(number: u64) -> Self {
        let customer = u32::try_from(number % 512).unwrap_or_default();
        Self { number, customer, note: "to be left with the neighbours, who know of it".to_owned() }
    }
}

fn on_one_thread(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(work);
}

async fn bus(events: u64) -> Bus {
    // Nothing goes while it is counted: what is there at first is handled later.
    let history_events_max = usize::try_from(events).expect("a small number").max(1);
    let driver = MemoryDriver::new(MemoryOptions { history_events_max, ..Default::default() });
    let bus = Bus::builder().driver(driver).services(Services::none()).build();
    bus.await.expect("a bus in memory")
}

pub(crate) fn publish(times: u64) {
    on_one_thread(async {
        let bus = bus(times).await;
        for number in 0..times {
            black_box(bus.publish(&Placed::new(number)).await.expect("stored"));
        }
    });
}

pub(crate) fn publish_many(times: u64) {
    on_one_thread(async {
        let bus = bus(times).await;
        publish_all(&bus, times).await;
    });
}

async fn publish_all(bus: &Bus, times: u64) {
    for from in (0..times).step_by(usize::try_from(AT_ONCE).expect("a small number")) {
        let until = times.min(from + AT_ONCE);
        let events: Vec<Placed> = (from..until).map(Placed::new).collect();
        for receipt in bus.publish_many(&events).await {
            receipt.expect("stored");
        }
    }
}

/// Publishes, and then lets so many groups handle: fetch, route, dispatch, settle.
fn handle_by(groups: u64, envelopes: bool, times: u64) {
    on_one_thread(async {
        let bus = bus(times).await;
        publish_all(&bus, times).await;
        let seen = Arc::new(AtomicU64::new(0));
        for group in 0..groups {
            let (group, seen) = (format!("group{group}"), Arc::clone(&seen));
            if envelopes {
                let handle = move |envelope: Envelope, _| {
                    seen.fetch_add(1, Ordering::Relaxed);
                    black_box(envelope.payload());
                    ready(Ok(()))
                };
                bus.subscribe_any(&group, "shop.>", handle).await.expect("subscribes");
            } else {
                let handle = move |event: Placed, _| {
                    seen.fetch_add(1, Ordering::Relaxed);
                    black_box(event.number + event.note.len() as u64);
                    ready(Ok(()))
                };
                bus.subscribe(&group, handle).await.expect("subscribes");
            }
        }
        bus.settled().await.expect("told");
        assert_eq!(seen.load(Ordering::Relaxed), times * groups, "each group handles each event");
    });
}

pub(crate) fn handle(times: u64) {
    handle_by(1, false, times);
}

pub(crate) fn handle_envelopes(times: u64) {
    handle_by(1, true, times);
}

pub(crate) fn handle_by_three_groups(times: u64) {
    handle_by(3, false, times);
}
