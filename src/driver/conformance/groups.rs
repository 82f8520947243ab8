//! Groups: each gets everything, and its consumers share it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::Fixture;
use super::kit::{Client, Consumer, payloads, texts};
use crate::event_type::EventType;

/// Every group gets every event.
pub async fn two_groups_each_get_all(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut first = client.join("first").await;
    let mut second = client.join("second").await;
    let sent = texts("event ", 30);
    client.publish(&sent).await;
    assert_eq!(first.handle(30).await, sent);
    assert_eq!(second.handle(30).await, sent);
}

/// The consumers of one group share its events: each event goes to one, and each consumer gets
/// some.
pub async fn one_group_shares(fixture: &dyn Fixture) {
    let (client, other) = (Client::patient(fixture).await, Client::patient(fixture).await);
    let mut consumers =
        [client.join("one").await, client.join("one").await, other.join("one").await];
    let sent = texts("event ", 120);
    let done = Notify::new();
    let left = std::sync::atomic::AtomicUsize::new(sent.len());
    let work = |consumer| share(consumer, &left, &done);
    let [a, b, c] = &mut consumers;
    // Each step has a deadline of its own, all of them together have none: a machine may be busy.
    let (a, b, c, _) = tokio::join!(work(a), work(b), work(c), client.publish(&sent));
    assert!([&a, &b, &c].into_iter().all(|own| !own.is_empty()), "{a:?} {b:?} {c:?}");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for payload in [a, b, c].into_iter().flatten() {
        *counts.entry(payload).or_default() += 1;
    }
    assert_eq!(counts, sent.into_iter().map(|payload| (payload, 1)).collect());
}

/// Handles events one by one until all consumers together have handled enough.
async fn share(
    consumer: &mut Consumer,
    left: &std::sync::atomic::AtomicUsize,
    done: &Notify,
) -> Vec<String> {
    use std::sync::atomic::Ordering::SeqCst;
    let mut handled = Vec::new();
    while left.load(SeqCst) > 0 {
        let deliveries = tokio::select! {
            deliveries = consumer.take(1) => deliveries,
            () = done.notified() => break,
        };
        consumer.ack(&deliveries).await;
        handled.extend(payloads(&deliveries));
        if left.fetch_sub(1, SeqCst) == 1 {
            done.notify_waiters();
        }
        tokio::task::yield_now().await;
    }
    handled
}

/// A consumer gets about as many events as it asks for, so that the others get theirs.
pub async fn budget_is_kept(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let sent = texts("event ", 30);
    client.publish(&sent).await;
    let mut found = Vec::new();
    while found.len() < 30 {
        let entries = consumer.fetch(3).await;
        assert!((1..=4).contains(&entries.len()), "a budget of 3 gave {}", entries.len());
        found.extend(entries.iter().flat_map(crate::delivery::Entry::deliveries));
    }
    assert_eq!(payloads(&found), sent);
}

/// A batch larger than the budget comes whole.
pub async fn a_batch_may_exceed_the_budget(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let sent = texts("event ", 20);
    client.publish_batch(&sent).await;
    let entries = consumer.fetch(1).await;
    assert_eq!(payloads(&entries[0].deliveries().collect::<Vec<_>>()), sent);
}

/// A group that settles nothing keeps nothing from another.
pub async fn a_slow_group_does_not_stop_another(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut slow = client.join("slow").await;
    let mut fast = client.join("fast").await;
    client.publish(&["stuck"]).await;
    let stuck = slow.take(1).await;
    assert_eq!(fast.handle(1).await, ["stuck"]);
    for round in 0..5 {
        let sent = texts(&format!("round {round} event "), 50);
        client.publish(&sent).await;
        assert_eq!(fast.handle(50).await, sent);
    }
    slow.ack(&stuck).await;
    assert_eq!(slow.handle(250).await.len(), 250);
}

/// Every member knows what the whole group can route, also what a member that is gone could.
pub async fn group_routes_are_the_union(fixture: &dyn Fixture) {
    let (client, other) = (Client::patient(fixture).await, Client::patient(fixture).await);
    let routes = |pattern: &str, version| vec![(pattern.parse().expect("a pattern"), version)];
    let mut older = client.wish("deployed");
    older.routes = routes("conformance.thing.*", Some(1));
    let mut newer = client.wish("deployed");
    newer.routes = routes("conformance.more.>", None);
    newer.routes.extend(routes("conformance.thing.*", Some(2)));
    let mut first = client.subscribe(older).await;
    let second = other.subscribe(newer).await;
    let (thing, more, none) = (
        EventType::from_static("conformance.thing.happened"),
        EventType::from_static("conformance.more.of.it"),
        EventType::from_static("conformance.nothing"),
    );
    for consumer in [&mut first, &mut { second }] {
        learns(consumer, &thing, 2).await;
        learns(consumer, &more, 9).await;
        assert!(consumer.feed.routes.covers(&thing, 1));
        assert!(!consumer.feed.routes.covers(&thing, 3));
        assert!(!consumer.feed.routes.covers(&none, 1));
    }
    // The second is gone here; what it could route is still the group's.
    first.gets_nothing(super::kit::WATCH).await;
    learns(&mut first, &more, 9).await;
}

/// Waits until a consumer, while it reads, has heard of a route.
async fn learns(consumer: &mut Consumer, event_type: &EventType, version: u32) {
    let routes = std::sync::Arc::clone(&consumer.feed.routes);
    let heard = async {
        while !routes.covers(event_type, version) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = heard => {}
        _ = consumer.fetch(1) => panic!("{event_type} {version} is not known in time"),
    }
}
