//! Room for events without an answer, and the line before it.

use super::*;

#[tokio::test(start_paused = true)]
async fn room_is_taken_and_given_back_by_events_and_bytes() {
    let limits = PublishLimits { unconfirmed_max: 2, ..PublishLimits::default() };
    let (_, publisher) = gated(0, false, limits);
    let (room, until) = (&publisher.0.room, publisher.until());
    let bytes = event("1").weight();
    let held = publisher.permit(&event("1"), until).await.expect("there is room");
    assert_eq!(room.free(), (1, limits.unconfirmed_bytes_max - bytes));
    // Whoever answers for it now gives it back.
    assert_eq!(held.hand_on(), bytes);
    assert_eq!(room.free(), (1, limits.unconfirmed_bytes_max - bytes));
    drop(room.held(1, bytes));
    assert_eq!(room.free(), (2, limits.unconfirmed_bytes_max));
    let mut both = publisher.permit(&event("1"), until).await.expect("there is room");
    let other = publisher.permit(&event("2"), until).await.expect("there is room");
    both.add(1, other.hand_on());
    assert_eq!(room.free(), (0, limits.unconfirmed_bytes_max - 2 * bytes));
    drop(both);
    assert_eq!(room.free(), (2, limits.unconfirmed_bytes_max));
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_those_in_line() {
    let limits = PublishLimits { unconfirmed_max: 1, ..PublishLimits::default() };
    let (_, publisher) = gated(0, false, limits);
    let until = publisher.until();
    assert!(publisher.line(until).await.expect("in time").is_none(), "there is room");
    let held = publisher.permit(&event("1"), until).await.expect("there is room");
    let first = publisher.line(until).await.expect("in time").expect("there is no room");
    drop(held);
    let second = timeout(Duration::from_millis(1), publisher.line(until)).await;
    assert!(second.is_err(), "there is room, and somebody before it");
    drop(first);
    assert!(publisher.line(until).await.expect("in time").is_none(), "the line is gone");
}

#[tokio::test(start_paused = true)]
async fn there_is_room_where_the_largest_event_finds_it() {
    let limits = PublishLimits {
        payload_bytes_max: 1_000,
        unconfirmed_bytes_max: 1_500,
        ..PublishLimits::default()
    };
    let (_, publisher) = gated(0, false, limits);
    let until = publisher.until();
    let held = publisher.permit(&event("1"), until).await.expect("there is room");
    assert!(publisher.line(until).await.expect("in time").is_none());
    let large = event(&"x".repeat(500));
    let more = publisher.permit(&large, until).await.expect("there is room");
    assert!(publisher.line(until).await.expect("in time").is_some(), "not for any event");
    drop((held, more));
    let error = publisher.join_line(Instant::now()).await.map(drop);
    error.expect("an empty line takes no time");
    let closed = async {
        publisher.0.room.close();
        publisher.permit(&event("2"), until).await.map(drop)
    };
    let error = closed.await.expect_err("closed");
    assert!(error.is_not_stored() && error.error().kind() == ErrorKind::Closed, "{error}");
}
