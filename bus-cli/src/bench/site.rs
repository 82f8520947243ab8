//! Where it is measured: a namespace of its own on the server, or this process' memory. Whatever
//! happens, [`Site::close`] leaves nothing of it.

use std::sync::Arc;
use std::time::Duration;

use rumormill::delivery::Partition;
use rumormill::driver::GroupName;
use rumormill::driver::redis::{RedisDriver, RedisOptions, RetentionOptions};
use rumormill::{Bus, PublishLimits, Services};
use tokio::time::Instant;
use uuid::Uuid;

use super::Bench;
use super::tally::nanos;
use crate::SOURCE;
use crate::failure::Failure;
use crate::settings::Connection;

/// What is published.
pub(super) const EVENT: &str = "bench.event";
/// The only partition of its topic.
const PARTITION: &str = "bench:0";
/// When the keys of a measurement go that was killed.
const KEYS_KEPT: Duration = Duration::from_secs(10 * 60);
/// How often they are told so.
const KEPT_EVERY: Duration = Duration::from_secs(2);
/// What all have read goes so soon, so that memory does not grow with the time.
const TRIM_EVERY: Duration = Duration::from_millis(500);
/// Round trips that are measured.
const PINGS: usize = 200;
/// A handler is not interrupted: there is none that takes time.
const DRAIN: Duration = Duration::from_secs(5);

/// A store, ready to be measured.
pub(super) struct Site {
    pub(super) bus: Bus,
    /// Looks at the server and cleans up; nothing in memory.
    keeper: Option<Keeper>,
    is_local: bool,
}

/// A connection beside the measured ones, to the same namespace.
struct Keeper {
    driver: Arc<RedisDriver>,
    partition: Partition,
    groups: Vec<GroupName>,
    namespace: String,
}

/// A name that nobody else has, within the user's own namespace: who may write there may write
/// here, and what is left there by accident is found.
pub(super) fn namespace(connection: &Connection) -> String {
    let unique = Uuid::new_v4().simple().to_string();
    format!("{}:bench-{}", connection.namespace, &unique[..8])
}

pub(super) fn is_memory(connection: &Connection) -> bool {
    connection.address.url().starts_with("memory:")
}

/// The name of a group by its number.
pub(super) fn group(number: u32) -> String {
    format!("bench-{number}")
}

impl Site {
    /// Connects, and finds out whether what is written can be removed.
    pub(super) async fn open(
        connection: &Connection,
        namespace: String,
        task: &Bench,
    ) -> Result<Self, Failure> {
        let unconfirmed_max = PublishLimits::default().unconfirmed_max.max(task.window);
        let limits = PublishLimits { unconfirmed_max, ..PublishLimits::default() };
        let bus = Bus::builder().limits(limits).source(SOURCE).services(Services::none());
        if is_memory(connection) {
            let built = bus.url(connection.address.url()).build().await;
            let bus = built.map_err(|error| Failure::connecting(&error))?;
            return Ok(Self { bus, keeper: None, is_local: true });
        }
        let options = options(connection, &namespace);
        let connect = |options| RedisDriver::connect(options);
        let driver = connect(options.clone()).await.map_err(|error| Failure::connecting(&error))?;
        let partition = PARTITION.parse().expect("a partition's name");
        let groups = (0..task.groups).map(|number| GroupName::new(group(number)));
        let groups = groups.collect::<Result<_, _>>().expect("names of groups");
        let keeper = Keeper { driver, partition, groups, namespace };
        // Nothing is written that could not be removed.
        keeper.remove().await?;
        let measured = connect(options).await.map_err(|error| Failure::connecting(&error))?;
        let built = bus.driver(measured).build().await;
        let bus = built.map_err(|error| Failure::connecting(&error))?;
        Ok(Self { bus, keeper: Some(keeper), is_local: is_local(connection.address.url()) })
    }

    /// The server runs on this machine, as its address says.
    pub(super) fn is_local(&self) -> bool {
        self.is_local
    }

    pub(super) fn has_server(&self) -> bool {
        self.keeper.is_some()
    }

    /// How long an answer takes that costs nothing, in nanoseconds, shortest first.
    pub(super) async fn round_trip(&self) -> Result<Vec<u64>, Failure> {
        let Some(keeper) = &self.keeper else { return Ok(Vec::new()) };
        let mut took = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            let asked = Instant::now();
            let answered = keeper.driver.ping().await;
            answered.map_err(|error| Failure::library("cannot measure the round trip", &error))?;
            took.push(nanos(asked.elapsed()));
        }
        took.sort_unstable();
        Ok(took)
    }

    /// The processor time of the server so far, where there is one that tells.
    pub(super) async fn processor_time(&self) -> Option<Duration> {
        // A user who may not ask still gets the rest.
        self.keeper.as_ref()?.driver.processor_time().await.ok().flatten()
    }

    /// Has the keys expire, again and again: whoever kills this process leaves nothing for long.
    /// Ends only where that fails.
    pub(super) async fn keep(&self) -> Failure {
        let Some(keeper) = &self.keeper else { return std::future::pending().await };
        loop {
            if let Err(failure) = keeper.erase(KEYS_KEPT).await {
                return failure;
            }
            tokio::time::sleep(KEPT_EVERY).await;
        }
    }

    /// Ends the groups and the publisher, and removes what they wrote.
    pub(super) async fn close(self) -> Result<(), Failure> {
        // First, or a consumer would make its group again.
        self.bus.drain(DRAIN).await;
        let Some(keeper) = self.keeper else { return Ok(()) };
        let removed = keeper.remove().await;
        rumormill::driver::Driver::close(&*keeper.driver).await;
        removed
    }
}

impl Keeper {
    async fn remove(&self) -> Result<(), Failure> {
        self.erase(Duration::ZERO).await
    }

    async fn erase(&self, after: Duration) -> Result<(), Failure> {
        let (partitions, namespace) = ([self.partition.clone()], &self.namespace);
        let erased = self.driver.erase(&partitions, &self.groups, after).await;
        erased.map(drop).map_err(|error| {
            let attempt = format!("cannot clean up the keys {namespace}:* of the measurement");
            Failure::library(attempt, &error)
        })
    }
}

fn options(connection: &Connection, namespace: &str) -> RedisOptions {
    let retention =
        RetentionOptions { trim_every: TRIM_EVERY, keep: Duration::ZERO, ..Default::default() };
    let namespace = namespace.to_owned();
    RedisOptions { namespace, retention, ..RedisOptions::new(connection.address.url()) }
}

/// Whether an address is of this machine.
fn is_local(url: &str) -> bool {
    let (scheme, rest) = url.split_once(':').unwrap_or_default();
    let place = rest.trim_start_matches('/');
    let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
    let names = ["127.0.0.1", "localhost", "[::1]"];
    scheme.ends_with("unix") || names.iter().any(|name| host.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_tells_whether_the_machine_is_shared() {
        for url in
            ["unix:///run/a", "redis+unix:///a", "redis://127.0.0.1:1", "rediss://a:b@localhost"]
        {
            assert!(is_local(url), "{url}");
        }
        for url in ["redis://10.0.0.1", "redis://localhost@a", "redis+sentinel://a:1,b:2/m"] {
            assert!(!is_local(url), "{url}");
        }
    }
}
