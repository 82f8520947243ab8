//! Topics and partitions: all that match are read, also those that appear later.

use std::collections::BTreeMap;

use super::Fixture;
use super::kit::{Client, TOPIC, WATCH, partition, payload, texts, topic};

/// A consumer reads every partition of a topic, each in order.
pub async fn several_partitions_are_all_read(fixture: &dyn Fixture) {
    fixture.partitions(&topic("wide"), 3).await;
    let client = Client::patient(fixture).await;
    let partitions = client.declare("wide").await;
    assert_eq!(partitions.len(), 3);
    let mut consumer = client.join("readers").await;
    let mut sent = BTreeMap::new();
    for partition in &partitions {
        let own = texts(&format!("{partition} "), 20);
        client.publish_to(partition, &own).await;
        sent.insert(partition.clone(), own);
    }
    let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let deliveries = consumer.take(60).await;
    for delivery in &deliveries {
        found.entry(delivery.entry.partition.clone()).or_default().push(payload(delivery));
    }
    assert_eq!(found, sent);
    consumer.ack(&deliveries).await;
}

/// A topic that is declared after the subscription is read from its first event, whether it is
/// published at once or while the consumer waits.
pub async fn topic_that_appears_later_under_a_wildcard(fixture: &dyn Fixture) {
    let (client, publisher) = (Client::patient(fixture).await, Client::patient(fixture).await);
    let mut all = client.join("all").await;
    let mut wish = client.wish("middle");
    wish.routes = vec![("*.thing.>".parse().expect("a pattern"), None)];
    let mut middle = client.subscribe(wish).await;
    let first = publisher.declare("first_later").await;
    publisher.publish_to(&first[0], &["a", "b"]).await;
    assert_eq!(all.handle(2).await, ["a", "b"]);
    assert_eq!(middle.handle(2).await, ["a", "b"]);
    let appear = async {
        tokio::task::yield_now().await;
        let second = publisher.declare("second_later").await;
        publisher.publish_to(&second[0], &["c"]).await
    };
    let (handled, _) = tokio::join!(all.handle(1), appear);
    assert_eq!(handled, ["c"]);
    assert_eq!(middle.handle(1).await, ["c"]);
}

/// A topic may be subscribed to by its name before it exists; even a start at `New` misses
/// nothing of it.
pub async fn a_named_topic_may_appear_later(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut wish = client.wish("readers");
    wish.routes = vec![("unborn.>".parse().expect("a pattern"), None)];
    wish.start = crate::delivery::Start::New;
    let mut consumer = client.subscribe(wish).await;
    client.publish(&["another topic's"]).await;
    let partitions = client.declare("unborn").await;
    client.publish_to(&partitions[0], &["born"]).await;
    assert_eq!(consumer.handle(1).await, ["born"]);
    consumer.gets_nothing(WATCH).await;
}

/// A consumer gets the topics of its own patterns, not all that its group reads.
pub async fn a_consumer_gets_its_own_topics_only(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    client.declare("other").await;
    let mut consumers = Vec::new();
    for pattern in ["conformance.>", "other.>"] {
        let mut wish = client.wish("both");
        wish.routes = vec![(pattern.parse().expect("a pattern"), None)];
        consumers.push(client.subscribe(wish).await);
    }
    client.publish(&["usual"]).await;
    client.publish_to(&partition("other", 0), &["other"]).await;
    assert_eq!(consumers[1].handle(1).await, ["other"]);
    assert_eq!(consumers[0].handle(1).await, ["usual"]);
    for consumer in &mut consumers {
        consumer.gets_nothing(WATCH).await;
    }
}

/// Declaring a topic again, by this client or another, leaves it as it is.
pub async fn declaring_again_changes_nothing(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    client.publish(&["a"]).await;
    let other = Client::patient(fixture).await;
    assert_eq!(client.declare(TOPIC).await, other.declare(TOPIC).await);
    client.publish(&["b"]).await;
    assert_eq!(consumer.handle(2).await, ["a", "b"]);
}
