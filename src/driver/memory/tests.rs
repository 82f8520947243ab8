//! What the conformance suite cannot see.

mod limits;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{advance, timeout};

use super::{MemoryDriver, MemoryOptions};
use crate::delivery::{Cause, Delivery, Entry, Failure, Outcome, Partition, Settled, Start};
use crate::driver::{
    Append, Driver, Feed, Follow, GroupName, LeaseTimes, Publish, Subscribe, Subscription, Tools,
};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind};
use crate::{ContentType, EventType, Pattern, Timestamp};

const DEADLINE: Duration = Duration::from_secs(60);
/// What [`append`] weighs with a payload of one byte.
fn weight() -> usize {
    append("1").envelopes[0].weight()
}

fn partition(index: u32) -> Partition {
    Partition { topic: "memory".parse().unwrap(), index }
}

fn append(payload: &'static str) -> Append {
    let event_type = EventType::from_static("memory.tested");
    let now = Timestamp::from_millis(1_700_000_000_000);
    let envelope = Envelope::builder(event_type, ContentType::JSON, payload, now).build().unwrap();
    Append {
        partition: partition(0),
        envelopes: vec![envelope],
        delay: Duration::ZERO,
        deduplicate: false,
    }
}

fn room_for(events: usize) -> MemoryOptions {
    MemoryOptions { unsettled_bytes_max: events * weight(), ..MemoryOptions::default() }
}

async fn driver(options: MemoryOptions) -> Arc<MemoryDriver> {
    let driver = MemoryDriver::new(options);
    driver.declare(&partition(0).topic).await.unwrap();
    driver
}

async fn subscribe(driver: &MemoryDriver, group: &str) -> Feed {
    let subscription = Subscription {
        group: GroupName::new(group.to_owned()).unwrap(),
        routes: vec![(Pattern::all(), None)],
        start: Start::Earliest,
        lease: LeaseTimes::default(),
        park_keys: false,
    };
    driver.subscribe(subscription).await.unwrap()
}

async fn fetch(feed: &mut Feed, budget: usize) -> Vec<Delivery> {
    let entries = timeout(DEADLINE, feed.source.fetch(budget)).await.expect("entries in time");
    let entries = entries.unwrap().into_iter().map(Arc::new);
    entries.flat_map(|entry| Entry::deliveries(&entry).collect::<Vec<_>>()).collect()
}

async fn end(feed: &Feed, deliveries: Vec<Delivery>, outcome: Outcome) {
    let ends = deliveries.into_iter().map(|delivery| delivery.settle(outcome.clone()));
    for answer in feed.settler.settle(ends.collect()).await {
        assert_eq!(answer.unwrap(), Settled::Done);
    }
}

fn reject() -> Outcome {
    Outcome::DeadLetter { failure: Failure::new(Cause::Rejected, "no") }
}

fn retry() -> Outcome {
    Outcome::Retry { after: Duration::from_secs(1), failure: Failure::new(Cause::Failed, "no") }
}

fn refusal(answer: &Result<crate::driver::Appended, crate::PublishError>) -> &Error {
    let error = answer.as_ref().unwrap_err();
    assert!(error.is_not_stored());
    error.error()
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_what_another_took_over_is_cancelled() {
    let driver = driver(MemoryOptions::default()).await;
    let mut first = subscribe(&driver, "readers").await;
    let mut second = subscribe(&driver, "readers").await;
    driver.append(vec![append("1")]).await[0].as_ref().unwrap();
    let lost = fetch(&mut first, 1).await;
    drop(first.source);
    assert!(!lost[0].entry.lease.is_cancelled(), "nobody has it yet");
    let held = fetch(&mut second, 1).await;
    assert!(lost[0].entry.lease.is_cancelled());
    assert!(!held[0].entry.lease.is_cancelled());
    assert_ne!(lost[0].entry.token, held[0].entry.token);
}

#[tokio::test(start_paused = true)]
async fn who_died_may_still_settle_what_nobody_took_over() {
    let driver = driver(MemoryOptions::default()).await;
    let mut first = subscribe(&driver, "readers").await;
    driver.append(vec![append("1")]).await[0].as_ref().unwrap();
    let deliveries = fetch(&mut first, 1).await;
    let Feed { source, settler, .. } = first;
    drop(source);
    let settlement = deliveries[0].clone().settle(retry());
    assert_eq!(settler.settle(vec![settlement]).await[0].as_ref().unwrap(), &Settled::Done);
    let mut second = subscribe(&driver, "readers").await;
    let again = fetch(&mut second, 5).await;
    assert_eq!((again.len(), again[0].attempt()), (1, 2));
    let more = timeout(LeaseTimes::default().lease * 2, second.source.fetch(1)).await;
    assert!(more.is_err(), "there is nothing more to take over");
}

#[tokio::test(start_paused = true)]
async fn routes_are_forgotten_a_day_after_their_last_member() {
    let driver = driver(MemoryOptions::default()).await;
    let mut staying = subscribe(&driver, "deployed").await;
    let subscription = Subscription {
        group: "deployed".parse().unwrap(),
        routes: vec![("memory.*".parse().unwrap(), Some(1))],
        start: Start::New,
        lease: LeaseTimes::default(),
        park_keys: false,
    };
    drop(driver.subscribe(subscription).await.unwrap());
    let event_type = EventType::from_static("memory.tested");
    assert!(staying.routes.covers(&event_type, 1));
    advance(Duration::from_secs(24 * 60 * 60)).await;
    driver.append(vec![append("1")]).await[0].as_ref().unwrap();
    fetch(&mut staying, 1).await;
    let state = driver.store.state();
    let place = state.group_places[&"deployed".parse::<GroupName>().unwrap()];
    assert_eq!(state.groups[place].routes_kept(), 0);
    assert!(staying.routes.covers(&event_type, 9), "its own route is live");
}

#[tokio::test(start_paused = true)]
async fn outputs_to_a_topic_that_nobody_declared_are_refused_and_change_nothing() {
    let driver = driver(MemoryOptions::default()).await;
    let mut feed = subscribe(&driver, "readers").await;
    driver.append(vec![append("1")]).await[0].as_ref().unwrap();
    let deliveries = fetch(&mut feed, 1).await;
    let envelope = append("out").envelopes.remove(0);
    let unknown = Partition { topic: "unknown".parse().unwrap(), index: 0 };
    let outputs = vec![
        crate::delivery::Output { partition: partition(0), envelope: envelope.clone() },
        crate::delivery::Output { partition: unknown, envelope },
    ];
    let settlement = deliveries[0].clone().settle(Outcome::Ack { outputs });
    let answers = feed.settler.settle(vec![settlement]).await;
    assert_eq!(answers[0].as_ref().unwrap_err().kind(), ErrorKind::Invalid);
    let backlog = driver.backlog(&"readers".parse().unwrap()).await.unwrap();
    assert_eq!((backlog.unread, backlog.pending), (0, 1));
    end(&feed, deliveries, Outcome::ack()).await;
}
