//! What the Redis driver does that the conformance suite cannot see: keys and fields, costs, and
//! what happens when the server fails.

mod server;

use std::sync::Arc;
use std::time::Duration;

use rumormill::codec::ContentType;
use rumormill::delivery::{Entry, Outcome, Partition, Settled, Settlement};
use rumormill::driver::redis::{Io, RedisDriver, RedisOptions};
use rumormill::driver::{
    Append, Appended, Driver, Feed, GroupName, LeaseTimes, Publish, Subscribe, Subscription,
};
use rumormill::{Envelope, EventType, Start, Timestamp, Topic};
use server::Server;
use tokio::time::timeout;

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(15);
/// A time in which nothing must come.
const QUIET: Duration = Duration::from_millis(150);

fn short_lease() -> LeaseTimes {
    LeaseTimes {
        lease: Duration::from_millis(400),
        renew: Duration::from_millis(100),
        sweep: Duration::from_millis(100),
    }
}

fn options(server: &Server) -> RedisOptions {
    RedisOptions {
        block: Duration::from_millis(300),
        response_timeout: Duration::from_millis(1500),
        ..RedisOptions::new(server.url())
    }
}

async fn connect(server: &Server) -> Arc<RedisDriver> {
    RedisDriver::connect(options(server)).await.expect("connects")
}

fn event(event_type: &str, payload: &str) -> Envelope {
    let event_type = EventType::new(event_type.to_owned()).expect("valid");
    let now = Timestamp::from_millis(1_700_000_000_000);
    Envelope::builder(event_type, ContentType::JSON, payload.to_owned(), now)
        .build()
        .expect("within limits")
}

fn partition(text: &str) -> Partition {
    text.parse().expect("valid")
}

async fn append(driver: &RedisDriver, place: &str, payloads: &[&str]) -> Appended {
    let place = partition(place);
    driver.declare(&place.topic).await.expect("declares");
    let event_type = format!("{}.x", place.topic);
    let envelopes = payloads.iter().map(|payload| event(&event_type, payload)).collect();
    let one = Append { partition: place, envelopes, delay: Duration::ZERO };
    driver.append(vec![one]).await.pop().expect("an answer").expect("stored")
}

fn wish(group: &str, patterns: &[&str]) -> Subscription {
    Subscription {
        group: GroupName::new(group.to_owned()).expect("valid"),
        routes: patterns.iter().map(|text| (text.parse().expect("valid"), Some(1))).collect(),
        start: Start::Earliest,
        lease: short_lease(),
    }
}

async fn subscribe(driver: &RedisDriver, group: &str) -> Feed {
    driver.subscribe(wish(group, &["t.>"])).await.expect("subscribes")
}

/// The next entry.
async fn next(feed: &mut Feed) -> Arc<Entry> {
    let entries = timeout(PATIENCE, feed.source.fetch(1)).await.expect("in time");
    let mut entries = entries.expect("no error");
    assert_eq!(entries.len(), 1, "one entry for a budget of one");
    Arc::new(entries.remove(0))
}

fn payload(entry: &Entry, index: usize) -> String {
    let envelope = entry.records[index].as_ref().expect("an event");
    String::from_utf8_lossy(envelope.payload()).into_owned()
}

fn settle_all(entry: &Arc<Entry>, outcome: &Outcome) -> Vec<Settlement> {
    entry.deliveries().map(|delivery| delivery.settle(outcome.clone())).collect()
}

async fn settle(feed: &Feed, settlements: Vec<Settlement>) -> Vec<Settled> {
    let answers = timeout(PATIENCE, feed.settler.settle(settlements)).await.expect("in time");
    answers.into_iter().map(|answer| answer.expect("answered")).collect()
}

#[tokio::test]
async fn a_batch_is_appended_read_and_acknowledged() {
    let server = Server::start();
    let driver = connect(&server).await;
    let stored = append(&driver, "t:0", &["1", "2"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    assert_eq!(Some(entry.id), stored.entry);
    assert_eq!((payload(&entry, 0), payload(&entry, 1)), ("1".to_owned(), "2".to_owned()));
    assert_eq!(settle(&feed, settle_all(&entry, &Outcome::ack())).await, [Settled::Done; 2]);
    assert_eq!(server.calls("xack"), 1);
    assert_eq!(settle(&feed, settle_all(&entry, &Outcome::ack())).await, [Settled::Already; 2]);
    assert_eq!(server.say("XPENDING rm:{t:0}:log g").list()[0].int(), 0);
    driver.close().await;
}
