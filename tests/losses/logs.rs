//! Logs that vanish or go back: deleted, renamed, expired, evicted, or lost with the server.

use crate::kit::*;
use crate::server::Server;
use crate::watch::*;
use rumormill::delivery::Outcome;
use rumormill::driver::Driver;
use rumormill::driver::monitor::Incident;
use std::sync::Arc;

const LOG: &str = "rm:{t:0}:log";

/// Publishes and consumes, lets the log be lost, and sees it told and both go on.
async fn lose(server: &Server, how: impl FnOnce(&Server)) {
    let driver = watched(server).await;
    let mut heard = incidents(&driver);
    let mut feed = subscribe(&driver, "g").await;
    for name in ["1", "2", "3"] {
        append(&driver, "t:0", &[name]).await;
    }
    take(&mut feed, 3).await;
    let known = last_id(server, LOG);
    until_checkpoint(server, "g", known).await;
    let waiting = tokio::spawn(async move {
        let entry = next(&mut feed).await;
        (feed, entry)
    });
    how(server);
    let told = hear(&mut heard, "history is lost", |incident| match incident {
        Incident::HistoryLost { partition, known, .. } => Some((partition.to_string(), known)),
        _ => None,
    });
    assert_eq!(told.await, ("t:0".to_owned(), known));
    until(&driver, "the group", |losses| losses.group_lost == 1).await;
    append_surely(&driver, "4").await;
    let (feed, entry) = waiting.await.expect("no panic");
    assert_eq!(payload(&entry, 0), "4");
    settle(&feed, crate::kit::settle_all(&entry, &Outcome::ack())).await;
    until_checkpoint(server, "g", entry.id).await;
    assert_eq!((losses(&driver).history_lost, losses(&driver).group_lost), (1, 1), "said once");
    driver.close().await;
}

#[tokio::test]
async fn a_log_is_deleted() {
    lose(&Server::start(), |server| drop(server.ask(&["DEL", LOG]))).await;
}

#[tokio::test]
async fn a_log_is_renamed() {
    lose(&Server::start(), |server| drop(server.ask(&["RENAME", LOG, "elsewhere"]))).await;
}

#[tokio::test]
async fn a_log_expires() {
    lose(&Server::start(), |server| drop(server.ask(&["PEXPIRE", LOG, "1"]))).await;
}

#[tokio::test]
async fn everything_is_flushed() {
    lose(&Server::start(), |server| drop(server.say("FLUSHALL"))).await;
}

#[tokio::test]
async fn a_log_is_evicted() {
    let arguments = ["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"];
    lose(&Server::with(&arguments), |server| {
        server.say("CONFIG SET maxmemory 1");
        // Any write makes room.
        server.try_ask(&["SET", "something", "else"]);
        server.say("CONFIG SET maxmemory 0");
        assert_eq!(server.ask(&["EXISTS", LOG]).int(), 0, "it was evicted");
    })
    .await;
}

#[tokio::test]
async fn after_a_flush_topics_and_routes_are_there_again() {
    let server = Server::start();
    server.ask(&["HSET", "rm:topics", "t", r#"{"partitions":2}"#]);
    let driver = watched(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    append(&driver, "t:1", &["1"]).await;
    let entry = next(&mut feed).await;
    // Kept while the rest happens, so that readers have nothing to do.
    server.say("FLUSHALL");
    until(&driver, "both partitions", |losses| losses.group_lost == 2).await;
    eventually("the topic is declared", || {
        server.ask(&["HGET", "rm:topics", "t"]) != crate::server::Reply::Nil
    })
    .await;
    assert_eq!(server.say("HGET rm:topics t").text(), r#"{"partitions":2}"#);
    eventually("the routes are registered", || server.say("HLEN rm:routes:g").int() > 0).await;
    eventually("the consumer is known", || server.say("ZCARD rm:consumers").int() == 1).await;
    // A subscriber to everything finds the topic.
    let mut later = kit_subscribe(&driver).await;
    append(&driver, "t:1", &["2"]).await;
    assert_eq!(payload(&*next(&mut later).await, 0), "2");
    assert_eq!(payload(&*next(&mut feed).await, 0), "2");
    drop(entry);
    driver.close().await;
}

async fn kit_subscribe(
    driver: &Arc<rumormill::driver::redis::RedisDriver>,
) -> rumormill::driver::Feed {
    use rumormill::driver::Subscribe;
    driver.subscribe(wish("later", &[">"])).await.expect("subscribes")
}

#[tokio::test]
async fn a_server_that_keeps_nothing_is_started_again() {
    let mut server = Server::start();
    let driver = watched(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    for name in ["1", "2", "3"] {
        append(&driver, "t:0", &[name]).await;
    }
    take(&mut feed, 3).await;
    server.kill();
    server.restart();
    until(&driver, "both", |lost| lost.history_lost == 1 && lost.group_lost == 1).await;
    append_surely(&driver, "4").await;
    assert_eq!(take(&mut feed, 1).await, ["4"]);
    assert_eq!((losses(&driver).history_lost, losses(&driver).group_lost), (1, 1));
    driver.close().await;
}

#[tokio::test]
async fn who_only_publishes_sees_it_too() {
    let server = Server::start();
    let driver = watched(&server).await;
    append(&driver, "t:0", &["1"]).await;
    append(&driver, "u:0", &["1"]).await;
    server.ask(&["DEL", LOG]);
    until(&driver, "the one log", |losses| losses.history_lost == 1).await;
    server.say("FLUSHALL");
    until(&driver, "the other", |losses| losses.history_lost == 2).await;
    eventually("its topic is declared", || server.say("HLEN rm:topics").int() > 0).await;
    driver.close().await;
}
