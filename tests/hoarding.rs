//! Slow events without a key are not hoarded: what would wait for long in one instance goes to
//! another that is free.

use std::time::Duration;

use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::{
    Bus, Clock, ContentType, Context, Envelope, EventType, ServiceOptions, Services, SystemClock,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// What slow work takes, in paused time.
const SLOW: Duration = Duration::from_secs(20);

async fn bus(driver: &MemoryDriver) -> Bus {
    let builder = Bus::builder().driver(driver.client()).services(Services::none());
    builder.build().await.expect("a bus in memory")
}

/// One lane that takes `slow` per event and tells when it begins.
async fn work(bus: &Bus, slow: Duration) -> mpsc::Receiver<()> {
    let (begins, begun) = mpsc::channel(100);
    let options = ServiceOptions { lanes: 1, lane_depth: 4, ..ServiceOptions::default() };
    let handler = move |_: Envelope, _: Context| {
        let begins = begins.clone();
        async move {
            begins.send(()).await?;
            // waits: as long as the work takes, in paused time
            tokio::time::sleep(slow).await;
            Ok(())
        }
    };
    bus.subscribe_routes("g", options, |routes| routes.on_any_fn("jobs.>", handler))
        .await
        .expect("subscribed");
    begun
}

async fn publish(bus: &Bus, count: usize) {
    let event_type = EventType::from_static("jobs.job.asked");
    let job = || {
        let now = SystemClock.now();
        Envelope::builder(event_type.clone(), ContentType::JSON, "1", now).build().expect("small")
    };
    for answer in bus.publisher().publish_envelopes((0..count).map(|_| job()).collect()).await {
        answer.expect("stored");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_slow_events_is_shared_with_who_is_free() {
    let driver = MemoryDriver::new(MemoryOptions::default());
    let (busy, free) = (bus(&driver).await, bus(&driver).await);
    let mut slowly = work(&busy, SLOW).await;
    // One event tells how slow the handler is; only then are thirty more published.
    publish(&busy, 1).await;
    slowly.recv().await.expect("the handler runs");
    busy.settled().await.expect("memory tells");
    publish(&busy, 30).await;
    slowly.recv().await.expect("the handler runs");
    let joined = Instant::now();
    let mut quickly = work(&free, Duration::ZERO).await;
    // All but what the busy one may hold: one that runs, and two lanes' depth.
    for _ in 0..20 {
        timeout(SLOW / 2, quickly.recv()).await.expect("it is not held back").expect("it runs");
    }
    assert!(joined.elapsed() < SLOW / 2, "the busy one is still at its first");
    busy.settled().await.expect("memory tells");
    for bus in [busy, free] {
        bus.drain(SLOW).await;
    }
}
