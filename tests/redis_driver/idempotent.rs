//! Marks of what was handled: what they cost, where they lie, and when they go.

use std::time::Duration;

use rumormill::codec::ContentType;
use rumormill::delivery::{Outcome, Settled};
use rumormill::driver::redis::RedisDriver;
use rumormill::driver::{Driver, Feed, LeaseTimes, Subscribe, Subscription};
use rumormill::middleware::Idempotent;
use rumormill::{Bus, Envelope, EventType, ServiceOptions, Services, Timestamp};

use crate::kit::*;
use crate::proxy::{Loss, Proxy};
use crate::server::{Reply, Server};

const MARKS: &str = "rm:{t:0}:handled:g";

fn once(window: Duration) -> Outcome {
    let Outcome::Ack { outputs } = publishing(&["out"]) else { panic!("an ack") };
    Outcome::AckOnce { outputs, window }
}

fn silent(window: Duration) -> Outcome {
    Outcome::AckOnce { outputs: Vec::new(), window }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Renewals come so rarely that none comes.
async fn subscribe_for_long(driver: &RedisDriver) -> Feed {
    let wish = Subscription { lease: LeaseTimes::default(), ..wish("g", &["t.>"]) };
    driver.subscribe(wish).await.expect("subscribes")
}

fn calls(server: &Server, commands: &[&str]) -> Vec<u64> {
    commands.iter().map(|command| server.calls(command)).collect()
}

#[tokio::test]
async fn an_entry_is_looked_up_with_one_command_and_settled_with_one_script() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["a"; 50]).await;
    let mut feed = subscribe_for_long(&driver).await;
    let entry = next(&mut feed).await;
    server.say("CONFIG RESETSTAT");
    assert!(feed.settler.handled(&entry).await.expect("answered").is_empty());
    assert_eq!(calls(&server, &["zmscore", "zadd"]), [1, 0]);
    assert_eq!(settle(&feed, settle_all(&entry, &silent(HOUR))).await, [Settled::Done; 50]);
    let commands = ["zscore", "xclaim", "xack", "hset", "xadd"];
    assert_eq!(calls(&server, &commands), [0, 1, 1, 0, 0]);
    // A heartbeat may be among them.
    assert!((50..=52).contains(&server.calls("zadd")));
    let ids: Vec<Vec<u8>> = entry
        .records
        .iter()
        .map(|record| record.as_ref().expect("an event").id().as_bytes().to_vec())
        .collect();
    let ends = server.ask(&[&[b"ZMSCORE".to_vec(), MARKS.as_bytes().to_vec()], &ids[..]].concat());
    assert!(ends.list().len() == 50 && !ends.list().contains(&Reply::Nil));
    let left = length(&server, &format!("PTTL {MARKS}"));
    assert!((3_000_000..=3_600_000).contains(&left), "{left} ms");
    driver.close().await;
}

/// A service that does not ask for it pays nothing.
#[tokio::test]
async fn without_the_middleware_an_entry_is_a_plain_ack() {
    let server = Server::start();
    let publisher = connect(&server).await;
    for (idempotent, marks) in [(false, 0), (true, 20)] {
        let driver = connect(&server).await;
        let builder = Bus::builder().driver(driver).services(Services::none());
        let builder = if idempotent { builder.with(Idempotent::default()) } else { builder };
        let bus = builder.build().await.expect("a bus");
        // However slow the machine is, the events of an entry end together.
        let settle_wait = Duration::from_secs(5);
        let options = ServiceOptions { settle_wait, ..ServiceOptions::default() };
        bus.subscribe_routes("g", options, |routes| {
            routes.on_any_fn("t.>", |_, _| async { Ok(()) })
        })
        .await
        .expect("subscribed");
        server.say("CONFIG RESETSTAT");
        append(&publisher, "t:0", &["1"; 20]).await;
        bus.settled().await.expect("the server tells");
        assert_eq!(length(&server, &format!("ZCARD {MARKS}")), marks);
        assert_eq!(server.calls("zmscore") > 0, idempotent);
        assert_eq!(server.calls("xclaim") > 0, idempotent, "a script renews what it settles");
        assert_eq!(server.calls("xack"), 1);
        bus.drain(PATIENCE).await;
    }
    publisher.close().await;
}

/// The numbers of the documentation.
#[tokio::test]
async fn a_mark_takes_about_a_hundred_bytes() {
    let server = Server::start();
    let driver = connect(&server).await;
    let mut feed = subscribe_for_long(&driver).await;
    for _ in 0..100 {
        append(&driver, "t:0", &["a"; 100]).await;
        let entry = next(&mut feed).await;
        assert_eq!(settle(&feed, settle_all(&entry, &silent(HOUR))).await, [Settled::Done; 100]);
    }
    assert_eq!(length(&server, &format!("ZCARD {MARKS}")), 10_000);
    let each = length(&server, &format!("MEMORY USAGE {MARKS} SAMPLES 0")) / 10_000;
    println!("{each} bytes for a mark");
    assert!((60..180).contains(&each), "{each} bytes");
    driver.close().await;
}

/// What has ended goes as new marks come, two for one; all go with the last of them.
#[tokio::test]
async fn old_marks_go_with_new_ones() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["a"; 61]).await;
    let mut feed = subscribe_for_long(&driver).await;
    let mut left = next(&mut feed).await.deliveries().collect::<Vec<_>>();
    let mut end = |count: usize, window| {
        left.drain(..count).map(|one| one.settle(silent(window))).collect::<Vec<_>>()
    };
    let marks = || length(&server, &format!("ZCARD {MARKS}"));
    let (moment, second) = (Duration::from_millis(1), Duration::from_secs(1));
    // One that lasts keeps the key.
    settle(&feed, end(1, HOUR)).await;
    settle(&feed, end(40, moment)).await;
    assert_eq!(marks(), 41);
    eventually("they end", || {
        let seconds = server.say("TIME").list()[0].text();
        server.say(&format!("ZCOUNT {MARKS} -inf {seconds}000")).int() == 40
    })
    .await;
    settle(&feed, end(10, HOUR)).await;
    assert_eq!(marks(), 31, "20 of 40 went, 10 came");
    settle(&feed, end(10, HOUR)).await;
    assert_eq!(marks(), 21, "the rest went, 10 came");
    server.say(&format!("DEL {MARKS}"));
    append(&driver, "t:0", &["b"]).await;
    let last = next(&mut feed).await;
    settle(&feed, settle_all(&last, &silent(second))).await;
    assert_eq!(marks(), 1);
    eventually("the key goes", || length(&server, &format!("EXISTS {MARKS}")) == 0).await;
    driver.close().await;
}

/// A call whose answer was lost is sent again: its marks are its own, and it is no duplicate.
#[tokio::test]
async fn marks_whose_answer_was_lost_are_no_duplicates() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = RedisDriver::connect(proxy.options(&server)).await.expect("connects");
    append(&driver, "t:0", &["before"]).await;
    append(&driver, "t:0", &["1", "2"]).await;
    let mut feed = subscribe_for_long(&driver).await;
    // The server knows the script from now on.
    let before = next(&mut feed).await;
    settle(&feed, settle_all(&before, &silent(HOUR))).await;
    let entry = next(&mut feed).await;
    proxy.lose(Loss { of: "handled:g", done: 1, seen: 1, late: false });
    let answers = settle(&feed, settle_all(&entry, &once(HOUR))).await;
    assert_eq!((answers, proxy.lost()), (vec![Settled::Already; 2], 1));
    assert_eq!(length(&server, "XLEN rm:{out:0}:log"), 1, "both in one entry");
    assert_eq!(length(&server, &format!("ZCARD {MARKS}")), 3);
    driver.close().await;
}

/// The marks are part of the step: where they cannot be written nothing is.
#[tokio::test]
async fn without_its_marks_a_step_is_not_begun() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    server.say(&format!("SET {MARKS} occupied"));
    let mut feed = subscribe_for_long(&driver).await;
    let entry = next(&mut feed).await;
    let refused = feed.settler.handled(&entry).await.expect_err("refused").to_string();
    assert!(refused.contains(MARKS), "{refused}");
    let answers = feed.settler.settle(settle_all(&entry, &once(HOUR))).await;
    let error = answers[0].as_ref().expect_err("refused").to_string();
    assert!(error.contains(MARKS), "{error}");
    assert_eq!(length(&server, "EXISTS rm:{out:0}:log"), 0);
    server.say(&format!("DEL {MARKS}"));
    assert_eq!(settle(&feed, settle_all(&entry, &once(HOUR))).await, [Settled::Done]);
    driver.close().await;
}

/// Full memory stops neither a mark nor what goes with it.
#[tokio::test]
async fn marks_are_set_under_full_memory() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe_for_long(&driver).await;
    let entry = next(&mut feed).await;
    server.say("CONFIG SET maxmemory 1");
    assert_eq!(settle(&feed, settle_all(&entry, &once(HOUR))).await, [Settled::Done]);
    assert_eq!(length(&server, &format!("ZCARD {MARKS}")), 1);
    driver.close().await;
}

/// Copies without a key come to one partition where they are published with deduplication, and so
/// find each other's mark also when the window of that is over.
#[tokio::test]
async fn deduplicated_copies_find_each_other_without_a_key() {
    let server = Server::start();
    server.ask(&["HSET", "rm:topics", "t", "{\"partitions\":8}"]);
    let driver = connect(&server).await;
    let bus = Bus::builder().driver(driver.clone()).services(Services::none());
    let bus = bus.with(Idempotent::default()).build().await.expect("a bus");
    bus.subscribe_routes("g", Default::default(), |routes| {
        routes.on_any_fn("t.>", |_, _| async { Ok(()) })
    })
    .await
    .expect("subscribed");
    let now = Timestamp::from_millis(1_700_000_000_000);
    let builder = Envelope::builder(EventType::from_static("t.x"), ContentType::JSON, "1", now);
    let copy = builder.build().expect("within limits");
    for published in 1..=4 {
        let answers = bus.publisher().publish_envelopes_deduplicated(vec![copy.clone()]).await;
        assert!(answers.iter().all(Result::is_ok));
        // As time does at the end of the window.
        for index in 0..8 {
            let seen = format!("rm:{{t:{index}}}:seen:{}", copy.id());
            server.ask(&["DEL", &seen]);
        }
        bus.settled().await.expect("the server tells");
        assert_eq!(bus.counts("g").duplicates, published - 1);
    }
    bus.drain(PATIENCE).await;
}
