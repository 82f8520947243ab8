//! A handler that always has something to do holds nothing back that ended before it in its lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::{Driver, GroupName};
use rumormill::{
    Bus, Clock, ContentType, Context, Envelope, EventType, ServiceOptions, Services, SystemClock,
};
use tokio::sync::Semaphore;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

async fn publish(bus: &Bus, payload: &'static str) {
    let event_type = EventType::from_static("jobs.job.asked");
    let envelope =
        Envelope::builder(event_type, ContentType::JSON, payload, SystemClock.now()).build();
    bus.publisher().publish_envelope(envelope.expect("small")).await.expect("stored");
}

#[tokio::test]
async fn what_ended_is_settled_beside_a_handler_that_never_rests() {
    let driver = MemoryDriver::new(MemoryOptions::default());
    let bus = Bus::builder().driver(driver.client()).services(Services::none()).build().await;
    let bus = bus.expect("a bus in memory");
    let (gate, enough) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)));
    let (opened, stop) = (Arc::clone(&gate), Arc::clone(&enough));
    let handler = move |envelope: Envelope, _: Context| {
        let (opened, stop) = (Arc::clone(&opened), Arc::clone(&stop));
        async move {
            match &envelope.payload()[..] {
                b"1" => opened.acquire().await?.forget(),
                // It uses up tokio's budget each time.
                b"3" => {
                    while !stop.load(Ordering::Relaxed) {
                        tokio::task::coop::consume_budget().await;
                    }
                }
                _ => {}
            }
            Ok(())
        }
    };
    let options = ServiceOptions { lanes: 1, ..ServiceOptions::default() };
    let routes = bus.subscribe_routes("g", options, |routes| routes.on_any_fn("jobs.>", handler));
    routes.await.expect("subscribed");
    for payload in ["1", "2", "3"] {
        publish(&bus, payload).await;
    }
    gate.add_permits(1);
    let group = GroupName::new("g").expect("valid");
    let tools = driver.tools().expect("memory tells");
    let settled = async {
        while tools.backlog(&group).await.expect("memory tells").pending > 1 {
            // waits: for the ends of the first two
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, settled).await.expect("the first two are settled");
    enough.store(true, Ordering::Relaxed);
    bus.drain(PATIENCE).await;
}
