//! What goes from a log and what stays, on a real server.

mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumormill::Start;
use rumormill::delivery::Outcome;
use rumormill::driver::admin::TopicLimits;
use rumormill::driver::redis::{Io, RedisDriver, RedisOptions, RetentionOptions};
use rumormill::driver::{Driver, Feed, LeaseTimes, Publish, Subscribe, Subscription};
use server::{Reply, Server};
use tokio::time::timeout;

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(15);
const LOG: &str = "rm:{t:0}:log";
/// Most entries of one node of a stream: that many may stay for want of a whole node.
const NODE: i64 = 100;

/// Nothing that all have settled is kept.
fn at_once() -> RetentionOptions {
    RetentionOptions {
        trim_every: Duration::from_millis(20),
        keep: Duration::ZERO,
        ..RetentionOptions::default()
    }
}

/// A process that publishes to the topic `t`, and consumes nothing.
async fn appender(server: &Server, retention: RetentionOptions) -> Arc<RedisDriver> {
    let options = RedisOptions { retention, ..RedisOptions::new(server.url()) };
    let driver = RedisDriver::connect(options).await.expect("connects");
    driver.declare(&"t".parse().expect("valid")).await.expect("declares");
    driver
}

/// Membership in a group that reads the topic.
fn wish(group: &str) -> Subscription {
    Subscription {
        group: group.parse().expect("valid"),
        routes: vec![("t.>".parse().expect("valid"), None)],
        start: Start::Earliest,
        lease: LeaseTimes::default(),
        park_keys: false,
    }
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

/// Waits for whole rounds: each looks at the groups first.
async fn rounds(server: &Server, count: u64) {
    let turns = || server.calls("xinfo|groups");
    let before = turns();
    // The one that is under way does not count.
    eventually("the rounds are done", || turns() > 2 * count + before).await;
}

/// Fills the log with entries of 100 bytes and a little more, of ids from 1-0 on.
fn fill(server: &Server, count: usize) {
    let script = "local first = redis.call('XLEN', KEYS[1]) \
                  for n = 1, ARGV[1] do redis.call('XADD', KEYS[1], (first + n) .. '-0', \
                  'x', string.rep('x', 100)) end";
    server.ask(&["EVAL", script, "1", LOG, &count.to_string()]);
}

fn length(server: &Server) -> i64 {
    server.ask(&["XLEN", LOG]).int()
}

fn group(server: &Server, group: &str) {
    server.ask(&["XGROUP", "CREATE", LOG, group, "0", "MKSTREAM"]);
}

fn read(server: &Server, group: &str, count: usize) {
    let count = count.to_string();
    let command = ["XREADGROUP", "GROUP", group, "c", "COUNT", &count, "STREAMS", LOG, ">"];
    server.ask(&command);
}

fn ack(server: &Server, group: &str, ids: impl Iterator<Item = usize>) {
    for id in ids {
        server.ask(&["XACK", LOG, group, &format!("{id}-0")]);
    }
}

fn dropped(server: &Server) -> BTreeMap<String, i64> {
    let all = server.ask(&["HGETALL", "rm:{t:0}:dropped"]);
    let number = |reply: &Reply| reply.text().parse().expect("a number");
    all.list().chunks(2).map(|pair| (pair[0].text(), number(&pair[1]))).collect()
}

#[tokio::test]
async fn what_all_have_settled_goes_though_the_process_only_publishes() {
    let server = Server::start();
    group(&server, "g");
    fill(&server, 300);
    read(&server, "g", 300);
    ack(&server, "g", 1..=300);
    let _driver = appender(&server, at_once()).await;
    eventually("the settled entries are gone", || length(&server) <= NODE).await;
    assert_eq!(dropped(&server), BTreeMap::new(), "nobody lost anything");
}

#[tokio::test]
async fn what_is_settled_is_kept_for_its_time_and_size() {
    let server = Server::start();
    fill(&server, 300);
    let kept = |keep_bytes| RetentionOptions {
        keep: Duration::from_secs(60 * 365 * 24 * 60 * 60),
        keep_bytes,
        ..at_once()
    };
    let driver = appender(&server, kept(1 << 20)).await;
    rounds(&server, 2).await;
    assert_eq!(length(&server), 300, "younger than sixty years, and smaller than a megabyte");
    driver.close().await;
    let _driver = appender(&server, kept(20_000)).await;
    eventually("the log is down to its size", || length(&server) <= 200).await;
    rounds(&server, 2).await;
    assert!(length(&server) >= 100, "{} are left: far below its size", length(&server));
}

#[tokio::test]
async fn what_a_group_has_not_read_or_not_settled_stays() {
    let server = Server::start();
    for name in ["fast", "slow", "stuck"] {
        group(&server, name);
    }
    fill(&server, 400);
    read(&server, "fast", 400);
    ack(&server, "fast", 1..=400);
    read(&server, "stuck", 400);
    ack(&server, "stuck", 2..=400);
    let keep_nothing = RetentionOptions { keep_bytes: 1, ..at_once() };
    let _driver = appender(&server, keep_nothing).await;
    rounds(&server, 3).await;
    assert_eq!(length(&server), 400, "nobody read for slow, and 1-0 is pending");
    read(&server, "slow", 250);
    ack(&server, "slow", 1..=250);
    rounds(&server, 3).await;
    assert_eq!(length(&server), 400, "1-0 is pending for stuck");
    ack(&server, "stuck", 1..=1);
    eventually("what slow has settled goes", || length(&server) <= 150 + NODE).await;
    rounds(&server, 3).await;
    assert!(length(&server) >= 150, "slow has not read 150 of them: {}", length(&server));
    assert_eq!(dropped(&server), BTreeMap::new());
}

#[tokio::test]
async fn beyond_the_cap_the_oldest_go_and_are_counted_for_each_group() {
    let server = Server::start();
    for name in ["done", "behind", "stuck", "idle", "back"] {
        group(&server, name);
    }
    fill(&server, 400);
    for (name, count) in [("done", 400), ("behind", 100), ("stuck", 200), ("back", 200)] {
        read(&server, name, count);
    }
    ack(&server, "done", 1..=400);
    ack(&server, "behind", 1..=100);
    ack(&server, "stuck", (1..=200).filter(|id| id % 2 == 0));
    // What is pending and unread again is lost once.
    server.ask(&["XGROUP", "SETID", LOG, "back", "0"]);
    // An entry counts its field, its value and sixteen bytes beside them.
    let capped =
        RetentionOptions { keep_bytes: 1000, cap_bytes: Some(50 * (1 + 100 + 16)), ..at_once() };
    let _driver = appender(&server, capped).await;
    eventually("the log is down to its cap", || length(&server) <= 50).await;
    rounds(&server, 2).await;
    assert_eq!(length(&server), 50, "no more went than had to");
    let lost = [("back", 350), ("behind", 250), ("idle", 350), ("stuck", 100 + 150)];
    let lost = lost.map(|(name, count)| (name.to_owned(), count));
    assert_eq!(dropped(&server), BTreeMap::from(lost));
}

#[tokio::test]
async fn a_group_that_is_gone_holds_nothing_and_what_it_loses_is_counted() {
    let server = Server::start();
    for name in ["gone", "g"] {
        group(&server, name);
        server.ask(&["HSET", &format!("rm:routes:{name}"), "~epoch", "1"]);
    }
    let now = server.say("TIME").list()[0].text() + "000";
    let live = format!("{{\"version\":1,\"seen\":{now}}}");
    server.ask(&["HSET", "rm:routes:g", "t.>", &live]);
    server.ask(&["HSET", "rm:routes:gone", "t.>", &live]);
    fill(&server, 300);
    read(&server, "g", 300);
    ack(&server, "g", 1..=300);
    read(&server, "gone", 10);
    ack(&server, "gone", 1..=4);
    let _driver = appender(&server, at_once()).await;
    rounds(&server, 3).await;
    assert_eq!(length(&server), 300, "it may come back");

    let week_ago = now.parse::<u64>().expect("a number") - 7 * 24 * 60 * 60 * 1000;
    let gone = format!("{{\"version\":1,\"seen\":{week_ago}}}");
    server.ask(&["HSET", "rm:routes:gone", "t.>", &gone]);
    eventually("it holds no longer", || length(&server) == 0).await;
    assert_eq!(dropped(&server), BTreeMap::from([("gone".to_owned(), 296)]));
}

#[tokio::test]
async fn a_group_of_another_program_holds() {
    let server = Server::start();
    group(&server, "no group of ours: \u{e4}");
    fill(&server, 300);
    let _driver = appender(&server, at_once()).await;
    rounds(&server, 3).await;
    assert_eq!(length(&server), 300);
}

#[tokio::test]
async fn many_processes_trim_once_in_a_while() {
    let server = Server::start();
    let every = Duration::from_millis(300);
    let retention = RetentionOptions { trim_every: every, ..at_once() };
    let millis = || {
        let time = server.say("TIME");
        let part = |at: usize| time.list()[at].text().parse::<u64>().expect("a number");
        part(0) * 1000 + part(1) / 1000
    };
    let before = millis();
    let turns = || server.calls("set");
    let drivers =
        [appender(&server, retention.clone()).await, appender(&server, retention.clone()).await];
    eventually("there were some rounds", || turns() >= 6).await;
    let (turns, elapsed) = (turns(), millis() - before);
    assert!(turns <= elapsed / 300 + 1, "{turns} rounds in {elapsed} ms");
    assert!(server.calls("xinfo|groups") <= turns + 1, "who has not the turn does not look");
    drop(drivers);
}

#[tokio::test]
async fn who_trims_now_is_left_alone() {
    let server = Server::start();
    server.ask(&["SET", "rm:{t:0}:trim", "somebody", "PX", "600000"]);
    fill(&server, 300);
    let _driver = appender(&server, at_once()).await;
    let asked = || server.calls("pttl");
    eventually("it was asked for the turn", || asked() > 5).await;
    assert_eq!((length(&server), server.calls("xtrim")), (300, 0));
    server.ask(&["DEL", "rm:{t:0}:trim"]);
    eventually("the turn is free", || length(&server) <= NODE).await;
}

#[tokio::test]
async fn a_clock_that_jumped_says_nothing_about_age() {
    let server = Server::start();
    fill(&server, 300);
    let hour_ahead = server.say("TIME").list()[0].text().parse::<u64>().expect("a number") + 3600;
    server.ask(&["XADD", LOG, &format!("{hour_ahead}000-0"), "x", "x"]);
    let driver = appender(&server, at_once()).await;
    rounds(&server, 3).await;
    assert_eq!(length(&server), 301);
    driver.close().await;
    let small = RetentionOptions { keep_bytes: 1000, ..at_once() };
    let _driver = appender(&server, small).await;
    eventually("sizes need no clock", || length(&server) <= NODE).await;
}

#[tokio::test]
async fn a_large_log_is_trimmed_in_steps() {
    let server = Server::start();
    for _ in 0..10 {
        fill(&server, 5000);
    }
    let _driver = appender(&server, at_once()).await;
    eventually("all is trimmed", || length(&server) <= NODE).await;
    assert!(server.calls("xtrim") >= 5, "{} steps for 50,000 entries", server.calls("xtrim"));
}

#[tokio::test]
async fn what_is_counted_is_dropped_in_steps() {
    let server = Server::start();
    group(&server, "idle");
    fill(&server, 3000);
    let capped = RetentionOptions { keep_bytes: 1, cap_bytes: Some(1000), ..at_once() };
    let _driver = appender(&server, capped).await;
    eventually("the log is down to its cap", || length(&server) <= 8).await;
    assert!(server.calls("xtrim") >= 6, "{} steps for 3,000 entries", server.calls("xtrim"));
    assert_eq!(dropped(&server), BTreeMap::from([("idle".to_owned(), 3000 - length(&server))]));
}

#[tokio::test]
async fn a_full_server_is_trimmed_all_the_same() {
    let server = Server::start();
    group(&server, "idle");
    fill(&server, 300);
    let retention = RetentionOptions { trim_every: Duration::from_millis(300), ..at_once() };
    let _driver = appender(&server, retention).await;
    server.ask(&["CONFIG", "SET", "maxmemory", "10kb"]);
    let full = server.try_ask(&["SET", "a", "b"]);
    assert!(matches!(full, Some(Reply::Error(error)) if error.starts_with("OOM")), "it is full");
    // A quarter of the memory is the cap.
    eventually("the log is down to its cap", || length(&server) <= 2560 / 117).await;
    assert_eq!(dropped(&server), BTreeMap::from([("idle".to_owned(), 300 - length(&server))]));
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panicked")).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_member_counts_what_its_group_lost_to_a_trim_of_another_process() {
    let server = Server::start();
    let options = RedisOptions {
        checkpoint_every: Duration::from_millis(100),
        retention: RetentionOptions { trim_every: Duration::from_secs(3600), ..at_once() },
        ..RedisOptions::new(server.url())
    };
    let consumer = RedisDriver::connect(options).await.expect("connects");
    let _feed = consumer.subscribe(wish("g")).await.expect("subscribes");
    fill(&server, 400);
    read(&server, "g", 100);
    let capped = RetentionOptions { keep_bytes: 1, cap_bytes: Some(5000), ..at_once() };
    let appender = appender(&server, capped).await;
    eventually("the log is down to its cap", || length(&server) <= 42).await;
    let losses = |driver: &RedisDriver| driver.monitor().expect("a monitor").losses();
    let lost = || losses(&consumer).retention_lost + losses(&consumer).pending_gone;
    let dropped = u64::try_from(dropped(&server)["g"]).expect("positive");
    assert_eq!(dropped, 400 - 42);
    eventually("the member knows", || lost() >= dropped).await;
    assert_eq!((losses(&consumer).pending_gone, lost()), (100, dropped), "each is counted once");
    assert_eq!(losses(&appender).retention_lost, 0, "not here as well");
}

#[tokio::test]
async fn what_the_cap_drops_is_said_once_a_round() {
    let (server, log) = (Server::start(), Log::default());
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _logging = tracing_subscriber::util::SubscriberInitExt::set_default(subscriber);
    group(&server, "idle");
    fill(&server, 3000);
    let capped = RetentionOptions {
        trim_every: Duration::from_secs(1),
        keep_bytes: 1,
        cap_bytes: Some(1000),
        ..at_once()
    };
    let options =
        RedisOptions { retention: capped, io: Io::Current, ..RedisOptions::new(server.url()) };
    let driver = RedisDriver::connect(options).await.expect("connects");
    driver.declare(&"t".parse().expect("valid")).await.expect("declares");
    eventually("it is said", || log.text().contains("group=\"idle\"")).await;
    let lost = format!("entries={}", 3000 - length(&server));
    assert_eq!(log.text().matches(&lost).count(), 1, "{}", log.text());
    assert!(server.calls("xtrim") > 1, "it took several steps");
    driver.close().await;
}

#[tokio::test]
async fn a_topics_own_limits_come_first() {
    let server = Server::start();
    let options = RetentionOptions { keep: Duration::from_secs(3600), ..at_once() };
    let driver = appender(&server, options).await;
    let script =
        "for n = 1, 300 do redis.call('XADD', KEYS[1], '*', 'x', string.rep('x', 100)) end";
    server.ask(&["EVAL", script, "1", LOG]);
    rounds(&server, 2).await;
    assert_eq!(length(&server), 300, "an hour has not passed");
    let keep = |keep| TopicLimits { keep: Some(keep), ..TopicLimits::default() };
    let admin = driver.admin().expect("it has the powers");
    let topic = "t".parse().expect("valid");
    admin.set_retention(&topic, keep(Duration::ZERO)).await.expect("set");
    eventually("nothing is kept", || length(&server) <= NODE).await;
}

#[tokio::test]
async fn one_log_that_is_none_does_not_keep_others_from_being_trimmed() {
    let server = Server::start();
    let driver = appender(&server, at_once()).await;
    for bad in ["a", "b", "z"] {
        driver.declare(&bad.parse().expect("valid")).await.expect("declares");
    }
    server.ask(&["SET", "rm:{a:0}:log", "no stream"]);
    server.ask(&["SET", "rm:{b:0}:dropped", "no hash"]);
    server.ask(&["SADD", "rm:{z:0}:trim", "no string"]);
    server.ask(&["SET", "rm:{t:0}:trim", "a turn that does not end"]);
    fill(&server, 300);
    eventually("it is trimmed", || length(&server) <= NODE).await;
}

#[tokio::test]
async fn trimming_all_the_time_takes_nothing_from_those_who_read() {
    const EVENTS: usize = 2000;
    let server = Server::start();
    let driver = appender(&server, at_once()).await;
    let mut groups = Vec::new();
    for name in ["one", "other"] {
        let feed = driver.subscribe(wish(name)).await.expect("subscribes");
        groups.push(tokio::spawn(settle_all(feed, EVENTS)));
    }
    for _ in 0..EVENTS / 100 {
        let script = "for n = 1, 100 do redis.call('XADD', KEYS[1], '*', 'type', 't.x', \
                      'data', '{}') end";
        server.ask(&["EVAL", script, "1", LOG]);
        let turns = server.calls("pttl");
        eventually("a trim comes in between", || server.calls("pttl") > turns).await;
    }
    for group in groups {
        let found = timeout(PATIENCE, group).await.expect("in time").expect("no panic");
        assert_eq!(found, EVENTS, "each event once");
    }
    eventually("all is trimmed", || length(&server) <= NODE).await;
    assert!(server.calls("xtrim") > 1, "it was trimmed meanwhile");
    assert_eq!(dropped(&server), BTreeMap::new());
    assert!(driver.monitor().expect("a monitor").losses().is_none());
}

/// Settles so many events; gives how many there were.
async fn settle_all(mut feed: Feed, events: usize) -> usize {
    let mut found = BTreeSet::new();
    while found.len() < events {
        for entry in feed.source.fetch(50).await.expect("no error") {
            assert!(found.insert(entry.id), "{} came twice", entry.id);
            let entry = Arc::new(entry);
            let acks = entry.deliveries().map(|delivery| delivery.settle(Outcome::ack()));
            for answer in feed.settler.settle(acks.collect()).await {
                answer.expect("settled");
            }
        }
    }
    found.len()
}
