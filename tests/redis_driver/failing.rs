//! What happens when scripts, connections, groups or the server go away.

use crate::kit::*;
use crate::server::Server;
use rumormill::delivery::{Outcome, Settled};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Append, Driver, LeaseTimes, Publish, Subscribe, Subscription};
use rumormill::{Durability, PublishError};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test]
async fn scripts_that_were_flushed_are_sent_again() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    server.say("SCRIPT FLUSH");
    assert_eq!(settle(&feed, settle_all(&entry, &dead_letter())).await, [Settled::Done]);
    server.say("SCRIPT FLUSH");
    let later = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "2")],
        delay: Duration::from_millis(20),
        deduplicate: false,
    };
    let stored = driver.append(vec![later]).await.pop().expect("an answer").expect("stored");
    assert_eq!(stored.entry, None);
    assert_eq!(payload(&*next(&mut feed).await, 0), "2");
    driver.close().await;
}

#[tokio::test]
async fn killed_connections_are_made_again() {
    let server = Server::start();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    append(&driver, "t:0", &["1"]).await;
    let held = next(&mut feed).await;
    server.say("CLIENT KILL TYPE normal");
    // What is in flight stays so; an append may have met the dead connection.
    let mut stored = 0;
    let one = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "2")],
        delay: Duration::ZERO,
        deduplicate: false,
    };
    while stored == 0 {
        match driver.append(vec![one.clone()]).await.pop().expect("an answer") {
            Ok(_) => stored += 1,
            Err(PublishError::Unknown(_) | PublishError::NotStored(_)) => {}
        }
    }
    let other = next(&mut feed).await;
    assert_eq!(payload(&other, 0), "2");
    assert!(!held.lease.is_cancelled());
    assert_eq!(settle(&feed, settle_all(&held, &dead_letter())).await, [Settled::Done]);
    driver.close().await;
}

#[tokio::test]
async fn what_a_lost_connection_left_unseen_is_found() {
    let server = Server::start();
    let driver = connect(&server).await;
    let lease = LeaseTimes::default();
    let mut feed =
        driver.subscribe(Subscription { lease, ..wish("g", &["t.>"]) }).await.expect("subscribes");
    append(&driver, "t:0", &["1"]).await;
    let held = next(&mut feed).await;
    append(&driver, "t:0", &["2"]).await;
    // The server hands an entry out to this consumer, and the answer is lost.
    let read = ["XREADGROUP", "GROUP", "g", &feed.consumer, "STREAMS", "rm:{t:0}:log", ">"];
    assert_eq!(server.ask(&read).list().len(), 1);
    server.say("CLIENT KILL TYPE normal");
    let unseen = next(&mut feed).await;
    assert_eq!((payload(&unseen, 0), unseen.token.0), ("2".to_owned(), 2));
    assert_eq!(settle(&feed, settle_all(&held, &dead_letter())).await, [Settled::Done]);
    assert_eq!(settle(&feed, settle_all(&unseen, &Outcome::ack())).await, [Settled::Done]);
    driver.close().await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let mut server = Server::durable();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for name in &names[..10] {
        assert_eq!(append(&driver, "t:0", &[name]).await.durability, Durability::Fsync);
    }
    let mut seen = BTreeSet::new();
    let held = next(&mut feed).await;
    seen.insert(payload(&held, 0));
    server.kill();
    server.restart();
    assert_eq!(settle(&feed, settle_all(&held, &Outcome::ack())).await, [Settled::Done]);
    for name in &names[10..] {
        append_surely(&driver, name).await;
    }
    while seen.len() < 20 {
        let entry = next(&mut feed).await;
        assert_ne!(entry.id, held.id, "what was settled does not come again");
        seen.insert(payload(&entry, 0));
        settle(&feed, settle_all(&entry, &Outcome::ack())).await;
    }
    driver.close().await;
}

#[tokio::test]
async fn a_server_that_stands_still_is_waited_for() {
    let server = Server::start();
    let options = RedisOptions {
        block: Duration::from_millis(100),
        response_timeout: Duration::from_millis(300),
        deadline: Duration::from_millis(600),
        ..RedisOptions::new(server.url())
    };
    let driver = RedisDriver::connect(options).await.expect("connects");
    let mut feed = subscribe(&driver, "g").await;
    server.pause();
    let one = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "1")],
        delay: Duration::ZERO,
        deduplicate: false,
    };
    let answer = timeout(PATIENCE, driver.append(vec![one])).await.expect("bounded");
    let error = answer.into_iter().next().expect("an answer").expect_err("no answer");
    assert!(error.error().is_transient(), "{error:?}");
    server.resume();
    append_surely(&driver, "2").await;
    let mut seen = payload(&*next(&mut feed).await, 0);
    if seen == "1" {
        seen = payload(&*next(&mut feed).await, 0);
    }
    assert_eq!(seen, "2");
    driver.close().await;
}

#[tokio::test]
async fn a_group_that_vanished_begins_again_with_the_first_entry() {
    let server = Server::start();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    append(&driver, "t:0", &["1"]).await;
    let entry = next(&mut feed).await;
    settle(&feed, settle_all(&entry, &Outcome::ack())).await;
    server.say("XGROUP DESTROY rm:{t:0}:log g");
    append(&driver, "t:0", &["2"]).await;
    let (one, two) = (next(&mut feed).await, next(&mut feed).await);
    assert_eq!((payload(&one, 0), payload(&two, 0)), ("1".to_owned(), "2".to_owned()));
    server.say("FLUSHALL");
    append(&driver, "t:0", &["3"]).await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "3");
    driver.close().await;
}

#[tokio::test]
async fn after_a_restart_nobody_elses_connection_is_killed() {
    let mut server = Server::durable();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    append_surely(&driver, "0").await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "0");
    // In the same life of the server the connections before are killed: of the reader and of the
    // commands, in either order.
    server.say("CLIENT KILL TYPE normal");
    append_surely(&driver, "1").await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "1");
    eventually("the old ones are killed", || server.calls("client|kill") >= 3).await;
    server.kill();
    server.restart();
    append_surely(&driver, "2").await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "2");
    assert_eq!(server.calls("client|kill"), 0, "the numbers are others' now");
    driver.close().await;
}
