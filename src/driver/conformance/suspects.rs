//! Suspects: what was there each time a consumer died is told from what kills it.

use std::time::Duration;

use tokio::time::timeout;

use super::Fixture;
use super::kit::{Client, Consumer, DEADLINE, payload, payloads, retry, sorted, split};
use crate::delivery::{Delivery, Outcome, Queue};
use crate::driver::{Backlog, SUSPECT_FROM, Settler};

/// Hands one entry of these events out until it is suspect; the consumers before died with it.
async fn suspected(client: &Client, events: &[&str]) -> (Consumer, Vec<Delivery>) {
    client.publish_batch(events).await;
    let mut handed_out = 1;
    loop {
        let mut consumer = client.join("readers").await;
        let deliveries = consumer.take(events.len()).await;
        assert_eq!(deliveries[0].entry.suspect, handed_out >= SUSPECT_FROM, "{handed_out}");
        if handed_out == SUSPECT_FROM {
            return (consumer, deliveries);
        }
        handed_out += 1;
    }
}

/// One suspect of the retry queue.
async fn lone_suspect(client: &Client) -> (Consumer, Delivery) {
    let (mut consumer, deliveries) = suspected(client, &["a"]).await;
    consumer.end(&deliveries, &split()).await;
    let delivery = consumer.take(1).await.remove(0);
    assert!(delivery.entry.suspect);
    (consumer, delivery)
}

async fn begin(settler: &dyn Settler, delivery: &Delivery) -> Option<u32> {
    let answer = timeout(DEADLINE, settler.begin(delivery)).await;
    answer.expect("an answer in time").expect("a note")
}

/// The fourth hand-out makes an entry suspect, whatever it holds; it dead-letters nobody.
pub async fn the_fourth_hand_out_makes_an_entry_suspect(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let (consumer, deliveries) = suspected(&client, &["a", "b"]).await;
    assert_eq!(payloads(&deliveries), ["a", "b"]);
    assert_eq!(deliveries[0].attempt(), 1, "nobody failed");
    consumer.ack(&deliveries).await;
    client.settles_to("readers", Backlog::default()).await;
}

/// What is split off a suspect is suspect, also when it is handed over again; an attempt that
/// ended in order clears it.
pub async fn a_split_keeps_the_suspicion_and_a_retry_ends_it(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let (mut consumer, deliveries) = suspected(&client, &["a", "b"]).await;
    consumer.end(&deliveries, &split()).await;
    let alone = consumer.take(2).await;
    assert_eq!(sorted(&alone), ["a", "b"]);
    consumer.ack(&alone[1..]).await;
    let mut current = alone[0].clone();
    for (outcome, suspect, attempt) in [
        (split(), true, 1),
        (Outcome::Split { after: Duration::from_millis(20) }, true, 1),
        (retry(Duration::ZERO), false, 2),
        (split(), false, 2),
    ] {
        assert_eq!((current.entry.queue, current.entry.records.len()), (Queue::Retry, 1));
        consumer.end(&[current.clone()], &outcome).await;
        current = consumer.take(1).await.remove(0);
        assert_eq!((current.entry.suspect, current.attempt()), (suspect, attempt), "{outcome:?}");
    }
    consumer.ack(&[current]).await;
    client.settles_to("readers", Backlog::default()).await;
}

/// A retry entry that was handed out four times is suspect as one of the log is.
pub async fn a_retry_entry_becomes_suspect_as_well(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut consumer = client.join("readers").await;
    client.publish(&["a"]).await;
    let deliveries = consumer.take(1).await;
    consumer.end(&deliveries, &retry(Duration::ZERO)).await;
    for handed_out in 1..=SUSPECT_FROM {
        let delivery = consumer.take(1).await.remove(0);
        assert_eq!(delivery.entry.suspect, handed_out == SUSPECT_FROM, "{handed_out}");
        if handed_out == SUSPECT_FROM {
            consumer.ack(&[delivery]).await;
            break;
        }
        drop(consumer);
        consumer = client.join("readers").await;
    }
    client.settles_to("readers", Backlog::default()).await;
}

/// Only who takes a suspect over finds it running; a repeat of the holder's own call does not
/// count, and who lost the lease is told.
pub async fn a_note_is_found_by_who_takes_over(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let (mut consumer, mut delivery) = lone_suspect(&client).await;
    // It is handed out once more before anybody begins it: that is no proof.
    let settler = consumer.crash();
    consumer = client.join("readers").await;
    let before = std::mem::replace(&mut delivery, consumer.take(1).await.remove(0));
    assert_eq!(begin(&*settler, &before).await, None, "it lost its lease");
    for found in 0..3 {
        assert_eq!(begin(&*consumer.feed.settler, &delivery).await, Some(found));
        assert_eq!(begin(&*consumer.feed.settler, &delivery).await, Some(found), "a repeat");
        let stale = consumer.crash();
        consumer = client.join("readers").await;
        let lost = std::mem::replace(&mut delivery, consumer.take(1).await.remove(0));
        assert!(delivery.entry.suspect);
        assert_eq!(begin(&*stale, &lost).await, None, "it lost its lease");
    }
    assert_eq!(begin(&*consumer.feed.settler, &delivery).await, Some(3));
    consumer.ack(&[delivery]).await;
    client.settles_to("readers", Backlog::default()).await;
}

/// The note goes with the end: what was handed over in order was not found running.
pub async fn the_end_of_a_suspect_takes_its_note(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let (mut consumer, delivery) = lone_suspect(&client).await;
    begin(&*consumer.feed.settler, &delivery).await;
    drop(consumer);
    consumer = client.join("readers").await;
    let delivery = consumer.take(1).await.remove(0);
    assert_eq!(begin(&*consumer.feed.settler, &delivery).await, Some(1));
    consumer.end(std::slice::from_ref(&delivery), &split()).await;
    assert_eq!(begin(&*consumer.feed.settler, &delivery).await, None, "it has ended");
    let again = consumer.take(1).await.remove(0);
    assert_eq!((payload(&again).as_str(), again.entry.suspect), ("a", true));
    assert_eq!(begin(&*consumer.feed.settler, &again).await, Some(0));
    consumer.ack(&[again]).await;
    client.settles_to("readers", Backlog::default()).await;
}

/// A suspect of a log is split, never begun.
pub async fn a_suspect_of_a_log_is_not_begun(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let (consumer, deliveries) = suspected(&client, &["a"]).await;
    let refused = consumer.feed.settler.begin(&deliveries[0]).await.expect_err("refused");
    assert!(refused.to_string().contains("split"), "{refused}");
    consumer.ack(&deliveries).await;
}
