//! Entries that are trimmed by a stranger before they were read or settled.

use crate::kit::*;
use crate::server::Server;
use crate::watch::*;
use rumormill::Start;
use rumormill::delivery::Outcome;
use rumormill::driver::monitor::Incident;
use rumormill::driver::{Driver, LeaseTimes, Subscribe, Subscription};
use std::time::Duration;

const LOG: &str = "rm:{t:0}:log";

fn retention_lost(entries: u64) -> Incident {
    Incident::RetentionLost { group: group("g"), partition: partition("t:0"), entries }
}

#[tokio::test]
async fn entries_trimmed_unread_are_counted_right_before_the_next_read() {
    let server = Server::start();
    fill(&server, LOG, 0..1000);
    let driver = connect_without_rounds(&server).await;
    let mut heard = incidents(&driver);
    let mut feed = subscribe(&driver, "g").await;
    let mut seen = take(&mut feed, 100).await;
    assert_eq!(seen.last().map(String::as_str), Some("99"));
    server.ask(&["XTRIM", LOG, "MAXLEN", "100"]);
    seen = take(&mut feed, 100).await;
    assert_eq!((seen[0].as_str(), seen[99].as_str()), ("900", "999"));
    wait_for(&mut heard, &retention_lost(800)).await;
    fill(&server, LOG, 1000..1200);
    server.ask(&["XTRIM", LOG, "MAXLEN", "10"]);
    take(&mut feed, 10).await;
    until(&driver, "both trims", |losses| losses.retention_lost >= 800 + 190).await;
    assert_eq!(losses(&driver).retention_lost, 990, "the first is not counted again");
    driver.close().await;
}

#[tokio::test]
async fn an_idle_consumer_and_its_peers_count_a_trim_once() {
    let server = Server::start();
    fill(&server, LOG, 0..100);
    let (one, two) = (watched(&server).await, watched(&server).await);
    let mut feed = subscribe(&one, "g").await;
    let _peer = subscribe(&two, "g").await;
    take(&mut feed, 10).await;
    server.ask(&["XTRIM", LOG, "MAXLEN", "40"]);
    let both = || losses(&one).retention_lost + losses(&two).retention_lost;
    eventually("counted by one of the two", || both() > 0).await;
    // waits: by a checkpoint, for two more rounds of each
    fill(&server, LOG, 100..101);
    take(&mut feed, 41).await;
    until_checkpoint(&server, "g", last_id(&server, LOG)).await;
    assert_eq!(both(), 50);
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_new_group_on_a_trimmed_log_lost_nothing() {
    let server = Server::start();
    fill(&server, LOG, 0..100);
    server.ask(&["XTRIM", LOG, "MAXLEN", "10"]);
    let driver = watched(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    let new = Subscription { start: Start::New, ..wish("later", &["t.>"]) };
    let mut later = driver.subscribe(new).await.expect("subscribes");
    assert_eq!(take(&mut feed, 10).await[0], "90");
    fill(&server, LOG, 100..110);
    assert_eq!(take(&mut later, 10).await[0], "100");
    take(&mut feed, 10).await;
    until_checkpoint(&server, "g", last_id(&server, LOG)).await;
    until_checkpoint(&server, "later", last_id(&server, LOG)).await;
    assert!(losses(&driver).is_none(), "{:?}", losses(&driver));
    driver.close().await;
}

#[tokio::test]
async fn a_server_that_starts_again_with_its_files_trimmed_nothing() {
    let mut server = Server::durable();
    fill(&server, LOG, 0..10);
    let driver = watched(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    take(&mut feed, 10).await;
    until_checkpoint(&server, "g", last_id(&server, LOG)).await;
    // What is read from here on moves the group, and not the count that the files have.
    fill(&server, LOG, 10..50);
    take(&mut feed, 40).await;
    server.kill();
    server.restart();
    fill(&server, LOG, 50..60);
    take(&mut feed, 10).await;
    until_checkpoint(&server, "g", last_id(&server, LOG)).await;
    assert_eq!(losses(&driver).retention_lost, 0);
    fill(&server, LOG, 60..1060);
    take(&mut feed, 100).await;
    server.ask(&["XTRIM", LOG, "MAXLEN", "100"]);
    until(&driver, "a trim after it", |losses| losses.retention_lost == 800).await;
    driver.close().await;
}

#[tokio::test]
async fn entries_trimmed_while_they_were_pending_are_counted_once() {
    let server = Server::start();
    fill(&server, LOG, 0..5);
    let driver = watched(&server).await;
    let lease = LeaseTimes::default();
    let mut feed =
        driver.subscribe(Subscription { lease, ..wish("g", &["t.>"]) }).await.expect("subscribes");
    let held = [next(&mut feed).await, next(&mut feed).await, next(&mut feed).await];
    server.ask(&["XTRIM", LOG, "MAXLEN", "0"]);
    // Nothing is asked for: the consumer is busy. The other two were not read.
    until(&driver, "both", |losses| losses.pending_gone >= 3 && losses.retention_lost >= 2).await;
    fill(&server, LOG, 5..6);
    let last = next(&mut feed).await;
    assert_eq!(settle(&feed, settle_all(&last, &Outcome::ack())).await.len(), 1);
    for entry in &held {
        settle(&feed, settle_all(entry, &Outcome::ack())).await;
    }
    until_checkpoint(&server, "g", last.id).await;
    let lost = losses(&driver);
    assert_eq!((lost.pending_gone, lost.retention_lost), (3, 2));
    driver.close().await;
}

#[tokio::test]
async fn what_a_sweep_finds_gone_was_counted_before() {
    let server = Server::start();
    fill(&server, LOG, 0..3);
    let driver = watched(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    take(&mut feed, 1).await;
    // A consumer that died with two entries, which are trimmed then.
    server.ask(&["XREADGROUP", "GROUP", "g", "dead", "STREAMS", LOG, ">"]);
    server.ask(&["XTRIM", LOG, "MAXLEN", "0"]);
    let waiting = tokio::spawn(async move {
        let entry = next(&mut feed).await;
        (feed, entry)
    });
    eventually("the sweep forgets them", || {
        server.ask(&["XPENDING", LOG, "g"]).list()[0].int() == 0
    })
    .await;
    until(&driver, "they are counted", |losses| losses.pending_gone > 0).await;
    fill(&server, LOG, 3..4);
    let (_feed, last) = waiting.await.expect("no panic");
    until_checkpoint(&server, "g", last.id.previous()).await;
    assert_eq!(losses(&driver).pending_gone, 2);
    driver.close().await;
}

#[tokio::test]
async fn a_read_of_large_entries_is_bounded_by_bytes() {
    let server = Server::start();
    server.ask(&["HSET", "rm:topics", "t", r#"{"partitions":1}"#]);
    let data = "x".repeat(500_000);
    for _ in 0..60 {
        server.ask(&["XADD", LOG, "*", "type", "t.x", "data", &data]);
    }
    let driver = watched(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    let mut seen = 0;
    while seen < 60 {
        let fetch = tokio::time::timeout(Duration::from_secs(15), feed.source.fetch(10_000));
        let entries = fetch.await.expect("in time").expect("no error");
        assert!(entries.len() <= 16, "{} in one reply", entries.len());
        seen += entries.len();
        for entry in entries {
            settle(&feed, settle_all(&std::sync::Arc::new(entry), &Outcome::ack())).await;
        }
    }
    driver.close().await;
}
