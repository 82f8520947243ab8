//! Takeovers and ends where only a part succeeds: what was taken up is run, and what the server
//! forgot comes again.

use std::time::Duration;

use rumormill::delivery::{Outcome, Settled};
use rumormill::driver::{Driver, LeaseTimes, Publish, Subscribe, Subscription};
use rumormill::{ErrorKind, EventType};
use tokio::time::timeout;

use crate::kit::*;
use crate::server::Server;

const PENDING: &str = "XPENDING rm:{t:0}:log g - + 10";

fn owner(server: &Server) -> Option<String> {
    server.say(PENDING).list().first().map(|row| row.list()[1].text())
}

#[tokio::test]
async fn an_entry_of_which_the_server_forgot_a_part_comes_again() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["0", "1", "2"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    let mut deliveries = entry.deliveries();
    let first = deliveries.next().expect("three events");
    let ends = vec![first.settle(retry(Duration::from_secs(60)))];
    assert_eq!(settle(&feed, ends).await, [Settled::Done]);
    // As after a failover to a replica that had not heard of it.
    server.say("DEL rm:{t:0}:progress:g rm:{t:0}:due:g");
    let rest: Vec<_> = deliveries.map(|delivery| delivery.settle(Outcome::ack())).collect();
    assert_eq!(settle(&feed, rest).await, [Settled::Done, Settled::Done]);
    let again = next(&mut feed).await;
    assert_eq!(again.id, entry.id);
    let open: Vec<u32> = again.deliveries().map(|delivery| delivery.index).collect();
    assert_eq!(open, [0], "what the server knows to be settled is not run again");
    driver.close().await;
}

#[tokio::test]
async fn one_partition_that_cannot_be_taken_over_costs_the_others_nothing() {
    let server = Server::start();
    server.ask(&["HSET", "rm:topics", "t", "{\"partitions\":2}"]);
    let (killed, living) = (connect(&server).await, connect(&server).await);
    append(&killed, "t:0", &["taken over"]).await;
    append(&killed, "t:1", &["not yet"]).await;
    let mut feed = subscribe(&killed, "g").await;
    let held = [next(&mut feed).await, next(&mut feed).await];
    assert_eq!(held.len(), 2);
    drop((killed, feed));
    server.say("SET rm:{t:1}:progress:g occupied");
    let mut heir = subscribe(&living, "g").await;
    let entry = timeout(PATIENCE, async {
        loop {
            // Meanwhile the source may say what it cannot read.
            if let Ok(mut entries) = heir.source.fetch(10).await {
                return entries.remove(0);
            }
        }
    });
    assert_eq!(payload(&entry.await.expect("in time"), 0), "taken over");
    server.say("DEL rm:{t:1}:progress:g");
    assert_eq!(payload(&*next(&mut heir).await, 0), "not yet");
    living.close().await;
}

#[tokio::test]
async fn who_is_always_busy_takes_over_all_the_same_and_knows_the_groups_routes() {
    let server = Server::start();
    let (old, new) = (connect(&server).await, connect(&server).await);
    append(&old, "t:0", &["1"]).await;
    // It never asks for events: what it routes is not what comes.
    let mut busy = old.subscribe(wish("g", &["t.other"])).await.expect("subscribes");
    let mut newer = new.subscribe(wish("g", &["t.x"])).await.expect("subscribes");
    assert_eq!(payload(&*next(&mut newer).await, 0), "1");
    drop((new, newer));
    let name = busy.consumer.clone();
    eventually("it is taken over", || owner(&server).as_ref() == Some(&name)).await;
    assert_eq!(payload(&*next(&mut busy).await, 0), "1");
    let event_type: EventType = "t.x".parse().expect("valid");
    assert!(busy.routes.covers(&event_type, 1), "who is gone could route it");
    old.close().await;
}

#[tokio::test]
async fn a_topic_that_cannot_be_read_does_not_keep_new_ones_from_being_read() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "a:0", &["1"]).await;
    let mut feed = driver.subscribe(wish("g", &[">"])).await.expect("subscribes");
    assert_eq!(payload(&*next(&mut feed).await, 0), "1");
    server.say("SET rm:{foreign:0}:log occupied");
    driver.declare(&"foreign".parse().expect("valid")).await.expect("declared");
    append(&driver, "later:0", &["2"]).await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "2");
    driver.close().await;
}

#[tokio::test]
async fn a_suspect_whose_consumer_was_deleted_is_begun_once_it_is_taken_back() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let rare = LeaseTimes { renew: Duration::from_secs(1), ..LeaseTimes::default() };
    let mut feed = driver
        .subscribe(Subscription { lease: rare, ..wish("g", &["t.>"]) })
        .await
        .expect("subscribes");
    let entry = next(&mut feed).await;
    settle(&feed, settle_all(&entry, &retry(Duration::ZERO))).await;
    let entry = next(&mut feed).await;
    let delivery = entry.deliveries().next().expect("one event");
    let gone = ["XGROUP", "DELCONSUMER", "rm:{t:0}:retry:g", "g", &feed.consumer];
    assert_eq!(server.ask(&gone).int(), 1);
    let refused = feed.settler.begin(&delivery).await.expect_err("pending for nobody");
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused:?}");
    let begun = async {
        loop {
            if let Ok(found) = feed.settler.begin(&delivery).await {
                return found;
            }
            // waits: for the next renewal, with a deadline
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(timeout(PATIENCE, begun).await.expect("in time"), Some(0));
    assert!(!entry.lease.is_cancelled());
    driver.close().await;
}
