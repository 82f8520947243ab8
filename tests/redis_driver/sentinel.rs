//! The master that sentinels name, and following it to another server.

use crate::kit::*;
use crate::server::{Server, program};
use rumormill::ErrorKind;
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Driver, Subscribe};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A server that listens on a port too.
fn listening(port: u16, more: &[&str]) -> Server {
    let port = port.to_string();
    let mut arguments = vec!["--port", &port, "--bind", "127.0.0.1", "--appendonly", "no"];
    arguments.extend(more);
    Server::with(&arguments)
}

/// A sentinel that decides alone.
struct Sentinel {
    port: u16,
    child: Child,
    _directory: TempDir,
}

impl Sentinel {
    fn watching(master: u16, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (port, file) = (free_port(), directory.path().join("conf"));
        let dir = directory.path().display();
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {dir}\nlogfile {dir}/log\n\
             sentinel monitor m 127.0.0.1 {master} 1\nsentinel down-after-milliseconds m 400\n\
             sentinel failover-timeout m 2000\n{more}\n"
        );
        std::fs::write(&file, settings).expect("a file");
        let mut command = Command::new(program());
        command.arg(&file).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null());
        Self { port, child: command.spawn().expect("starts"), _directory: directory }
    }

    /// One command; the first line of the answer.
    fn ask(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    }

    /// It can make the replica the master.
    async fn is_ready(&self) {
        eventually("the sentinel knows the replica", || {
            self.ask("SENTINEL CKQUORUM m").is_some_and(|line| line.starts_with("+OK"))
                && self.ask("SENTINEL REPLICAS m").is_some_and(|line| line == "*1")
        })
        .await;
    }

    async fn fail_over(&self) {
        // It answers `-NOGOODSLAVE` until it has seen enough of the replica.
        eventually("the sentinel fails over", || {
            self.ask("SENTINEL FAILOVER m").is_some_and(|line| line.starts_with("+OK"))
        })
        .await;
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A master with a replica, and who watches them.
struct Watched {
    master: Server,
    replica: Server,
    sentinel: Sentinel,
}

impl Watched {
    async fn start() -> Self {
        let ports = (free_port(), free_port());
        let master = listening(ports.0, &["--repl-diskless-sync-delay", "0"]);
        let of = format!("127.0.0.1 {}", ports.0);
        let replica = listening(ports.1, &["--replicaof", &of]);
        eventually("the replica follows", || {
            replica.say("INFO replication").text().contains("master_link_status:up")
        })
        .await;
        let watched = Self { master, replica, sentinel: Sentinel::watching(ports.0, "") };
        watched.sentinel.is_ready().await;
        watched
    }

    /// With other sentinels before this one, each with a comma.
    fn options(&self, others: &str) -> RedisOptions {
        RedisOptions {
            block: Duration::from_millis(300),
            response_timeout: Duration::from_millis(1500),
            ..RedisOptions::new(format!(
                "redis+sentinel://{others}127.0.0.1:{}/m",
                self.sentinel.port
            ))
        }
    }
}

fn is_primary(server: &Server) -> bool {
    server.say("ROLE").list()[0].text() == "master"
}

async fn goes_on(driver: &Arc<RedisDriver>, feed: &mut rumormill::driver::Feed) {
    append_surely(driver, "after").await;
    loop {
        let entry = next(feed).await;
        let found = payload(&entry, 0);
        settle(feed, settle_all(&entry, &rumormill::delivery::Outcome::ack())).await;
        if found == "after" {
            return;
        }
    }
}

/// Appends until that server has more than it had.
async fn move_to(driver: &Arc<RedisDriver>, server: &Server, had: i64) {
    let wait = async {
        while length(server, "XLEN rm:{t:0}:log") <= had {
            append_surely(driver, "between").await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the new master is used");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_is_followed_when_it_hands_over() {
    let watched = Watched::start().await;
    let driver = RedisDriver::connect(watched.options("")).await.expect("connects");
    append(&driver, "t:0", &["before"]).await;
    let mut feed = subscribe(&driver, "g").await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "before");
    watched.sentinel.fail_over().await;
    eventually("the replica is made the master", || is_primary(&watched.replica)).await;
    // The old master takes writes for seconds more, until it is made a replica.
    move_to(&driver, &watched.replica, 1).await;
    goes_on(&driver, &mut feed).await;
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_is_followed_when_it_dies() {
    let mut watched = Watched::start().await;
    // One that is not there is passed over.
    let driver = RedisDriver::connect(watched.options("127.0.0.1:1,")).await.expect("connects");
    append(&driver, "t:0", &["before"]).await;
    let mut feed = subscribe(&driver, "g").await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "before");
    let name = driver.monitor().expect("a monitor").health().connections.len();
    assert_eq!(name, 2, "commands and a reader");
    watched.master.kill();
    goes_on(&driver, &mut feed).await;
    assert!(is_primary(&watched.replica), "the replica was made the master");
    driver.close().await;
}

async fn refused(url: &str) -> rumormill::Error {
    let options = RedisOptions {
        response_timeout: Duration::from_millis(1200),
        deadline: Duration::from_millis(700),
        ..RedisOptions::new(url)
    };
    let error = timeout(PATIENCE, RedisDriver::connect(options)).await.expect("bounded");
    let error = error.expect_err("refused");
    assert!(error.help().is_some(), "{error:?}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    error
}

#[tokio::test]
async fn sentinels_are_named_with_what_each_said() {
    let port = free_port();
    let sentinel = Sentinel::watching(port, "");
    eventually("the sentinel listens", || sentinel.ask("PING").is_some()).await;
    let own = format!("127.0.0.1:{}", sentinel.port);

    // The master is not there, a second sentinel neither.
    let error = refused(&format!("redis+sentinel://u:s3cret@127.0.0.1:1,{own}/m")).await;
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    let text = error.to_string();
    assert!(text.contains("sentinel 127.0.0.1:1 is of no use"), "{text}");
    assert!(text.contains(&format!("sentinel {own} names 127.0.0.1:{port}")), "{text}");

    let error = refused(&format!("redis+sentinel://{own}/other")).await;
    assert!(error.to_string().contains("knows no such master"), "{error}");
    let error = refused("redis+sentinel://127.0.0.1:1/m").await;
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    // A sentinel itself keeps no events.
    let error = refused(&format!("redis://{own}")).await;
    assert!(error.to_string().contains("is a sentinel"), "{error}");
}

#[tokio::test]
async fn logins_at_sentinel_and_master_are_their_own() {
    let port = free_port();
    let _master = listening(port, &["--requirepass", "m4ster-s3cret"]);
    let sentinel =
        Sentinel::watching(port, "requirepass w4tch-s3cret\nsentinel auth-pass m m4ster-s3cret");
    eventually("the sentinel listens", || sentinel.ask("PING").is_some()).await;
    let own = format!("127.0.0.1:{}", sentinel.port);
    let url = format!("redis+sentinel://:m4ster-s3cret@{own}/m?sentinel_password=w4tch-s3cret");
    let driver = RedisDriver::connect(RedisOptions::new(url)).await.expect("connects");
    append(&driver, "t:0", &["1"]).await;
    driver.close().await;

    let error = refused(&format!("redis+sentinel://:m4ster-s3cret@{own}/m")).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    let url = format!("redis+sentinel://:wrong-s3cret@{own}/m?sentinel_password=w4tch-s3cret");
    assert_eq!(refused(&url).await.kind(), ErrorKind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_not_used() {
    let port = free_port();
    let primary = listening(port, &["--repl-diskless-sync-delay", "0"]);
    let replica = Server::with(&["--replicaof", &format!("127.0.0.1 {port}")]);
    let error = refused(&replica.url()).await;
    assert!(error.to_string().contains(&format!("is a replica of 127.0.0.1:{port}")), "{error}");

    // One that is made a replica while it is used refuses; made a primary again, it is used again.
    let driver = RedisDriver::connect(options(&primary)).await.expect("connects");
    append(&driver, "t:0", &["1"]).await;
    let mut feed = driver.subscribe(wish("g", &["t.>"])).await.expect("subscribes");
    assert_eq!(payload(&*next(&mut feed).await, 0), "1");
    replica.say("REPLICAOF NO ONE");
    primary.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let health = || driver.monitor().expect("a monitor").health();
    eventually("it is not ready", || !health().is_ready()).await;
    let told = || {
        health()
            .connections
            .iter()
            .any(|one| one.fault.as_deref().is_some_and(|fault| fault.contains("is a replica of")))
    };
    eventually("it says why", told).await;
    primary.say("REPLICAOF NO ONE");
    goes_on(&driver, &mut feed).await;
    eventually("it is ready again", || health().is_ready()).await;
    driver.close().await;
}

/// Answers as a sentinel does; names the port that is in there.
async fn fake_sentinel(named: Arc<AtomicU16>) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.expect("accepts");
            let named = Arc::clone(&named);
            tokio::spawn(async move {
                let mut request = [0; 1024];
                while let Ok(count @ 1..) = socket.read(&mut request).await {
                    // One answer for each command.
                    let commands = request[..count].iter().filter(|byte| **byte == b'*').count();
                    let port = named.load(Ordering::Relaxed).to_string();
                    let answer = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len());
                    let answer = answer.repeat(commands);
                    let _gone = socket.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_was_replaced_is_left_while_it_still_takes_writes() {
    let (old, new) = (free_port(), free_port());
    let (_old, server) = (listening(old, &[]), listening(new, &[]));
    let named = Arc::new(AtomicU16::new(old));
    let stale = fake_sentinel(Arc::new(AtomicU16::new(old))).await;
    let (one, two) =
        (fake_sentinel(Arc::clone(&named)).await, fake_sentinel(Arc::clone(&named)).await);
    let url = format!("redis+sentinel://127.0.0.1:{stale},127.0.0.1:{one},127.0.0.1:{two}/m");
    let options = RedisOptions { block: Duration::from_millis(300), ..RedisOptions::new(url) };
    let driver = RedisDriver::connect(options).await.expect("connects");
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "1");
    // Nothing breaks: only the sentinels say otherwise, and one of them does not even know.
    named.store(new, Ordering::Relaxed);
    move_to(&driver, &server, 0).await;
    goes_on(&driver, &mut feed).await;
    driver.close().await;
}
