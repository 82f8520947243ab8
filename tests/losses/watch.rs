//! A driver with quick rounds, and waiting for its incidents.

use crate::kit::{self, PATIENCE, next, payload, settle, settle_all};
use crate::server::{Reply, Server};
use rumormill::delivery::{EntryId, Outcome};
use rumormill::driver::monitor::{Incident, Incidents, Losses};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Driver, Feed, GroupName};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How often the drivers of these tests look after what may be lost.
const ROUND: Duration = Duration::from_millis(200);

pub(crate) async fn watched(server: &Server) -> Arc<RedisDriver> {
    connect_with(server, ROUND).await
}

/// Whose rounds do not come in time.
pub(crate) async fn connect_without_rounds(server: &Server) -> Arc<RedisDriver> {
    connect_with(server, Duration::from_secs(3600)).await
}

async fn connect_with(server: &Server, checkpoint_every: Duration) -> Arc<RedisDriver> {
    let options = RedisOptions { checkpoint_every, ..kit::options(server) };
    RedisDriver::connect(options).await.expect("connects")
}

pub(crate) fn incidents(driver: &RedisDriver) -> Incidents {
    driver.monitor().expect("a monitor").incidents()
}

pub(crate) fn losses(driver: &RedisDriver) -> Losses {
    driver.monitor().expect("a monitor").losses()
}

/// Waits for an incident that is wanted; those before it are left out.
pub(crate) async fn hear<T>(
    incidents: &mut Incidents,
    what: &str,
    wanted: impl Fn(Incident) -> Option<T>,
) -> T {
    let wait = async {
        loop {
            let (incident, _) = incidents.next().await.expect("the driver lives");
            if let Some(wanted) = wanted(incident) {
                return wanted;
            }
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Waits for an incident; those before it are left out.
pub(crate) async fn wait_for(incidents: &mut Incidents, wanted: &Incident) {
    hear(incidents, &wanted.to_string(), |incident| (incident == *wanted).then_some(())).await;
}

/// Waits until the counters are so.
pub(crate) async fn until(driver: &RedisDriver, what: &str, is_so: impl Fn(Losses) -> bool) {
    kit::eventually(what, || is_so(losses(driver))).await;
}

pub(crate) fn group(name: &str) -> GroupName {
    GroupName::new(name).expect("valid")
}

/// Appends entries as any Redis client may: one event each.
pub(crate) fn fill(server: &Server, key: &str, numbers: std::ops::Range<u32>) {
    server.ask(&["HSETNX", "rm:topics", "t", r#"{"partitions":1}"#]);
    for number in numbers {
        let number = number.to_string();
        server.ask(&["XADD", key, "*", "type", "t.x", "data", &number]);
    }
}

/// Takes entries one by one and settles them; gives what they say.
pub(crate) async fn take(feed: &mut Feed, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let entry = next(feed).await;
        seen.push(payload(&entry, 0));
        settle(feed, settle_all(&entry, &Outcome::ack())).await;
    }
    seen
}

/// Waits until the group's checkpoint on `t:0` is this.
pub(crate) async fn until_checkpoint(server: &Server, group: &str, safe: EntryId) {
    let key = format!("rm:{{t:0}}:checkpoint:{group}");
    let wanted = safe.to_string().into_bytes();
    kit::eventually("the checkpoint is written", || {
        server.ask(&["HGET", &key, "safe"]) == Reply::Text(wanted.clone())
    })
    .await;
}

/// The last id that a log ever had.
pub(crate) fn last_id(server: &Server, key: &str) -> EntryId {
    let facts = server.ask(&["XINFO", "STREAM", key]);
    let name = Reply::Text(b"last-generated-id".to_vec());
    let at = facts.list().iter().position(|fact| *fact == name);
    let at = at.expect("it says");
    facts.list()[at + 1].text().parse().expect("an id")
}
