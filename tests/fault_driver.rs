//! The driver that fails by seed: quiet it passes the suite of every driver, so that it passes all
//! on; and each fault is what it says.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use rumormill::delivery::{Entry, Outcome, Partition, Settled, Start};
use rumormill::driver::conformance::Fixture;
use rumormill::driver::fault::{Fault, FaultDriver, FaultOptions};
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::{
    Append, Appended, Driver, Feed, GroupName, LeaseTimes, Publish, Subscribe, Subscription, Tools,
};
use rumormill::{ContentType, Envelope, EventType, Pattern, PublishError, Timestamp, Topic};
use tokio::time::timeout;

#[derive(Default)]
struct QuietFixture {
    store: OnceLock<Arc<MemoryDriver>>,
    partitions: Mutex<BTreeMap<Topic, u32>>,
}

#[async_trait]
impl Fixture for QuietFixture {
    async fn driver(&self) -> Arc<dyn Driver> {
        let store = self.store.get_or_init(|| {
            let partitions_of = self.partitions.lock().expect("no panic under it").clone();
            MemoryDriver::new(MemoryOptions { partitions_of, ..MemoryOptions::default() })
        });
        FaultDriver::new(store.client(), FaultOptions::quiet(0))
    }

    fn lease(&self) -> LeaseTimes {
        LEASE
    }

    async fn partitions(&self, topic: &Topic, partitions: u32) {
        self.partitions.lock().expect("no panic under it").insert(topic.clone(), partitions);
    }
}

rumormill::conformance_tests!(QuietFixture::default(), start_paused = true);

const LEASE: LeaseTimes = LeaseTimes {
    lease: Duration::from_secs(3),
    renew: Duration::from_secs(1),
    sweep: Duration::from_secs(2),
};
/// On paused time: what has not come by then does not come.
const NEVER: Duration = Duration::from_secs(600);

/// A store, and a client of it that always fails in this way.
fn failing(fault: Fault) -> (Arc<MemoryDriver>, Arc<FaultDriver>) {
    let store = MemoryDriver::new(MemoryOptions::default());
    let driver = FaultDriver::new(store.client(), FaultOptions::quiet(1).chance(fault, 1.0));
    (store, driver)
}

fn partition() -> Partition {
    "faults:0".parse().expect("a partition")
}

async fn append(driver: &dyn Driver) -> Result<Appended, PublishError> {
    driver.declare(&partition().topic).await.expect("declared");
    let now = Timestamp::from_millis(1_767_323_045_000);
    let event_type = EventType::from_static("faults.thing.happened");
    let envelope = Envelope::builder(event_type, ContentType::MESSAGE_PACK, "x", now).build();
    let append = Append {
        partition: partition(),
        envelopes: vec![envelope.expect("an event")],
        delay: Duration::ZERO,
        deduplicate: false,
    };
    driver.append(vec![append]).await.pop().expect("one answer")
}

async fn join(driver: &dyn Driver) -> Feed {
    let wish = Subscription {
        group: GroupName::new("readers").expect("a name"),
        routes: vec![(Pattern::all(), None)],
        start: Start::Earliest,
        lease: LEASE,
        park_keys: false,
    };
    driver.subscribe(wish).await.expect("subscribed")
}

async fn fetch(feed: &mut Feed) -> Option<Arc<Entry>> {
    let entries = timeout(NEVER, feed.source.fetch(10)).await.ok()?;
    entries.expect("entries").into_iter().next().map(Arc::new)
}

async fn stored(store: &MemoryDriver) -> usize {
    store.latest(&partition(), 10).await.expect("a log").len()
}

/// Acks the only event of an entry.
async fn ack(feed: &Feed, entry: &Arc<Entry>) -> Result<Settled, rumormill::Error> {
    let delivery = entry.deliveries().next().expect("it is open");
    let answers = feed.settler.settle(vec![delivery.settle(Outcome::ack())]).await;
    answers.into_iter().next().expect("one answer")
}

async fn is_done(future: impl Future) -> bool {
    timeout(NEVER, future).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn an_append_fails_before_or_after_it_is_stored() {
    let of = |fault| async move {
        let (store, driver) = failing(fault);
        let error = append(&*driver).await.expect_err("it fails");
        assert_eq!(driver.injected(), [(fault, 1)].into());
        (error.is_not_stored(), stored(&store).await)
    };
    assert_eq!(of(Fault::AppendRefused).await, (true, 0));
    assert_eq!(of(Fault::AppendUnknown).await, (false, 0));
    assert_eq!(of(Fault::AppendAnswerLost).await, (false, 1));
}

#[tokio::test(start_paused = true)]
async fn a_settlement_fails_before_or_after_it_is_applied() {
    for (fault, repeat) in
        [(Fault::SettleFailed, Settled::Done), (Fault::SettleAnswerLost, Settled::Already)]
    {
        let (_store, driver) = failing(fault);
        append(&*driver).await.expect("stored");
        let mut feed = join(&*driver).await;
        let entry = fetch(&mut feed).await.expect("the event");
        ack(&feed, &entry).await.expect_err("it fails");
        driver.set_calm(true);
        assert_eq!(ack(&feed, &entry).await.expect("it is calm"), repeat, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_lapses_loses_its_work_and_comes_back() {
    let (store, driver) = failing(Fault::LapseNoticed);
    let client = store.client();
    append(&*client).await.expect("stored");
    let mut first = join(&*driver).await;
    let entry = fetch(&mut first).await.expect("the event");
    assert!(fetch(&mut first).await.is_none_or(|again| again.id == entry.id));
    assert!(entry.lease.is_cancelled(), "it was told");
    assert!(driver.injected()[&Fault::LapseNoticed] > 0);
    driver.set_calm(true);
    append(&*client).await.expect("stored");
    let back = fetch(&mut first).await.expect("it is back, as another consumer");
    assert_eq!(ack(&first, &back).await.expect("it is calm"), Settled::Done);
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_out_before_a_lapse_is_fenced_after_it() {
    let (store, driver) = failing(Fault::Lapse);
    append(&*driver).await.expect("stored");
    let mut first = join(&*driver).await;
    let entry = fetch(&mut first).await.expect("the event");
    let mut second = join(&*store.client()).await;
    let (_lapsing, taken) = tokio::join!(fetch(&mut first), fetch(&mut second));
    // Whoever has it now, the first hand-out is over.
    drop(taken);
    assert!(entry.lease.is_cancelled());
    let delivery = entry.deliveries().next().expect("it was open");
    let split = delivery.settle(Outcome::Split { after: Duration::ZERO });
    let answer = first.settler.settle(vec![split]).await.pop().expect("one answer");
    assert_eq!(answer.expect("an answer"), Settled::LeaseLost);
}

#[tokio::test(start_paused = true)]
async fn who_crashed_does_nothing_any_more() {
    let (store, driver) = failing(Fault::Delay);
    append(&*driver).await.expect("stored");
    let mut feed = join(&*driver).await;
    let entry = fetch(&mut feed).await.expect("the event");
    let settling = tokio::spawn({
        let (settler, entry) = (Arc::clone(&feed.settler), Arc::clone(&entry));
        let settle = move || async move {
            let delivery = entry.deliveries().next().expect("it is open");
            settler.settle(vec![delivery.settle(Outcome::ack())]).await
        };
        settle()
    });
    tokio::task::yield_now().await;
    driver.crash();
    assert!(!is_done(settling).await && !is_done(append(&*driver)).await);
    assert!(!is_done(feed.source.fetch(1)).await);
    let mut heir = join(&*store.client()).await;
    let inherited = fetch(&mut heir).await.expect("its lease ended: the source is gone");
    assert_eq!(inherited.id, entry.id);
    assert_eq!(ack(&heir, &inherited).await.expect("settled"), Settled::Done);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_faults() {
    let of = |seed| async move {
        let store = MemoryDriver::new(MemoryOptions::default());
        let driver = FaultDriver::new(store, FaultOptions::stormy(seed));
        while driver.declare(&partition().topic).await.is_err() {}
        for _ in 0..200 {
            let _some = driver.subscribe(wish_nobody()).await.is_err();
        }
        (driver.injected(), tokio::time::Instant::now())
    };
    let (begun, first) = (tokio::time::Instant::now(), of(7).await);
    let (again, second) = (tokio::time::Instant::now(), of(7).await);
    assert_eq!(first.0, second.0);
    assert_eq!(first.1 - begun, second.1 - again);
    assert_ne!(of(8).await.0, first.0);
}

fn wish_nobody() -> Subscription {
    Subscription {
        group: GroupName::new("nobody").expect("a name"),
        routes: vec![(Pattern::all(), None)],
        start: Start::New,
        lease: LEASE,
        park_keys: false,
    }
}
