//! Answers that get lost: what was appended is in its log once, in its place, or not at all.

use crate::kit::*;
use crate::proxy::{Loss, Proxy};
use crate::server::{Reply, Server};
use futures_util::future::join_all;
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Append, Appended, Driver, Publish};
use rumormill::{ErrorKind, PublishError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The command, and not a script that names it.
const XADD: &str = "\r\nXADD\r\n";
/// The script that keeps events back.
const ZADD: &str = "ZADD";

/// The keys of marks.
const SEEN: &str = ":seen:";

/// Of so many, so many are done, and nothing is answered.
fn lost(of: &'static str, done: usize, seen: usize) -> Loss {
    Loss { of, done, seen, late: false }
}

fn one(payload: &str) -> Append {
    let envelopes = vec![event("t.x", payload)];
    Append { partition: partition("t:0"), envelopes, delay: Duration::ZERO, deduplicate: false }
}

async fn publish(driver: &RedisDriver, payload: &str) -> Result<Appended, PublishError> {
    let answers = timeout(PATIENCE, driver.append(vec![one(payload)])).await.expect("bounded");
    answers.into_iter().next().expect("an answer")
}

/// The ids and payloads of the log.
fn log(server: &Server) -> Vec<(String, String)> {
    let entries = server.ask(&["XRANGE", "rm:{t:0}:log", "-", "+"]);
    let entry = |entry: &Reply| {
        let mut batch = bytes::Bytes::copy_from_slice(entry.list()[1].list()[1].bytes());
        let envelope = rumormill::Envelope::decode(&mut batch).expect("an event");
        let payload = String::from_utf8_lossy(envelope.payload()).into_owned();
        (entry.list()[0].text(), payload)
    };
    entries.list().iter().map(entry).collect()
}

fn payloads(server: &Server) -> Vec<String> {
    log(server).into_iter().map(|(_, payload)| payload).collect()
}

async fn connect_through(proxy: &Proxy, server: &Server) -> Arc<RedisDriver> {
    RedisDriver::connect(proxy.options(server)).await.expect("connects")
}

#[tokio::test]
async fn a_lost_reply_is_found_in_the_log() {
    for before in [0, 1, 40] {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let driver = connect_through(&proxy, &server).await;
        for number in 0..before {
            publish(&driver, &number.to_string()).await.expect("stored");
        }
        proxy.lose(lost(XADD, 1, 1));
        let stored = publish(&driver, "found").await.expect("found");
        assert_eq!(proxy.lost(), 1);
        let log = log(&server);
        let id = stored.entry.expect("an id").to_string();
        assert_eq!(log.len(), before + 1, "{log:?}");
        assert_eq!(log[before], (id, "found".to_owned()));
        publish(&driver, "later").await.expect("stored");
        driver.close().await;
    }
}

#[tokio::test]
async fn a_lost_request_is_sent_again() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = connect_through(&proxy, &server).await;
    publish(&driver, "0").await.expect("stored");
    proxy.lose(lost(XADD, 0, 1));
    publish(&driver, "1").await.expect("stored");
    assert_eq!((proxy.lost(), payloads(&server)), (1, vec!["0".to_owned(), "1".to_owned()]));
    driver.close().await;
}

#[tokio::test]
async fn a_request_that_was_under_way_is_not_done_after_its_repeat() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = connect_through(&proxy, &server).await;
    publish(&driver, "0").await.expect("stored");
    proxy.lose(Loss { late: true, ..lost(XADD, 0, 1) });
    publish(&driver, "1").await.expect("stored");
    proxy.deliver();
    eventually("the server has it", || proxy.lost() == 2).await;
    assert_eq!(payloads(&server), ["0", "1"]);
    driver.close().await;
}

#[tokio::test]
async fn of_many_in_flight_each_is_stored_once_and_in_order() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = connect_through(&proxy, &server).await;
    publish(&driver, "first").await.expect("stored");
    proxy.lose(lost(XADD, 13, 40));
    let names: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    let before = names[..40].iter().map(|name| publish(&driver, name));
    // What comes while the first are in doubt does not overtake them.
    let during = async {
        eventually("the connection is lost", || proxy.lost() == 1).await;
        join_all(names[40..].iter().map(|name| publish(&driver, name))).await
    };
    let (before, during) = tokio::join!(join_all(before), during);
    let log = log(&server);
    assert_eq!(log.iter().skip(1).map(|(_, payload)| payload).collect::<Vec<_>>(), {
        names.iter().collect::<Vec<_>>()
    });
    for (answer, (id, _)) in before.into_iter().chain(during).zip(&log[1..]) {
        assert_eq!(&answer.expect("stored").entry.expect("an id").to_string(), id);
    }
    assert!(server.calls("xrange") <= 7, "a log is read once, not once per call");
    driver.close().await;
}

#[tokio::test]
async fn many_in_one_call_go_on_where_they_were_lost() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = connect_through(&proxy, &server).await;
    proxy.lose(lost(XADD, 2, 5));
    let appends = ["a", "b", "c", "d", "e"].map(one).to_vec();
    let answers = timeout(PATIENCE, driver.append(appends)).await.expect("bounded");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(payloads(&server), ["a", "b", "c", "d", "e"]);
    driver.close().await;
}

#[tokio::test]
async fn where_the_old_connection_cannot_be_killed_the_outcome_is_unknown() {
    let server = Server::start();
    server.say("ACL SETUSER weak on >pw ~* +@all -client|kill");
    let proxy = Proxy::start(&server);
    let mut options = proxy.options(&server);
    options.url.push_str("?user=weak&pass=pw");
    let driver = RedisDriver::connect(options).await.expect("connects");
    for (done, length) in [(1, 1), (0, 1)] {
        proxy.lose(lost(XADD, done, 1));
        let error = publish(&driver, "1").await.expect_err("nobody can tell");
        assert!(!error.is_not_stored(), "{error:?}");
        assert!(error.to_string().contains("CLIENT KILL"), "{error}");
        assert_eq!(payloads(&server).len(), length, "it is not sent again");
    }
    publish(&driver, "2").await.expect("what is new goes on");
    assert_eq!(payloads(&server), ["1", "2"]);
    driver.close().await;
}

#[tokio::test]
async fn a_log_that_may_not_be_read_leaves_the_outcome_unknown() {
    let server = Server::start();
    server.say("ACL SETUSER weak on >pw ~* +@all -xrange -xrevrange");
    let proxy = Proxy::start(&server);
    let mut options = proxy.options(&server);
    options.url.push_str("?user=weak&pass=pw");
    let driver = RedisDriver::connect(options).await.expect("connects");
    for _ in 0..2 {
        proxy.lose(lost(XADD, 1, 1));
        let error = publish(&driver, "1").await.expect_err("nobody can tell");
        assert!(!error.is_not_stored(), "{error:?}");
        publish(&driver, "2").await.expect("what is new goes on");
    }
    assert_eq!(payloads(&server), ["1", "2", "1", "2"]);
    driver.close().await;
}

#[tokio::test]
async fn what_was_trimmed_cannot_be_told() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = connect_through(&proxy, &server).await;
    publish(&driver, "1").await.expect("stored");
    proxy.lose(lost(XADD, 1, 1));
    proxy.hold(true);
    let trim = async {
        eventually("it is stored, and its reply lost", || proxy.lost() == 1).await;
        server.say("XTRIM rm:{t:0}:log MAXLEN 0");
        proxy.hold(false);
    };
    let (answer, ()) = tokio::join!(publish(&driver, "2"), trim);
    let error = answer.expect_err("nobody can tell");
    assert!(!error.is_not_stored() && error.to_string().contains("trimmed"), "{error:?}");
    assert_eq!(payloads(&server).len(), 0, "it is not sent again");
    driver.close().await;
}

#[tokio::test]
async fn a_server_that_forgot_is_given_again_what_is_in_doubt() {
    let mut server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = connect_through(&proxy, &server).await;
    publish(&driver, "1").await.expect("stored");
    proxy.lose(lost(XADD, 1, 1));
    proxy.hold(true);
    let restart = async {
        eventually("it is stored, and its reply lost", || proxy.lost() == 1).await;
        server.kill();
        server.restart();
        proxy.hold(false);
    };
    let (answer, ()) = tokio::join!(publish(&driver, "2"), restart);
    let id = answer.expect("stored").entry.expect("an id").to_string();
    assert_eq!(log(&server), [(id, "2".to_owned())]);
    driver.close().await;
}

#[tokio::test]
async fn a_repeat_that_is_refused_is_certain_only_where_the_log_is_the_same() {
    for (is_done, loses_log) in [(0, false), (1, true), (0, true)] {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let driver = connect_through(&proxy, &server).await;
        publish(&driver, "1").await.expect("stored");
        proxy.lose(lost(XADD, is_done, 1));
        proxy.hold(true);
        let meanwhile = async {
            eventually("its reply is lost", || proxy.lost() == 1).await;
            if loses_log {
                server.say("DEL rm:{t:0}:log");
            }
            server.say("CONFIG SET maxmemory 1");
            proxy.hold(false);
        };
        let (answer, ()) = tokio::join!(publish(&driver, "2"), meanwhile);
        let error = answer.expect_err("no memory");
        assert_eq!(error.is_not_stored(), !loses_log, "{error:?}");
        driver.close().await;
    }
}

#[tokio::test]
async fn a_dropped_call_in_doubt_holds_nobody_up_and_is_not_sent_again() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = connect_through(&proxy, &server).await;
    publish(&driver, "1").await.expect("stored");
    proxy.lose(lost(XADD, 0, 1));
    proxy.hold(true);
    tokio::select! {
        answer = publish(&driver, "2") => panic!("{answer:?}"),
        () = eventually("it is lost", || proxy.lost() == 1) => {}
    }
    proxy.hold(false);
    publish(&driver, "3").await.expect("stored");
    assert_eq!(payloads(&server), ["1", "3"]);
    driver.close().await;
}

#[tokio::test]
async fn a_refused_append_is_not_sent_again() {
    let server = Server::start();
    let driver = connect(&server).await;
    publish(&driver, "1").await.expect("stored");
    server.say("CONFIG SET maxmemory 1");
    let error = publish(&driver, "2").await.expect_err("no memory");
    assert!(error.is_not_stored() && error.error().kind() == ErrorKind::Server, "{error:?}");
    server.say("CONFIG SET maxmemory 0");
    publish(&driver, "3").await.expect("stored");
    assert_eq!(payloads(&server), ["1", "3"]);
    driver.close().await;
}

#[tokio::test]
async fn a_delayed_event_is_repeated_once() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = connect_through(&proxy, &server).await;
    let later = |delay| Append { delay, ..one("later") };
    let (long, short) = (Duration::from_secs(600), Duration::from_millis(1));
    proxy.lose(lost(ZADD, 0, 1));
    let append = |append| timeout(PATIENCE, driver.append(vec![append]));
    let answer = append(later(long)).await.expect("bounded").pop().expect("an answer");
    assert_eq!(answer.expect("kept").entry, None);
    assert_eq!(length(&server, "ZCARD rm:{t:0}:delayed"), 1);
    proxy.lose(lost(ZADD, 0, 1));
    let answer = append(later(short)).await.expect("bounded").pop().expect("an answer");
    let error = answer.expect_err("what was sent first may be in the log by now");
    assert!(!error.is_not_stored(), "{error:?}");
    assert_eq!((proxy.lost(), length(&server, "ZCARD rm:{t:0}:delayed")), (2, 1));
    driver.close().await;
}

#[tokio::test]
async fn a_repeat_that_is_refused_says_nothing_of_what_was_sent_first() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = connect_through(&proxy, &server).await;
    let later = Append { delay: Duration::from_secs(600), ..one("later") };
    proxy.lose(lost(ZADD, 1, 1));
    proxy.hold(true);
    let full = async {
        eventually("the reply is lost", || proxy.lost() == 1).await;
        server.say("CONFIG SET maxmemory 1");
        proxy.hold(false);
    };
    let appending = timeout(PATIENCE, driver.append(vec![later]));
    let (answer, ()) = tokio::join!(appending, full);
    let error = answer.expect("bounded").pop().expect("an answer").expect_err("memory is full");
    assert_eq!(length(&server, "ZCARD rm:{t:0}:delayed"), 1);
    assert!(!error.is_not_stored(), "it is stored: {error:?}");
    driver.close().await;
}

#[tokio::test]
async fn a_server_that_dies_under_load_has_each_event_once() {
    let mut server = Server::durable();
    let options = RedisOptions { deadline: Duration::from_secs(10), ..options(&server) };
    let driver = RedisDriver::connect(options).await.expect("connects");
    let (mut acked, mut uncertain) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..5 {
        let names: Vec<String> = (0..200).map(|number| format!("{round}/{number}")).collect();
        let appends = names.iter().map(|name| publish(&driver, name));
        let kill = async {
            eventually("some are stored", || payloads(&server).len() > acked.len() + 20).await;
            server.kill();
            server.restart();
            let length = ["XLEN", "rm:{t:0}:log"];
            let has_loaded = || matches!(server.try_ask(&length), Some(Reply::Int(_)));
            eventually("it has loaded its data", has_loaded).await;
        };
        let (answers, ()) = tokio::join!(join_all(appends), kill);
        for (name, answer) in names.into_iter().zip(answers) {
            match answer {
                Ok(_) => acked.insert(name),
                Err(error) => uncertain.insert(format!("{name}: {error}")),
            };
        }
    }
    let stored = payloads(&server);
    let distinct: BTreeSet<String> = stored.iter().cloned().collect();
    assert_eq!(stored.len(), distinct.len(), "nothing twice");
    assert!(acked.is_subset(&distinct), "nothing lost");
    assert!(uncertain.is_empty(), "all within the deadline: {uncertain:?}");
    driver.close().await;
}

#[tokio::test]
async fn a_deduplicated_append_is_repeated_after_a_lost_reply() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = connect_through(&proxy, &server).await;
    let append = |payloads: &[&str]| Append {
        envelopes: payloads.iter().map(|payload| event("t.x", payload)).collect(),
        deduplicate: true,
        ..one("")
    };
    let known = append(&["known"]);
    driver.append(vec![known.clone()]).await.remove(0).expect("stored");
    for done in [1, 0] {
        let mut both = append(&["new"]);
        both.envelopes.extend(known.envelopes.clone());
        proxy.lose(lost(SEEN, done, 1));
        let appended = timeout(PATIENCE, driver.append(vec![both])).await.expect("bounded");
        let places = appended.into_iter().next().expect("an answer").expect("stored").places;
        assert_eq!(places.iter().map(|place| place.repeated).collect::<Vec<_>>(), [false, true]);
    }
    assert_eq!(
        (proxy.lost(), payloads(&server)),
        (2, ["known", "new", "new"].map(Into::into).into())
    );
    driver.close().await;
}

#[tokio::test]
async fn a_mark_says_where_an_event_lies_and_goes_with_its_entry() {
    let server = Server::start();
    let driver = connect(&server).await;
    let append = Append { deduplicate: true, ..one("1") };
    let mark = format!("rm:{{t:0}}:seen:{}", append.envelopes[0].id());
    publish(&driver, "0").await.expect("stored");
    server.say("CONFIG SET maxmemory 1");
    let refused = driver.append(vec![append.clone()]).await.remove(0).expect_err("no memory");
    assert!(refused.is_not_stored(), "{refused:?}");
    server.say("CONFIG SET maxmemory 0");
    assert_eq!(server.ask(&["GET", &mark]), Reply::Nil);
    let stored = driver.append(vec![append.clone()]).await.remove(0).expect("stored");
    let id = stored.entry.expect("an id");
    assert_eq!(server.ask(&["GET", &mark]).text(), format!("{id}/0"));
    let left = server.ask(&["PTTL", &mark]).int();
    assert!((1..=15 * 60 * 1000).contains(&left), "{left} ms");
    server.say("SCRIPT FLUSH");
    let again = driver.append(vec![append]).await.remove(0).expect("known");
    assert_eq!((again.entry, again.places[0].entry), (None, id));
    driver.close().await;
}
