//! Partitions, topics that come later, routes, and closing.

use crate::kit::*;
use crate::server::Server;
use rumormill::delivery::{EntryId, Outcome};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Append, Driver, Publish, Subscribe, Subscription};
use rumormill::{EventType, Start};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test]
async fn many_partitions_are_shared_between_readers() {
    let server = Server::start();
    server.ask(&["HSET", "rm:topics", "t", r#"{"partitions":20}"#]);
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    for index in 0..20 {
        append(&driver, &format!("t:{index}"), &[&index.to_string()]).await;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 20 {
        let entry = next(&mut feed).await;
        assert!(seen.insert(entry.partition.index), "each once");
        settle(&feed, settle_all(&entry, &Outcome::ack())).await;
    }
    let waiting = tokio::spawn(async move { next(&mut feed).await });
    eventually("two readers are blocked", || {
        server.say("INFO clients").text().contains("blocked_clients:2")
    })
    .await;
    append(&driver, "t:19", &["last"]).await;
    assert_eq!(payload(&waiting.await.expect("no panic"), 0), "last");
    driver.close().await;
}

#[tokio::test]
async fn a_topic_that_appears_later_is_read_from_its_beginning() {
    let server = Server::start();
    let driver = connect(&server).await;
    let start = Start::New;
    let mut feed =
        driver.subscribe(Subscription { start, ..wish("g", &[">"]) }).await.expect("subscribes");
    append(&driver, "later:0", &["1"]).await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "1");
    append(&driver, "last:0", &["2"]).await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "2");
    driver.close().await;
}

#[tokio::test]
async fn a_topic_that_appeared_while_the_group_was_down_is_read_from_its_beginning() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "old:0", &["before the group"]).await;
    let new = |patterns: &[&str]| Subscription { start: Start::New, ..wish("g", patterns) };
    drop(driver.subscribe(new(&[">"])).await.expect("subscribes"));
    append(&driver, "t:0", &["while it was down"]).await;
    let mut feed = driver.subscribe(new(&[">"])).await.expect("subscribes");
    assert_eq!(payload(&*next(&mut feed).await, 0), "while it was down");
    assert!(timeout(QUIET, feed.source.fetch(1)).await.is_err(), "nothing from before the group");
    driver.close().await;
}

#[tokio::test]
async fn routes_are_the_groups() {
    let server = Server::start();
    let (one, two) = (connect(&server).await, connect(&server).await);
    let old = Subscription {
        routes: vec![("t.x".parse().expect("valid"), Some(1))],
        ..wish("g", &["t.x"])
    };
    let mut first = one.subscribe(old).await.expect("subscribes");
    let known = EventType::from_static("t.x");
    assert!(first.routes.covers(&known, 1) && !first.routes.covers(&known, 2));
    assert_eq!(server.say("HGET rm:routes:g ~epoch").text(), "1");
    let newer = Subscription {
        routes: vec![
            ("t.x".parse().expect("valid"), Some(2)),
            ("t.y".parse().expect("valid"), None),
        ],
        ..wish("g", &["t.x"])
    };
    let second = two.subscribe(newer.clone()).await.expect("subscribes");
    assert_eq!(server.say("HGET rm:routes:g ~epoch").text(), "2");
    append(&one, "t:0", &["1"]).await;
    next(&mut first).await;
    assert!(first.routes.covers(&known, 2), "known before the entry is handed over");
    assert!(first.routes.covers(&EventType::from_static("t.y"), 9));
    assert!(second.routes.covers(&known, 2) && !second.routes.covers(&known, 3));
    let third = two.subscribe(newer).await.expect("subscribes");
    assert_eq!(server.say("HGET rm:routes:g ~epoch").text(), "2", "nothing new");
    drop(third);
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_fetch_that_is_dropped_loses_nothing() {
    let server = Server::start();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    let mut seen = BTreeSet::new();
    for round in 0..50 {
        let name = round.to_string();
        let names = [name.as_str()];
        let append = append(&driver, "t:0", &names);
        tokio::pin!(append);
        tokio::select! {
            _ = &mut append => {}
            entries = feed.source.fetch(5) => {
                let payloads = entries.expect("no error");
                seen.extend(payloads.iter().map(|entry| payload(entry, 0)));
                append.await;
            }
        }
    }
    while seen.len() < 50 {
        seen.insert(payload(&*next(&mut feed).await, 0));
    }
    driver.close().await;
}

#[tokio::test]
async fn a_closed_source_gives_what_was_read_and_then_ends() {
    let server = Server::start();
    let options = RedisOptions {
        block: Duration::from_secs(60),
        response_timeout: Duration::from_secs(61),
        ..options(&server)
    };
    let driver = RedisDriver::connect(options).await.expect("connects");
    let mut feed = subscribe(&driver, "g").await;
    assert!(timeout(QUIET, feed.source.fetch(1)).await.is_err(), "a read is blocked");
    timeout(PATIENCE, feed.source.close()).await.expect("a block is not waited for");
    append(&driver, "t:0", &["1"]).await;
    let entries = timeout(PATIENCE, feed.source.fetch(1)).await.expect("in time");
    assert!(entries.expect("no error").is_empty());
    let mut open = subscribe(&driver, "h").await;
    next(&mut open).await;
    assert!(timeout(QUIET, open.source.fetch(1)).await.is_err(), "a read is blocked");
    timeout(PATIENCE, driver.close()).await.expect("a block is not waited for");
    timeout(PATIENCE, driver.close()).await.expect("a second call does nothing");
    let entries = timeout(PATIENCE, open.source.fetch(1)).await.expect("in time");
    assert!(entries.expect("no error").is_empty());
    let one = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "2")],
        delay: Duration::ZERO,
        deduplicate: false,
    };
    let error = driver.append(vec![one]).await.pop().expect("an answer").expect_err("closed");
    assert!(error.is_not_stored() && error.error().is_closed(), "{error:?}");
}

#[tokio::test]
async fn appends_of_one_partition_keep_the_order_of_their_calls() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["first"]).await;
    let call = |number: usize| Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", &number.to_string())],
        delay: Duration::ZERO,
        deduplicate: false,
    };
    let calls = (0..500).map(|number| driver.append(vec![call(number)]));
    let answers = futures_util::future::join_all(calls).await;
    let ids: Vec<Option<EntryId>> = answers
        .into_iter()
        .map(|mut answer| answer.pop().expect("an answer").expect("stored").entry)
        .collect();
    assert!(ids.is_sorted(), "stored in the order in which they were polled");
    driver.close().await;
}
