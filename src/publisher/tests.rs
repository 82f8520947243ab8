//! Natural batches, limits and deadlines, on a store that answers when the test says so.

mod room;
mod runtimes;

use std::pin::{Pin, pin};
use std::sync::Mutex;

use async_trait::async_trait;
use futures_util::poll;
use tokio::runtime::Handle;
use tokio::time::{Duration, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::topics::SHAPE_KEPT;
use super::*;
use crate::codec::Codec;
use crate::delivery::{Durability, EntryId};
use crate::driver::admin::Admin;
use crate::driver::memory::{MemoryDriver, MemoryOptions};
use crate::driver::{Appended, Feed, Publish, Subscribe, Subscription, TopicShape};
use crate::event_type::Topic;
use crate::{Clock, ContentType, EventType, SystemClock};

/// Writes down the batches, and answers each when a permit is given.
struct Gated {
    gate: Semaphore,
    batches: Mutex<Vec<Vec<String>>>,
    refuse: bool,
    /// Of its connections, where it has one.
    runtime: Option<Handle>,
}

#[async_trait]
impl Publish for Gated {
    async fn declare(&self, topic: &Topic) -> Result<TopicShape, Error> {
        Ok(TopicShape { topic: topic.clone(), partitions: 1 })
    }

    async fn append(&self, appends: Vec<Append>) -> Vec<Result<Appended, PublishError>> {
        let text = |envelope: &Envelope| String::from_utf8(envelope.payload().to_vec()).unwrap();
        let first = {
            let mut batches = self.batches.lock().unwrap();
            let first = batches.len() as u64 + 1;
            batches
                .extend(appends.iter().map(|append| append.envelopes.iter().map(text).collect()));
            first
        };
        self.gate.acquire().await.expect("the gate stays").forget();
        let answer = |number| {
            if self.refuse {
                return Err(PublishError::NotStored(Error::new(ErrorKind::Server, "no")));
            }
            let entry = Some(EntryId { millis: number, seq: 0 });
            Ok(Appended { entry, durability: Durability::Memory, places: Vec::new() })
        };
        (first..).take(appends.len()).map(answer).collect()
    }
}

#[async_trait]
impl Subscribe for Gated {
    async fn subscribe(&self, _: Subscription) -> Result<Feed, Error> {
        Err(Error::new(ErrorKind::Unsupported, "this store is only written"))
    }
}

#[async_trait]
impl Driver for Gated {
    fn runtime(&self) -> Option<&Handle> {
        self.runtime.as_ref()
    }

    async fn close(&self) {}
}

fn gated(open: usize, refuse: bool, limits: PublishLimits) -> (Arc<Gated>, Publisher) {
    gated_on(None, open, refuse, limits)
}

fn gated_on(
    runtime: Option<Handle>,
    open: usize,
    refuse: bool,
    limits: PublishLimits,
) -> (Arc<Gated>, Publisher) {
    let gate = Semaphore::new(open);
    let driver = Arc::new(Gated { gate, batches: Mutex::default(), refuse, runtime });
    let encoder = Arc::new(Encoder {
        codec: Codec::Json,
        source: "tests".into(),
        payload_bytes_max: limits.payload_bytes_max,
        clock: Arc::new(SystemClock),
    });
    let publisher = Publisher::new(Arc::clone(&driver) as Arc<dyn Driver>, limits, encoder);
    (driver, publisher)
}

/// A publish that was accepted and has no answer yet.
async fn accepted(
    publisher: &Publisher,
    event: Envelope,
    deduplicate: bool,
) -> Pin<Box<impl Future<Output = Answer> + use<>>> {
    let publisher = publisher.clone();
    let mut asked = Box::pin(async move { publisher.publish_one(|| Ok(event), deduplicate).await });
    assert!(poll!(asked.as_mut()).is_pending(), "accepted, and not answered");
    asked
}

fn event(payload: &str) -> Envelope {
    let event_type = EventType::from_static("a.b");
    Envelope::builder(event_type, ContentType::JSON, payload.to_owned(), SystemClock.now())
        .build()
        .expect("within limits")
}

fn events(range: std::ops::Range<u32>) -> Vec<Envelope> {
    range.map(|number| event(&number.to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_lone_event_goes_at_once_and_what_waits_goes_together() {
    let (driver, publisher) = gated(0, false, PublishLimits::default());
    let publish = |range| {
        let publisher = publisher.clone();
        tokio::spawn(async move { publisher.publish_envelopes(events(range)).await })
    };
    let mut tasks = Vec::new();
    for number in 0..2 {
        tasks.push(publish(number..number + 1));
        while driver.batches.lock().unwrap().len() <= number as usize {
            tokio::task::yield_now().await;
        }
    }
    // Two appends are under way: these wait, and go in batches when one is answered.
    tasks.push(publish(2..72));
    driver.gate.add_permits(100);
    let mut positions = Vec::new();
    for task in tasks {
        for answer in task.await.expect("no panic") {
            positions.push(answer.expect("stored").position.expect("in the log"));
        }
    }
    let sizes: Vec<usize> = driver.batches.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 1, 50, 20]);
    assert!(positions.is_sorted(), "receipts are in order");
    assert_eq!(driver.batches.lock().unwrap().concat().len(), 72);
    let numbers = driver.batches.lock().unwrap().concat();
    assert!(numbers.iter().map(|text| text.parse::<u32>().unwrap()).is_sorted());
}

fn lingering(linger: Duration) -> (Arc<Gated>, Publisher) {
    gated(100, false, PublishLimits { linger, ..PublishLimits::default() })
}

fn sizes(driver: &Gated) -> Vec<usize> {
    driver.batches.lock().unwrap().iter().map(Vec::len).collect()
}

#[tokio::test(start_paused = true)]
async fn what_comes_within_the_linger_goes_together() {
    let (driver, publisher) = lingering(Duration::from_millis(10));
    let publish = |range| {
        let publisher = publisher.clone();
        tokio::spawn(async move { publisher.publish_envelopes(events(range)).await })
    };
    let began = Instant::now();
    let first = publish(0..3);
    // waits: paused time
    tokio::time::sleep(Duration::from_millis(9)).await;
    assert_eq!(sizes(&driver), [0; 0], "they wait for more");
    let second = publish(3..5);
    for answer in first.await.expect("no panic").into_iter().chain(second.await.expect("no panic"))
    {
        answer.expect("stored");
    }
    assert_eq!(sizes(&driver), [5]);
    assert_eq!(began.elapsed(), Duration::from_millis(10), "from the first on");
    publisher.publish_envelope(event("later")).await.expect("stored");
    assert_eq!(sizes(&driver), [5, 1]);
    assert_eq!(began.elapsed(), Duration::from_millis(20), "a lone event waits for all of it");
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_waits_for_no_linger() {
    let (driver, publisher) = lingering(Duration::from_secs(1));
    let began = Instant::now();
    let full = PublishLimits::default().batch_events_max;
    let events = events(0..u32::try_from(full).expect("few"));
    for answer in publisher.publish_envelopes(events).await {
        answer.expect("stored");
    }
    assert_eq!(sizes(&driver), [full]);
    let large = PublishLimits::default().batch_bytes_max;
    publisher.publish_envelope(event(&"x".repeat(large))).await.expect("stored");
    assert_eq!(sizes(&driver), [full, 1]);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[test]
fn a_linger_is_shorter_than_the_deadline() {
    let limits = PublishLimits::default();
    let refused = PublishLimits { linger: limits.deadline, ..limits }.check();
    assert!(refused.expect_err("nothing would go").to_string().contains("linger"));
    let linger = limits.deadline - Duration::from_nanos(1);
    PublishLimits { linger, ..limits }.check().expect("it goes in time");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_bounded_by_bytes() {
    let limits = PublishLimits { inflight_appends_max: 1, ..PublishLimits::default() };
    let (driver, publisher) = gated(100, false, limits);
    let large = "x".repeat(30 << 10);
    let events = (0..6).map(|_| event(&large)).collect();
    for answer in publisher.publish_envelopes(events).await {
        answer.expect("stored");
    }
    let sizes: Vec<usize> = driver.batches.lock().unwrap().iter().map(Vec::len).collect();
    assert!(sizes.iter().all(|size| *size <= 2), "{sizes:?}");
    let alone = event(&"x".repeat(100 << 10));
    publisher.publish_envelope(alone).await.expect("an event over the bound goes alone");
}

#[tokio::test(start_paused = true)]
async fn a_batch_may_reach_its_bound_in_bytes() {
    let batch_bytes_max = 2 * event("1").weight();
    let limits = PublishLimits { inflight_appends_max: 1, ..PublishLimits::default() };
    let (driver, publisher) = gated(100, false, PublishLimits { batch_bytes_max, ..limits });
    for answer in publisher.publish_envelopes(events(0..5)).await {
        answer.expect("stored");
    }
    let sizes: Vec<usize> = driver.batches.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn each_event_of_a_refused_batch_has_its_answer() {
    let (_, publisher) = gated(100, true, PublishLimits::default());
    let answers = publisher.publish_envelopes(events(0..7)).await;
    assert_eq!(answers.len(), 7);
    for answer in answers {
        let error = answer.expect_err("refused");
        assert!(error.is_not_stored() && error.error().kind() == ErrorKind::Server, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_by_the_deadline_is_certainly_not_stored() {
    let limits = PublishLimits {
        inflight_appends_max: 1,
        deadline: Duration::from_secs(1),
        ..PublishLimits::default()
    };
    let (driver, publisher) = gated(0, false, limits);
    let answers = publisher.publish_envelopes(events(0..3)).await;
    let outcomes: Vec<bool> =
        answers.into_iter().map(|answer| answer.expect_err("late").is_not_stored()).collect();
    let sent = driver.batches.lock().unwrap().concat().len();
    assert_eq!(outcomes.iter().filter(|not_stored| !**not_stored).count(), sent);
    driver.gate.add_permits(10);
    publisher.close().await;
    assert_eq!(driver.batches.lock().unwrap().concat().len(), sent, "the rest was withdrawn");
}

#[tokio::test(start_paused = true)]
async fn more_than_the_unconfirmed_wait_and_then_are_refused() {
    let limits = PublishLimits { unconfirmed_max: 3, ..PublishLimits::default() };
    let (driver, publisher) = gated(0, false, limits);
    let mut asked = pin!(publisher.publish_envelopes(events(0..3)));
    assert!(poll!(asked.as_mut()).is_pending(), "accepted, and not answered");
    let fourth = publisher.publish_envelope(event("4"));
    let error = fourth.await.expect_err("nothing was answered within the deadline");
    assert!(error.is_not_stored() && error.error().kind() == ErrorKind::Timeout, "{error}");
    driver.gate.add_permits(100);
    timeout(limits.deadline, publisher.publish_envelope(event("5")))
        .await
        .expect("there is room again")
        .expect("stored");
}

#[tokio::test(start_paused = true)]
async fn more_bytes_than_the_unconfirmed_wait_and_then_are_refused() {
    let (large, small) = (event(&"x".repeat(60_000)), event("1"));
    let unconfirmed_bytes_max = large.weight() + small.weight() - 1;
    let limits = PublishLimits { unconfirmed_bytes_max, ..PublishLimits::default() };
    let (driver, publisher) = gated(0, false, limits);
    let asked = accepted(&publisher, large, false).await;
    let error = publisher.publish_envelope(small).await.expect_err("one byte too many");
    assert!(error.is_not_stored() && error.error().kind() == ErrorKind::Timeout, "{error}");
    driver.gate.add_permits(100);
    asked.await.expect("stored");
    let larger = event(&"x".repeat(2 * unconfirmed_bytes_max));
    publisher.publish_envelope(larger).await.expect("goes alone");
}

#[tokio::test(start_paused = true)]
async fn many_events_take_the_time_they_take_while_something_goes_on() {
    let limits = PublishLimits { unconfirmed_max: 2, ..PublishLimits::default() };
    let (driver, publisher) = gated(0, false, limits);
    let publishing = publisher.publish_envelopes(events(0..20));
    let answering = async {
        for _ in 0..20 {
            // waits: paused time, in all several times as long as the deadline
            tokio::time::sleep(limits.deadline / 4).await;
            driver.gate.add_permits(1);
        }
    };
    let (answers, ()) = futures_util::future::join(publishing, answering).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let (_, publisher) = gated(0, false, limits);
    let began = tokio::time::Instant::now();
    let answers = publisher.publish_envelopes(events(0..20)).await;
    assert!(answers[2..].iter().all(|one| one.as_ref().is_err_and(PublishError::is_not_stored)));
    assert!(began.elapsed() <= limits.deadline * 3, "nothing goes on: all end together");
}

#[tokio::test(start_paused = true)]
async fn events_of_one_key_share_a_partition() {
    let (_, publisher) = gated(0, false, PublishLimits::default());
    publisher.0.topics.learn(&Topic::new("a").expect("valid"), 8).expect("valid");
    let partition = async |key: Option<&str>| {
        let event_type = EventType::from_static("a.b");
        let builder = Envelope::builder(event_type, ContentType::JSON, "1", SystemClock.now());
        let envelope = builder.key(key.map(str::to_owned)).build().expect("within limits");
        publisher.partition(&envelope).await.expect("declared").index
    };
    // What `docs/wire.md` says: xxh3_64(key) mod partitions.
    let expected = u32::try_from(xxh3_64(b"user_carol") % 8).expect("below eight");
    for _ in 0..10 {
        assert_eq!(partition(Some("user_carol")).await, expected);
    }
    let mut turns = std::collections::BTreeSet::new();
    for _ in 0..8 {
        turns.insert(partition(None).await);
    }
    assert_eq!(turns.len(), 8, "events without a key go to each in turn");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_grows_is_noticed() {
    let (_, gated) = gated(0, false, PublishLimits::default());
    let driver = MemoryDriver::new(MemoryOptions::default());
    let store = Arc::clone(&driver) as Arc<dyn Driver>;
    let publisher = Publisher::new(store, gated.0.limits, Arc::clone(&gated.0.encoder));
    let event_type = EventType::from_static("a.b");
    let builder = Envelope::builder(event_type, ContentType::JSON, "1", SystemClock.now());
    let envelope = builder.key(Some("user_carol")).build().expect("within limits");
    let index = async || publisher.partition(&envelope).await.expect("declared").index;
    assert_eq!(index().await, 0);
    driver.set_partitions(&Topic::new("a").expect("valid"), 256).await.expect("grown");
    assert_eq!(index().await, 0, "what is known lasts a while");
    tokio::time::advance(SHAPE_KEPT).await;
    let expected = u32::try_from(xxh3_64(b"user_carol") % 256).expect("small");
    assert_ne!(expected, 0);
    let noticed = async {
        while index().await != expected {
            tokio::task::yield_now().await;
        }
    };
    timeout(SHAPE_KEPT, noticed).await.expect("noticed");
}

#[tokio::test(start_paused = true)]
async fn deduplicated_events_go_in_batches_of_their_own_and_by_their_ids() {
    let limits = PublishLimits { inflight_appends_max: 1, ..PublishLimits::default() };
    let (driver, publisher) = gated(0, false, limits);
    let mut asked = Vec::new();
    for (number, deduplicate) in [false, false, true, true, false].into_iter().enumerate() {
        let event = event(&number.to_string());
        asked.push(accepted(&publisher, event, deduplicate).await);
    }
    driver.gate.add_permits(100);
    for asked in asked {
        asked.await.expect("stored");
    }
    let batches: Vec<usize> = driver.batches.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(batches, [2, 2, 1], "what was asked before the writer ran goes together");
    publisher.0.topics.learn(&Topic::new("a").expect("valid"), 8).expect("valid");
    let event = event("1");
    let expected = u32::try_from(xxh3_64(event.id().as_bytes()) % 8).expect("below eight");
    for _ in 0..3 {
        let partition = publisher.partition_until(&event, true, publisher.until()).await;
        assert_eq!(partition.expect("known").index, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn many_events_share_one_deadline() {
    let limits = PublishLimits { inflight_appends_max: 1, ..PublishLimits::default() };
    let limits = PublishLimits { batch_events_max: 1, ..limits };
    let (driver, publisher) = gated(0, false, limits);
    let start = Instant::now();
    let first = tokio::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish_envelope(event("0")).await }
    });
    while driver.batches.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let answers = publisher.publish_envelopes(events(1..10)).await;
    assert_eq!(start.elapsed(), limits.deadline);
    let is_certain = |answer: &Answer| answer.as_ref().is_err_and(PublishError::is_not_stored);
    assert!(answers.iter().all(is_certain), "what was not sent yet is certain: {answers:?}");
    let error = first.await.expect("no panic").expect_err("late");
    assert!(!error.is_not_stored(), "what was sent is not: {error}");
}

/// Answers the first question for a topic last.
struct Hesitant {
    asked: AtomicU64,
    stored: Mutex<Vec<String>>,
}

#[async_trait]
impl Publish for Hesitant {
    async fn declare(&self, topic: &Topic) -> Result<TopicShape, Error> {
        let earlier = self.asked.fetch_add(1, Ordering::Relaxed);
        // waits: paused time
        tokio::time::sleep(Duration::from_secs(2 / (earlier + 1))).await;
        Ok(TopicShape { topic: topic.clone(), partitions: 1 })
    }

    async fn append(&self, appends: Vec<Append>) -> Vec<Result<Appended, PublishError>> {
        let text = |envelope: &Envelope| String::from_utf8(envelope.payload().to_vec()).unwrap();
        let texts = appends.iter().flat_map(|append| append.envelopes.iter().map(text));
        self.stored.lock().unwrap().extend(texts);
        let entry = Some(EntryId { millis: 1, seq: 0 });
        vec![Ok(Appended { entry, durability: Durability::Memory, places: Vec::new() })]
    }
}

#[async_trait]
impl Subscribe for Hesitant {
    async fn subscribe(&self, _: Subscription) -> Result<Feed, Error> {
        Err(Error::new(ErrorKind::Unsupported, "this store is only written"))
    }
}

#[async_trait]
impl Driver for Hesitant {
    async fn close(&self) {}
}

#[tokio::test(start_paused = true)]
async fn the_first_events_of_a_topic_do_not_overtake_each_other() {
    let (_, gated) = gated(0, false, PublishLimits::default());
    let driver = Arc::new(Hesitant { asked: AtomicU64::new(0), stored: Mutex::default() });
    let store = Arc::clone(&driver) as Arc<dyn Driver>;
    let publisher = Publisher::new(store, gated.0.limits, Arc::clone(&gated.0.encoder));
    let publish = |number: u32| publisher.publish_envelope(event(&number.to_string()));
    let answers = futures_util::future::join_all((0..4).map(publish)).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(*driver.stored.lock().unwrap(), ["0", "1", "2", "3"]);
}

/// One call carries all that waits, and each of its entries has an answer of its own.
#[tokio::test(start_paused = true)]
async fn what_waits_goes_in_one_call() {
    let limits = PublishLimits { inflight_appends_max: 1, ..PublishLimits::default() };
    let (driver, publisher) = gated(1, false, PublishLimits { batch_events_max: 2, ..limits });
    let answers = publisher.publish_envelopes(events(0..7)).await;
    let sizes: Vec<usize> = driver.batches.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2, 2, 1], "in one call: the gate was opened once");
    let position = |answer: Answer| {
        let position = answer.expect("stored").position.expect("in the log");
        (position.entry.millis, position.index)
    };
    let positions: Vec<_> = answers.into_iter().map(position).collect();
    assert_eq!(positions, [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0)]);
}
