//! What the Redis driver does that the conformance suite cannot see: keys and fields, costs, and
//! what happens when the server fails.

mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rumormill::codec::ContentType;
use rumormill::delivery::{
    Bits, Cause, Entry, EntryId, Failure, Outcome, Output, Partition, Queue, Settled, Settlement,
};
use rumormill::driver::redis::{Io, RedisDriver, RedisOptions};
use rumormill::driver::{
    Append, Appended, Driver, Feed, GroupName, LeaseTimes, Publish, Subscribe, Subscription,
};
use rumormill::{
    Durability, Envelope, ErrorKind, EventId, EventType, PublishError, Start, Timestamp,
};
use server::{Reply, Server};
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

fn retry(after: Duration) -> Outcome {
    Outcome::Retry { after, failure: Failure::new(Cause::Failed, "not now") }
}

fn dead_letter() -> Outcome {
    Outcome::DeadLetter { failure: Failure::new(Cause::Rejected, "never") }
}

fn publishing(payloads: &[&str]) -> Outcome {
    let output = |payload: &&str| Output {
        partition: partition("out:0"),
        envelope: event("out.x", payload),
    };
    Outcome::Ack { outputs: payloads.iter().map(output).collect() }
}

/// Waits for something that is to become true.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn length(server: &Server, command: &str) -> i64 {
    server.say(command).int()
}

/// Fields and values of the only entry of a stream.
fn only_entry(server: &Server, key: &str) -> Vec<(String, Vec<u8>)> {
    let entries = server.ask(&["XRANGE", key, "-", "+"]);
    assert_eq!(entries.list().len(), 1, "{entries:?}");
    let fields = entries.list()[0].list()[1].list();
    fields.chunks(2).map(|pair| (pair[0].text(), pair[1].bytes().to_vec())).collect()
}

/// Takes an entry away from whoever has it, as another consumer would after the lease.
fn steal(server: &Server, entry: &Entry) {
    let id = entry.id.to_string();
    let taken = server.ask(&["XCLAIM", "rm:{t:0}:log", "g", "thief", "0", &id]);
    assert_eq!(taken.list().len(), 1);
}

#[tokio::test]
async fn keys_and_fields_are_as_documented() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let fields = only_entry(&server, "rm:{t:0}:log");
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["b", "p"]);
    let mut batch = fields[0].1.clone().into();
    assert_eq!(Envelope::decode(&mut batch).expect("an envelope").payload(), "1");
    assert_eq!(server.say("HGET rm:topics t").text(), r#"{"partitions":1}"#);
    let feed = subscribe(&driver, "g").await;
    let route = server.say("HGET rm:routes:g t.>").text();
    assert!(route.starts_with(r#"{"version":1,"seen":"#), "{route}");
    let seen = server.say("ZRANGE rm:consumers 0 -1");
    assert_eq!(seen.list()[0].text(), format!("g {}", feed.consumer));
    driver.close().await;
}

#[tokio::test]
async fn a_namespace_keeps_tenants_apart() {
    let server = Server::start();
    let options = RedisOptions { namespace: "other".to_owned(), ..options(&server) };
    let driver = RedisDriver::connect(options).await.expect("connects");
    append(&driver, "t:0", &["1"]).await;
    let _feed = subscribe(&driver, "g").await;
    let keys = server.say("KEYS *");
    assert!(keys.list().iter().all(|key| key.text().starts_with("other:")), "{keys:?}");
    driver.close().await;
}

#[tokio::test]
async fn foreign_and_malformed_entries_are_read() {
    let server = Server::start();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    let data = r#"{"user_id": "user_carol"}"#;
    let id = server.ask(&["XADD", "rm:{t:0}:log", "*", "type", "t.x", "data", data]).text();
    let entry = next(&mut feed).await;
    let envelope = entry.records[0].as_ref().expect("an event");
    assert_eq!(envelope.payload(), data);
    assert_eq!(envelope.id(), EventId::derived(format!("t:0/{id}").as_bytes()));
    settle(&feed, settle_all(&entry, &Outcome::ack())).await;

    server.ask(&["XADD", "rm:{t:0}:log", "*", "foo", "bar", "foo", "baz"]);
    let entry = next(&mut feed).await;
    assert!(entry.records[0].is_err());
    settle(&feed, settle_all(&entry, &retry(Duration::ZERO))).await;
    let entry = next(&mut feed).await;
    assert_eq!((entry.queue, entry.attempt), (Queue::Retry, 2));
    settle(&feed, settle_all(&entry, &dead_letter())).await;
    let names: Vec<String> =
        only_entry(&server, "rm:{t:0}:dead:g").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["raw", "d"]);
    let group = GroupName::new("g").expect("valid");
    let letters = driver.tools().expect("tools").dead_letters(&group, 10).await.expect("read");
    let malformed = letters[0].record.as_ref().expect_err("no event");
    let fields: Vec<(&[u8], &[u8])> =
        malformed.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(fields, [(&b"foo"[..], &b"bar"[..]), (b"foo", b"baz")]);
    assert_eq!((letters[0].failure.cause, letters[0].attempts), (Cause::Rejected, 2));
    assert_eq!(letters[0].consumer, feed.consumer);
    assert!(letters[0].origin.to_string().starts_with("t:0/"));
    driver.close().await;
}

#[tokio::test]
async fn plain_acks_cost_one_xack_and_no_script() {
    let server = Server::start();
    let driver = connect(&server).await;
    for batch in ["1", "2", "3"] {
        append(&driver, "t:0", &[batch; 20]).await;
    }
    let lease = LeaseTimes::default();
    let mut feed =
        driver.subscribe(Subscription { lease, ..wish("g", &["t.>"]) }).await.expect("subscribes");
    let mut settlements = Vec::new();
    while settlements.len() < 60 {
        settlements.extend(settle_all(&next(&mut feed).await, &Outcome::ack()));
    }
    let answers = settle(&feed, settlements).await;
    assert_eq!(answers, [Settled::Done; 60]);
    assert_eq!((server.calls("xack"), server.calls("xclaim")), (1, 0));
    append(&driver, "t:0", &["4"]).await;
    let entry = next(&mut feed).await;
    settle(&feed, settle_all(&entry, &dead_letter())).await;
    assert_eq!((server.calls("xack"), server.calls("xclaim")), (2, 1), "the fenced way renews");
    driver.close().await;
}

#[tokio::test]
async fn who_lost_the_lease_changes_nothing() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1", "2", "3"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    steal(&server, &entry);
    let before = server.say("XPENDING rm:{t:0}:log g - + 10");
    let outcomes = [retry(Duration::from_secs(60)), dead_letter(), publishing(&["out"])];
    let settlements = entry.deliveries().zip(outcomes).map(|(one, end)| one.settle(end)).collect();
    assert_eq!(settle(&feed, settlements).await, [Settled::LeaseLost; 3]);
    for key in ["due:g", "dead:g", "progress:g"] {
        assert_eq!(length(&server, &format!("EXISTS rm:{{t:0}}:{key}")), 0, "{key}");
    }
    assert_eq!(length(&server, "EXISTS rm:{out:0}:log"), 0);
    let after = server.say("XPENDING rm:{t:0}:log g - + 10");
    let row = |reply: &Reply| reply.list()[0].list().to_vec();
    assert_eq!((&row(&before)[1], &row(&before)[3]), (&row(&after)[1], &row(&after)[3]));
    timeout(PATIENCE, entry.lease.cancelled()).await.expect("the lease is known to be lost");
    driver.close().await;
}

#[tokio::test]
async fn renewal_does_not_take_back_what_was_taken_over() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    steal(&server, &entry);
    timeout(PATIENCE, entry.lease.cancelled()).await.expect("lost");
    let owner = server.say("XPENDING rm:{t:0}:log g - + 10").list()[0].list()[1].text();
    assert_eq!(owner, "thief");
    driver.close().await;
}

#[tokio::test]
async fn a_handler_that_outlives_its_lease_keeps_it() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let mut rival = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    let stolen = timeout(short_lease().lease * 3, rival.source.fetch(1)).await;
    assert!(stolen.is_err(), "the lease is renewed: {stolen:?}");
    assert!(!entry.lease.is_cancelled());
    let row = server.say("XPENDING rm:{t:0}:log g - + 10").list()[0].list().to_vec();
    assert_eq!((row[1].text(), row[3].int()), (feed.consumer.clone(), 1));
    assert_eq!(settle(&feed, settle_all(&entry, &dead_letter())).await, [Settled::Done]);
    driver.close().await;
}

#[tokio::test]
async fn a_repeat_answers_already() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1", "2", "3"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    let outcomes = [retry(Duration::from_secs(60)), dead_letter(), publishing(&["out"])];
    let settlements: Vec<Settlement> =
        entry.deliveries().zip(outcomes).map(|(one, end)| one.settle(end)).collect();
    assert_eq!(settle(&feed, settlements[..1].to_vec()).await, [Settled::Done]);
    assert_eq!(settle(&feed, settlements[..1].to_vec()).await, [Settled::Already], "in progress");
    let answers = settle(&feed, settlements.clone()).await;
    assert_eq!(answers, [Settled::Already, Settled::Done, Settled::Done]);
    assert_eq!(settle(&feed, settlements).await, [Settled::Already; 3], "ended");
    assert_eq!(length(&server, "ZCARD rm:{t:0}:due:g"), 1);
    assert_eq!(length(&server, "XLEN rm:{t:0}:dead:g"), 1);
    assert_eq!(length(&server, "XLEN rm:{out:0}:log"), 1);
    assert_eq!(length(&server, "EXISTS rm:{t:0}:progress:g"), 0);
    driver.close().await;
}

#[tokio::test]
async fn progress_survives_a_dropped_source() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1", "2", "3"]).await;
    let mut first = subscribe(&driver, "g").await;
    let entry = next(&mut first).await;
    let middle = entry.deliveries().nth(1).expect("three").settle(Outcome::ack());
    assert_eq!(settle(&first, vec![middle]).await, [Settled::Done]);
    assert_eq!(length(&server, "HLEN rm:{t:0}:progress:g"), 1);
    drop(first.source);
    let mut second = subscribe(&driver, "g").await;
    let again = next(&mut second).await;
    let mut settled = Bits::new();
    settled.insert(1);
    assert_eq!((again.id, &again.settled, again.token.0), (entry.id, &settled, 2));
    let rest = settle_all(&again, &Outcome::ack());
    assert_eq!(settle(&second, rest).await, [Settled::Done; 2]);
    assert_eq!(length(&server, "EXISTS rm:{t:0}:progress:g"), 0);
    assert_eq!(server.say("XPENDING rm:{t:0}:log g").list()[0].int(), 0);
    driver.close().await;
}

#[tokio::test]
async fn outputs_are_one_entry_and_name_their_source() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1", "2"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    let outcome = publishing(&["a", "b"]);
    assert_eq!(settle(&feed, settle_all(&entry, &outcome)).await, [Settled::Done; 2]);
    let fields = only_entry(&server, "rm:{out:0}:log");
    assert_eq!(fields[1], ("p".to_owned(), format!("g/t:0/{}", entry.id).into_bytes()));
    let tools = driver.tools().expect("tools");
    let read = tools.latest(&partition("out:0"), 5).await.expect("read");
    let payloads: Vec<String> = (0..4).map(|index| payload(&read[0], index)).collect();
    assert_eq!(payloads, ["a", "b", "a", "b"]);
    driver.close().await;
}

#[tokio::test]
async fn a_step_that_cannot_be_written_whole_is_not_begun() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1", "2"]).await;
    server.say("SET rm:{out:0}:log occupied");
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    let outcomes = [dead_letter(), publishing(&["out"])];
    let settlements: Vec<Settlement> =
        entry.deliveries().zip(outcomes).map(|(one, end)| one.settle(end)).collect();
    let answers = feed.settler.settle(settlements.clone()).await;
    let error = answers[0].as_ref().expect_err("refused").to_string();
    assert!(error.contains("rm:{out:0}:log"), "{error}");
    assert_eq!(length(&server, "EXISTS rm:{t:0}:dead:g"), 0);
    server.say("DEL rm:{out:0}:log");
    assert_eq!(settle(&feed, settlements).await, [Settled::Done; 2]);
    driver.close().await;
}

#[tokio::test]
async fn settling_works_under_full_memory() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1", "2", "3", "4"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    server.say("CONFIG SET maxmemory 1");
    let split = Outcome::Split { after: Duration::ZERO };
    let outcomes = [retry(Duration::from_millis(1)), dead_letter(), publishing(&["out"]), split];
    let settlements = entry.deliveries().zip(outcomes).map(|(one, end)| one.settle(end)).collect();
    assert_eq!(settle(&feed, settlements).await, [Settled::Done; 4]);
    let again = [next(&mut feed).await, next(&mut feed).await];
    assert!(again.iter().all(|entry| entry.queue == Queue::Retry), "the schedule moved it");

    let one = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "5")],
        delay: Duration::ZERO,
    };
    let later = Append { delay: Duration::from_secs(1), ..one.clone() };
    for answer in driver.append(vec![one, later]).await {
        let error = answer.expect_err("full");
        assert!(error.is_not_stored() && error.to_string().contains("OOM"), "{error}");
        assert!(error.error().help().is_some_and(|help| help.contains("maxmemory")));
    }
    driver.close().await;
}

#[tokio::test]
async fn a_split_wakes_a_blocked_peer() {
    let server = Server::start();
    let driver = connect(&server).await;
    let mut first = subscribe(&driver, "g").await;
    append(&driver, "t:0", &["1", "2"]).await;
    let entry = next(&mut first).await;
    let mut second = subscribe(&driver, "g").await;
    let waiting = tokio::spawn(async move { next(&mut second).await });
    eventually("two reads are blocked", || {
        server.say("INFO clients").text().contains("blocked_clients:1")
    })
    .await;
    let split = Outcome::Split { after: Duration::ZERO };
    let last = entry.deliveries().nth(1).expect("two").settle(split);
    assert_eq!(settle(&first, vec![last]).await, [Settled::Done]);
    let other = timeout(PATIENCE, waiting).await.expect("in time").expect("no panic");
    assert_eq!((payload(&other, 0), other.attempt), ("2".to_owned(), 1));
    let origin = other.origin.as_ref().expect("an origin");
    assert_eq!((origin.entry, origin.index), (entry.id, 1));
    driver.close().await;
}

#[tokio::test]
async fn a_retry_comes_after_its_delay_whatever_became_of_the_log() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    settle(&feed, settle_all(&entry, &retry(QUIET * 2))).await;
    assert_eq!(length(&server, "ZCARD rm:{t:0}:due:g"), 1);
    server.say("XTRIM rm:{t:0}:log MAXLEN = 0");
    assert!(timeout(QUIET, feed.source.fetch(1)).await.is_err(), "not before its time");
    let again = next(&mut feed).await;
    assert_eq!((payload(&again, 0), again.attempt, again.queue), ("1".to_owned(), 2, Queue::Retry));
    let origin = again.origin.clone().expect("an origin");
    assert_eq!(origin.entry, entry.id);
    settle(&feed, settle_all(&again, &retry(Duration::ZERO))).await;
    let third = next(&mut feed).await;
    assert_eq!((third.attempt, third.origin.as_ref()), (3, Some(&origin)));
    assert_eq!(settle(&feed, settle_all(&third, &Outcome::ack())).await, [Settled::Done]);
    assert_eq!(length(&server, "XLEN rm:{t:0}:retry:g"), 0, "settled retries are deleted");
    driver.close().await;
}

#[tokio::test]
async fn scripts_that_were_flushed_are_sent_again() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    server.say("SCRIPT FLUSH");
    assert_eq!(settle(&feed, settle_all(&entry, &dead_letter())).await, [Settled::Done]);
    server.say("SCRIPT FLUSH");
    let later = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "2")],
        delay: Duration::from_millis(20),
    };
    let stored = driver.append(vec![later]).await.pop().expect("an answer").expect("stored");
    assert_eq!(stored.entry, None);
    assert_eq!(payload(&*next(&mut feed).await, 0), "2");
    driver.close().await;
}

#[tokio::test]
async fn killed_connections_are_made_again() {
    let server = Server::start();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    append(&driver, "t:0", &["1"]).await;
    let held = next(&mut feed).await;
    server.say("CLIENT KILL TYPE normal");
    // What is in flight stays so; an append may have met the dead connection.
    let mut stored = 0;
    let one = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "2")],
        delay: Duration::ZERO,
    };
    while stored == 0 {
        match driver.append(vec![one.clone()]).await.pop().expect("an answer") {
            Ok(_) => stored += 1,
            Err(PublishError::Unknown(_) | PublishError::NotStored(_)) => {}
        }
    }
    let other = next(&mut feed).await;
    assert_eq!(payload(&other, 0), "2");
    assert!(!held.lease.is_cancelled());
    assert_eq!(settle(&feed, settle_all(&held, &dead_letter())).await, [Settled::Done]);
    driver.close().await;
}

#[tokio::test]
async fn what_a_lost_connection_left_unseen_is_found() {
    let server = Server::start();
    let driver = connect(&server).await;
    let lease = LeaseTimes::default();
    let mut feed =
        driver.subscribe(Subscription { lease, ..wish("g", &["t.>"]) }).await.expect("subscribes");
    append(&driver, "t:0", &["1"]).await;
    let held = next(&mut feed).await;
    append(&driver, "t:0", &["2"]).await;
    // The server hands an entry out to this consumer, and the answer is lost.
    let read = ["XREADGROUP", "GROUP", "g", &feed.consumer, "STREAMS", "rm:{t:0}:log", ">"];
    assert_eq!(server.ask(&read).list().len(), 1);
    server.say("CLIENT KILL TYPE normal");
    let unseen = next(&mut feed).await;
    assert_eq!((payload(&unseen, 0), unseen.token.0), ("2".to_owned(), 2));
    assert_eq!(settle(&feed, settle_all(&held, &dead_letter())).await, [Settled::Done]);
    assert_eq!(settle(&feed, settle_all(&unseen, &Outcome::ack())).await, [Settled::Done]);
    driver.close().await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let mut server = Server::durable();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for name in &names[..10] {
        assert_eq!(append(&driver, "t:0", &[name]).await.durability, Durability::Fsync);
    }
    let mut seen = BTreeSet::new();
    let held = next(&mut feed).await;
    seen.insert(payload(&held, 0));
    server.kill();
    server.restart();
    assert_eq!(settle(&feed, settle_all(&held, &Outcome::ack())).await, [Settled::Done]);
    for name in &names[10..] {
        append_surely(&driver, name).await;
    }
    while seen.len() < 20 {
        let entry = next(&mut feed).await;
        assert_ne!(entry.id, held.id, "what was settled does not come again");
        seen.insert(payload(&entry, 0));
        settle(&feed, settle_all(&entry, &Outcome::ack())).await;
    }
    driver.close().await;
}

async fn append_surely(driver: &RedisDriver, payload: &str) {
    loop {
        let one = Append {
            partition: partition("t:0"),
            envelopes: vec![event("t.x", payload)],
            delay: Duration::ZERO,
        };
        if driver.append(vec![one]).await.pop().expect("an answer").is_ok() {
            return;
        }
    }
}

#[tokio::test]
async fn a_server_that_stands_still_is_waited_for() {
    let server = Server::start();
    let options = RedisOptions {
        block: Duration::from_millis(100),
        response_timeout: Duration::from_millis(300),
        deadline: Duration::from_millis(600),
        ..RedisOptions::new(server.url())
    };
    let driver = RedisDriver::connect(options).await.expect("connects");
    let mut feed = subscribe(&driver, "g").await;
    server.pause();
    let one = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "1")],
        delay: Duration::ZERO,
    };
    let answer = timeout(PATIENCE, driver.append(vec![one])).await.expect("bounded");
    let error = answer.into_iter().next().expect("an answer").expect_err("no answer");
    assert!(error.error().is_transient(), "{error:?}");
    server.resume();
    append_surely(&driver, "2").await;
    let mut seen = payload(&*next(&mut feed).await, 0);
    if seen == "1" {
        seen = payload(&*next(&mut feed).await, 0);
    }
    assert_eq!(seen, "2");
    driver.close().await;
}

#[tokio::test]
async fn a_group_that_vanished_begins_again_with_the_first_entry() {
    let server = Server::start();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    append(&driver, "t:0", &["1"]).await;
    let entry = next(&mut feed).await;
    settle(&feed, settle_all(&entry, &Outcome::ack())).await;
    server.say("XGROUP DESTROY rm:{t:0}:log g");
    append(&driver, "t:0", &["2"]).await;
    let (one, two) = (next(&mut feed).await, next(&mut feed).await);
    assert_eq!((payload(&one, 0), payload(&two, 0)), ("1".to_owned(), "2".to_owned()));
    server.say("FLUSHALL");
    append(&driver, "t:0", &["3"]).await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "3");
    driver.close().await;
}

#[tokio::test]
async fn many_partitions_are_shared_between_readers() {
    let server = Server::start();
    server.ask(&["HSET", "rm:topics", "t", r#"{"partitions":20}"#]);
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    for index in 0..20 {
        append(&driver, &format!("t:{index}"), &[&index.to_string()]).await;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 20 {
        let entry = next(&mut feed).await;
        assert!(seen.insert(entry.partition.index), "each once");
        settle(&feed, settle_all(&entry, &Outcome::ack())).await;
    }
    let waiting = tokio::spawn(async move { next(&mut feed).await });
    eventually("two readers are blocked", || {
        server.say("INFO clients").text().contains("blocked_clients:2")
    })
    .await;
    append(&driver, "t:19", &["last"]).await;
    assert_eq!(payload(&*waiting.await.expect("no panic"), 0), "last");
    driver.close().await;
}

#[tokio::test]
async fn a_topic_that_appears_later_is_read_from_its_beginning() {
    let server = Server::start();
    let driver = connect(&server).await;
    let start = Start::New;
    let mut feed =
        driver.subscribe(Subscription { start, ..wish("g", &[">"]) }).await.expect("subscribes");
    append(&driver, "later:0", &["1"]).await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "1");
    append(&driver, "last:0", &["2"]).await;
    assert_eq!(payload(&*next(&mut feed).await, 0), "2");
    driver.close().await;
}

#[tokio::test]
async fn a_topic_that_appeared_while_the_group_was_down_is_read_from_its_beginning() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "old:0", &["before the group"]).await;
    let new = |patterns: &[&str]| Subscription { start: Start::New, ..wish("g", patterns) };
    drop(driver.subscribe(new(&[">"])).await.expect("subscribes"));
    append(&driver, "t:0", &["while it was down"]).await;
    let mut feed = driver.subscribe(new(&[">"])).await.expect("subscribes");
    assert_eq!(payload(&*next(&mut feed).await, 0), "while it was down");
    assert!(timeout(QUIET, feed.source.fetch(1)).await.is_err(), "nothing from before the group");
    driver.close().await;
}

#[tokio::test]
async fn routes_are_the_groups() {
    let server = Server::start();
    let (one, two) = (connect(&server).await, connect(&server).await);
    let old = Subscription {
        routes: vec![("t.x".parse().expect("valid"), Some(1))],
        ..wish("g", &["t.x"])
    };
    let mut first = one.subscribe(old).await.expect("subscribes");
    let known = EventType::from_static("t.x");
    assert!(first.routes.covers(&known, 1) && !first.routes.covers(&known, 2));
    assert_eq!(server.say("HGET rm:routes:g ~epoch").text(), "1");
    let newer = Subscription {
        routes: vec![
            ("t.x".parse().expect("valid"), Some(2)),
            ("t.y".parse().expect("valid"), None),
        ],
        ..wish("g", &["t.x"])
    };
    let second = two.subscribe(newer.clone()).await.expect("subscribes");
    assert_eq!(server.say("HGET rm:routes:g ~epoch").text(), "2");
    append(&one, "t:0", &["1"]).await;
    next(&mut first).await;
    assert!(first.routes.covers(&known, 2), "known before the entry is handed over");
    assert!(first.routes.covers(&EventType::from_static("t.y"), 9));
    assert!(second.routes.covers(&known, 2) && !second.routes.covers(&known, 3));
    let third = two.subscribe(newer).await.expect("subscribes");
    assert_eq!(server.say("HGET rm:routes:g ~epoch").text(), "2", "nothing new");
    drop(third);
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_delayed_event_is_kept_back() {
    let server = Server::start();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    let later = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "1"), event("t.x", "2")],
        delay: QUIET * 2,
    };
    let stored = driver.append(vec![later]).await.pop().expect("an answer").expect("stored");
    assert_eq!(stored.entry, None);
    assert_eq!(length(&server, "ZCARD rm:{t:0}:delayed"), 2);
    assert!(timeout(QUIET, feed.source.fetch(1)).await.is_err(), "not before its time");
    let payloads: BTreeSet<String> =
        [payload(&*next(&mut feed).await, 0), payload(&*next(&mut feed).await, 0)].into();
    assert_eq!(payloads, ["1".to_owned(), "2".to_owned()].into());
    assert_eq!(length(&server, "ZCARD rm:{t:0}:delayed"), 0);
    driver.close().await;
}

#[tokio::test]
async fn a_fetch_that_is_dropped_loses_nothing() {
    let server = Server::start();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    let mut seen = BTreeSet::new();
    for round in 0..50 {
        let name = round.to_string();
        let names = [name.as_str()];
        let append = append(&driver, "t:0", &names);
        tokio::pin!(append);
        tokio::select! {
            _ = &mut append => {}
            entries = feed.source.fetch(5) => {
                let payloads = entries.expect("no error");
                seen.extend(payloads.iter().map(|entry| payload(entry, 0)));
                append.await;
            }
        }
    }
    while seen.len() < 50 {
        seen.insert(payload(&*next(&mut feed).await, 0));
    }
    driver.close().await;
}

#[tokio::test]
async fn a_closed_source_gives_what_was_read_and_then_ends() {
    let server = Server::start();
    let options = RedisOptions {
        block: Duration::from_secs(60),
        response_timeout: Duration::from_secs(61),
        ..options(&server)
    };
    let driver = RedisDriver::connect(options).await.expect("connects");
    let mut feed = subscribe(&driver, "g").await;
    assert!(timeout(QUIET, feed.source.fetch(1)).await.is_err(), "a read is blocked");
    timeout(PATIENCE, feed.source.close()).await.expect("a block is not waited for");
    append(&driver, "t:0", &["1"]).await;
    let entries = timeout(PATIENCE, feed.source.fetch(1)).await.expect("in time");
    assert!(entries.expect("no error").is_empty());
    let mut open = subscribe(&driver, "h").await;
    next(&mut open).await;
    assert!(timeout(QUIET, open.source.fetch(1)).await.is_err(), "a read is blocked");
    timeout(PATIENCE, driver.close()).await.expect("a block is not waited for");
    timeout(PATIENCE, driver.close()).await.expect("a second call does nothing");
    let entries = timeout(PATIENCE, open.source.fetch(1)).await.expect("in time");
    assert!(entries.expect("no error").is_empty());
    let one = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "2")],
        delay: Duration::ZERO,
    };
    let error = driver.append(vec![one]).await.pop().expect("an answer").expect_err("closed");
    assert!(error.is_not_stored() && error.error().is_closed(), "{error:?}");
}

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

#[tokio::test]
async fn tools_look_without_changing_anything() {
    let server = Server::start();
    let driver = connect(&server).await;
    let tools = driver.tools().expect("tools");
    let (place, group) = (partition("t:0"), GroupName::new("g").expect("valid"));
    assert_eq!(tools.end(&place).await.expect("read"), EntryId::ZERO);
    let mut feed = subscribe(&driver, "g").await;
    assert!(tools.backlog(&group).await.expect("read").is_settled());
    for payload in ["1", "2", "3", "4"] {
        append(&driver, "t:0", &[payload]).await;
    }
    let end = tools.end(&place).await.expect("read");
    let latest = tools.latest(&place, 2).await.expect("read");
    assert_eq!((payload(&latest[0], 0), latest[1].id), ("3".to_owned(), end));
    let first = next(&mut feed).await;
    let backlog = tools.backlog(&group).await.expect("read");
    assert_eq!((backlog.unread, backlog.pending), (3, 1));
    settle(&feed, settle_all(&first, &retry(Duration::from_secs(60)))).await;
    let second = next(&mut feed).await;
    settle(&feed, settle_all(&second, &dead_letter())).await;
    let backlog = tools.backlog(&group).await.expect("read");
    assert_eq!((backlog.unread, backlog.due, backlog.dead), (2, 1, 1));
    server.say("XTRIM rm:{t:0}:log MAXLEN = 0");
    assert_eq!(tools.backlog(&group).await.expect("read").unread, 0, "what is gone is not unread");

    let after = [(place.clone(), end)];
    let none = tools.read(&after, 10, Duration::from_millis(1)).await.expect("read");
    assert!(none.is_empty());
    let (found, _) =
        tokio::join!(tools.read(&after, 10, PATIENCE), append(&driver, "t:0", &["5"]),);
    assert_eq!(payload(&found.expect("read")[0], 0), "5");
    assert_eq!(tools.topics().await.expect("read").len(), 1);
    driver.close().await;
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

#[tokio::test]
async fn appends_of_one_partition_keep_the_order_of_their_calls() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["first"]).await;
    let call = |number: usize| Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", &number.to_string())],
        delay: Duration::ZERO,
    };
    let calls = (0..500).map(|number| driver.append(vec![call(number)]));
    let answers = futures_util::future::join_all(calls).await;
    let ids: Vec<Option<EntryId>> = answers
        .into_iter()
        .map(|mut answer| answer.pop().expect("an answer").expect("stored").entry)
        .collect();
    assert!(ids.is_sorted(), "stored in the order in which they were polled");
    driver.close().await;
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
