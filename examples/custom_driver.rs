//! A driver of one's own: it counts what passes, and leaves the rest to the driver below.
//! `tests/custom_driver.rs` holds it to the contract with the suite that every driver must pass.
//!
//! ```text
//! cargo run --example custom_driver
//! cargo test --test custom_driver
//! ```

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rumormill::delivery::{Bits, Delivery, Entry, Outcome, Settled, Settlement};
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::{
    Append, Appended, Driver, Feed, Follow, Publish, Settler, Source, Subscribe, Subscription,
    Tools, TopicShape,
};
use rumormill::{Bus, Context, Error, Event, HandlerError, PublishError, Services, Topic};
use serde::{Deserialize, Serialize};

/// What passed, in events.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    stored: AtomicU64,
    handed_out: AtomicU64,
    acked: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
    split: AtomicU64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stored, handed_out, acked, retried, dead, split } = self;
        let rows = [
            ("stored", stored),
            ("handed out", handed_out),
            ("acked", acked),
            ("retried", retried),
            ("dead-lettered", dead),
            ("handed over", split),
        ];
        for (name, count) in rows {
            writeln!(f, "{name:<14}{:>6}", count.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}

fn add(count: &AtomicU64, events: usize) {
    count.fetch_add(u64::try_from(events).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Counts what passes through the driver below.
pub(crate) struct Counting {
    below: Arc<dyn Driver>,
    counts: Arc<Counts>,
}

impl Counting {
    pub(crate) fn new(below: Arc<dyn Driver>) -> Arc<Self> {
        Arc::new(Self { below, counts: Arc::default() })
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

#[rumormill::async_trait]
impl Driver for Counting {
    fn tools(&self) -> Option<&dyn Tools> {
        self.below.tools()
    }

    fn parks_keys(&self) -> bool {
        self.below.parks_keys()
    }

    fn marks_handled(&self) -> bool {
        self.below.marks_handled()
    }

    /// What broadcasts read is not counted: nobody settles it.
    fn broadcasts(&self) -> Option<&dyn Follow> {
        self.below.broadcasts()
    }

    async fn close(&self) {
        self.below.close().await;
    }
}

#[rumormill::async_trait]
impl Publish for Counting {
    async fn declare(&self, topic: &Topic) -> Result<TopicShape, Error> {
        self.below.declare(topic).await
    }

    async fn append(&self, appends: Vec<Append>) -> Vec<Result<Appended, PublishError>> {
        let sizes: Vec<usize> = appends.iter().map(|append| append.envelopes.len()).collect();
        let answers = self.below.append(appends).await;
        for (events, _) in sizes.into_iter().zip(&answers).filter(|(_, answer)| answer.is_ok()) {
            add(&self.counts.stored, events);
        }
        answers
    }
}

#[rumormill::async_trait]
impl Subscribe for Counting {
    async fn subscribe(&self, subscription: Subscription) -> Result<Feed, Error> {
        let Feed { source, settler, routes, consumer } = self.below.subscribe(subscription).await?;
        let counts = || Arc::clone(&self.counts);
        let source = Box::new(CountingSource { below: source, counts: counts() });
        let settler = Arc::new(CountingSettler { below: settler, counts: counts() });
        Ok(Feed { source, settler, routes, consumer })
    }
}

struct CountingSource {
    below: Box<dyn Source>,
    counts: Arc<Counts>,
}

#[rumormill::async_trait]
impl Source for CountingSource {
    async fn fetch(&mut self, budget: usize) -> Result<Vec<Entry>, Error> {
        // Nothing is awaited after the fetch: a call that is dropped has taken nothing.
        let entries = self.below.fetch(budget).await?;
        let open = |entry: &Entry| entry.records.len() - entry.settled.len();
        add(&self.counts.handed_out, entries.iter().map(open).sum());
        Ok(entries)
    }

    async fn close(&mut self) {
        self.below.close().await;
    }
}

struct CountingSettler {
    below: Arc<dyn Settler>,
    counts: Arc<Counts>,
}

impl CountingSettler {
    fn count(&self, outcome: &Outcome) -> &AtomicU64 {
        match outcome {
            Outcome::Ack { .. } | Outcome::AckOnce { .. } => &self.counts.acked,
            Outcome::Retry { .. } => &self.counts.retried,
            Outcome::DeadLetter { .. } => &self.counts.dead,
            // Both come back to the group.
            Outcome::Split { .. } | Outcome::Park => &self.counts.split,
        }
    }
}

#[rumormill::async_trait]
impl Settler for CountingSettler {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled, Error>> {
        let counts: Vec<&AtomicU64> =
            settlements.iter().map(|settlement| self.count(&settlement.outcome)).collect();
        let answers = self.below.settle(settlements).await;
        for (count, answer) in counts.into_iter().zip(&answers) {
            if matches!(answer, Ok(Settled::Done)) {
                add(count, 1);
            }
        }
        answers
    }

    // The default keeps no notes: what wraps a driver passes this on.
    async fn begin(&self, delivery: &Delivery) -> Result<Option<u32>, Error> {
        self.below.begin(delivery).await
    }

    async fn is_parked(&self, delivery: &Delivery) -> Result<bool, Error> {
        self.below.is_parked(delivery).await
    }

    async fn handled(&self, entry: &Entry) -> Result<Bits, Error> {
        self.below.handled(entry).await
    }
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "parcels.parcel.handed_in", key = number)]
struct ParcelHandedIn {
    number: String,
    weight_grams: u32,
}

async fn weigh(parcel: ParcelHandedIn, ctx: Context) -> Result<(), HandlerError> {
    if parcel.weight_grams > 30_000 {
        return Err(HandlerError::reject("too heavy"));
    }
    if parcel.weight_grams == 0 && ctx.attempt() == 1 {
        return Err(HandlerError::retry("the scale says nothing"));
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let driver = Counting::new(MemoryDriver::new(MemoryOptions::default()));
    let counts = Arc::clone(driver.counts());
    let bus = Bus::builder().driver(driver).services(Services::none()).build().await?;
    bus.subscribe("post_office", weigh).await?;
    for (number, weight_grams) in [("a", 800), ("b", 31_000), ("c", 0), ("d", 2_500)] {
        bus.publish(&ParcelHandedIn { number: number.into(), weight_grams }).await?;
    }
    bus.settled().await?;
    bus.drain(rumormill::DRAIN_DEADLINE).await;
    print!("{counts}");
    Ok(())
}
