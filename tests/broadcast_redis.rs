//! What broadcasts cost and leave on a server, and what becomes of them when it fails.

mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Driver, Follow, GroupName};
use rumormill::{Bus, Context, Envelope, ErrorKind, Pattern, ServiceOptions, Services};
use server::{Reply, Server};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(15);

async fn connect(server: &Server) -> Arc<RedisDriver> {
    let options = RedisOptions {
        block: Duration::from_millis(300),
        response_timeout: Duration::from_millis(1500),
        ..RedisOptions::new(server.url())
    };
    RedisDriver::connect(options).await.expect("connects")
}

async fn bus(server: &Server) -> Bus {
    let builder = Bus::builder().driver(connect(server).await).services(Services::none());
    builder.build().await.expect("a bus")
}

/// Publishes as any program may.
fn publish(server: &Server, numbers: std::ops::Range<u32>) {
    for number in numbers {
        server.say(&format!("XADD rm:{{t:0}}:log * type t.x data {number}"));
    }
}

fn declare(server: &Server) {
    server.ask(&["HSET", "rm:topics", "t", "{\"partitions\":1}"]);
}

fn narrow() -> ServiceOptions {
    ServiceOptions { lanes: 1, lane_depth: 1, ..ServiceOptions::broadcast() }
}

/// Hears numbers, one at a time and one per permit.
async fn hear(bus: &Bus, gate: &Arc<Semaphore>) -> mpsc::Receiver<u32> {
    let (seen, heard) = mpsc::channel(1_000);
    let gate = Arc::clone(gate);
    let handler = move |envelope: Envelope, _: Context| {
        let (seen, gate) = (seen.clone(), Arc::clone(&gate));
        async move {
            seen.send(envelope.payload_as().expect("a number")).await?;
            gate.acquire().await?.forget();
            Ok(())
        }
    };
    let subscribed = bus.subscribe_routes("b", narrow(), |routes| routes.on_any_fn(">", handler));
    subscribed.await.expect("subscribed");
    heard
}

fn open() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))
}

async fn next(heard: &mut mpsc::Receiver<u32>) -> u32 {
    timeout(PATIENCE, heard.recv()).await.expect("in time").expect("the handler lives")
}

async fn take(heard: &mut mpsc::Receiver<u32>, count: usize) -> Vec<u32> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(next(heard).await);
    }
    taken
}

async fn settled(bus: &Bus) {
    timeout(PATIENCE, bus.settled()).await.expect("in time").expect("the server tells");
}

async fn end(bus: Bus) {
    timeout(PATIENCE, bus.drain(PATIENCE)).await.expect("drained");
}

fn words(reply: &Reply) -> BTreeSet<String> {
    reply.list().iter().map(Reply::text).collect()
}

/// The commands that were called and may write.
fn writes(server: &Server) -> BTreeSet<String> {
    let writing = words(&server.say("COMMAND LIST FILTERBY ACLCAT write"));
    let stats = server.say("INFO commandstats").text();
    let called = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_"));
    let called = called.filter_map(|line| line.split(':').next());
    let called: BTreeSet<String> = called.map(|name| name.to_owned()).collect();
    assert!(called.contains("xread"), "{called:?}");
    let scripts = ["eval", "evalsha", "fcall"].map(str::to_owned);
    let writing: BTreeSet<String> = writing.into_iter().chain(scripts).collect();
    called.intersection(&writing).cloned().collect()
}

#[tokio::test]
async fn a_broadcast_writes_nothing() {
    let server = Server::start();
    declare(&server);
    publish(&server, 0..5);
    let before = (server.say("DBSIZE"), words(&server.say("KEYS *")));
    server.say("CONFIG RESETSTAT");
    let bus = bus(&server).await;
    let mut heard = hear(&bus, &open()).await;
    bus.broadcast_any("unborn", "unborn.>", |_, _| async { Ok(()) }).await.expect("subscribed");
    publish(&server, 5..10);
    assert_eq!(take(&mut heard, 5).await, [5, 6, 7, 8, 9]);
    settled(&bus).await;
    let during = (server.say("DBSIZE"), words(&server.say("KEYS *")));
    assert_eq!(during, before, "no key came");
    assert_eq!(server.say("XINFO GROUPS rm:{t:0}:log"), Reply::List(Vec::new()));
    bus.unsubscribe("b", PATIENCE).await.expect("was subscribed");
    end(bus).await;
    assert_eq!((server.say("DBSIZE"), words(&server.say("KEYS *"))), before);
    assert_eq!(writes(&server), BTreeSet::from(["xadd".to_owned()]), "the test's own");
    assert_eq!(server.calls("xadd"), 5);
}

#[tokio::test]
async fn its_connection_is_its_own_and_ends_with_it() {
    let server = Server::start();
    declare(&server);
    let bus = bus(&server).await;
    let clients = || server.say("CLIENT LIST").text().lines().count();
    let reading = || server.say("CLIENT LIST").text().matches("cmd=xread ").count();
    let before = clients();
    let _heard = hear(&bus, &open()).await;
    until(&server, &|| reading() == 1).await;
    assert_eq!(clients(), before + 1);
    bus.unsubscribe("b", PATIENCE).await.expect("was subscribed");
    until(&server, &|| clients() == before).await;
    end(bus).await;
}

async fn until(server: &Server, done: &dyn Fn() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 5 {
        if done() {
            return;
        }
        // waits: for the condition, `PATIENCE` at most.
        sleep(Duration::from_millis(5)).await;
    }
    panic!("{}", server.say("CLIENT LIST").text());
}

#[tokio::test]
async fn what_was_trimmed_before_it_was_read_is_counted() {
    let server = Server::start();
    declare(&server);
    let bus = bus(&server).await;
    let gate = Arc::new(Semaphore::new(0));
    let mut heard = hear(&bus, &gate).await;
    publish(&server, 0..1);
    assert_eq!(next(&mut heard).await, 0);
    publish(&server, 1..50);
    server.say("XTRIM rm:{t:0}:log MAXLEN 10");
    gate.add_permits(1_000);
    settled(&bus).await;
    let came: Vec<u32> = std::iter::from_fn(|| heard.try_recv().ok()).collect();
    assert!(came.ends_with(&(40..50).collect::<Vec<_>>()), "{came:?}");
    let missed = bus.broadcast_counts("b").expect("a broadcast").missed;
    assert!(missed > 0, "it was too slow");
    assert_eq!(1 + came.len() as u64 + missed, 50, "{came:?}");
    end(bus).await;
}

#[tokio::test]
async fn what_was_trimmed_while_nobody_read_is_counted() {
    let server = Server::start();
    declare(&server);
    let driver = connect(&server).await;
    let (name, all) = (GroupName::new("b").expect("valid"), [Pattern::all()]);
    let mut followed = driver.as_ref().follow(&name, &all).await.expect("follows");
    publish(&server, 0..1);
    for round in 1..=2 {
        let entries = timeout(PATIENCE, followed.source.fetch(100)).await.expect("in time");
        assert!(!entries.expect("no error").is_empty());
        // Nobody fetches, so nothing is read.
        publish(&server, 0..10);
        server.say("XTRIM rm:{t:0}:log MAXLEN 3");
        if round == 1 {
            // waits: until the reader was idle for long enough to doubt its place.
            sleep(Duration::from_millis(150)).await;
        } else {
            server.say("CLIENT KILL TYPE normal");
        }
        let entries = timeout(PATIENCE, followed.source.fetch(1)).await.expect("in time");
        assert_eq!(entries.expect("no error")[0].records.len(), 1);
        assert_eq!(followed.missed.entries(), 7 * round);
    }
    driver.close().await;
}

#[tokio::test]
async fn it_goes_on_where_it_was_after_the_server_was_away() {
    let mut server = Server::durable();
    declare(&server);
    let bus = bus(&server).await;
    let mut heard = hear(&bus, &open()).await;
    publish(&server, 0..10);
    assert_eq!(take(&mut heard, 10).await, (0..10).collect::<Vec<_>>());
    server.kill();
    server.restart();
    let loaded = || matches!(server.try_ask(&["PING"]), Some(Reply::Text(_)));
    until(&server, &loaded).await;
    publish(&server, 10..20);
    assert_eq!(take(&mut heard, 10).await, (10..20).collect::<Vec<_>>());
    server.say("CLIENT KILL TYPE normal");
    publish(&server, 20..30);
    assert_eq!(take(&mut heard, 10).await, (20..30).collect::<Vec<_>>());
    settled(&bus).await;
    assert!(heard.try_recv().is_err(), "none twice");
    assert_eq!(bus.broadcast_counts("b").expect("a broadcast").missed, 0);
    end(bus).await;
}

#[tokio::test]
async fn a_key_of_another_type_is_named_and_passed_over_once_it_is_gone() {
    let server = Server::start();
    declare(&server);
    let driver = connect(&server).await;
    let (name, all) = (GroupName::new("b").expect("valid"), [Pattern::all()]);
    server.say("SET rm:{t:0}:log 1");
    let refused = driver.as_ref().follow(&name, &all).await.expect_err("no stream");
    assert_eq!(refused.kind(), ErrorKind::Server);
    assert!(refused.help().expect("a help line").contains("another namespace"), "{refused:?}");
    server.say("DEL rm:{t:0}:log");
    let mut followed = driver.as_ref().follow(&name, &all).await.expect("follows");
    server.say("SET rm:{t:0}:log 1");
    let failed = timeout(PATIENCE, followed.source.fetch(1)).await.expect("in time");
    assert_eq!(failed.expect_err("no stream").kind(), ErrorKind::Server);
    let is_ready = || driver.monitor().expect("a monitor").health().is_ready();
    assert!(!is_ready(), "it cannot read");
    server.say("DEL rm:{t:0}:log");
    publish(&server, 0..1);
    let entries = timeout(PATIENCE, followed.source.fetch(1)).await.expect("in time");
    assert_eq!(entries.expect("a stream again").len(), 1);
    assert!(is_ready(), "it reads again");
    driver.close().await;
    assert!(followed.source.fetch(1).await.expect("no error").is_empty());
    assert_eq!(
        driver.as_ref().follow(&name, &all).await.expect_err("closed").kind(),
        ErrorKind::Closed
    );
}
