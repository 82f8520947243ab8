//! Entries that a stranger takes off the books while they are handled.

use crate::kit::*;
use crate::server::Server;
use crate::watch::*;
use rumormill::delivery::{EntryId, Outcome, Settled};
use rumormill::driver::monitor::Incident;
use rumormill::driver::{Driver, LeaseTimes, Subscribe, Subscription};

const LOG: &str = "rm:{t:0}:log";

#[tokio::test]
async fn entries_dropped_with_their_consumer_are_counted_once_and_kept() {
    let server = Server::start();
    fill(&server, LOG, 0..5);
    let driver = watched(&server).await;
    // Renewed soon, and not lost where a busy machine is late.
    let lease = LeaseTimes { lease: LeaseTimes::default().lease, ..short_lease() };
    let mut feed =
        driver.subscribe(Subscription { lease, ..wish("g", &["t.>"]) }).await.expect("subscribes");
    let held = [next(&mut feed).await, next(&mut feed).await, next(&mut feed).await];
    server.ask(&["XGROUP", "DELCONSUMER", LOG, "g", &feed.consumer]);
    until(&driver, "three entries", |losses| losses.pending_gone == 3).await;
    for entry in &held {
        assert!(!entry.lease.is_cancelled());
        assert_eq!(settle(&feed, settle_all(entry, &dead_letter())).await, [Settled::Done]);
    }
    assert_eq!(take(&mut feed, 2).await, ["3", "4"]);
    until_checkpoint(&server, "g", last_id(&server, LOG)).await;
    assert_eq!(losses(&driver).pending_gone, 3);
    driver.close().await;
}

#[tokio::test]
async fn an_ack_that_finds_nothing_pending_is_counted() {
    let server = Server::start();
    fill(&server, LOG, 0..2);
    let driver = connect_without_rounds(&server).await;
    let lease = LeaseTimes::default();
    let mut feed =
        driver.subscribe(Subscription { lease, ..wish("g", &["t.>"]) }).await.expect("subscribes");
    let (one, two) = (next(&mut feed).await, next(&mut feed).await);
    server.ask(&["XACK", LOG, "g", &one.id.to_string()]);
    settle(&feed, settle_all(&one, &Outcome::ack())).await;
    assert_eq!(losses(&driver).settle_missed, 1);
    settle(&feed, settle_all(&one, &Outcome::ack())).await;
    settle(&feed, settle_all(&two, &Outcome::ack())).await;
    settle(&feed, settle_all(&two, &Outcome::ack())).await;
    assert_eq!(losses(&driver).settle_missed, 1, "a repeat is no miss");
    assert_eq!(losses(&driver).group_lost, 0);
    driver.close().await;
}

#[tokio::test]
async fn an_ack_finds_that_the_group_is_gone() {
    let server = Server::start();
    fill(&server, LOG, 0..2);
    let driver = connect_without_rounds(&server).await;
    let mut heard = incidents(&driver);
    let lease = LeaseTimes::default();
    let mut feed =
        driver.subscribe(Subscription { lease, ..wish("g", &["t.>"]) }).await.expect("subscribes");
    let held = next(&mut feed).await;
    server.ask(&["XGROUP", "DESTROY", LOG, "g"]);
    // Nobody reads: the consumer is busy.
    settle(&feed, settle_all(&held, &Outcome::ack())).await;
    assert_eq!(losses(&driver).settle_missed, 1);
    let (group, partition) = (group("g"), partition("t:0"));
    wait_for(&mut heard, &Incident::GroupLost { group, partition, after: EntryId::ZERO }).await;
    assert_eq!(take(&mut feed, 2).await, ["0", "1"]);
    driver.close().await;
}
