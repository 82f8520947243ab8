//! Entries that are acknowledged as a whole: what nearly all of them come to.

use std::sync::Arc;
use std::time::Duration;

use super::Fixture;
use super::kit::{Client, all, comeback, retry};
use super::leases::{Rivals, rivals};
use crate::delivery::{Delivery, Entry, Settled};
use crate::driver::{Backlog, Settler};

/// The answers for the entries of some deliveries.
async fn ack(settler: &dyn Settler, deliveries: &[Delivery]) -> Vec<Settled> {
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    for delivery in deliveries {
        if !entries.iter().any(|entry| Arc::ptr_eq(entry, &delivery.entry)) {
            entries.push(Arc::clone(&delivery.entry));
        }
    }
    let answers = settler.ack(entries).await;
    answers.into_iter().map(|answer| answer.expect("an answer")).collect()
}

/// Each entry has an answer of its own; what was acknowledged does not come again.
pub async fn whole_entries_are_acknowledged(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut consumer = client.join("readers").await;
    client.publish(&["a"]).await;
    client.publish_batch(&["b", "c"]).await;
    let deliveries = consumer.take(3).await;
    assert_eq!(ack(&*consumer.feed.settler, &deliveries).await, [Settled::Done; 2]);
    client.settles_to("readers", Backlog::default()).await;
    assert_eq!(ack(&*consumer.feed.settler, &deliveries).await, [Settled::Already; 2]);
    consumer.crash();
    let mut next = client.join("readers").await;
    next.gets_nothing(comeback(fixture)).await;
}

/// Of an entry that is settled in part, the rest.
pub async fn the_rest_of_an_entry_is_acknowledged(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    client.publish_batch(&["acked", "open", "retried"]).await;
    let deliveries = consumer.take(3).await;
    consumer.ack(&deliveries[..1]).await;
    consumer.end(&deliveries[2..], &retry(Duration::from_secs(3600))).await;
    assert_eq!(ack(&*consumer.feed.settler, &deliveries).await, [Settled::Done]);
    client.settles_to("readers", Backlog { due: 1, ..Backlog::default() }).await;
}

/// So it is with what was tried again.
pub async fn a_retry_is_acknowledged_as_a_whole(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    client.publish_batch(&["a", "b"]).await;
    let deliveries = consumer.take(2).await;
    consumer.end(&deliveries, &retry(Duration::ZERO)).await;
    let again = consumer.take(2).await;
    assert_eq!(ack(&*consumer.feed.settler, &again).await, [Settled::Done; 2]);
    client.settles_to("readers", Backlog::default()).await;
}

/// It counts when it is late, as each of its plain acks would.
pub async fn a_late_ack_of_a_whole_entry_counts(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Rivals { stale, lost, heir, held } = rivals(&client).await;
    assert_eq!(ack(&*stale, &lost).await, [Settled::Done]);
    assert_eq!(heir.settle(all(&held, &retry(Duration::ZERO))).await, [Settled::Already; 2]);
    client.settles_to("readers", Backlog::default()).await;
}

/// Where the entry had been handed out before, it must be held.
pub async fn a_late_ack_of_a_whole_entry_handed_out_twice_is_refused(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Rivals { heir, held, .. } = rivals(&client).await;
    let stale = heir.crash();
    let mut third = client.join("readers").await;
    let now_held = third.take(2).await;
    assert_eq!(ack(&*stale, &held).await, [Settled::LeaseLost]);
    client.settles_to("readers", Backlog { pending: 1, ..Backlog::default() }).await;
    assert_eq!(ack(&*third.feed.settler, &now_held).await, [Settled::Done]);
    client.settles_to("readers", Backlog::default()).await;
}
