//! How consumers end: they are removed, and never what is pending with them.

use std::sync::Arc;
use std::time::Duration;

use rumormill::delivery::{Outcome, Settled};
use rumormill::driver::redis::RedisDriver;
use rumormill::driver::{Driver, Feed, LeaseTimes, Subscribe, Subscription};

use crate::kit::*;
use crate::server::{Reply, Server};

const LOG: &str = "rm:{t:0}:log";
const RETRY: &str = "rm:{t:0}:retry:g";

/// The consumers of a group on a stream.
fn consumers(server: &Server, stream: &str) -> Vec<String> {
    let rows = server.ask(&["XINFO", "CONSUMERS", stream, "g"]);
    let name = |row: &Reply| row.list()[1].text();
    rows.list().iter().map(name).collect()
}

fn is_known(server: &Server, consumer: &str) -> bool {
    [LOG, RETRY].iter().any(|stream| consumers(server, stream).iter().any(|own| own == consumer))
        || server.ask(&["ZSCORE", "rm:consumers", &format!("g {consumer}")]) != Reply::Nil
}

/// Lets a consumer look dead: it was not heard of since 1970.
fn silence(server: &Server, consumer: &str) {
    server.ask(&["ZADD", "rm:consumers", "XX", "1", &format!("g {consumer}")]);
}

/// Ends a consumer as `kill -9` does: it says nothing to anybody.
fn crash(driver: Arc<RedisDriver>, feed: Feed) {
    drop(driver);
    drop(feed);
}

/// Waits for some sweeps of whoever lives.
async fn sweeps(server: &Server, count: u64) {
    let before = server.calls("zrangebyscore");
    eventually("sweeps", || server.calls("zrangebyscore") >= before + count).await;
}

#[tokio::test]
async fn a_dead_consumer_is_removed_once_nothing_is_pending_for_it() {
    let server = Server::start();
    let (killed, living) = (connect(&server).await, connect(&server).await);
    append(&killed, "t:0", &["1"]).await;
    let mut feed = subscribe(&killed, "g").await;
    let (name, entry) = (feed.consumer.clone(), next(&mut feed).await);
    crash(killed, feed);
    // This one looks often, and takes nothing over.
    let patient = LeaseTimes { sweep: Duration::from_millis(50), ..LeaseTimes::default() };
    let patient = Subscription { lease: patient, ..wish("g", &["t.>"]) };
    let _patient = living.subscribe(patient).await.expect("subscribes");
    silence(&server, &name);
    sweeps(&server, 5).await;
    assert!(is_known(&server, &name), "an entry is pending for it");
    assert_eq!(server.say("XPENDING rm:{t:0}:log g").list()[0].int(), 1);
    let mut heir = subscribe(&living, "g").await;
    let inherited = next(&mut heir).await;
    assert_eq!(inherited.id, entry.id);
    eventually("it is removed", || !is_known(&server, &name)).await;
    assert!(consumers(&server, LOG).contains(&heir.consumer), "the living stay");
    let settled = settle(&heir, settle_all(&inherited, &Outcome::ack())).await;
    assert_eq!(settled, [Settled::Done]);
    living.close().await;
}

#[tokio::test]
async fn a_consumer_that_was_heard_of_lately_stays() {
    let server = Server::start();
    let (killed, living) = (connect(&server).await, connect(&server).await);
    let feed = subscribe(&killed, "g").await;
    let name = feed.consumer.clone();
    eventually("it reads", || {
        // A consumer is there from its first read on.
        server.try_ask(&["XGROUP", "CREATECONSUMER", LOG, "g", &name]).is_some()
    })
    .await;
    crash(killed, feed);
    let _heir = subscribe(&living, "g").await;
    sweeps(&server, 5).await;
    assert!(is_known(&server, &name), "it may only be slow");
    living.close().await;
}

#[tokio::test]
async fn a_stranger_without_a_heartbeat_is_left_alone() {
    let server = Server::start();
    let driver = connect(&server).await;
    let _feed = subscribe(&driver, "g").await;
    server.ask(&["XGROUP", "CREATECONSUMER", LOG, "g", "stranger"]);
    server.ask(&["ZADD", "rm:consumers", "1", "other stranger", "1", "not a name", "1", "g"]);
    sweeps(&server, 5).await;
    assert!(consumers(&server, LOG).contains(&"stranger".to_owned()));
    assert_eq!(server.say("ZCOUNT rm:consumers 1 1").int(), 3, "those of others are theirs");
    driver.close().await;
}

#[tokio::test]
async fn many_dead_consumers_go_in_a_few_rounds() {
    let server = Server::start();
    let driver = connect(&server).await;
    let _feed = subscribe(&driver, "g").await;
    for number in 0..25 {
        server.ask(&["XGROUP", "CREATECONSUMER", LOG, "g", &format!("dead-{number}")]);
        server.ask(&["ZADD", "rm:consumers", "1", &format!("g dead-{number}")]);
    }
    // Others without a living member stand before them.
    for number in 0..150 {
        server.ask(&["ZADD", "rm:consumers", "0", &format!("gone dead-{number}")]);
    }
    let left = || consumers(&server, LOG).iter().filter(|name| name.starts_with("dead-")).count();
    eventually("all are removed", || left() == 0).await;
    assert_eq!(server.say("ZCOUNT rm:consumers 0 1").int(), 150);
    driver.close().await;
}

#[tokio::test]
async fn a_consumer_that_leaves_in_order_is_gone_at_once() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let (name, entry) = (feed.consumer.clone(), next(&mut feed).await);
    settle(&feed, settle_all(&entry, &Outcome::ack())).await;
    assert!(is_known(&server, &name));
    drop(feed);
    eventually("it is removed", || !is_known(&server, &name)).await;
    // As it is with the whole driver.
    let feed = subscribe(&driver, "g").await;
    let name = feed.consumer.clone();
    assert!(is_known(&server, &name));
    driver.close().await;
    assert!(!is_known(&server, &name));
}

#[tokio::test]
async fn a_consumer_that_leaves_something_behind_is_removed_by_its_heir() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let (name, _entry) = (feed.consumer.clone(), next(&mut feed).await);
    let mut heir = subscribe(&driver, "g").await;
    drop(feed);
    let heartbeat = ["ZSCORE", "rm:consumers", &format!("g {name}")];
    let is_old = || {
        server
            .ask(&heartbeat)
            .text()
            .parse()
            .is_ok_and(|seen: f64| now(&server) - seen >= 300_000.0)
    };
    eventually("it counts as dead", is_old).await;
    assert_eq!(server.say("XPENDING rm:{t:0}:log g").list()[0].int(), 1);
    let inherited = next(&mut heir).await;
    eventually("it is removed", || !is_known(&server, &name)).await;
    assert_eq!(server.say("XPENDING rm:{t:0}:log g").list()[0].int(), 1, "the heir's own");
    settle(&heir, settle_all(&inherited, &Outcome::ack())).await;
    driver.close().await;
}

/// Milliseconds of the server's clock.
fn now(server: &Server) -> f64 {
    let time = server.say("TIME");
    let part = |at: usize| time.list()[at].text().parse::<f64>().expect("a number");
    part(0) * 1000.0 + part(1) / 1000.0
}
