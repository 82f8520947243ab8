//! Permissions that are taken away while events are under way: a script that may not do all of its
//! step does nothing of it.

use std::sync::Arc;
use std::time::Duration;

use rumormill::delivery::{Outcome, Settled, Settlement};
use rumormill::driver::Driver;
use rumormill::driver::redis::{RedisDriver, RedisOptions};

use crate::kit::*;
use crate::server::Server;

async fn connect_as_worker(server: &Server) -> Arc<RedisDriver> {
    server.say("ACL SETUSER worker on >pw ~* &* +@all");
    let url = format!("{}?user=worker&pass=pw", server.url());
    RedisDriver::connect(RedisOptions { url, ..options(server) }).await.expect("connects")
}

/// How often something was refused to somebody.
fn refusals(server: &Server) -> usize {
    let stats = server.say("INFO errorstats").text();
    let line = stats.lines().find_map(|line| line.strip_prefix("errorstat_NOPERM:count="));
    line.map_or(0, |count| count.trim().parse().expect("a number"))
}

#[tokio::test]
async fn what_is_due_stays_due_while_nothing_may_be_added() {
    let server = Server::start();
    let driver = connect_as_worker(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    let later = retry(Duration::from_millis(100));
    assert_eq!(settle(&feed, settle_all(&entry, &later)).await, [Settled::Done]);
    server.say("ACL SETUSER worker -xadd");
    let before = refusals(&server);
    eventually("it is due, and refused", || {
        length(&server, "ZCARD rm:{t:0}:due:g") == 0 || refusals(&server) > before
    })
    .await;
    assert_eq!(length(&server, "ZCARD rm:{t:0}:due:g"), 1, "it is still there");
    server.say("ACL SETUSER worker +@all");
    assert_eq!(next(&mut feed).await.attempt, 2);
    driver.close().await;
}

#[tokio::test]
async fn a_step_that_may_not_publish_leaves_no_mark() {
    let server = Server::start();
    let driver = connect_as_worker(&server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    let Outcome::Ack { outputs } = publishing(&["out"]) else { panic!("an ack") };
    let once = Outcome::AckOnce { outputs, window: Duration::from_secs(3600) };
    server.say("ACL SETUSER worker -xadd");
    let refused = feed.settler.settle(settle_all(&entry, &once)).await.pop().expect("an answer");
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(length(&server, "EXISTS rm:{t:0}:handled:g"), 0);
    server.say("ACL SETUSER worker +@all");
    assert_eq!(settle(&feed, settle_all(&entry, &once)).await, [Settled::Done]);
    assert_eq!(length(&server, "XLEN rm:{out:0}:log"), 1);
    driver.close().await;
}

#[tokio::test]
async fn a_step_is_not_begun_without_a_right_to_the_whole() {
    let server = Server::start();
    let driver = connect_as_worker(&server).await;
    append(&driver, "t:0", &["1", "2", "3"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    // The third event stays: what is finished of the entry is noted.
    let ends = [dead_letter(), retry(Duration::from_secs(3600))];
    let settlements: Vec<Settlement> =
        entry.deliveries().zip(ends).map(|(one, end)| one.settle(end)).collect();
    for command in ["xclaim", "xack", "hset", "xadd", "zadd"] {
        server.say(&format!("ACL SETUSER worker -{command}"));
        let refused = feed.settler.settle(settlements.clone()).await;
        assert!(refused.iter().all(Result::is_err), "{command}: {refused:?}");
        let written = "EXISTS rm:{t:0}:dead:g rm:{t:0}:due:g rm:{t:0}:progress:g";
        assert_eq!(length(&server, written), 0, "{command}");
        server.say("ACL SETUSER worker +@all");
    }
    driver.close().await;
}
