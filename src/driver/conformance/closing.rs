//! Closing: nothing is accepted that would not be stored, and nothing accepted is lost.

use tokio::time::timeout;

use super::Fixture;
use super::kit::{Client, DEADLINE, TOPIC, comeback, entry, event, partition, texts};
use crate::error::ErrorKind;

/// An append to a closed driver is certain not to be stored, and says why.
pub async fn publish_after_close_is_not_stored(fixture: &dyn Fixture) {
    let (client, other) = (Client::new(fixture).await, Client::new(fixture).await);
    let mut consumer = other.join("readers").await;
    client.publish(&["before"]).await;
    client.driver.close().await;
    let append = |payload| entry(&partition(TOPIC, 0), vec![event(payload)]);
    let answers = client.driver.append(vec![append("after"), append("after too")]).await;
    assert_eq!(answers.len(), 2);
    for answer in answers {
        let error = answer.expect_err("the driver is closed");
        assert!(error.is_not_stored(), "{error}");
        assert_eq!(error.error().kind(), ErrorKind::Closed);
    }
    let refused = client.driver.subscribe(client.wish("late")).await.expect_err("closed");
    assert_eq!(refused.kind(), ErrorKind::Closed);
    other.publish(&["last"]).await;
    assert_eq!(consumer.handle(2).await, ["before", "last"]);
}

/// A source of a closed driver ends: also one that waits.
pub async fn close_ends_a_source(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut consumer = client.join("readers").await;
    let close = async {
        tokio::task::yield_now().await;
        client.driver.close().await;
    };
    let (entries, ()) = tokio::join!(consumer.fetch(10), close);
    assert!(entries.is_empty());
    for _ in 0..3 {
        assert!(consumer.fetch(10).await.is_empty());
    }
}

/// Closing twice, or from two tasks, is closing once.
pub async fn close_is_idempotent(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut consumer = client.join("readers").await;
    let both = async { tokio::join!(client.driver.close(), client.driver.close()) };
    timeout(DEADLINE, both).await.expect("closed in time");
    timeout(DEADLINE, client.driver.close()).await.expect("closed in time");
    consumer.feed.source.close().await;
    consumer.feed.source.close().await;
    assert!(consumer.fetch(1).await.is_empty());
}

/// A client that closes takes nothing from the others but its own work, which comes back.
pub async fn closing_one_client_leaves_the_others(fixture: &dyn Fixture) {
    let (leaving, staying) = (Client::new(fixture).await, Client::new(fixture).await);
    let mut left = leaving.join("readers").await;
    let mut stayed = staying.join("readers").await;
    staying.publish(&["held"]).await;
    let _held = left.take(1).await;
    leaving.driver.close().await;
    drop(left);
    assert_eq!(stayed.handle(1).await, ["held"]);
    let sent = texts("event ", 20);
    staying.publish(&sent).await;
    assert_eq!(stayed.handle(20).await, sent);
    stayed.gets_nothing(comeback(fixture)).await;
}

/// A closed source gives what it had read, then nothing; what it did not read goes to others.
pub async fn a_closed_source_gives_nothing_new(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut closed = client.join("readers").await;
    let mut other = client.join("readers").await;
    client.publish(&["before"]).await;
    assert_eq!(closed.handle(1).await, ["before"]);
    closed.feed.source.close().await;
    assert!(closed.fetch(10).await.is_empty());
    let sent = texts("event ", 10);
    client.publish(&sent).await;
    assert_eq!(other.handle(10).await, sent);
    assert!(closed.fetch(10).await.is_empty());
}
