//! Where a group begins, and that it goes on where it was.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Fixture;
use super::kit::{Client, DEADLINE, WATCH, texts};
use crate::delivery::{EntryId, Start};
use crate::time::Timestamp;

/// A new group begins with the earliest event kept.
pub async fn new_group_at_earliest(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    client.publish(&["a", "b"]).await;
    let mut consumer = client.join("readers").await;
    client.publish(&["c"]).await;
    assert_eq!(consumer.handle(3).await, ["a", "b", "c"]);
}

/// A group at `New` gets what is published after `subscribe` returned, and all of it.
pub async fn new_group_at_new(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    client.publish(&["a", "b"]).await;
    let mut consumer = begin(&client, Start::New).await;
    client.publish(&["c", "d"]).await;
    assert_eq!(consumer.handle(2).await, ["c", "d"]);
}

/// A group after an id gets what follows it.
pub async fn new_group_after_an_id(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let ids = client.publish(&["a", "b", "c"]).await;
    let mut consumer = begin(&client, Start::After(ids[0])).await;
    assert_eq!(consumer.handle(2).await, ["b", "c"]);
    client.publish(&["d"]).await;
    assert_eq!(consumer.handle(1).await, ["d"]);
}

/// A group at a moment gets what was stored at or after it.
pub async fn new_group_at_a_time(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let first = client.publish(&["a", "b"]).await[1];
    let second = later(&client, first).await;
    let mut consumer = begin(&client, Start::At(Timestamp::from_millis(second.millis))).await;
    client.publish(&["c"]).await;
    assert_eq!(consumer.handle(2).await, ["later", "c"]);
}

/// Publishes `later` until the store's clock has moved on; only the last one is later.
async fn later(client: &Client, than: EntryId) -> EntryId {
    let moved = async {
        loop {
            sleep(Duration::from_millis(2)).await;
            let id = client.publish(&["later"]).await[0];
            if id.millis > than.millis {
                return id;
            }
        }
    };
    timeout(DEADLINE, moved).await.expect("the store's clock moves")
}

async fn begin(client: &Client, start: Start) -> super::kit::Consumer {
    let mut wish = client.wish("readers");
    wish.start = start;
    client.subscribe(wish).await
}

/// The start is a new group's: one that exists goes on, and nothing comes twice.
pub async fn an_existing_group_goes_on_where_it_was(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    client.publish(&["a", "b", "c"]).await;
    let mut first = client.join("readers").await;
    assert_eq!(first.handle(2).await, ["a", "b"]);
    drop(first);
    let mut second = begin(&client, Start::New).await;
    assert_eq!(second.handle(1).await, ["c"]);
    drop(second);
    let mut third = begin(&client, Start::Earliest).await;
    third.gets_nothing(WATCH).await;
}

/// A group that comes late gets all that was kept, settled by others or not.
pub async fn late_subscriber_catches_up(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut early = client.join("early").await;
    let sent = texts("event ", 120);
    client.publish(&sent).await;
    assert_eq!(early.handle(120).await, sent);
    let mut late = client.join("late").await;
    assert_eq!(late.handle(120).await, sent);
    early.gets_nothing(WATCH).await;
}

/// A service that was down gets what it missed and nothing that it had settled.
pub async fn restart_catches_up(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut consumer = client.join("service").await;
    client.publish(&["before 0", "before 1"]).await;
    assert_eq!(consumer.handle(2).await, ["before 0", "before 1"]);
    client.driver.close().await;
    drop((consumer, client));
    let missed = texts("missed ", 20);
    let publisher = Client::new(fixture).await;
    publisher.publish(&missed).await;
    let client = Client::new(fixture).await;
    let mut consumer = client.join("service").await;
    publisher.publish(&["after"]).await;
    let mut handled = consumer.handle(21).await;
    assert_eq!(handled.pop().as_deref(), Some("after"));
    assert_eq!(handled, missed);
    consumer.gets_nothing(WATCH).await;
}
