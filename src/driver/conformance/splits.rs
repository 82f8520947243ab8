//! Splits: work is handed to whoever is free, at once and unchanged.

use std::time::Duration;

use tokio::time::Instant;

use super::Fixture;
use super::kit::{
    CLOCK_SLACK, Client, TOPIC, all, partition, payload, payloads, retry, sorted, split,
};
use crate::delivery::{EntryId, Outcome, Position, Queue, Settled};
use crate::driver::{Backlog, LeaseTimes};

/// What a draining consumer hands back reaches a waiting one at once: long before the lease.
pub async fn split_wakes_another_consumer(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut wish = client.wish("readers");
    wish.lease = LeaseTimes::default();
    let mut draining = client.subscribe(wish.clone()).await;
    let mut other = client.subscribe(wish).await;
    client.publish_batch(&["a", "b", "c"]).await;
    let deliveries = draining.take(3).await;
    draining.feed.source.close().await;
    let split = split();
    let (taken, ()) = tokio::join!(other.take(2), draining.end(&deliveries[1..], &split));
    assert_eq!(sorted(&taken), ["b", "c"]);
    draining.ack(&deliveries[..1]).await;
    other.ack(&taken).await;
    client.settles_to("readers", Backlog::default()).await;
}

/// A split is no failure: attempt and first position stay, also through a second split.
pub async fn split_keeps_the_attempt(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let id: EntryId = client.publish_batch(&["a", "b"]).await;
    let deliveries = consumer.take(2).await;
    consumer.ack(&deliveries[..1]).await;
    let origin = Position { partition: partition(TOPIC, 0), entry: id, index: 1 };
    let mut current = deliveries[1].clone();
    for (outcome, attempt) in
        [(split(), 1), (retry(Duration::ZERO), 2), (split(), 2), (split(), 2), (Outcome::ack(), 2)]
    {
        assert_eq!(current.record(), deliveries[1].record());
        assert_eq!(current.origin(), origin);
        consumer.end(&[current.clone()], &outcome).await;
        if outcome == Outcome::ack() {
            break;
        }
        current = consumer.take(1).await.remove(0);
        assert_eq!((current.attempt(), current.entry.queue), (attempt, Queue::Retry));
        assert_eq!(current.entry.records.len(), 1);
    }
    client.settles_to("readers", Backlog::default()).await;
}

/// A split may wait, as when no member that is here can decode the event.
pub async fn a_split_may_wait(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    client.publish(&["a"]).await;
    let deliveries = consumer.take(1).await;
    let (after, start) = (Duration::from_millis(300), Instant::now());
    consumer.end(&deliveries, &Outcome::Split { after }).await;
    client.keeps_back("readers", start, after).await;
    let again = consumer.take(1).await;
    assert!(start.elapsed() + CLOCK_SLACK >= after, "it came after {:?}", start.elapsed());
    assert_eq!((payload(&again[0]).as_str(), again[0].attempt()), ("a", 1));
    consumer.ack(&again).await;
}

/// What is split off is gone from its entry; the rest stays with its holder.
pub async fn a_split_leaves_the_rest_of_its_entry(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut holder = client.join("readers").await;
    client.publish_batch(&["kept", "split"]).await;
    let deliveries = holder.take(2).await;
    holder.end(&deliveries[1..], &split()).await;
    let repeat = holder.settle(all(&deliveries[1..], &Outcome::ack())).await;
    assert_eq!(repeat, [Settled::Already]);
    drop(holder);
    let mut heir = client.join("readers").await;
    let inherited = heir.take(2).await;
    assert_eq!(sorted(&inherited), ["kept", "split"]);
    heir.ack(&inherited).await;
    assert_eq!(payloads(&deliveries), ["kept", "split"]);
    client.settles_to("readers", Backlog::default()).await;
}
