//! Connections that break, hang or are refused: they come back by themselves, and not too often.

use crate::kit::*;
use crate::server::Server;
use rumormill::delivery::Outcome;
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Driver, Feed, Subscribe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::time::Instant;

fn is_ready(driver: &RedisDriver) -> bool {
    driver.monitor().expect("a monitor").health().is_ready()
}

/// Whether a connection gives a reason with these words.
fn is_told(driver: &RedisDriver, words: &str) -> bool {
    let health = driver.monitor().expect("a monitor").health();
    let mut faults = health.connections.iter().filter_map(|one| one.fault.as_deref());
    faults.any(|fault| fault.contains(words))
}

async fn goes_on(driver: &RedisDriver, feed: &mut Feed, payload: &str) {
    append_surely(driver, payload).await;
    loop {
        let entry = next(feed).await;
        settle(feed, settle_all(&entry, &Outcome::ack())).await;
        if crate::kit::payload(&entry, 0) == payload {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_noticed_and_used_again() {
    let server = Server::start();
    let options = RedisOptions { response_timeout: Duration::from_millis(600), ..options(&server) };
    let driver = RedisDriver::connect(options).await.expect("connects");
    let mut feed = subscribe(&driver, "g").await;
    goes_on(&driver, &mut feed, "before").await;
    assert!(is_ready(&driver));
    server.pause();
    eventually("it is not ready", || !is_ready(&driver)).await;
    eventually("and says why", || is_told(&driver, "no answer in time")).await;
    server.resume();
    goes_on(&driver, &mut feed, "after").await;
    eventually("it is ready again", || is_ready(&driver)).await;
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_changed_back_lets_it_in_again() {
    let server = Server::start();
    server.say("ACL SETUSER worker on >first ~* &* +@all");
    let url = format!("{}?user=worker&pass=first", server.url());
    let options = RedisOptions { url, ..options(&server) };
    let driver = RedisDriver::connect(options).await.expect("connects");
    let mut feed = driver.subscribe(wish("g", &["t.>"])).await.expect("subscribes");
    goes_on(&driver, &mut feed, "before").await;
    server.say("ACL SETUSER worker resetpass >second");
    server.say("CLIENT KILL USER worker");
    eventually("it is not ready", || !is_ready(&driver)).await;
    eventually("and says why", || is_told(&driver, "WRONGPASS")).await;
    server.say("ACL SETUSER worker resetpass >first");
    goes_on(&driver, &mut feed, "after").await;
    eventually("it is ready again", || is_ready(&driver)).await;
    driver.close().await;
}

/// Passes connections on to a server, or closes them at once; counts them.
struct Gate {
    port: u16,
    is_open: Arc<AtomicBool>,
    count: Arc<AtomicU32>,
}

impl Gate {
    async fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (is_open, count) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicU32>::default());
        let (open, counted, socket) = (Arc::clone(&is_open), Arc::clone(&count), server.socket());
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.expect("accepts");
                counted.fetch_add(1, Ordering::Relaxed);
                if !open.load(Ordering::Relaxed) {
                    continue;
                }
                let mut server = UnixStream::connect(&socket).await.expect("the server listens");
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
            }
        });
        Self { port, is_open, count }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_tries_more_than_twenty_times_a_second() {
    let server = Server::start();
    let gate = Gate::before(&server).await;
    let url = format!("redis://127.0.0.1:{}", gate.port);
    let driver = RedisDriver::connect(RedisOptions { url, ..options(&server) }).await;
    let driver = driver.expect("connects");
    let mut feed = subscribe(&driver, "g").await;
    goes_on(&driver, &mut feed, "before").await;
    // A fetch that waits keeps the reader reading.
    let connections = driver.monitor().expect("a monitor").health().connections.len();
    let count = || gate.count.load(Ordering::Relaxed);
    gate.is_open.store(false, Ordering::Relaxed);
    server.say("CLIENT KILL TYPE normal");
    let (begun, from) = (Instant::now(), count());
    let fetching = async { while feed.source.fetch(1).await.is_ok() {} };
    let counting = async {
        eventually("it tries again and again", || count() - from >= 20).await;
        (count() - from, begun.elapsed())
    };
    let (tries, time) = tokio::select! {
        () = fetching => panic!("there was nothing to read"),
        counted = counting => counted,
    };
    let allowed = 20.0 * time.as_secs_f64() + 1.0;
    let each = f64::from(tries) / f64::from(u32::try_from(connections).expect("few"));
    assert!(each <= allowed, "{tries} tries of {connections} connections in {time:?}");
    gate.is_open.store(true, Ordering::Relaxed);
    goes_on(&driver, &mut feed, "after").await;
    driver.close().await;
}

/// What passes is waited for: nobody sees a refusal that ends before the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_is_waited_for() {
    let server = Server::with(&["--appendonly", "no", "--busy-reply-threshold", "1"]);
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let socket = server.socket();
    let looping = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("connects");
        stream.write_all(b"EVAL \"while true do end\" 0\r\n").expect("written");
        let mut answer = [0; 64];
        let count = stream.read(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[..count]).into_owned()
    });
    let is_busy = || {
        let answer = server.try_ask(&["PING"]);
        matches!(answer, Some(crate::server::Reply::Error(text)) if text.starts_with("BUSY"))
    };
    eventually("the server is busy", is_busy).await;
    let subscribing = subscribe(&driver, "g");
    let freeing = async {
        eventually("it was refused", || server.log().contains("Slow script detected")).await;
        server.say("SCRIPT KILL");
    };
    let (mut feed, ()) = tokio::join!(subscribing, freeing);
    assert_eq!(payload(&*next(&mut feed).await, 0), "1");
    let killed = looping.join().expect("ends");
    assert!(killed.contains("killed"), "{killed}");
    driver.close().await;

    // A driver that is only starting waits as well.
    server.say("CONFIG SET maxclients 1");
    let connecting = RedisDriver::connect(options(&server));
    let session = std::os::unix::net::UnixStream::connect(server.socket()).expect("connects");
    let freeing = async {
        eventually("others are refused", || {
            matches!(server.try_ask(&["PING"]), Some(crate::server::Reply::Error(_)) | None)
        })
        .await;
        drop(session);
    };
    let (driver, ()) = tokio::join!(connecting, freeing);
    driver.expect("connects once there is room").close().await;
}
