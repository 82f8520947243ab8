//! A group with too many dead letters on a partition reads no further there.

mod server;

use std::sync::Arc;
use std::time::Duration;

use rumormill::codec::ContentType;
use rumormill::delivery::{Cause, Entry, EntryId, Failure, Outcome, Partition};
use rumormill::driver::admin::Admin;
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{
    Append, Driver, Feed, GroupName, LeaseTimes, Publish, Subscribe, Subscription,
};
use rumormill::{Envelope, EventType, Start, Timestamp};
use server::Server;
use tokio::time::timeout;

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(15);
/// A time in which nothing must come: longer than two reads and two sweeps.
const QUIET: Duration = Duration::from_millis(800);

async fn connect(server: &Server, dead_letters_max: u64) -> Arc<RedisDriver> {
    let options = RedisOptions {
        block: Duration::from_millis(200),
        dead_letters_max,
        ..RedisOptions::new(server.url())
    };
    RedisDriver::connect(options).await.expect("connects")
}

fn place(text: &str) -> Partition {
    text.parse().expect("valid")
}

fn admin(driver: &RedisDriver) -> &dyn Admin {
    driver.admin().expect("it has the powers")
}

fn group() -> GroupName {
    GroupName::new("g").expect("valid")
}

async fn append(driver: &RedisDriver, to: &str, payload: &str) {
    let event_type = EventType::from_static("t.x");
    let payload = payload.to_owned();
    let event = Envelope::builder(event_type, ContentType::JSON, payload, Timestamp::default());
    let envelopes = vec![event.build().expect("within limits")];
    let one = Append { partition: place(to), envelopes, delay: Duration::ZERO, deduplicate: false };
    driver.append(vec![one]).await.pop().expect("an answer").expect("stored");
}

async fn subscribe(driver: &RedisDriver) -> Feed {
    let wish = Subscription {
        group: group(),
        routes: vec![("t.>".parse().expect("valid"), Some(1))],
        start: Start::Earliest,
        lease: LeaseTimes {
            lease: Duration::from_millis(400),
            renew: Duration::from_millis(100),
            sweep: Duration::from_millis(100),
        },
        park_keys: false,
    };
    driver.subscribe(wish).await.expect("subscribes")
}

async fn next(feed: &mut Feed) -> Arc<Entry> {
    let entries = timeout(PATIENCE, feed.source.fetch(1)).await.expect("in time");
    Arc::new(entries.expect("no error").remove(0))
}

async fn settle(feed: &Feed, entry: &Arc<Entry>, outcome: &Outcome) {
    let settlements = entry.deliveries().map(|delivery| delivery.settle(outcome.clone()));
    for answer in feed.settler.settle(settlements.collect()).await {
        answer.expect("settled");
    }
}

async fn nothing_comes(feed: &mut Feed) {
    let found = timeout(QUIET, feed.source.fetch(1)).await;
    assert!(found.is_err(), "{found:?} was read in spite of the cap");
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            // waits: for what the caller says, up to its patience
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A group with three dead letters on `t:0`, which is its cap, at a moment when it knows.
async fn at_the_cap(server: &Server) -> (Arc<RedisDriver>, Feed) {
    let driver = connect(server, 3).await;
    let topic = place("t:0").topic;
    admin(&driver).set_partitions(&topic, 2).await.expect("a topic");
    let mut feed = subscribe(&driver).await;
    for number in 0..3 {
        append(&driver, "t:0", &number.to_string()).await;
        let entry = next(&mut feed).await;
        let dead = Outcome::DeadLetter { failure: Failure::new(Cause::Rejected, "never") };
        settle(&feed, &entry, &dead).await;
    }
    let counted = || server.calls("xlen");
    let before = counted();
    eventually("they are counted again", || counted() >= before + 4).await;
    (driver, feed)
}

#[tokio::test]
async fn at_the_cap_a_group_pauses_on_that_partition_until_there_is_room() {
    let server = Server::start();
    let (driver, mut feed) = at_the_cap(&server).await;
    append(&driver, "t:0", "held up").await;
    nothing_comes(&mut feed).await;
    append(&driver, "t:1", "elsewhere").await;
    let entry = next(&mut feed).await;
    assert_eq!(entry.partition, place("t:1"), "the others are read");
    settle(&feed, &entry, &Outcome::ack()).await;

    let letters = admin(&driver).page(&group(), &place("t:0"), EntryId::ZERO, 1).await;
    let first = letters.expect("a page").letters[0].id;
    admin(&driver).purge(&group(), &place("t:0"), &[first]).await.expect("purged");
    let entry = next(&mut feed).await;
    assert_eq!(entry.partition, place("t:0"), "there is room again");
}

#[tokio::test]
async fn who_comes_later_pauses_from_its_first_read_on() {
    let server = Server::start();
    let (driver, feed) = at_the_cap(&server).await;
    append(&driver, "t:0", "held up").await;
    drop(feed);
    let capped = connect(&server, 3).await;
    let mut later = subscribe(&capped).await;
    nothing_comes(&mut later).await;
    let roomier = connect(&server, 4).await;
    let mut more = subscribe(&roomier).await;
    assert_eq!(next(&mut more).await.partition, place("t:0"), "its cap is higher");
}

#[tokio::test]
async fn a_sweep_takes_nothing_over_where_the_group_pauses() {
    let server = Server::start();
    let (driver, mut feed) = at_the_cap(&server).await;
    append(&driver, "t:0", "abandoned").await;
    let stranger = ["XREADGROUP", "GROUP", "g", "dead", "STREAMS", "rm:{t:0}:log", ">"];
    server.ask(&stranger);
    nothing_comes(&mut feed).await;
    let roomier = connect(&server, 4).await;
    let mut more = subscribe(&roomier).await;
    assert_eq!(next(&mut more).await.partition, place("t:0"), "it was there to be taken");
}
