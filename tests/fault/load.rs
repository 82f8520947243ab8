//! The load: a bus that publishes numbered, keyed events at a steady rate, whatever becomes of
//! them, and another one whose group handles them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_immediate;
use rumormill::driver::LeaseTimes;
use rumormill::{
    Bus, Clock, Context, Event, EventId, HandlerError, PublishOptions, ServiceOptions, Services,
    SystemClock, Topic,
};
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ledger::{Ledger, Outcome};

/// The group that handles the load.
pub const GROUP: &str = "readers";
/// The log of the load's only partition.
pub const LOG: &str = "rm:{faults:0}:log";
/// As many publishes at once, so that batches form; none waits for the ones before.
const BURST: u64 = 8;
/// Keys of the events, in turn.
pub const KEYS: u64 = 16;
const EVERY: Duration = Duration::from_millis(25);
/// How long an instance may be silent before its events go to another.
pub const LEASE: LeaseTimes = LeaseTimes {
    lease: Duration::from_secs(4),
    renew: Duration::from_secs(1),
    sweep: Duration::from_secs(1),
};

/// An event of the load.
#[derive(Serialize, Deserialize, Event)]
#[event(type = "faults.numbered", key = key)]
pub struct Numbered {
    pub number: u64,
    pub key: String,
}

/// A running load.
pub struct Load {
    pub ledger: Arc<Ledger>,
    publishing: Publishing,
    readers: Vec<Bus>,
}

/// The half of it that publishes.
pub struct Publishing {
    bus: Bus,
    stop: CancellationToken,
    publishes: TaskTracker,
}

/// The load's topic.
pub fn topic() -> Topic {
    Topic::new("faults").expect("valid")
}

/// Gives the load's topic so many partitions.
pub async fn partitions(url: &str, count: u32) {
    let bus = connect(url).await;
    let admin = bus.driver().admin().expect("Redis has it");
    admin.set_partitions(&topic(), count).await.expect("the server is there");
    bus.drain(Duration::ZERO).await;
}

/// A bus with the default settings.
pub async fn connect(url: &str) -> Bus {
    let builder = Bus::builder().url(url).services(Services::none()).source("faults");
    builder.build().await.expect("the server is there")
}

impl Load {
    /// Publishes and handles over the same server, each on a bus of its own.
    pub async fn start(url: &str) -> Self {
        Self::over(connect(url).await, connect(url).await).await
    }

    /// Publishes and handles with these.
    pub async fn over(publisher: Bus, reader: Bus) -> Self {
        let ledger = Arc::new(Ledger::default());
        handle(&reader, &ledger).await;
        let publishing = Publishing::start(publisher, &ledger);
        Self { ledger, publishing, readers: vec![reader] }
    }

    /// Another instance of the group handles, too.
    pub async fn join(&mut self, reader: Bus) {
        handle(&reader, &self.ledger).await;
        self.readers.push(reader);
    }

    /// Publishes nothing more; returns when every publish has its answer.
    pub async fn quiet(&self) {
        self.publishing.quiet().await;
    }

    /// Ends both buses.
    pub async fn end(self) {
        self.publishing.end().await;
        for reader in self.readers {
            reader.drain(Duration::from_secs(5)).await;
        }
    }
}

impl Publishing {
    /// Publishes over this bus until told to stop.
    pub fn start(bus: Bus, ledger: &Arc<Ledger>) -> Self {
        let (stop, publishes) = (CancellationToken::new(), TaskTracker::new());
        let ledger = Arc::clone(ledger);
        publishes.spawn(publish(bus.clone(), ledger, stop.clone(), publishes.clone()));
        Self { bus, stop, publishes }
    }

    /// Publishes nothing more; returns when every publish has its answer.
    pub async fn quiet(&self) {
        self.stop.cancel();
        self.publishes.close();
        self.publishes.wait().await;
    }

    /// Ends the bus.
    pub async fn end(self) {
        self.quiet().await;
        self.bus.drain(Duration::from_secs(5)).await;
    }
}

/// Writes down what the group gets. Every eighth event fails once, so that settle scripts, due
/// sets and the retry stream are part of it.
async fn handle(bus: &Bus, ledger: &Arc<Ledger>) {
    let options = ServiceOptions { lease: LEASE, ..ServiceOptions::default() };
    let ledger = Arc::clone(ledger);
    let handler = move |event: Numbered, context: Context| {
        ledger.deliver(context.envelope().id());
        let fails = event.number.is_multiple_of(8) && context.attempt() == 1;
        async move {
            if fails {
                let soon = Duration::from_millis(5);
                return Err(HandlerError::retry_after(soon, "the first attempt fails"));
            }
            Ok(())
        }
    };
    bus.subscribe_routes(GROUP, options, |routes| routes.on_fn(handler))
        .await
        .expect("the group can be made");
}

async fn publish(bus: Bus, ledger: Arc<Ledger>, stop: CancellationToken, publishes: TaskTracker) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0.. {
        if number % BURST == 0 {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
        }
        let (bus, ledger) = (bus.clone(), Arc::clone(&ledger));
        let id = EventId::new(SystemClock.now());
        ledger.begin(id, number);
        let mut publish = Box::pin(async move {
            let event = Numbered { number, key: format!("key-{}", number % KEYS) };
            let answer = bus.publish_with(&event, PublishOptions::default().id(id)).await;
            ledger.end(id, Outcome::from(&answer));
        });
        // The first poll takes the event's place in the order of its key.
        if poll_immediate(&mut publish).await.is_none() {
            publishes.spawn(publish);
        }
    }
}
