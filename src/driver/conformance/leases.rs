//! Leases: the work of the dead comes back, that of the living stays, and who lost its lease
//! changes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Fixture;
use super::kit::{
    CLOCK_SLACK, Client, Consumer, WATCH, all, comeback, dead_letter, payload, payloads, retry,
    settle, split, texts,
};
use crate::delivery::{Delivery, Outcome, Settled};
use crate::driver::{Backlog, LeaseTimes, Settler};

/// What a killed consumer held, another gets within lease and sweep, with the same attempt: that
/// it was handed out twice does not mean that it failed.
pub async fn killed_consumers_work_comes_back(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut killed = client.join("readers").await;
    let mut heir = client.join("readers").await;
    let sent = texts("event ", 20);
    client.publish(&sent).await;
    let held = killed.take(20).await;
    let death = Instant::now();
    drop(killed);
    let inherited = heir.take(20).await;
    // The last renewal may lie up to one interval before the death.
    let LeaseTimes { lease, renew, .. } = fixture.lease();
    let passed = death.elapsed() + CLOCK_SLACK;
    assert!(passed >= lease - renew, "work was taken over after {passed:?}, within the lease");
    assert_eq!(super::kit::sorted(&inherited), super::kit::sorted(&held));
    for delivery in &inherited {
        assert_eq!(delivery.attempt(), 1);
        let before = held.iter().find(|before| payload(before) == payload(delivery));
        let before = before.expect("it was held");
        assert_eq!(delivery.record(), before.record());
        assert_eq!(delivery.origin(), before.origin());
    }
    heir.ack(&inherited).await;
    client.settles_to("readers", Backlog::default()).await;
}

/// A consumer that lives and reads keeps what it holds, however long its handlers take.
pub async fn a_living_consumer_keeps_its_lease(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut busy = client.join("readers").await;
    let mut idle = client.join("readers").await;
    client.publish_batch(&["long", "longer"]).await;
    let deliveries = busy.take(2).await;
    idle.gets_nothing(comeback(fixture) * 2).await;
    assert!(!deliveries[0].entry.lease.is_cancelled());
    busy.feed.source.close().await;
    busy.end(&deliveries[..1], &retry(Duration::ZERO)).await;
    busy.end(&deliveries[1..], &dead_letter()).await;
    assert_eq!(idle.handle(1).await, ["long"]);
    client.settles_to("readers", Backlog { dead: 1, ..Backlog::default() }).await;
}

/// A consumer that drains reads no more, and still keeps what it holds.
pub async fn a_closed_source_keeps_its_lease(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut draining = client.join("readers").await;
    let mut other = client.join("readers").await;
    client.publish(&["long"]).await;
    let deliveries = draining.take(1).await;
    draining.feed.source.close().await;
    other.gets_nothing(comeback(fixture) * 2).await;
    draining.end(&deliveries, &retry(Duration::ZERO)).await;
    assert_eq!(other.handle(1).await, ["long"]);
}

/// The events of an entry that were settled before a crash are not run again.
pub async fn partial_progress_survives_a_crash(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut killed = client.join("readers").await;
    client.publish_batch(&["acked", "open", "rejected", "retried", "open too"]).await;
    let deliveries = killed.take(5).await;
    killed.ack(&deliveries[..1]).await;
    killed.end(&deliveries[2..3], &dead_letter()).await;
    killed.end(&deliveries[3..4], &retry(Duration::from_secs(3600))).await;
    drop(killed);
    let mut heir = client.join("readers").await;
    let entries = heir.fetch(10).await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].records.len(), entries[0].settled.len()), (5, 3));
    let open: Vec<_> = entries[0].deliveries().collect();
    assert_eq!(payloads(&open), ["open", "open too"]);
    assert_eq!(open.iter().map(|delivery| delivery.index).collect::<Vec<_>>(), [1, 4]);
    heir.ack(&open).await;
    let backlog = Backlog { due: 1, dead: 1, ..Backlog::default() };
    client.settles_to("readers", backlog).await;
    heir.gets_nothing(comeback(fixture)).await;
}

/// An event in the retry stream survives its consumer as one of the log does.
pub async fn a_crash_loses_no_retry(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut killed = client.join("readers").await;
    client.publish(&["event"]).await;
    let deliveries = killed.take(1).await;
    killed.end(&deliveries, &retry(Duration::ZERO)).await;
    let again = killed.take(1).await;
    drop(killed);
    let mut heir = client.join("readers").await;
    let inherited = heir.take(1).await;
    assert_eq!((payload(&inherited[0]).as_str(), inherited[0].attempt()), ("event", 2));
    assert_eq!(inherited[0].origin(), again[0].origin());
    heir.ack(&inherited).await;
    client.settles_to("readers", Backlog::default()).await;
}

/// A consumer that was taken for dead, and the one that took its work over.
pub(super) struct Rivals {
    pub(super) stale: Arc<dyn Settler>,
    /// As the stale one got them.
    pub(super) lost: Vec<Delivery>,
    pub(super) heir: Consumer,
    /// As the heir got them.
    pub(super) held: Vec<Delivery>,
}

/// One entry of two events, held by the second of two rivals.
pub(super) async fn rivals(client: &Client) -> Rivals {
    let mut consumer = client.join("readers").await;
    client.publish_batch(&["a", "b"]).await;
    let lost = consumer.take(2).await;
    let stale = consumer.crash();
    let mut heir = client.join("readers").await;
    let held = heir.take(2).await;
    assert_eq!(payloads(&lost), payloads(&held));
    Rivals { stale, lost, heir, held }
}

/// Retry, dead letter and split of a consumer whose lease was lost are refused, and the holder's
/// own ends are applied.
pub async fn lost_lease_changes_nothing(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Rivals { stale, lost, mut heir, held } = rivals(&client).await;
    for outcome in [retry(Duration::ZERO), dead_letter(), split()] {
        let answers = settle(&*stale, all(&lost, &outcome)).await;
        assert_eq!(answers, [Settled::LeaseLost; 2], "{outcome:?}");
    }
    client.settles_to("readers", Backlog { pending: 1, ..Backlog::default() }).await;
    heir.gets_nothing(WATCH).await;
    heir.end(&held[..1], &retry(Duration::ZERO)).await;
    heir.ack(&held[1..]).await;
    assert_eq!(heir.handle(1).await, ["a"]);
    let late = settle(&*stale, all(&lost, &retry(Duration::ZERO))).await;
    assert_eq!(late, [Settled::Already; 2]);
    client.settles_to("readers", Backlog::default()).await;
}

/// Nor may it ack a part of an entry: the holder is running it.
pub async fn a_part_of_a_lost_entry_changes_nothing(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Rivals { stale, lost, heir, held } = rivals(&client).await;
    let answers = settle(&*stale, all(&lost[..1], &Outcome::ack())).await;
    assert_eq!(answers, [Settled::LeaseLost]);
    heir.ack(&held).await;
    client.settles_to("readers", Backlog::default()).await;
}

/// A plain ack of a whole entry counts also when it is late: the events were handled, whoever
/// says it. The holder hears that it is done.
pub async fn a_late_plain_ack_counts(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Rivals { stale, lost, mut heir, held } = rivals(&client).await;
    let answers = settle(&*stale, all(&lost, &Outcome::ack())).await;
    assert_eq!(answers, [Settled::Done; 2]);
    assert_eq!(heir.settle(all(&held, &retry(Duration::ZERO))).await, [Settled::Already; 2]);
    client.settles_to("readers", Backlog::default()).await;
    heir.gets_nothing(WATCH).await;
}

/// The holder of an entry that was handed out before must hold it to end it, be it with plain
/// acks: who got it first may have ended parts of it otherwise.
pub async fn a_late_ack_of_what_was_handed_out_twice_is_refused(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Rivals { stale, lost, heir, held } = rivals(&client).await;
    let second_stale = heir.crash();
    let mut third = client.join("readers").await;
    let now_held = third.take(2).await;
    let answers = settle(&*second_stale, all(&held, &Outcome::ack())).await;
    assert_eq!(answers, [Settled::LeaseLost; 2]);
    third.ack(&now_held[..1]).await;
    let answers = settle(&*stale, all(&lost[1..], &Outcome::ack())).await;
    assert_eq!(answers, [Settled::LeaseLost]);
    third.ack(&now_held[1..]).await;
    client.settles_to("readers", Backlog::default()).await;
}
