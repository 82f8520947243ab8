//! Appends that replicas or files confirm.

use crate::kit::*;
use crate::proxy::{Loss, Proxy};
use crate::server::{Reply, Server};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Append, Appended, Driver, Publish};
use rumormill::{Confirm, Durability, Error, ErrorKind, PublishError};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const CONFIRM: Confirm = Confirm::Replicas { count: 1, timeout: Duration::from_millis(700) };

fn one(payload: &str) -> Append {
    let envelopes = vec![event("t.x", payload)];
    let (partition, delay) = (partition("t:0"), Duration::ZERO);
    Append { partition, envelopes, delay, deduplicate: false }
}

async fn publish(driver: &RedisDriver, append: Append) -> Result<Appended, PublishError> {
    let answers = timeout(PATIENCE, driver.append(vec![append])).await.expect("bounded");
    answers.into_iter().next().expect("an answer")
}

/// A primary, and a replica that is in step with it.
async fn pair() -> (Server, Server) {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        free.local_addr().expect("an address").port().to_string()
    };
    let primary = Server::with(&["--port", &port, "--repl-diskless-sync-delay", "0"]);
    let replica = Server::with(&["--replicaof", "127.0.0.1", &port]);
    eventually("the replica is there", || {
        primary.say("INFO replication").text().contains("state=online")
    })
    .await;
    // It counts as online before it is sent anything: what was written since tells.
    primary.say("SET in step");
    let has_it = || matches!(replica.try_ask(&["GET", "in"]), Some(Reply::Text(_)));
    eventually("the replica is in step", has_it).await;
    (primary, replica)
}

async fn connect_with(confirm: Confirm, server: &Server) -> Result<Arc<RedisDriver>, Error> {
    RedisDriver::connect(RedisOptions { confirm, ..options(server) }).await
}

fn refused_by_replicas(answer: Result<Appended, PublishError>) {
    let error = answer.expect_err("nobody confirms");
    assert!(!error.is_not_stored(), "{error:?}");
    assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
}

#[tokio::test]
async fn replicas_confirm_or_the_outcome_is_unknown() {
    let (primary, replica) = pair().await;
    let driver = connect_with(CONFIRM, &primary).await.expect("connects");
    let stored = publish(&driver, one("1")).await.expect("confirmed");
    assert_eq!(stored.durability, Durability::Replicated);
    assert_eq!(length(&replica, "XLEN rm:{t:0}:log"), 1);
    let health = driver.monitor().expect("it has one").health();
    let appends = health.connections.iter().find(|connection| connection.name == "appends");
    assert!(appends.is_some_and(|it| it.is_ready() && it.last_answer.is_some()), "{health:?}");
    replica.pause();
    refused_by_replicas(publish(&driver, one("2")).await);
    assert_eq!(length(&primary, "XLEN rm:{t:0}:log"), 2, "it is on the primary");
    replica.resume();
    publish(&driver, one("3")).await.expect("confirmed");
    driver.close().await;
}

#[tokio::test]
async fn what_waits_for_replicas_keeps_nobody_else_waiting() {
    let (primary, replica) = pair().await;
    let driver = connect_with(CONFIRM, &primary).await.expect("connects");
    publish(&driver, one("1")).await.expect("confirmed");
    replica.pause();
    let mut publishing = std::pin::pin!(publish(&driver, one("2")));
    let tools = driver.tools().expect("it has tools");
    tokio::select! {
        biased;
        answer = &mut publishing => panic!("{answer:?}"),
        topics = tools.topics() => drop(topics.expect("answered")),
    }
    refused_by_replicas(publishing.await);
    driver.close().await;
}

#[tokio::test]
async fn what_is_found_after_a_lost_reply_is_confirmed_again() {
    let (primary, replica) = pair().await;
    let proxy = Proxy::start(&primary);
    let options = RedisOptions { confirm: CONFIRM, ..proxy.options(&primary) };
    let driver = RedisDriver::connect(options).await.expect("connects");
    let lost = Loss { of: "\r\nXADD\r\n", done: 1, seen: 1, late: false };
    publish(&driver, one("1")).await.expect("confirmed");
    proxy.lose(lost);
    let stored = publish(&driver, one("2")).await.expect("found and confirmed");
    assert_eq!((stored.durability, proxy.lost()), (Durability::Replicated, 1));
    let of_its_own = primary.say("PTTL rm:{t:0}:confirm").int();
    assert!(of_its_own > 0, "what is waited for was written over the new connection");
    replica.pause();
    proxy.lose(lost);
    refused_by_replicas(publish(&driver, one("3")).await);
    assert_eq!((length(&primary, "XLEN rm:{t:0}:log"), proxy.lost()), (3, 2));
    driver.close().await;
}

#[tokio::test]
async fn what_another_publisher_stored_is_confirmed_as_well() {
    let (primary, replica) = pair().await;
    let driver = connect_with(CONFIRM, &primary).await.expect("connects");
    let other = connect(&primary).await;
    let known = Append { deduplicate: true, ..one("1") };
    publish(&driver, one("0")).await.expect("confirmed");
    replica.pause();
    publish(&other, known.clone()).await.expect("stored");
    refused_by_replicas(publish(&driver, known.clone()).await);
    replica.resume();
    let again = publish(&driver, known).await.expect("confirmed");
    assert_eq!((again.entry, again.durability), (None, Durability::Replicated));
    driver.close().await;
    other.close().await;
}

#[tokio::test]
async fn files_confirm_where_the_server_can() {
    let timeout = Duration::from_millis(400);
    let local = Confirm::Fsync { local: true, replicas: 0, timeout };
    let server = Server::with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let knows = |server: &Server| match server.say("COMMAND INFO WAITAOF") {
        Reply::List(commands) => commands != [Reply::Nil],
        other => panic!("{other:?}"),
    };
    let connected = connect_with(local, &server).await;
    if knows(&server) {
        let driver = connected.expect("connects");
        let stored = publish(&driver, one("1")).await.expect("confirmed");
        assert_eq!(stored.durability, Durability::Fsync);
        driver.close().await;
        let without = connect_with(local, &Server::start()).await.expect_err("it has no file");
        assert_eq!(without.kind(), ErrorKind::Unsupported, "{without:?}");
    } else {
        let error = connected.expect_err("it does not know the command");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(error.to_string().contains("WAITAOF") && error.help().is_some(), "{error:?}");
    }
}

#[tokio::test]
async fn confirmations_that_cannot_work_are_refused() {
    let server = Server::start();
    let long = Duration::from_secs(60);
    let short = Duration::from_millis(100);
    for confirm in [
        Confirm::Replicas { count: 0, timeout: short },
        Confirm::Replicas { count: 1, timeout: Duration::ZERO },
        Confirm::Replicas { count: 1, timeout: long },
        Confirm::Fsync { local: false, replicas: 0, timeout: short },
    ] {
        let error = connect_with(confirm, &server).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    }
    let least = Some(Durability::Replicated);
    let without = RedisOptions { min_durability: least, ..options(&server) };
    let error = RedisDriver::connect(without.clone()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    let with = RedisOptions { confirm: CONFIRM, ..without };
    RedisDriver::connect(with).await.expect("connects").close().await;
    // A server without replicas is found out with the first event, and says so.
    let driver = connect_with(CONFIRM, &server).await.expect("connects");
    refused_by_replicas(publish(&driver, one("1")).await);
    driver.close().await;
}
