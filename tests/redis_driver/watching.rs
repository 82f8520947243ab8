//! The server is watched: what changes is told, and less than was asked for is not accepted.

use crate::kit::*;
use crate::server::Server;
use rumormill::driver::monitor::{Health, Incident, Incidents};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Append, Driver, Publish};
use rumormill::{Durability, Error, ErrorKind, PublishError};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

fn watching(server: &Server) -> RedisOptions {
    RedisOptions { watch: Duration::from_millis(50), ..options(server) }
}

fn health(driver: &RedisDriver) -> Health {
    driver.monitor().expect("a monitor").health()
}

fn findings(driver: &RedisDriver) -> Vec<String> {
    health(driver).server.expect("a server").findings
}

/// The next incident that this says something about.
async fn incident<T>(incidents: &mut Incidents, read: impl Fn(&Incident) -> Option<T>) -> T {
    let wait = async {
        loop {
            let (incident, _) = incidents.next().await.expect("the driver lives");
            if let Some(found) = read(&incident) {
                return found;
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("in time")
}

async fn publish(driver: &RedisDriver) -> Result<Durability, PublishError> {
    let one = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "1")],
        delay: Duration::ZERO,
        deduplicate: false,
    };
    driver.append(vec![one]).await.pop().expect("an answer").map(|appended| appended.durability)
}

#[tokio::test]
async fn what_changes_is_told_once() {
    let server = Server::durable();
    let driver = RedisDriver::connect(watching(&server)).await.expect("connects");
    let known = health(&driver).server.expect("a server");
    assert_eq!((known.role.as_str(), known.durability), ("master", Durability::Fsync));
    assert!(known.is_usable && known.findings.is_empty(), "{known:?}");
    assert_eq!(publish(&driver).await.expect("stored"), Durability::Fsync);

    server.say("CONFIG SET no-appendfsync-on-rewrite yes");
    eventually("a finding", || findings(&driver).len() == 1).await;
    assert!(findings(&driver)[0].contains("on-rewrite"), "{:?}", findings(&driver));
    assert_eq!(publish(&driver).await.expect("stored"), Durability::Volatile);
    server.say("CONFIG SET no-appendfsync-on-rewrite no");
    eventually("no finding", || findings(&driver).is_empty()).await;
    let mut incidents = driver.monitor().expect("a monitor").incidents();

    server.say("CONFIG SET appendfsync everysec");
    let change = |incident: &Incident| match incident {
        Incident::DurabilityChanged { from, to } => Some((*from, *to)),
        _ => None,
    };
    let (from, to) = incident(&mut incidents, change).await;
    assert_eq!((from, to), (Durability::Fsync, Durability::Everysec));
    assert_eq!(publish(&driver).await.expect("stored"), Durability::Everysec);
    server.say("CONFIG SET appendonly no");
    let (from, to) = incident(&mut incidents, change).await;
    assert_eq!((from, to), (Durability::Everysec, Durability::Volatile));

    server.say("CONFIG SET maxmemory-policy allkeys-lru");
    let ailment = |incident: &Incident| match incident {
        Incident::ServerAilment { finding } => Some(finding.clone()),
        _ => None,
    };
    let finding = incident(&mut incidents, ailment).await;
    assert!(finding.contains("allkeys-lru"), "{finding}");
    assert_eq!(findings(&driver), [finding]);
    // It is not told again while it lasts: the next that is told is another one.
    let asked = server.calls("info");
    eventually("it is looked at again and again", || server.calls("info") > asked + 30).await;
    server.say("CONFIG SET maxmemory-policy volatile-ttl");
    let finding = incident(&mut incidents, ailment).await;
    assert!(finding.contains("volatile-ttl"), "{finding}");
    server.say("CONFIG SET maxmemory-policy noeviction");
    eventually("nothing is wrong any more", || findings(&driver).is_empty()).await;
    driver.close().await;
}

#[tokio::test]
async fn evictions_are_told() {
    let server = Server::start();
    let driver = RedisDriver::connect(watching(&server)).await.expect("connects");
    let mut incidents = driver.monitor().expect("a monitor").incidents();
    server.say("CONFIG SET maxmemory-policy allkeys-lru");
    let used = server.say("INFO memory").text();
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("a line");
    let room = used.trim().parse::<u64>().expect("a number") + 300_000;
    server.say(&format!("CONFIG SET maxmemory {room}"));
    let value = "x".repeat(10_000);
    for number in 0..100 {
        server.ask(&["SET", &format!("filler:{number}"), &value]);
    }
    let keys = incident(&mut incidents, |incident| match incident {
        Incident::Evicted { keys } => Some(*keys),
        _ => None,
    });
    assert!(keys.await > 0);
    driver.close().await;
}

#[tokio::test]
async fn another_life_of_the_server_is_told() {
    let mut server = Server::start();
    let driver = RedisDriver::connect(watching(&server)).await.expect("connects");
    let mut incidents = driver.monitor().expect("a monitor").incidents();
    server.kill();
    server.restart();
    let changed = |incident: &Incident| matches!(incident, Incident::ServerChanged { .. });
    incident(&mut incidents, |incident| changed(incident).then_some(())).await;
    driver.close().await;
}

async fn refused(options: RedisOptions) -> Error {
    RedisDriver::connect(options).await.expect_err("refused")
}

#[tokio::test]
async fn less_than_the_minimum_is_refused() {
    let server = Server::with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let least = |least| RedisOptions { min_durability: Some(least), ..watching(&server) };
    let error = refused(least(Durability::Fsync)).await;
    let text = error.to_string();
    assert!(text.contains("is everysec") && text.contains("fsync is the least"), "{text}");
    assert!(error.help().is_some_and(|help| help.contains("appendfsync always")), "{error:?}");
    let driver = RedisDriver::connect(least(Durability::Everysec)).await.expect("connects");
    driver.close().await;
    let error = refused(least(Durability::Replicated)).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");

    server.say("ACL SETUSER weak on >pw ~* +@all -config");
    let url = format!("{}?user=weak&pass=pw", server.url());
    let weak = RedisOptions { url, ..least(Durability::Volatile) };
    let error = refused(weak.clone()).await;
    assert!(error.to_string().contains("is unknown"), "{error}");
    assert!(error.help().is_some_and(|help| help.contains("+config|get")), "{error:?}");
    let weak = RedisOptions { min_durability: None, ..weak };
    let driver = RedisDriver::connect(weak).await.expect("connects");
    assert_eq!(health(&driver).server.expect("a server").durability, Durability::Unknown);
    driver.close().await;

    let bus = rumormill::Bus::builder().min_durability(Durability::Volatile).build().await;
    let error = bus.expect_err("memory keeps nothing");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    let built = rumormill::Bus::builder().url(server.url()).min_durability(Durability::Fsync);
    let error = built.build().await.expect_err("everysec is less");
    assert!(error.to_string().contains("is everysec"), "{error}");
}

#[tokio::test]
async fn drift_below_the_minimum_refuses_publishes_until_it_is_mended() {
    let server = Server::durable();
    let options = RedisOptions { min_durability: Some(Durability::Fsync), ..watching(&server) };
    let driver: Arc<RedisDriver> = RedisDriver::connect(options).await.expect("connects");
    publish(&driver).await.expect("stored");
    assert!(health(&driver).is_ready());
    server.say("CONFIG SET appendfsync no");
    eventually("it is not ready", || !health(&driver).is_ready()).await;
    let error = publish(&driver).await.expect_err("refused");
    assert!(error.is_not_stored(), "{error:?}");
    assert!(error.error().to_string().contains("is volatile, and fsync"), "{error:?}");
    assert!(findings(&driver)[0].contains("fsync is the least"), "{:?}", findings(&driver));
    assert_eq!(length(&server, "XLEN rm:{t:0}:log"), 1, "nothing was stored");
    server.say("CONFIG SET appendfsync always");
    eventually("it is ready again", || health(&driver).is_ready()).await;
    publish(&driver).await.expect("stored");
    driver.close().await;
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left_though_nothing_is_written() {
    let server = Server::start();
    let driver = RedisDriver::connect(watching(&server)).await.expect("connects");
    assert!(health(&driver).is_ready());
    server.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    eventually("readiness turns red", || !health(&driver).is_ready()).await;
    server.say("REPLICAOF NO ONE");
    eventually("readiness turns green", || health(&driver).is_ready()).await;
    driver.close().await;
}
