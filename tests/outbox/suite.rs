//! What every store must do.

use std::time::Duration;

use async_trait::async_trait;
use rumormill::outbox::{Depth, End, Most, SetAside, Skip, Store};
use rumormill::{ContentType, Envelope, Error, ErrorKind, EventId, EventType, Timestamp};
use tokio::time::{Instant, sleep};

use crate::kit::{ALL, event, waiting, waiting_but};

/// A store and its writing side.
#[async_trait]
pub(crate) trait Subject: Store {
    /// Adds events and commits.
    async fn add_all(&self, events: &[Envelope]) -> Result<(), Error>;
    async fn count(&self) -> Depth;
    async fn aside(&self) -> Vec<SetAside>;
    async fn back(&self, numbers: &[i64]) -> u64;
}

/// Runs every case, each on a fresh store.
pub(crate) async fn hold<S: Subject>(fresh: impl AsyncFn() -> S) {
    events_come_back_as_they_were_in_the_order_of_writing(fresh().await).await;
    a_look_is_bounded_by_rows_and_bytes(fresh().await).await;
    what_is_to_be_skipped_is(fresh().await).await;
    what_is_sent_is_gone(fresh().await).await;
    what_is_set_aside_stays_and_can_be_put_back(fresh().await).await;
    an_id_is_there_once(fresh().await).await;
    one_relay_has_the_lease(fresh().await).await;
    of_many_that_ask_at_once_one_gets_the_lease(fresh().await).await;
}

fn full(number: u32) -> Envelope {
    let now = Timestamp::from_millis(1_767_323_045_007 + u64::from(number) * 61);
    let event_type = EventType::from_static("orders.order.placed");
    Envelope::builder(event_type, ContentType::MESSAGE_PACK, vec![0, 200, 10, 255], now)
        .version(3)
        .key(Some("ä'\"?$1"))
        .source("shop")
        .expires_after(Duration::from_millis(86_399_999))
        .traceparent(Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
        .correlation_id(Some("c"))
        .causation_id(Some("d"))
        .header("z", "1")
        .header("a", "{\"\u{1F600}\"}")
        .build()
        .expect("within limits")
}

async fn events_come_back_as_they_were_in_the_order_of_writing(store: impl Subject) {
    let mut events: Vec<_> = (0..50).map(full).collect();
    events.push(event("a.b", None, 1));
    for event in &events {
        store.add_all(std::slice::from_ref(event)).await.expect("it is added");
    }
    let rows = store.pending(ALL, &Skip::default()).await.expect("it answers");
    assert!(rows.windows(2).all(|pair| pair[0].number < pair[1].number));
    let read: Vec<_> = rows.into_iter().map(|row| row.event.expect("an event")).collect();
    assert_eq!(read, events);
}

async fn a_look_is_bounded_by_rows_and_bytes(store: impl Subject) {
    let events: Vec<_> = (100..110).map(|number| event("a.b", None, number)).collect();
    store.add_all(&events).await.expect("they are added");
    let look = async |events, bytes| {
        let rows = store.pending(Most { events, bytes }, &Skip::default()).await;
        rows.expect("it answers").len()
    };
    assert_eq!(look(3, 1_000).await, 3);
    assert_eq!(look(100, 12).await, 4, "three bytes each");
    assert_eq!(look(100, 1).await, 1, "one goes always");
    assert_eq!(look(100, 1_000).await, 10);
}

async fn what_is_to_be_skipped_is(store: impl Subject) {
    let events = [
        event("a.x", Some("k"), 1),
        event("a.y", Some("k"), 2),
        event("b.x", Some("k"), 3),
        event("a.x", Some("l"), 4),
        event("a.x", None, 5),
        event("b.x", None, 6),
        event("a", Some("k"), 7),
    ];
    store.add_all(&events).await.expect("they are added");
    let (a, b) = ("a".parse().expect("a topic"), "b".parse().expect("a topic"));
    let keys = Skip { keys: vec![(a, "k".into())], ..Skip::default() };
    assert_eq!(waiting_but(&store, &keys).await, [3, 4, 5, 6], "of one topic, whatever the type");
    let topics = Skip { topics: vec![b], ..Skip::default() };
    assert_eq!(waiting_but(&store, &topics).await, [1, 2, 4, 5, 7]);
    let rows = store.pending(ALL, &Skip::default()).await.expect("it answers");
    let rows = Skip { rows: vec![rows[4].number, 4_711], ..Skip::default() };
    assert_eq!(waiting_but(&store, &rows).await, [1, 2, 3, 4, 6, 7]);
}

async fn what_is_sent_is_gone(store: impl Subject) {
    let events: Vec<_> = (0..5).map(|number| event("a.b", None, number)).collect();
    store.add_all(&events).await.expect("they are added");
    let rows = store.pending(ALL, &Skip::default()).await.expect("it answers");
    let ends: Vec<_> = rows[1..4].iter().map(|row| (row.number, End::Sent)).collect();
    for _ in 0..2 {
        store.end(&ends).await.expect("a repeat changes nothing");
        assert_eq!(waiting(&store).await, [0, 4]);
    }
    store.end(&[]).await.expect("nothing is to be done");
    store.end(&[(4_711, End::Sent)]).await.expect("nobody knows it");
    store.end(&[(4_711, End::SetAside("no".into()))]).await.expect("nobody knows it");
    // A number is never given again: whoever says the same later changes nothing new.
    let last = rows[4].number;
    store.end(&[(last, End::Sent)]).await.expect("it answers");
    store.add_all(&[event("a.b", None, 9)]).await.expect("it is added");
    store.end(&[(last, End::Sent)]).await.expect("it answers");
    assert_eq!(waiting(&store).await, [0, 9]);
}

async fn what_is_set_aside_stays_and_can_be_put_back(store: impl Subject) {
    let events: Vec<_> = (0..4).map(|number| event("a.b", Some("k"), number)).collect();
    store.add_all(&events).await.expect("they are added");
    let rows = store.pending(ALL, &Skip::default()).await.expect("it answers");
    let aside = |at: usize, why: &str| (rows[at].number, End::SetAside(why.into()));
    store.end(&[aside(0, "it's \"bad\""), aside(2, "worse")]).await.expect("it answers");
    assert_eq!(waiting(&store).await, [1, 3]);
    let depth = store.count().await;
    assert_eq!((depth.waiting, depth.set_aside), (2, 2));
    assert!(depth.oldest.is_some());
    let listed = store.aside().await;
    assert_eq!(listed.len(), 2);
    let expected = SetAside {
        number: rows[0].number,
        id: events[0].id().to_string(),
        event_type: "a.b".into(),
        key: Some("k".into()),
        error: "it's \"bad\"".into(),
    };
    assert_eq!(listed[0], expected);
    assert_eq!(store.back(&[rows[2].number, rows[3].number]).await, 1);
    assert_eq!(waiting(&store).await, [1, 2, 3]);
    assert_eq!(store.back(&[]).await, 1, "all");
    assert_eq!(waiting(&store).await, [0, 1, 2, 3]);
    store
        .end(&rows.iter().map(|row| (row.number, End::Sent)).collect::<Vec<_>>())
        .await
        .expect("it answers");
    assert_eq!(store.count().await, Depth::default());
}

async fn an_id_is_there_once(store: impl Subject) {
    let one = event("a.b", None, 1);
    store.add_all(std::slice::from_ref(&one)).await.expect("it is added");
    let error = store.add_all(&[one]).await.expect_err("it is there");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(waiting(&store).await, [1]);
}

fn name() -> EventId {
    EventId::new(Timestamp::from_millis(1))
}

async fn one_relay_has_the_lease(store: impl Subject) {
    let (one, other) = (name(), name());
    let minute = Duration::from_secs(60);
    let lead = async |relay, lease| store.lead(relay, lease).await.expect("it answers");
    assert!(lead(one, minute).await);
    assert!(!lead(other, minute).await);
    assert!(!lead(other, Duration::ZERO).await, "it has none to give up");
    assert!(lead(one, minute).await, "it goes on");
    assert!(lead(one, Duration::ZERO).await, "it gives it up");
    assert!(lead(other, Duration::from_millis(50)).await);
    let deadline = Instant::now() + minute;
    while !lead(one, minute).await {
        assert!(Instant::now() < deadline, "a lease ends");
        // waits: for the end of the lease, with a deadline
        sleep(Duration::from_millis(10)).await;
    }
    assert!(!lead(other, minute).await);
}

async fn of_many_that_ask_at_once_one_gets_the_lease(store: impl Subject) {
    let asked = (0..8).map(|_| store.lead(name(), Duration::from_secs(60)));
    let answers = futures_util::future::join_all(asked).await;
    let leads = answers.into_iter().filter(|answer| *answer.as_ref().expect("it answers"));
    assert_eq!(leads.count(), 1);
}
