//! Keys that cannot be read: of another type, or forbidden.

use crate::kit::*;
use crate::server::Server;
use crate::watch::*;
use rumormill::driver::Driver;
use rumormill::driver::monitor::{Incident, Incidents};
use rumormill::driver::redis::{RedisDriver, RedisOptions};

const LOG: &str = "rm:{t:0}:log";
const OTHER: &str = "rm:{t:1}:log";

async fn unusable(heard: &mut Incidents) -> String {
    let told = hear(heard, "a key is unusable", |incident| match incident {
        Incident::KeyUnusable { partition, reason, .. } => Some((partition.to_string(), reason)),
        _ => None,
    });
    let (partition, reason) = told.await;
    assert_eq!(partition, "t:0");
    reason
}

#[tokio::test]
async fn a_key_of_another_type_stops_only_its_own_partition() {
    let server = Server::start();
    server.ask(&["HSET", "rm:topics", "t", r#"{"partitions":2}"#]);
    let driver = watched(&server).await;
    let mut heard = incidents(&driver);
    let mut feed = subscribe(&driver, "g").await;
    server.ask(&["SET", LOG, "something else"]);
    fill(&server, OTHER, 0..1);
    assert_eq!(take(&mut feed, 1).await, ["0"]);
    assert!(unusable(&mut heard).await.contains("WRONGTYPE"));
    fill(&server, OTHER, 1..3);
    assert_eq!(take(&mut feed, 2).await, ["1", "2"]);
    server.ask(&["DEL", LOG]);
    fill(&server, LOG, 3..4);
    assert_eq!(take(&mut feed, 1).await, ["3"]);
    driver.close().await;
}

#[tokio::test]
async fn a_forbidden_key_stops_only_its_own_partition() {
    let server = Server::start();
    server.ask(&["HSET", "rm:topics", "t", r#"{"partitions":2}"#]);
    server.ask(&["ACL", "SETUSER", "bus", "on", ">secret", "~*", "&*", "+@all"]);
    let url = format!("redis+unix://{}?user=bus&pass=secret", server.socket().display());
    let options = RedisOptions { url, ..options(&server) };
    let driver = RedisDriver::connect(options).await.expect("connects");
    let mut heard = incidents(&driver);
    let mut feed = subscribe(&driver, "g").await;
    let others = ["~rm:{t:1}:*", "~rm:topics", "~rm:routes:*", "~rm:consumers"];
    let rights = [&["ACL", "SETUSER", "bus", "resetkeys"][..], &others].concat();
    server.ask(&rights);
    fill(&server, OTHER, 0..1);
    assert_eq!(take(&mut feed, 1).await, ["0"]);
    assert!(unusable(&mut heard).await.contains("NOPERM"));
    fill(&server, LOG, 1..2);
    server.ask(&["ACL", "SETUSER", "bus", "~*"]);
    assert_eq!(take(&mut feed, 1).await, ["1"]);
    driver.close().await;
}
