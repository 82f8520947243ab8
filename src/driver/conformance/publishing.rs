//! Publishing: what goes in comes out, whole, in order, with one answer each.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Fixture;
use super::kit::{
    CLOCK_SLACK, Client, TOPIC, entry, event, partition, payload, payloads, retry, texts, topic,
};
use crate::codec::ContentType;
use crate::delivery::{Cause, EntryId, Failure, Outcome, Queue};
use crate::driver::Append;
use crate::envelope::{Envelope, HEADER_BYTES_MAX, HEADERS_MAX, PAYLOAD_BYTES_MAX};
use crate::event_type::EventType;
use crate::time::Timestamp;

/// Publishes an event and holds what comes against it, also after a retry.
async fn survives(fixture: &dyn Fixture, envelope: Envelope) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    client.append(vec![entry(&partition(TOPIC, 0), vec![envelope.clone()])]).await;
    let first = consumer.take(1).await;
    assert_eq!(first[0].record(), &Ok(envelope.clone()));
    consumer.end(&first, &retry(Duration::ZERO)).await;
    let second = consumer.take(1).await;
    assert_eq!(second[0].record(), &Ok(envelope));
    consumer.ack(&second).await;
}

/// Each of the 256 bytes arrives as it was.
pub async fn round_trip_of_every_byte_value(fixture: &dyn Fixture) {
    survives(fixture, event((0..=u8::MAX).collect::<Vec<u8>>())).await;
}

/// No payload is a payload.
pub async fn empty_payload(fixture: &dyn Fixture) {
    survives(fixture, event(Bytes::new())).await;
}

/// The largest payload that an envelope may carry.
pub async fn largest_payload(fixture: &dyn Fixture) {
    let bytes = (0..PAYLOAD_BYTES_MAX).map(|at| u8::try_from(at % 251).expect("below 251"));
    survives(fixture, event(bytes.collect::<Vec<u8>>())).await;
}

/// Every optional field, as many headers as there may be, and control characters in them.
pub async fn headers_and_optional_fields_survive(fixture: &dyn Fixture) {
    let event_type = EventType::from_static("conformance.everything.set");
    let content_type = ContentType::new("text/plain; charset=utf-8").expect("a content type");
    let now = Timestamp::from_millis(1_767_323_045_001);
    let mut builder = Envelope::builder(event_type, content_type, "naïve\r\n\0", now)
        .version(u32::MAX)
        .key(Some("ключ\n"))
        .source("suite/1")
        .expires_after(Duration::from_secs(86_400))
        .traceparent(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
        .correlation_id(Some("correlation"))
        .causation_id(Some("causation"));
    let value = HEADER_BYTES_MAX / HEADERS_MAX - 4;
    for number in 0..HEADERS_MAX {
        builder = builder.header(format!("h {number:02}"), "v".repeat(value));
    }
    survives(fixture, builder.build().expect("within the limits")).await;
}

/// The answers stand in the order of the appends, and ids ascend in it.
pub async fn receipts_in_order(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let sent = texts("event ", 100);
    let ids = client.publish(&sent).await;
    assert!(ids[0] > EntryId::ZERO && ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    let deliveries = consumer.take(100).await;
    assert_eq!(payloads(&deliveries), sent);
    assert_eq!(deliveries.iter().map(|delivery| delivery.entry.id).collect::<Vec<_>>(), ids);
    assert!(deliveries.iter().all(|delivery| delivery.entry.queue == Queue::Log));
}

/// As many answers as appends, none included, whatever their sizes and partitions.
pub async fn one_answer_per_append(fixture: &dyn Fixture) {
    fixture.partitions(&topic("wide"), 3).await;
    let client = Client::patient(fixture).await;
    let partitions = client.declare("wide").await;
    let mut consumer = client.join("readers").await;
    assert!(client.append(Vec::new()).await.is_empty());
    let mut sent: BTreeMap<_, Vec<(EntryId, usize)>> = BTreeMap::new();
    let targets: Vec<_> = partitions.iter().cycle().take(10).collect();
    let batch = |size: usize| (0..size).map(|at| event(format!("{size}/{at}"))).collect();
    let appends = targets.iter().zip(1..).map(|(partition, size)| entry(partition, batch(size)));
    let answers = client.append(appends.collect()).await;
    for ((partition, size), answer) in targets.into_iter().zip(1_usize..).zip(answers) {
        let id = answer.entry.expect("an id");
        sent.entry(partition.clone()).or_default().push((id, size));
    }
    let mut found: BTreeMap<_, Vec<(EntryId, usize)>> = BTreeMap::new();
    let mut events = 0;
    while events < (1..=10).sum() {
        for entry in consumer.fetch(100).await {
            events += entry.records.len();
            let own = found.entry(entry.partition.clone()).or_default();
            own.push((entry.id, entry.records.len()));
        }
    }
    assert_eq!(found, sent);
}

/// Events that are appended together are delivered together, in their order.
pub async fn a_batch_is_one_entry(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let sent = texts("event ", 50);
    let id = client.publish_batch(&sent).await;
    let entries = consumer.fetch(50).await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].id, &entries[0].partition), (id, &partition(TOPIC, 0)));
    let deliveries: Vec<_> = entries[0].deliveries().collect();
    assert_eq!(payloads(&deliveries), sent);
    for (index, delivery) in deliveries.iter().enumerate() {
        assert_eq!((delivery.index as usize, delivery.attempt()), (index, 1));
        let origin = delivery.origin();
        assert_eq!((origin.entry, origin.index), (id, delivery.index));
    }
}

/// Calls that run side by side are stored in the order in which they began.
pub async fn appends_of_one_partition_keep_their_order(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let sent = texts("event ", 40);
    let append = |payload: &String| {
        let append = entry(&partition(TOPIC, 0), vec![event(payload.clone())]);
        client.append(vec![append])
    };
    futures_util::future::join_all(sent.iter().map(append)).await;
    assert_eq!(payloads(&consumer.take(40).await), sent);
}

/// A delayed event has no place yet, lets others pass, and comes when its time has passed.
pub async fn delayed_publish_is_kept_back(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let delay = Duration::from_millis(400);
    let start = Instant::now();
    let partition = partition(TOPIC, 0);
    let delayed = Append { delay, ..entry(&partition, vec![event("a"), event("b")]) };
    let appended = client.append(vec![delayed]).await;
    assert_eq!(appended[0].entry, None);
    client.publish(&["now"]).await;
    assert_eq!(consumer.handle(1).await, ["now"]);
    let late = consumer.take(2).await;
    assert_eq!(payloads(&late), ["a", "b"]);
    assert!(start.elapsed() + CLOCK_SLACK >= delay, "it came after {:?}", start.elapsed());
    assert_eq!(late[0].attempt(), 1);
    consumer.ack(&late).await;
}

/// What is no event arrives with its raw fields, can be buried with them, and stops nobody.
pub async fn malformed_entry_is_delivered_as_malformed(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let raw = |text: &'static str| Bytes::from_static(text.as_bytes());
    let fields = vec![(raw("foo"), raw("bar")), (raw("\0"), Bytes::from_static(&[0xff, 0, 10]))];
    if !fixture.foreign(&partition(TOPIC, 0), fields.clone()).await {
        return;
    }
    client.publish(&["good"]).await;
    let deliveries = consumer.take(2).await;
    let malformed = deliveries[0].record().as_ref().expect_err("no event");
    assert_eq!(malformed.fields, fields);
    assert!(!malformed.reason.is_empty());
    assert_eq!(payload(&deliveries[1]), "good");
    let failure = Failure::new(Cause::Malformed, malformed.reason.clone());
    consumer.end(&deliveries[..1], &Outcome::DeadLetter { failure: failure.clone() }).await;
    consumer.ack(&deliveries[1..]).await;
    let Some(tools) = client.driver.tools() else { return };
    let dead = tools.dead_letters(&super::kit::group("readers"), 10).await.expect("dead letters");
    assert_eq!(dead.len(), 1);
    assert_eq!((&dead[0].record, &dead[0].failure), (deliveries[0].record(), &failure));
}
