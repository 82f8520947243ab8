//! A registered service may be a broadcast; options for its name tune it and do not change that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::{
    Bus, Context, Distribution, Envelope, Event, Handle, HandlerError, Init, Routes, Service,
    ServiceOptions, Services, Start, Timestamp,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "settings.changed", key = name)]
struct Changed {
    name: String,
}

#[derive(Default)]
struct Settings(Mutex<Vec<String>>);

impl Service for Settings {
    const NAME: &'static str = "settings";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.on::<Changed>()
    }

    fn options() -> ServiceOptions {
        ServiceOptions::broadcast()
    }
}

impl Handle<Changed> for Settings {
    async fn handle(&self, event: Changed, ctx: &Context) -> Result<(), HandlerError> {
        assert_eq!(ctx.group(), "settings");
        self.0.lock().expect("no test panics under it").push(event.name);
        Ok(())
    }
}

impl Settings {
    async fn from_init(_: &Init) -> Result<Self, rumormill::Error> {
        Ok(Self::default())
    }
}

rumormill::register!(Settings, Settings::from_init);

#[tokio::test(start_paused = true)]
async fn every_instance_of_a_broadcast_service_gets_every_event() {
    let store = MemoryDriver::new(MemoryOptions::default());
    let mut buses = Vec::new();
    for lanes in [1, 2] {
        let tuned = ServiceOptions { lanes, ..ServiceOptions::default() };
        let builder = Bus::builder().driver(store.client()).options(Settings::NAME, tuned);
        let bus: Bus = builder.build().await.expect("a bus");
        bus.start().await.expect("started");
        buses.push(bus);
    }
    for name in ["colour", "size"] {
        buses[0].publish(&Changed { name: name.into() }).await.expect("stored");
    }
    for bus in buses {
        bus.settled().await.expect("the store tells");
        let settings: Arc<Settings> = bus.service().expect("it was built");
        let mut seen = settings.0.lock().expect("no test panics under it").clone();
        seen.sort();
        assert_eq!(seen, ["colour", "size"]);
        assert!(bus.broadcast_counts(Settings::NAME).is_some());
        assert!(bus.drain(Duration::from_secs(5)).await.is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn slow_events_without_a_key_are_not_handed_to_nobody() {
    let store = MemoryDriver::new(MemoryOptions::default());
    let builder = Bus::builder().driver(store).services(Services::none());
    let bus = builder.build().await.expect("a bus");
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    let slow = move |_: Envelope, _: Context| {
        let heard = Arc::clone(&count);
        async move {
            // waits: as long as slow work takes, in paused time.
            tokio::time::sleep(Duration::from_secs(3)).await;
            heard.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    };
    let narrow = ServiceOptions { lanes: 1, ..ServiceOptions::broadcast() };
    let routes = |routes: Routes<()>| routes.on_any_fn("jobs.>", slow);
    bus.subscribe_routes("jobs", narrow, routes).await.expect("subscribed");
    for _ in 0..2 {
        let jobs: Vec<Job> = (0..20).map(|_| Job).collect();
        assert!(bus.publish_many(&jobs).await.iter().all(Result::is_ok));
        bus.settled().await.expect("the store tells");
    }
    assert_eq!(heard.load(Ordering::Relaxed), 40);
    bus.drain(Duration::ZERO).await;
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "jobs.asked")]
struct Job;

#[test]
fn a_broadcast_starts_with_what_is_new_and_nowhere_else() {
    let broadcast = ServiceOptions::broadcast();
    assert_eq!(broadcast.distribution, Distribution::Broadcast);
    assert_eq!(broadcast.retry.to_string(), "8 attempts over about 12 s");
    broadcast.check().expect("its defaults are valid");
    let past = ServiceOptions { start: Start::At(Timestamp::from_millis(1)), ..broadcast };
    let refused = past.check().expect_err("it keeps no place");
    assert!(refused.to_string().contains("cannot start at"), "{refused}");
}
