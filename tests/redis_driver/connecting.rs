//! Servers that will do, and the words for those that will not.

use crate::kit::*;
use crate::server::Server;
use rumormill::delivery::{Outcome, Settled};
use rumormill::driver::redis::{Io, RedisDriver, RedisOptions};
use rumormill::driver::{Append, Driver, Publish, Subscribe};
use rumormill::{Durability, ErrorKind};
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test]
async fn the_callers_runtime_will_do() {
    let server = Server::start();
    let options = RedisOptions { io: Io::Current, ..options(&server) };
    let driver = RedisDriver::connect(options).await.expect("connects");
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    assert_eq!(settle(&feed, settle_all(&entry, &Outcome::ack())).await, [Settled::Done]);
    timeout(PATIENCE, driver.close()).await.expect("in time");
}

async fn refused(url: String) -> rumormill::Error {
    let options = RedisOptions {
        response_timeout: Duration::from_millis(1200),
        deadline: Duration::from_secs(2),
        ..RedisOptions::new(url)
    };
    let error = timeout(PATIENCE, RedisDriver::connect(options)).await.expect("bounded");
    let error = error.expect_err("refused");
    assert!(error.help().is_some(), "{error:?}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    error
}

#[tokio::test]
async fn a_server_that_cannot_be_used_says_why() {
    let error = refused("redis://127.0.0.1:1".to_owned()).await;
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("redis://127.0.0.1:1"), "{error}");
    let error = refused("unix:///nowhere/at/all.sock".to_owned()).await;
    assert_eq!(error.kind(), ErrorKind::Unreachable);

    let server = Server::with(&["--requirepass", "right"]);
    let error = refused(format!("{}?pass=s3cret", server.url())).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    let error = refused(server.url()).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
}

#[tokio::test]
async fn what_is_no_redis_is_recognised() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serve = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        loop {
            let (mut socket, _) = listener.accept().await.expect("accepts");
            let _gone = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = refused(format!("redis://{address}")).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    serve.abort();

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let error = refused(format!("redis://{}", silent.local_addr().expect("an address"))).await;
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
}

#[tokio::test]
async fn a_refusal_names_key_or_permission() {
    let server = Server::start();
    server.say("SET rm:{t:0}:log occupied");
    let driver = connect(&server).await;
    let error = driver.subscribe(wish("g", &["t.>"])).await.expect_err("wrong type");
    assert!(error.to_string().contains("rm:{t:0}:log"), "{error}");
    server.say("DEL rm:{t:0}:log");
    let mut feed = subscribe(&driver, "g").await;
    server.say("DEL rm:{t:0}:log");
    server.say("SET rm:{t:0}:log occupied");
    let error = timeout(PATIENCE, feed.source.fetch(1)).await.expect("in time");
    let error = error.expect_err("wrong type");
    assert!(error.to_string().contains("rm:{t:0}:log"), "{error}");
    driver.close().await;

    let server = Server::start();
    server.say("ACL SETUSER weak on >pw ~* +@all -xadd");
    let url = format!("{}?user=weak&pass=pw", server.url());
    let driver = RedisDriver::connect(RedisOptions::new(url)).await.expect("connects");
    let one = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "1")],
        delay: Duration::ZERO,
        deduplicate: false,
    };
    let error = driver.append(vec![one]).await.pop().expect("an answer").expect_err("denied");
    assert!(error.is_not_stored() && error.error().kind() == ErrorKind::Denied, "{error:?}");
    driver.close().await;
}

#[tokio::test]
async fn durability_is_the_servers() {
    for (setting, durability) in [
        ("always", Durability::Fsync),
        ("everysec", Durability::Everysec),
        ("no", Durability::Volatile),
    ] {
        let server = Server::with(&["--appendonly", "yes", "--appendfsync", setting]);
        let driver = connect(&server).await;
        assert_eq!(append(&driver, "t:0", &["1"]).await.durability, durability);
        driver.close().await;
    }
    let server = Server::start();
    let driver = connect(&server).await;
    assert_eq!(append(&driver, "t:0", &["1"]).await.durability, Durability::Volatile);
    driver.close().await;
}
