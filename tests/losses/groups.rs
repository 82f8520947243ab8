//! Groups that vanish while their consumers live.

use crate::kit::*;
use crate::server::Server;
use crate::watch::*;
use rumormill::Start;
use rumormill::delivery::{EntryId, Outcome, Settled, Token};
use rumormill::driver::monitor::Incident;
use rumormill::driver::redis::RedisDriver;
use rumormill::driver::{Driver, LeaseTimes, Subscribe, Subscription};
use std::time::Duration;
use tokio::time::timeout;

const LOG: &str = "rm:{t:0}:log";

fn group_lost(after: EntryId) -> Incident {
    Incident::GroupLost { group: group("g"), partition: partition("t:0"), after }
}

#[tokio::test]
async fn a_group_goes_on_at_its_checkpoint() {
    let server = Server::start();
    let driver = watched(&server).await;
    let mut heard = incidents(&driver);
    let mut feed = subscribe(&driver, "g").await;
    fill(&server, LOG, 0..1000);
    let safe = last_id(&server, LOG);
    take(&mut feed, 1000).await;
    until_checkpoint(&server, "g", safe).await;
    server.ask(&["XGROUP", "DESTROY", LOG, "g"]);
    fill(&server, LOG, 1000..1010);
    assert_eq!(take(&mut feed, 10).await[0], "1000", "nothing from before the checkpoint");
    wait_for(&mut heard, &group_lost(safe)).await;
    assert_eq!(losses(&driver).group_lost, 1);
    assert_eq!(losses(&driver).history_lost, 0);
    driver.close().await;
}

#[tokio::test]
async fn what_was_not_settled_at_the_checkpoint_comes_again() {
    let server = Server::start();
    let driver = watched(&server).await;
    let lease = LeaseTimes::default();
    let mut feed =
        driver.subscribe(Subscription { lease, ..wish("g", &["t.>"]) }).await.expect("subscribes");
    fill(&server, LOG, 0..10);
    take(&mut feed, 4).await;
    let held = next(&mut feed).await;
    assert_eq!(payload(&held, 0), "4");
    take(&mut feed, 5).await;
    until_checkpoint(&server, "g", held.id.previous()).await;
    server.ask(&["XGROUP", "DESTROY", LOG, "g"]);
    // What runs here is held on to; what was settled after it comes again.
    let again = take(&mut feed, 5).await;
    assert_eq!(again, ["5", "6", "7", "8", "9"]);
    assert!(!held.lease.is_cancelled());
    assert_eq!(settle(&feed, settle_all(&held, &Outcome::ack())).await, [Settled::Done]);
    until_checkpoint(&server, "g", last_id(&server, LOG)).await;
    driver.close().await;
}

#[tokio::test]
async fn what_was_taken_over_and_runs_is_held_on_to() {
    let server = Server::start();
    let driver = watched(&server).await;
    let lease = LeaseTimes::default();
    let mut feed =
        driver.subscribe(Subscription { lease, ..wish("g", &["t.>"]) }).await.expect("subscribes");
    fill(&server, LOG, 0..1);
    take(&mut feed, 1).await;
    fill(&server, LOG, 1..2);
    let id = last_id(&server, LOG);
    // Handed out and not seen: taken up again with another token.
    server.ask(&["XREADGROUP", "GROUP", "g", &feed.consumer, "STREAMS", LOG, ">"]);
    server.say("CLIENT KILL TYPE normal");
    let held = next(&mut feed).await;
    assert_eq!((held.id, held.token), (id, Token(2)));
    server.ask(&["XGROUP", "DESTROY", LOG, "g"]);
    let quiet = timeout(Duration::from_secs(1), feed.source.fetch(1)).await;
    assert!(quiet.is_err(), "not twice at once: {quiet:?}");
    assert_eq!(settle(&feed, settle_all(&held, &dead_letter())).await, [Settled::Done]);
    driver.close().await;
}

#[tokio::test]
async fn a_checkpoint_of_another_history_counts_for_nothing() {
    let server = Server::start();
    let driver = watched(&server).await;
    let mut heard = incidents(&driver);
    let mut feed = subscribe(&driver, "g").await;
    fill(&server, LOG, 0..20);
    let known = last_id(&server, LOG);
    take(&mut feed, 20).await;
    until_checkpoint(&server, "g", known).await;
    server.ask(&["DEL", LOG]);
    // Older than all that was there: as after a clock that went back.
    server.ask(&["XADD", LOG, "5-1", "type", "t.x", "data", "new"]);
    assert_eq!(take(&mut feed, 1).await, ["new"]);
    wait_for(&mut heard, &group_lost(EntryId::ZERO)).await;
    assert_eq!((losses(&driver).group_lost, losses(&driver).history_lost), (1, 1));
    driver.close().await;
}

#[tokio::test]
async fn a_group_that_vanished_while_nobody_was_there_goes_on_at_its_checkpoint() {
    let server = Server::start();
    fill(&server, LOG, 0..10);
    let first = watched(&server).await;
    let mut feed = subscribe(&first, "g").await;
    take(&mut feed, 10).await;
    let safe = last_id(&server, LOG);
    until_checkpoint(&server, "g", safe).await;
    drop(feed);
    first.close().await;
    server.ask(&["XGROUP", "DESTROY", LOG, "g"]);
    fill(&server, LOG, 10..12);
    let second = watched(&server).await;
    let mut heard = incidents(&second);
    // Even where a new group would begin at the end.
    let new = Subscription { start: Start::New, ..wish("g", &["t.>"]) };
    let mut feed = second.subscribe(new).await.expect("subscribes");
    assert_eq!(take(&mut feed, 2).await, ["10", "11"]);
    wait_for(&mut heard, &group_lost(safe)).await;
    second.close().await;
}

#[tokio::test]
async fn a_seek_takes_the_checkpoint_with_it() {
    let server = Server::start();
    fill(&server, LOG, 0..10);
    let driver = watched(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    take(&mut feed, 10).await;
    until_checkpoint(&server, "g", last_id(&server, LOG)).await;
    let admin = driver.admin().expect("it has the powers");
    let plan = admin.plan_seek(&group("g"), Start::After(EntryId::ZERO), None).await;
    admin.seek(&plan.expect("a plan"), true).await.expect("moved");
    let held = next(&mut feed).await;
    assert_eq!(payload(&held, 0), "0");
    until_checkpoint(&server, "g", held.id.previous()).await;
    server.ask(&["XGROUP", "DESTROY", LOG, "g"]);
    assert_eq!(take(&mut feed, 9).await[0], "1");
    driver.close().await;
}

#[tokio::test]
async fn a_group_is_lost_once_for_all_its_members() {
    let server = Server::start();
    fill(&server, LOG, 0..1);
    let (one, two) = (watched(&server).await, watched(&server).await);
    let (mut first, mut second) = (subscribe(&one, "g").await, subscribe(&two, "g").await);
    let tasks = [
        tokio::spawn(async move { drop(first.source.fetch(1).await) }),
        tokio::spawn(async move { drop(second.source.fetch(1).await) }),
    ];
    until_checkpoint(&server, "g", last_id(&server, LOG).previous()).await;
    server.ask(&["XGROUP", "DESTROY", LOG, "g"]);
    let both = || losses(&one).group_lost + losses(&two).group_lost;
    eventually("one of them makes it again", || both() > 0).await;
    fill(&server, LOG, 1..3);
    for task in tasks {
        timeout(PATIENCE, task).await.expect("in time").expect("no panic");
    }
    assert_eq!(both(), 1);
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_group_that_cannot_be_made_is_not_tried_without_end() {
    let server = Server::start();
    server.ask(&["HSET", "rm:topics", "t", r#"{"partitions":2}"#]);
    server.ask(&["ACL", "SETUSER", "bus", "on", ">secret", "~*", "&*", "+@all"]);
    let url = format!("redis+unix://{}?user=bus&pass=secret", server.socket().display());
    let options = rumormill::driver::redis::RedisOptions { url, ..options(&server) };
    let driver = RedisDriver::connect(options).await.expect("connects");
    let mut heard = incidents(&driver);
    let lease = LeaseTimes::default();
    let mut feed =
        driver.subscribe(Subscription { lease, ..wish("g", &["t.>"]) }).await.expect("subscribes");
    server.ask(&["ACL", "SETUSER", "bus", "-xgroup"]);
    server.ask(&["XGROUP", "DESTROY", LOG, "g"]);
    let waiting = tokio::spawn(async move {
        let entry = next(&mut feed).await;
        (feed, entry)
    });
    let is_unusable = |incident| matches!(incident, Incident::KeyUnusable { .. }).then_some(());
    hear(&mut heard, "it cannot be read", is_unusable).await;
    server.say("CONFIG RESETSTAT");
    let calls =
        || ["evalsha", "eval", "xreadgroup", "xgroup|create"].map(|name| server.calls(name));
    // waits: for a second, in which a hot loop would show
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = calls();
    assert!(calls.iter().all(|calls| *calls <= 20), "{calls:?}");
    // The other partition is read meanwhile.
    fill(&server, "rm:{t:1}:log", 0..1);
    let (feed, entry) = timeout(PATIENCE, waiting).await.expect("in time").expect("no panic");
    assert_eq!(entry.partition, partition("t:1"));
    fill(&server, LOG, 0..1);
    server.ask(&["ACL", "SETUSER", "bus", "+xgroup"]);
    let mut feed = feed;
    assert_eq!(take(&mut feed, 1).await, ["0"]);
    driver.close().await;
}

#[tokio::test]
async fn what_runs_keeps_its_lease_while_its_group_is_gone() {
    let server = Server::start();
    fill(&server, LOG, 0..1);
    let driver = connect_without_rounds(&server).await;
    let mut feed = subscribe(&driver, "g").await;
    let held = next(&mut feed).await;
    server.ask(&["XGROUP", "DESTROY", LOG, "g"]);
    server.say("CONFIG RESETSTAT");
    eventually("it was renewed a few times", || server.calls("evalsha") > 12).await;
    assert!(!held.lease.is_cancelled());
    assert!(losses(&driver).pending_gone == 0, "it will be handed out anew");
    driver.close().await;
}
