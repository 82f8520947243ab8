//! What the tests share: a driver, events, entries, settlements, and waiting with a deadline.

use crate::server::Server;
use rumormill::codec::ContentType;
use rumormill::delivery::{Cause, Entry, Failure, Outcome, Output, Partition, Settled, Settlement};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{
    Append, Appended, Feed, GroupName, LeaseTimes, Publish, Subscribe, Subscription,
};
use rumormill::{Envelope, EventType, Start, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Longer than anything here takes; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// A time in which nothing must come.
pub(crate) const QUIET: Duration = Duration::from_millis(150);

pub(crate) fn short_lease() -> LeaseTimes {
    LeaseTimes {
        lease: Duration::from_millis(400),
        renew: Duration::from_millis(100),
        sweep: Duration::from_millis(100),
    }
}

pub(crate) fn options(server: &Server) -> RedisOptions {
    RedisOptions {
        block: Duration::from_millis(300),
        response_timeout: Duration::from_millis(1500),
        ..RedisOptions::new(server.url())
    }
}

pub(crate) async fn connect(server: &Server) -> Arc<RedisDriver> {
    RedisDriver::connect(options(server)).await.expect("connects")
}

pub(crate) fn event(event_type: &str, payload: &str) -> Envelope {
    let event_type = EventType::new(event_type.to_owned()).expect("valid");
    let now = Timestamp::from_millis(1_700_000_000_000);
    Envelope::builder(event_type, ContentType::JSON, payload.to_owned(), now)
        .build()
        .expect("within limits")
}

pub(crate) fn partition(text: &str) -> Partition {
    text.parse().expect("valid")
}

pub(crate) async fn append(driver: &RedisDriver, place: &str, payloads: &[&str]) -> Appended {
    let place = partition(place);
    driver.declare(&place.topic).await.expect("declares");
    let event_type = format!("{}.x", place.topic);
    let envelopes = payloads.iter().map(|payload| event(&event_type, payload)).collect();
    let one = Append { partition: place, envelopes, delay: Duration::ZERO, deduplicate: false };
    driver.append(vec![one]).await.pop().expect("an answer").expect("stored")
}

pub(crate) fn wish(group: &str, patterns: &[&str]) -> Subscription {
    Subscription {
        group: GroupName::new(group.to_owned()).expect("valid"),
        routes: patterns.iter().map(|text| (text.parse().expect("valid"), Some(1))).collect(),
        start: Start::Earliest,
        lease: short_lease(),
        park_keys: false,
    }
}

pub(crate) async fn subscribe(driver: &RedisDriver, group: &str) -> Feed {
    driver.subscribe(wish(group, &["t.>"])).await.expect("subscribes")
}

/// The next entry.
pub(crate) async fn next(feed: &mut Feed) -> Arc<Entry> {
    let entries = timeout(PATIENCE, feed.source.fetch(1)).await.expect("in time");
    let mut entries = entries.expect("no error");
    assert_eq!(entries.len(), 1, "one entry for a budget of one");
    Arc::new(entries.remove(0))
}

pub(crate) fn payload(entry: &Entry, index: usize) -> String {
    let envelope = entry.records[index].as_ref().expect("an event");
    String::from_utf8_lossy(envelope.payload()).into_owned()
}

pub(crate) fn settle_all(entry: &Arc<Entry>, outcome: &Outcome) -> Vec<Settlement> {
    entry.deliveries().map(|delivery| delivery.settle(outcome.clone())).collect()
}

pub(crate) async fn settle(feed: &Feed, settlements: Vec<Settlement>) -> Vec<Settled> {
    let answers = timeout(PATIENCE, feed.settler.settle(settlements)).await.expect("in time");
    answers.into_iter().map(|answer| answer.expect("answered")).collect()
}

pub(crate) fn retry(after: Duration) -> Outcome {
    Outcome::Retry { after, failure: Failure::new(Cause::Failed, "not now") }
}

pub(crate) fn dead_letter() -> Outcome {
    Outcome::DeadLetter { failure: Failure::new(Cause::Rejected, "never") }
}

pub(crate) fn publishing(payloads: &[&str]) -> Outcome {
    let output = |payload: &&str| Output {
        partition: partition("out:0"),
        envelope: event("out.x", payload),
    };
    Outcome::Ack { outputs: payloads.iter().map(output).collect() }
}

/// Waits for something that is to become true.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            // waits: for the caller's condition, with a deadline
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) fn length(server: &Server, command: &str) -> i64 {
    server.say(command).int()
}

/// Fields and values of the only entry of a stream.
pub(crate) fn only_entry(server: &Server, key: &str) -> Vec<(String, Vec<u8>)> {
    let entries = server.ask(&["XRANGE", key, "-", "+"]);
    assert_eq!(entries.list().len(), 1, "{entries:?}");
    let fields = entries.list()[0].list()[1].list();
    fields.chunks(2).map(|pair| (pair[0].text(), pair[1].bytes().to_vec())).collect()
}

/// Takes an entry away from whoever has it, as another consumer would after the lease.
pub(crate) fn steal(server: &Server, entry: &Entry) {
    let id = entry.id.to_string();
    let taken = server.ask(&["XCLAIM", "rm:{t:0}:log", "g", "thief", "0", &id]);
    assert_eq!(taken.list().len(), 1);
}

pub(crate) async fn append_surely(driver: &RedisDriver, payload: &str) {
    loop {
        let one = Append {
            partition: partition("t:0"),
            envelopes: vec![event("t.x", payload)],
            delay: Duration::ZERO,
            deduplicate: false,
        };
        if driver.append(vec![one]).await.pop().expect("an answer").is_ok() {
            return;
        }
    }
}
