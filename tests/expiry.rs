//! An event that expires is not run any more, wherever it waits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumormill::delivery::Cause;
use rumormill::driver::GroupName;
use rumormill::middleware::RetryInPlace;
use rumormill::{
    Batch, BatchOptions, Bus, Clock, Context, Event, HandlerError, PublishOptions, Routes,
    ServiceOptions, Services, Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "offers.made", key = key)]
struct Offer {
    key: String,
    name: String,
}

/// A wall clock that goes with the paused time of the test.
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_767_323_045_000).plus(self.0.elapsed())
    }
}

async fn bus() -> Bus {
    let builder =
        Bus::builder().services(Services::none()).clock(Arc::new(PausedClock(Instant::now())));
    builder.build().await.expect("a bus in memory")
}

async fn offer(bus: &Bus, name: &str, valid: Option<u64>) {
    let options = PublishOptions::default();
    let options = match valid {
        Some(millis) => options.expires_after(Duration::from_millis(millis)),
        None => options,
    };
    let event = Offer { key: "k".to_owned(), name: name.to_owned() };
    bus.publish_with(&event, options).await.expect("stored");
}

type Names = Arc<Mutex<Vec<String>>>;

fn note(names: &Names, event: &Offer) {
    names.lock().expect("no handler panics under it").push(event.name.clone());
}

/// Checks who was run, and that one event expired.
async fn ran(bus: &Bus, names: &Names, right: &[&str]) {
    bus.settled().await.expect("settled");
    assert_eq!(*names.lock().expect("no handler panics under it"), right);
    let tools = bus.driver().tools().expect("the memory driver has tools");
    let group = GroupName::new("g").expect("a name");
    let dead = tools.dead_letters(&group, 10).await.expect("the store tells");
    let causes: Vec<_> = dead.iter().map(|dead| dead.failure.cause).collect();
    assert_eq!(causes, [Cause::Expired]);
}

async fn subscribe(bus: &Bus, routes: impl FnOnce(Routes<()>) -> Routes<()>) {
    bus.subscribe_routes("g", ServiceOptions::default(), routes).await.expect("subscribed");
}

#[tokio::test(start_paused = true)]
async fn while_it_waits_in_a_lane() {
    let (bus, names) = (bus().await, Names::default());
    let seen = Arc::clone(&names);
    subscribe(&bus, |routes| {
        routes.on_fn(move |event: Offer, _| {
            note(&seen, &event);
            async {
                // waits: so that what is behind it expires
                sleep(Duration::from_secs(1)).await;
                Ok(())
            }
        })
    })
    .await;
    offer(&bus, "slow", None).await;
    offer(&bus, "short", Some(500)).await;
    offer(&bus, "long", Some(5_000)).await;
    ran(&bus, &names, &["slow", "long"]).await;
}

#[tokio::test(start_paused = true)]
async fn while_it_waits_for_its_batch() {
    let (bus, names) = (bus().await, Names::default());
    let seen = Arc::clone(&names);
    let batch = BatchOptions { size: 10, linger: Duration::from_secs(1) };
    subscribe(&bus, |routes| {
        routes.on_batch_fn(batch, move |batch: Batch<Offer>| {
            batch.events().for_each(|event| note(&seen, event));
            std::future::ready(Ok(()))
        })
    })
    .await;
    offer(&bus, "short", Some(500)).await;
    offer(&bus, "long", Some(5_000)).await;
    ran(&bus, &names, &["long"]).await;
}

async fn failing(bus: &Bus, names: &Names, in_place: bool) {
    let seen = Arc::clone(names);
    subscribe(bus, |routes| {
        let routes = routes.on_fn(move |event: Offer, ctx: Context| {
            note(&seen, &event);
            let first = if in_place {
                HandlerError::retry_in_place
            } else {
                |error: &str| HandlerError::retry_after(Duration::from_secs(1), error)
            };
            std::future::ready(if ctx.attempt() == 1 { Err(first("no")) } else { Ok(()) })
        });
        let pause = Duration::from_millis(600);
        routes.with(RetryInPlace { tries_max: 2, within: pause * 2, pause })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn while_it_waits_for_its_next_attempt() {
    let (bus, names) = (bus().await, Names::default());
    failing(&bus, &names, false).await;
    offer(&bus, "short", Some(500)).await;
    ran(&bus, &names, &["short"]).await;
}

#[tokio::test(start_paused = true)]
async fn while_it_waits_for_its_next_try() {
    let (bus, names) = (bus().await, Names::default());
    failing(&bus, &names, true).await;
    offer(&bus, "short", Some(500)).await;
    ran(&bus, &names, &["short"]).await;
}
