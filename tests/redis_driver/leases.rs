//! Leases where a stranger meddles, messages are deleted, and others are as quick.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rumormill::delivery::{Entry, Outcome, Settled, Settlement, Token};
use rumormill::driver::redis::{Io, RedisDriver, RedisOptions};
use rumormill::driver::{Driver, Feed, LeaseTimes, Subscribe, Subscription};
use tokio::time::timeout;

use crate::kit::*;
use crate::proxy::{Loss, Proxy};
use crate::server::Server;

const LOG: &str = "rm:{t:0}:log";

fn delete_consumer(server: &Server, feed: &Feed) -> i64 {
    server.ask(&["XGROUP", "DELCONSUMER", LOG, "g", &feed.consumer]).int()
}

/// Consumer and delivery count of every pending entry of the log.
fn pending(server: &Server) -> Vec<(String, i64)> {
    let rows = server.ask(&["XPENDING", LOG, "g", "-", "+", "1000"]);
    rows.list().iter().map(|row| (row.list()[1].text(), row.list()[3].int())).collect()
}

fn gone(driver: &RedisDriver) -> u64 {
    driver.monitor().expect("a monitor").losses().pending_gone
}

/// Renewals come so rarely that none comes.
async fn subscribe_for_long(driver: &RedisDriver) -> Feed {
    let wish = Subscription { lease: LeaseTimes::default(), ..wish("g", &["t.>"]) };
    driver.subscribe(wish).await.expect("subscribes")
}

fn of_entry(entry: &Arc<Entry>, indexes: &[u32], outcome: &Outcome) -> Vec<Settlement> {
    let wanted = entry.deliveries().filter(|delivery| indexes.contains(&delivery.index));
    wanted.map(|delivery| delivery.settle(outcome.clone())).collect()
}

#[tokio::test]
async fn what_went_with_a_deleted_consumer_is_taken_back_by_the_next_renewal() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["acked", "open"]).await;
    append(&driver, "t:0", &["alone"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let (batch, alone) = (next(&mut feed).await, next(&mut feed).await);
    settle(&feed, of_entry(&batch, &[0], &Outcome::ack())).await;
    assert_eq!(delete_consumer(&server, &feed), 2);
    let own = (feed.consumer.clone(), 1);
    eventually("they are taken back", || pending(&server) == [own.clone(), own.clone()]).await;
    assert!(!batch.lease.is_cancelled() && !alone.lease.is_cancelled());
    let ends = of_entry(&batch, &[1], &retry(Duration::ZERO));
    assert_eq!(settle(&feed, ends).await, [Settled::Done]);
    assert_eq!(settle(&feed, settle_all(&alone, &Outcome::ack())).await, [Settled::Done]);
    assert_eq!(payload(&*next(&mut feed).await, 0), "open");
    assert_eq!(pending(&server), []);
    assert_eq!(gone(&driver), 2, "it is said");
    assert_eq!(server.say("EXISTS rm:{t:0}:progress:g").int(), 0);
    driver.close().await;
}

#[tokio::test]
async fn a_settlement_does_not_wait_for_that_renewal() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["retried", "kept", "handed over"]).await;
    let mut feed = subscribe_for_long(&driver).await;
    let batch = next(&mut feed).await;
    assert_eq!(delete_consumer(&server, &feed), 1);
    let ends = of_entry(&batch, &[0], &retry(Duration::ZERO));
    assert_eq!(settle(&feed, ends.clone()).await, [Settled::Done]);
    assert_eq!(pending(&server), [(feed.consumer.clone(), 1)], "the rest is held again");
    assert_eq!(settle(&feed, ends).await, [Settled::Already]);
    assert_eq!(delete_consumer(&server, &feed), 1);
    let ends = of_entry(&batch, &[1, 2], &Outcome::Split { after: Duration::ZERO });
    assert_eq!(settle(&feed, ends.clone()).await, [Settled::Done; 2]);
    assert_eq!(settle(&feed, ends).await, [Settled::Already; 2], "an end is said once");
    assert_eq!(length(&server, "XLEN rm:{t:0}:retry:g"), 3);
    assert_eq!(pending(&server), []);
    assert_eq!(gone(&driver), 2);
    driver.close().await;
}

/// A call whose answer was lost is sent again: then it is not sure any more that it was not done.
#[tokio::test]
async fn an_end_whose_answer_was_lost_is_said_once() {
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = RedisDriver::connect(proxy.options(&server)).await.expect("connects");
    append(&driver, "t:0", &["1"]).await;
    append(&driver, "t:0", &["2"]).await;
    let mut feed = subscribe_for_long(&driver).await;
    let (first, second) = (next(&mut feed).await, next(&mut feed).await);
    settle(&feed, settle_all(&first, &retry(Duration::ZERO))).await;
    assert_eq!(delete_consumer(&server, &feed), 1);
    // In the text of the retry's failure, and so in no other request.
    proxy.lose(Loss { of: "not now", done: 1, seen: 1, late: false });
    let answer = settle(&feed, settle_all(&second, &retry(Duration::ZERO))).await;
    assert_eq!((answer, proxy.lost()), (vec![Settled::Already], 1));
    assert_eq!(length(&server, "XLEN rm:{t:0}:retry:g"), 2, "one of each");
    assert_eq!(pending(&server), []);
    driver.close().await;
}

/// Where each answer takes so long that a sweep comes later than a lease after its renewal.
#[tokio::test]
async fn a_slow_sweep_claims_nothing_from_itself() {
    const SEARCHES: u64 = 4;
    let lease = LeaseTimes { lease: Duration::from_millis(800), ..short_lease() };
    let server = Server::start();
    let proxy = Proxy::start(&server);
    let driver = RedisDriver::connect(proxy.options(&server)).await.expect("connects");
    append(&driver, "t:0", &["1"]).await;
    let wish = Subscription { lease, ..wish("g", &["t.>"]) };
    let mut feed = driver.subscribe(wish).await.expect("subscribes");
    let held = next(&mut feed).await;
    proxy.slow(Duration::from_millis(250));
    let before = server.calls("xautoclaim");
    eventually("it has swept", || {
        assert_eq!(pending(&server), [(feed.consumer.clone(), 1)], "handed out once");
        server.calls("xautoclaim") >= before + SEARCHES
    })
    .await;
    proxy.slow(Duration::ZERO);
    assert_eq!(settle(&feed, settle_all(&held, &retry(Duration::ZERO))).await, [Settled::Done]);
    driver.close().await;
}

/// A process that stood still for longer than its lease does not know what happened meanwhile.
#[tokio::test]
async fn a_consumer_whose_lease_lapsed_takes_nothing_back() {
    let server = Server::start();
    let options = RedisOptions { io: Io::Current, ..options(&server) };
    let driver = RedisDriver::connect(options).await.expect("connects");
    append(&driver, "t:0", &["1"]).await;
    append(&driver, "t:0", &["2"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let (first, second) = (next(&mut feed).await, next(&mut feed).await);
    // waits: the driver's tasks share this thread, and stand still for longer than a lease
    std::thread::sleep(short_lease().lease * 2);
    assert_eq!(delete_consumer(&server, &feed), 2);
    let late = settle(&feed, settle_all(&first, &retry(Duration::ZERO))).await;
    assert_eq!(late, [Settled::Already]);
    eventually("the lease is lost", || second.lease.is_cancelled()).await;
    assert_eq!(pending(&server), []);
    assert_eq!((length(&server, "XLEN rm:{t:0}:retry:g"), gone(&driver)), (0, 0));
    driver.close().await;
}

/// The first holder of an entry may acknowledge the whole of it, however late: the second one must
/// not take that for the work of a stranger.
#[tokio::test]
async fn what_the_first_holder_acknowledged_is_not_taken_back() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    append(&driver, "t:0", &["2"]).await;
    let mut first = subscribe(&driver, "g").await;
    let (one, two) = (next(&mut first).await, next(&mut first).await);
    drop(first.source);
    let mut heir = subscribe(&driver, "g").await;
    let (own_one, own_two) = (next(&mut heir).await, next(&mut heir).await);
    assert_eq!((own_one.token, own_two.token), (Token(2), Token(2)));
    let ack = |entry: &Arc<Entry>| settle_all(entry, &Outcome::ack());
    for answer in first.settler.settle([ack(&one), ack(&two)].concat()).await {
        assert_eq!(answer.expect("answered"), Settled::Done);
    }
    let late = settle(&heir, settle_all(&own_one, &retry(Duration::ZERO))).await;
    assert_eq!(late, [Settled::Already]);
    eventually("it is let go", || own_two.lease.is_cancelled()).await;
    assert_eq!((pending(&server), gone(&driver)), (Vec::new(), 0));
    driver.close().await;
}

/// What was trimmed while it was held is nobody else's: its end counts, and a retry brings it
/// back from what is held here.
#[tokio::test]
async fn an_entry_whose_message_was_deleted_still_ends_as_its_handler_says() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    server.ask(&["XTRIM", LOG, "MAXLEN", "0"]);
    eventually("it is said", || gone(&driver) == 1).await;
    assert!(!entry.lease.is_cancelled());
    assert_eq!(pending(&server), []);
    let ends = settle_all(&entry, &retry(Duration::ZERO));
    assert_eq!(settle(&feed, ends.clone()).await, [Settled::Done]);
    assert_eq!(settle(&feed, ends).await, [Settled::Already]);
    let again = next(&mut feed).await;
    assert_eq!((payload(&again, 0), again.attempt), ("1".to_owned(), 2));
    assert_eq!((pending(&server), gone(&driver)), (Vec::new(), 1));
    driver.close().await;
}

/// The first settlement of a part takes a deleted entry off the books, where no renewal did before.
#[tokio::test]
async fn the_rest_of_a_half_settled_entry_counts_whose_message_was_deleted() {
    let server = Server::start();
    let driver = connect(&server).await;
    append(&driver, "t:0", &["first", "retried", "handed over"]).await;
    let mut first = subscribe(&driver, "g").await;
    let id = next(&mut first).await.id.to_string();
    drop(first.source);
    server.ask(&["XCLAIM", LOG, "g", &first.consumer, "0", &id, "IDLE", "3600000", "JUSTID"]);
    let mut heir = subscribe_for_long(&driver).await;
    let entry = next(&mut heir).await;
    assert_eq!(entry.token, Token(2));
    assert_eq!(server.ask(&["XDEL", LOG, &id]).int(), 1);
    assert_eq!(settle(&heir, of_entry(&entry, &[0], &Outcome::ack())).await, [Settled::Done]);
    assert_eq!((pending(&server), gone(&driver)), (Vec::new(), 1), "it is said once");
    let again = of_entry(&entry, &[1], &retry(Duration::ZERO));
    assert_eq!(settle(&heir, again.clone()).await, [Settled::Done]);
    assert_eq!(settle(&heir, again).await, [Settled::Already]);
    let split = of_entry(&entry, &[2], &Outcome::Split { after: Duration::ZERO });
    assert_eq!(settle(&heir, split).await, [Settled::Done]);
    assert_eq!(length(&server, "XLEN rm:{t:0}:retry:g"), 2);
    assert_eq!(length(&server, "EXISTS rm:{t:0}:progress:g"), 0);
    assert_eq!((pending(&server), gone(&driver)), (Vec::new(), 1));
    driver.close().await;
}

#[tokio::test]
async fn of_two_sweeps_that_race_one_gets_each_entry() {
    let server = Server::start();
    let (dead, left, right) =
        (connect(&server).await, connect(&server).await, connect(&server).await);
    for number in 0..300 {
        append(&dead, "t:0", &[&number.to_string()]).await;
    }
    let mut feed = subscribe(&dead, "g").await;
    let mut held = 0;
    while held < 300 {
        held +=
            timeout(PATIENCE, feed.source.fetch(300)).await.expect("in time").expect("reads").len();
    }
    let mut heirs = [subscribe(&left, "g").await, subscribe(&right, "g").await];
    drop(dead);
    drop(feed);
    let mut owners: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    // Neither can take all of them, or one might be done before the other begins.
    let (mut kept, mut took) = (Vec::new(), [0, 0]);
    while owners.len() < 300 {
        let [left, right] = &mut heirs;
        let (entries, heir) = tokio::select! {
            entries = left.source.fetch(50), if took[0] < 200 => (entries, 0),
            entries = right.source.fetch(50), if took[1] < 200 => (entries, 1),
            // waits: for entries, up to its patience
            () = tokio::time::sleep(PATIENCE) => panic!("only {} came", owners.len()),
        };
        for entry in entries.expect("reads") {
            assert_eq!(entry.token, Token(2));
            owners.entry(entry.id).or_default().push(heir);
            took[heir] += 1;
            kept.push(entry);
        }
    }
    assert!(owners.values().all(|owners| owners.len() == 1), "{owners:?}");
    let count = |feed: &Feed| {
        let rows = server.ask(&["XPENDING", LOG, "g", "-", "+", "1000", &feed.consumer]);
        rows.list().len()
    };
    assert_eq!(took, [count(&heirs[0]), count(&heirs[1])], "as the server says");
    assert!(took[0] > 0 && took[1] > 0, "both took part: {took:?}");
    left.close().await;
    right.close().await;
}
