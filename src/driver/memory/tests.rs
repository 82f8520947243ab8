//! What the conformance suite cannot see: limits, waiting for room, and that memory stays flat.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{MemoryDriver, MemoryOptions};
use crate::delivery::{Entry, Outcome, Partition, Settled, Start};
use crate::driver::{
    Append, Driver, Feed, GroupName, LeaseTimes, Publish, Subscribe, Subscription,
};
use crate::envelope::Envelope;
use crate::error::ErrorKind;
use crate::{ContentType, EventType, Pattern, Timestamp};

const DEADLINE: Duration = Duration::from_secs(60);

fn partition() -> Partition {
    "memory:0".parse().expect("valid")
}

fn append(payload: &'static [u8]) -> Append {
    let event_type = EventType::from_static("memory.tested");
    let now = Timestamp::from_millis(1_700_000_000_000);
    let envelope = Envelope::builder(event_type, ContentType::JSON, payload, now).build().unwrap();
    Append { partition: partition(), envelopes: vec![envelope], delay: Duration::ZERO }
}

async fn driver(options: MemoryOptions) -> Arc<MemoryDriver> {
    let driver = MemoryDriver::new(options);
    driver.declare(&partition().topic).await.unwrap();
    driver
}

async fn subscribe(driver: &MemoryDriver, group: &str) -> Feed {
    let subscription = Subscription {
        group: GroupName::new(group.to_owned()).unwrap(),
        routes: vec![(Pattern::all(), None)],
        start: Start::Earliest,
        lease: LeaseTimes::default(),
    };
    driver.subscribe(subscription).await.unwrap()
}

async fn fetch(feed: &mut Feed, budget: usize) -> Vec<Arc<Entry>> {
    let entries = timeout(DEADLINE, feed.source.fetch(budget)).await.expect("entries come");
    entries.unwrap().into_iter().map(Arc::new).collect()
}

async fn ack_all(feed: &Feed, entries: &[Arc<Entry>]) {
    let acks = entries.iter().flat_map(Entry::deliveries).map(|d| d.settle(Outcome::ack()));
    for answer in feed.settler.settle(acks.collect()).await {
        assert_eq!(answer.unwrap(), Settled::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_waits_for_room_and_gets_it() {
    let options = MemoryOptions { unsettled_bytes_max: 300, ..MemoryOptions::default() };
    let driver = driver(options).await;
    let mut feed = subscribe(&driver, "slow").await;
    for answer in driver.append(vec![append(b"1"), append(b"2")]).await {
        answer.unwrap();
    }
    let third = tokio::spawn({
        let driver = Arc::clone(&driver);
        async move { driver.append(vec![append(b"3")]).await }
    });
    tokio::task::yield_now().await;
    assert!(!third.is_finished());
    let entries = fetch(&mut feed, 1).await;
    ack_all(&feed, &entries).await;
    assert!(third.await.unwrap()[0].is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_append_without_room_is_not_stored_at_its_deadline() {
    let options = MemoryOptions { unsettled_bytes_max: 300, ..MemoryOptions::default() };
    let driver = driver(options).await;
    let mut feed = subscribe(&driver, "slow").await;
    let answers = driver.append((0..4).map(|_| append(b"x")).collect()).await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(stored, 2);
    for answer in &answers[2..] {
        let error = answer.as_ref().unwrap_err();
        assert!(error.is_not_stored());
        assert_eq!(error.error().kind(), ErrorKind::Timeout);
    }
    assert_eq!(fetch(&mut feed, 10).await.len(), 2);
    driver.close().await;
    assert!(fetch(&mut feed, 10).await.is_empty());
}
