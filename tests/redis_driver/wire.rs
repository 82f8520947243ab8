//! Keys and fields on the wire, and what tools see of them.

use crate::kit::*;
use crate::server::Server;
use rumormill::delivery::{Cause, EntryId, Outcome, Queue, Settled};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Append, Driver, GroupName, Publish};
use rumormill::{Envelope, EventId};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;

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
async fn deltas_are_as_documented_and_whoever_writes_none_is_read() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1", "2", "3"]).await;
    let mut rest: bytes::Bytes = only_entry(&server, "rm:{t:0}:log")[0].1.clone().into();
    let first = Envelope::decode(&mut rest).expect("the first is whole");
    // An array of 7, format 1, an id of 16 bytes; payload, key and expiry; the checksum.
    assert!(rest.starts_with(&[0x97, 1, 0xc4, 16]), "{rest:?}");
    assert!(rest[21..].starts_with(&[0xc4, 1, b'2', 0xc0, 0xc0, 0xcf]), "{rest:?}");
    assert_eq!(rest.len(), 2 * (4 + 16 + 1 + 3 + 2 + 9), "{rest:?}");
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    let events: Vec<&Envelope> = entry.records.iter().flatten().collect();
    let payloads: Vec<&[u8]> = events.iter().map(|event| &event.payload()[..]).collect();
    assert_eq!((payloads, events[0]), (vec![&b"1"[..], b"2", b"3"], &first));
    assert!(events.iter().all(|event| event.event_type() == first.event_type()));
    settle(&feed, settle_all(&entry, &Outcome::ack())).await;

    let mut whole = Vec::new();
    events.iter().for_each(|event| event.encode(&mut whole));
    let command: [&[u8]; 7] = [b"XADD", b"rm:{t:0}:log", b"*", b"b", &whole, b"p", b"other-1"];
    server.ask(&command);
    assert_eq!(next(&mut feed).await.records, entry.records);
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
async fn a_delayed_event_is_kept_back() {
    let server = Server::start();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    let later = Append {
        partition: partition("t:0"),
        envelopes: vec![event("t.x", "1"), event("t.x", "2")],
        delay: QUIET * 2,
        deduplicate: false,
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
