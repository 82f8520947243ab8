//! The powers that tools use. A driver without them passes.

use std::time::Duration;

use tokio::time::timeout;

use super::Fixture;
use super::kit::{
    Client, DEADLINE, TOPIC, comeback, dead_letter, group, partition, payloads, retry, texts, topic,
};
use crate::delivery::{Delivery, Entry, EntryId, Queue};
use crate::driver::admin::{Count, Why};
use crate::driver::{Backlog, Extent, TopicShape};

/// The backlog follows an event from unread to settled.
pub async fn backlog_tells_the_truth(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(nobody) = client.backlog("nobody").await else { return };
    assert_eq!(nobody, Backlog::default());
    let idle = client.join("readers").await;
    client.publish(&["a", "b", "c", "d"]).await;
    let waiting = client.backlog("readers").await.expect("tools as before");
    // A driver may have read ahead for the consumer, in part or in whole.
    assert!(waiting.unread + waiting.pending > 0 && !waiting.is_settled(), "{waiting:?}");
    drop(idle);
    let mut consumer = client.join("readers").await;
    let deliveries = consumer.take(4).await;
    client.settles_to("readers", Backlog { pending: 4, ..Backlog::default() }).await;
    consumer.end(&deliveries[..1], &retry(comeback(fixture) * 10)).await;
    consumer.end(&deliveries[1..2], &dead_letter()).await;
    consumer.ack(&deliveries[2..3]).await;
    let backlog = Backlog { pending: 1, due: 1, dead: 1, ..Backlog::default() };
    client.settles_to("readers", backlog).await;
    consumer.ack(&deliveries[3..]).await;
    client.settles_to("readers", Backlog { due: 1, dead: 1, ..Backlog::default() }).await;
    assert!(!Backlog { due: 1, ..Backlog::default() }.is_settled());
}

/// Reading a log takes nothing from a group, and tells every event from a given one on.
pub async fn tail_reads_without_a_group(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(tools) = client.driver.tools() else { return };
    let mut consumer = client.join("readers").await;
    let sent = texts("event ", 10);
    let ids = client.publish(&sent).await;
    let log = partition(TOPIC, 0);
    for (after, expected) in
        [(EntryId::ZERO, &sent[..]), (ids[0], &sent[1..]), (ids[8], &sent[9..])]
    {
        let after = [(log.clone(), after)];
        let entries = tools.read(&after, 100, Duration::ZERO).await.expect("entries");
        assert!(entries.iter().all(|entry| entry.queue == Queue::Log && entry.partition == log));
        assert_eq!(events(entries), expected);
    }
    let first = tools.read(&[(log.clone(), EntryId::ZERO)], 3, Duration::ZERO).await;
    assert_eq!(events(first.expect("entries")), sent[..3]);
    let none = tools.read(&[(log, ids[9])], 3, Duration::ZERO).await.expect("no entries");
    assert!(none.is_empty());
    assert_eq!(consumer.handle(10).await, sent);
}

/// Reading waits for the first entry, and not for ever.
pub async fn tail_waits_for_what_comes(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(tools) = client.driver.tools() else { return };
    let log = partition(TOPIC, 0);
    let after = [(log.clone(), tools.end(&log).await.expect("an id"))];
    let nothing = tools.read(&after, 10, Duration::from_millis(50)).await.expect("no entries");
    assert!(nothing.is_empty());
    let publish = async {
        tokio::task::yield_now().await;
        client.publish(&["a"]).await
    };
    let (read, _) = tokio::join!(timeout(DEADLINE, tools.read(&after, 10, DEADLINE * 2)), publish);
    assert_eq!(events(read.expect("an entry in time").expect("an entry")), ["a"]);
}

/// `latest` gives the last entries, oldest first; `end` the id of the last.
pub async fn latest_and_end_tell_the_last(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(tools) = client.driver.tools() else { return };
    let log = partition(TOPIC, 0);
    assert_eq!(tools.end(&log).await.expect("an id"), EntryId::ZERO);
    assert_eq!(tools.extent(&log).await.expect("an extent"), Extent::default());
    assert!(tools.latest(&log, 5).await.expect("no entries").is_empty());
    let sent = texts("event ", 10);
    let ids = client.publish(&sent).await;
    assert_eq!(tools.end(&log).await.expect("an id"), ids[9]);
    let extent = tools.extent(&log).await.expect("an extent");
    assert_eq!((extent.first, extent.last), (Some(ids[0]), ids[9]));
    assert_eq!((extent.added, extent.kept, extent.gone()), (10, 10, 0));
    let latest = tools.latest(&log, 3).await.expect("entries");
    assert_eq!(latest.iter().map(|entry| entry.id).collect::<Vec<_>>(), ids[7..]);
    assert_eq!(events(latest), sent[7..]);
    assert_eq!(events(tools.latest(&log, 100).await.expect("entries")), sent);
}

/// Every declared topic is listed by name, with its partitions.
pub async fn topics_are_listed(fixture: &dyn Fixture) {
    fixture.partitions(&topic("wide"), 3).await;
    let client = Client::new(fixture).await;
    client.declare("wide").await;
    client.declare("another").await;
    let Some(tools) = client.driver.tools() else { return };
    let shape = |name, partitions| TopicShape { topic: topic(name), partitions };
    let shapes = tools.topics().await.expect("topics");
    let names: Vec<_> = shapes.iter().map(|shape| shape.topic.as_str()).collect();
    assert_eq!(names, ["another", TOPIC, "wide"]);
    assert!(shapes.contains(&shape("wide", 3)), "{shapes:?}");
    assert!(tools.dead_letters(&group("nobody"), 5).await.expect("none").is_empty());
}

fn events(entries: Vec<Entry>) -> Vec<String> {
    let entries = entries.into_iter().map(std::sync::Arc::new);
    let deliveries: Vec<Delivery> =
        entries.flat_map(|entry| entry.deliveries().collect::<Vec<_>>()).collect();
    payloads(&deliveries)
}

/// A report says from which entry on a group holds a log, and why.
pub async fn a_group_holds_what_it_has_not_settled(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let mut consumer = client.join("readers").await;
    let ids = client.publish(&["1", "2", "3"]).await;
    let holds = async || {
        let report = admin.topic(&topic(TOPIC)).await.expect("a report");
        let groups = report.partitions.into_iter().flat_map(|part| part.groups);
        groups.last().expect("the group reads it").holds
    };
    let before = holds().await;
    assert_eq!((before.oldest, before.entries), (Some(ids[0]), Count::exact(3)));
    // A driver may have read ahead for the consumer.
    assert!(matches!(before.why, Why::Unread | Why::Pending { .. }), "{before:?}");
    assert_eq!((before.foreign, before.until), (false, None));
    assert!(before.last_seen.is_some() && before.bytes_estimate.is_some_and(|bytes| bytes > 0));
    let first = consumer.take(1).await;
    let name = consumer.feed.consumer.clone();
    let running = holds().await;
    assert_eq!((running.oldest, running.entries), (Some(ids[0]), Count::exact(3)));
    assert_eq!(running.why, Why::Pending { consumer: name });
    consumer.ack(&first).await;
    consumer.handle(2).await;
    let after = holds().await;
    assert_eq!((after.oldest, after.entries, after.why), (None, Count::ZERO, Why::Settled));
}
