//! What operating a Redis does that the conformance suite cannot see: keys, costs, and servers
//! that refuse.

mod server;

use std::sync::Arc;
use std::time::Duration;

use rumormill::codec::ContentType;
use rumormill::delivery::{Cause, EntryId, Failure, Outcome, Partition};
use rumormill::driver::admin::{Admin, Count, LIVE_WITHIN, Redriven, SeekPlan};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{
    Append, Driver, Feed, GroupName, LeaseTimes, Publish, Subscribe, Subscription,
};
use rumormill::{Envelope, ErrorKind, EventType, Start, Timestamp, Topic};
use server::{Reply, Server};
use tokio::time::timeout;

/// Longer than anything here takes; a test that waits for it has failed. Shorter than the ten
/// seconds after which a consumer looks for partitions without being told.
const PATIENCE: Duration = Duration::from_secs(8);

async fn connect(server: &Server) -> Arc<RedisDriver> {
    RedisDriver::connect(RedisOptions::new(server.url())).await.expect("connects")
}

fn admin(driver: &RedisDriver) -> &dyn Admin {
    driver.admin().expect("it has the powers")
}

fn group() -> GroupName {
    GroupName::new("g").expect("valid")
}

fn topic() -> Topic {
    Topic::new("t").expect("valid")
}

fn place(text: &str) -> Partition {
    text.parse().expect("valid")
}

async fn append(driver: &RedisDriver, to: &str, payloads: &[&str]) -> EntryId {
    let partition = place(to);
    driver.declare(&partition.topic).await.expect("declares");
    let event = |payload: &&str| {
        let (event_type, now) = (EventType::from_static("t.x"), Timestamp::from_millis(1));
        let payload = (*payload).to_owned();
        let builder = Envelope::builder(event_type, ContentType::JSON, payload, now);
        builder.build().expect("within limits")
    };
    let envelopes = payloads.iter().map(event).collect();
    let one = Append { partition, envelopes, delay: Duration::ZERO, deduplicate: false };
    let stored = driver.append(vec![one]).await.pop().expect("an answer").expect("stored");
    stored.entry.expect("an id")
}

async fn subscribe(driver: &RedisDriver) -> Feed {
    let wish = Subscription {
        group: group(),
        routes: vec![("t.>".parse().expect("valid"), Some(1))],
        start: Start::Earliest,
        lease: LeaseTimes::default(),
        park_keys: false,
    };
    driver.subscribe(wish).await.expect("subscribes")
}

/// Takes one entry and ends its first `events` events so.
async fn end(feed: &mut Feed, events: usize, outcome: &Outcome) {
    let entries = timeout(PATIENCE, feed.source.fetch(1)).await.expect("in time");
    let entry = Arc::new(entries.expect("no error").remove(0));
    let deliveries = entry.deliveries().take(events);
    let settlements = deliveries.map(|delivery| delivery.settle(outcome.clone())).collect();
    for answer in feed.settler.settle(settlements).await {
        answer.expect("settled");
    }
}

fn dead_letter() -> Outcome {
    Outcome::DeadLetter { failure: Failure::new(Cause::Rejected, "never") }
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

/// Ends a consumer and waits until nobody takes it for a live one.
async fn leave(server: &Server, feed: Feed) {
    drop(feed);
    let heard_of = || {
        let now: u64 = server.say("TIME").list()[0].text().parse().expect("seconds");
        // Who leaves something pending behind counts as dead.
        let lately = (now - LIVE_WITHIN.as_secs()) * 1000;
        server.say(&format!("ZCOUNT rm:consumers {lately} +inf")).int()
    };
    eventually("the heartbeat is gone", || heard_of() == 0).await;
}

async fn plan(driver: &RedisDriver, to: Start) -> SeekPlan {
    admin(driver).plan_seek(&group(), to, None).await.expect("a plan")
}

async fn letters(driver: &RedisDriver) -> Vec<EntryId> {
    let page = admin(driver).page(&group(), &place("t:0"), EntryId::ZERO, 100).await;
    page.expect("a page").letters.iter().map(|letter| letter.id).collect()
}

/// A group with one dead letter and no consumer.
async fn with_a_dead_letter(server: &Server) -> Arc<RedisDriver> {
    let driver = connect(server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver).await;
    end(&mut feed, 1, &dead_letter()).await;
    leave(server, feed).await;
    driver
}

#[tokio::test]
async fn a_count_that_takes_too_long_is_a_lower_bound() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    leave(&server, subscribe(&driver).await).await;
    let fill = "for i = 1, 10200 do redis.call('XADD', KEYS[1], i .. '-1', 'x', 'y') end";
    server.say("DEL rm:{t:0}:log");
    server.ask(&["EVAL", fill, "1", "rm:{t:0}:log"]);
    // Between two entries the server does not know what is unread.
    server.say("XGROUP CREATE rm:{t:0}:log g 150-0");
    let step = &plan(&driver, Start::After("10190-1".parse().expect("valid"))).await.partitions[0];
    assert_eq!((step.skips, step.repeats), (Count::at_least(10_000), Count::ZERO));
    let step = &plan(&driver, Start::After("170-0".parse().expect("valid"))).await.partitions[0];
    assert_eq!(step.skips, Count::exact(20));
    let step = &plan(&driver, Start::Earliest).await.partitions[0];
    assert_eq!(step.repeats, Count::exact(149));
    let report = admin(&driver).group(&group()).await.expect("a report");
    assert_eq!(report.partitions[0].unread, Count::at_least(10_000));
    let topic = admin(&driver).topic(&topic()).await.expect("a report");
    assert_eq!(topic.partitions[0].entries, 10_200);
    assert!(topic.partitions[0].bytes_estimate.is_some_and(|bytes| bytes > 10_200));
}

#[tokio::test]
async fn a_seek_forward_leaves_no_progress_behind() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1", "2"]).await;
    let mut feed = subscribe(&driver).await;
    end(&mut feed, 1, &Outcome::ack()).await;
    assert_eq!(server.say("HLEN rm:{t:0}:progress:g").int(), 1);
    append(&driver, "t:0", &["3"]).await;
    leave(&server, feed).await;
    let plan = plan(&driver, Start::New).await;
    let done = admin(&driver).seek(&plan, false).await.expect("moved");
    assert_eq!(done.partitions[0].pending_dropped, plan.partitions[0].pending_dropped.count);
    assert!(done.partitions[0].pending_dropped >= 1);
    assert_eq!(server.say("HLEN rm:{t:0}:progress:g").int(), 0);
    assert_eq!(server.say("XPENDING rm:{t:0}:log g").list()[0].int(), 0);
    // A step whose answer was lost is taken again: it changes nothing, and is no conflict.
    let again = admin(&driver).seek(&plan, false).await.expect("there already");
    assert_eq!(again.partitions[0].pending_dropped, 0);
}

#[tokio::test]
async fn a_move_that_was_cut_short_is_finished_by_doing_it_again() {
    let server = Server::start();
    let driver = connect(&server).await;
    let id = append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver).await;
    let taken = timeout(PATIENCE, feed.source.fetch(1)).await.expect("in time").expect("one");
    assert_eq!(taken.len(), 1);
    leave(&server, feed).await;
    let back = plan(&driver, Start::Earliest).await;
    // As if the mover had died after the move and before the drop.
    server.say("XGROUP SETID rm:{t:0}:log g 0-0");
    let done = admin(&driver).seek(&back, false).await.expect("moved");
    assert_eq!((done.partitions[0].pending_dropped, done.partitions[0].from), (1, id));
    assert_eq!(server.say("XPENDING rm:{t:0}:log g").list()[0].int(), 0);
}

#[tokio::test]
async fn a_killed_consumer_is_live_until_its_heartbeat_is_old() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    leave(&server, subscribe(&driver).await).await;
    let now: u64 = server.say("TIME").list()[0].text().parse().expect("seconds");
    let beat = |name: &str, seconds_ago: u64| {
        let heard = ((now - seconds_ago) * 1000).to_string();
        server.ask(&["ZADD", "rm:consumers", &heard, name]);
    };
    beat("g old", 60);
    beat("other young", 1);
    let early = plan(&driver, Start::New).await;
    assert!(early.live_consumers.is_empty(), "{early:?}");
    beat("g young", 1);
    assert_eq!(plan(&driver, Start::New).await.live_consumers, ["young"]);
    let error = admin(&driver).seek(&early, false).await.expect_err("one lives");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("young"), "{error}");
    let report = admin(&driver).group(&group()).await.expect("a report");
    let live: Vec<_> = report.consumers.iter().map(|own| (own.name.as_str(), own.live)).collect();
    assert_eq!(live, [("old", false), ("young", true)]);
    let names = admin(&driver).groups().await.expect("groups");
    assert_eq!(names.iter().map(GroupName::as_str).collect::<Vec<_>>(), ["g", "other"]);
}

#[tokio::test]
async fn a_group_that_went_away_is_said_to_have() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    leave(&server, subscribe(&driver).await).await;
    let plan = plan(&driver, Start::New).await;
    server.say("XGROUP DESTROY rm:{t:0}:log g");
    let error = admin(&driver).seek(&plan, true).await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("t:0") && error.help().is_some(), "{error:?}");
}

#[tokio::test]
async fn a_topic_grows_with_its_groups_and_its_other_settings() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver).await;
    end(&mut feed, 1, &Outcome::ack()).await;
    server.ask(&["HSET", "rm:topics", "t", r#"{"bytes_max":7,"partitions":1}"#]);
    admin(&driver).set_partitions(&topic(), 2).await.expect("grown");
    let written = server.say("HGET rm:topics t").text();
    assert!(written.contains(r#""bytes_max":7"#) && written.contains(r#""partitions":2"#));
    for key in ["rm:{t:1}:log", "rm:{t:1}:retry:g"] {
        assert_eq!(server.ask(&["XINFO", "GROUPS", key]).list().len(), 1, "{key}");
    }
    // The live consumer is told, and does not wait until it looks by itself.
    server.ask(&["XADD", "rm:{t:1}:log", "*", "type", "t.x", "data", "1"]);
    end(&mut feed, 1, &Outcome::ack()).await;
    server.ask(&["HSET", "rm:topics", "t", "nonsense"]);
    let error = admin(&driver).set_partitions(&topic(), 3).await.expect_err("unreadable");
    assert!(error.help().is_some(), "{error:?}");
}

#[tokio::test]
async fn a_key_of_another_type_is_named_and_nothing_is_lost() {
    let server = Server::start();
    let driver = with_a_dead_letter(&server).await;
    let (ids, plan) = (letters(&driver).await, plan(&driver, Start::Earliest).await);
    server.say("DEL rm:{t:0}:retry:g");
    server.say("SET rm:{t:0}:retry:g x");
    let error = admin(&driver).redrive(&group(), &place("t:0"), &ids).await.expect_err("refused");
    assert!(error.to_string().contains("rm:{t:0}:retry:g"), "{error}");
    assert_eq!(letters(&driver).await, ids, "the letter stays");
    let error = admin(&driver).group(&group()).await.expect_err("refused");
    assert!(error.to_string().contains("rm:{t:0}:retry:g") && error.help().is_some(), "{error:?}");
    server.say("DEL rm:{t:0}:progress:g");
    server.say("SET rm:{t:0}:progress:g x");
    let before = server.ask(&["XINFO", "GROUPS", "rm:{t:0}:log"]);
    let error = admin(&driver).seek(&plan, false).await.expect_err("refused");
    assert!(error.to_string().contains("rm:{t:0}:progress:g"), "{error}");
    assert_eq!(server.ask(&["XINFO", "GROUPS", "rm:{t:0}:log"]), before, "nothing moved");
}

#[tokio::test]
async fn letters_are_redriven_under_full_memory() {
    let server = Server::start();
    let driver = with_a_dead_letter(&server).await;
    server.say("CONFIG SET maxmemory 1");
    assert!(matches!(server.try_ask(&["SET", "x", "y"]), Some(Reply::Error(_))), "it is full");
    let ids = letters(&driver).await;
    let done = admin(&driver).redrive(&group(), &place("t:0"), &ids).await.expect("moved");
    assert_eq!(done, Redriven { moved: 1, ..Redriven::default() });
    assert_eq!(server.say("XLEN rm:{t:0}:retry:g").int(), 1);
    assert_eq!(server.say("XLEN rm:{t:0}:dead:g").int(), 0);
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let server = Server::start();
    let driver = with_a_dead_letter(&server).await;
    server.say("ACL SETUSER default -memory");
    let report = admin(&driver).topic(&topic()).await.expect("the rest is told");
    assert_eq!((report.partitions[0].entries, report.partitions[0].bytes_estimate), (1, None));
    server.say("ACL SETUSER default -xinfo");
    let error = admin(&driver).group(&group()).await.expect_err("forbidden");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("rm:{t:0}:log") && error.help().is_some(), "{error:?}");
}

#[tokio::test]
async fn answers_are_printed_with_stable_names_and_no_key_is_searched_for() {
    let server = Server::start();
    let driver = with_a_dead_letter(&server).await;
    let json = |value: serde_json::Result<serde_json::Value>| value.expect("plain data");
    let report = admin(&driver).group(&group()).await.expect("a report");
    let report = json(serde_json::to_value(report));
    let own = &report["partitions"][0];
    assert_eq!((&report["group"], &own["partition"]), (&"g".into(), &"t:0".into()));
    assert_eq!(own["unread"], serde_json::json!({"count": 0, "exact": true}));
    assert_eq!((&own["dead"]["count"], &own["pending"]["count"]), (&1.into(), &0.into()));
    assert!(own["position_time"].as_str().is_some_and(|time| time.ends_with('Z')), "{own}");
    let report = admin(&driver).topic(&topic()).await.expect("a report");
    let report = json(serde_json::to_value(report));
    assert_eq!(report["partitions"][0]["groups"][0]["group"], "g");
    let plan = json(serde_json::to_value(plan(&driver, Start::Earliest).await));
    assert_eq!((&plan["partitions"][0]["to"], &plan["group"]), (&"0-0".into(), &"g".into()));
    assert_eq!(plan["partitions"][0]["repeats"]["count"], 1);
    admin(&driver).groups().await.expect("groups");
    assert_eq!((server.calls("keys"), server.calls("scan")), (0, 0));
}
