//! How deliveries end: the cheap way, the fence, the script.

use crate::kit::*;
use crate::server::{Reply, Server};
use rumormill::delivery::{Bits, Outcome, Queue, Settled, Settlement};
use rumormill::driver::{Append, Driver, Feed, LeaseTimes, Publish, Subscribe, Subscription};
use std::time::Duration;
use tokio::time::timeout;

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
async fn acks_are_carried_by_a_reader_that_has_nothing_to_do() {
    let server = Server::start();
    let driver = connect(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    append(&driver, "t:0", &["1"]).await;
    let entry = next(&mut feed).await;
    assert_eq!(settle(&feed, settle_all(&entry, &Outcome::ack())).await, [Settled::Done]);
    // The command connection goes on to other things; the reader's last act was the ack.
    append(&driver, "other:0", &["1"]).await;
    let clients = server.say("CLIENT LIST").text();
    assert!(clients.contains(" cmd=xack "), "{clients}");
    // While the reader is blocked, an ack does not wait for it.
    append(&driver, "t:0", &["2"]).await;
    let entry = next(&mut feed).await;
    let Feed { mut source, settler, .. } = feed;
    let waiting = tokio::spawn(async move { source.fetch(1).await.map(|_| ()) });
    eventually("the reader is blocked", || {
        server.say("INFO clients").text().contains("blocked_clients:1")
    })
    .await;
    let answer = settler.settle(settle_all(&entry, &Outcome::ack())).await;
    assert_eq!(answer[0].as_ref().expect("answered"), &Settled::Done);
    assert!(server.say("INFO clients").text().contains("blocked_clients:1"), "still");
    waiting.abort();
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
    assert!(entry.lease.is_cancelled(), "known with the answer, not with the next renewal");
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
async fn a_step_is_not_begun_where_a_key_of_the_group_is_something_else() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1", "2", "3"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    let outcomes = [publishing(&["out"]), dead_letter(), retry(Duration::from_secs(3600))];
    let settlements: Vec<Settlement> =
        entry.deliveries().zip(outcomes).map(|(one, end)| one.settle(end)).collect();
    for name in ["due", "dead", "progress", "running", "parking", "parked"] {
        let key = format!("rm:{{t:0}}:{name}:g");
        server.say(&format!("SET {key} occupied"));
        let answers = feed.settler.settle(settlements.clone()).await;
        let error = answers[0].as_ref().expect_err("refused").to_string();
        assert!(error.contains(&key), "{error}");
        assert_eq!(length(&server, "EXISTS rm:{out:0}:log"), 0, "{name}");
        server.say(&format!("DEL {key}"));
    }
    assert_eq!(length(&server, "EXISTS rm:{t:0}:dead:g rm:{t:0}:due:g"), 0);
    driver.close().await;
}

#[tokio::test]
async fn acks_of_what_a_stranger_acknowledged_answer_already() {
    let server = Server::start();
    let driver = connect(&server).await;
    // No renewal takes anything back meanwhile.
    let wish = Subscription { lease: LeaseTimes::default(), ..wish("g", &["t.>"]) };
    let mut feed = driver.subscribe(wish).await.expect("subscribes");
    for (acknowledged, answers) in [(2, [Settled::Already; 2]), (1, [Settled::Done; 2])] {
        let mut settlements = Vec::new();
        for number in 0..2 {
            append(&driver, "t:0", &["1"]).await;
            let entry = next(&mut feed).await;
            if number < acknowledged {
                assert_eq!(length(&server, &format!("XACK rm:{{t:0}}:log g {}", entry.id)), 1);
            }
            settlements.extend(settle_all(&entry, &Outcome::ack()));
        }
        // Of one that is missing nobody can tell which it is.
        assert_eq!(settle(&feed, settlements).await, answers);
    }
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
        deduplicate: false,
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
