//! The Redis Streams driver passes the suite that every driver must pass, each scenario on a
//! server of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rumormill::Topic;
use rumormill::delivery::Partition;
use rumormill::driver::conformance::Fixture;
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Driver, LeaseTimes};

mod server;

use server::Server;

/// Long enough for a repeat to fall into it, short enough to wait for its end.
const DEDUP_WINDOW: Duration = Duration::from_secs(5);

/// No scenario is about a server that does not answer, and a busy machine may take long.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

struct RedisFixture {
    server: Server,
    partitions: Mutex<BTreeMap<Topic, u32>>,
}

impl RedisFixture {
    fn new() -> Self {
        Self { server: Server::start(), partitions: Mutex::default() }
    }
}

#[async_trait]
impl Fixture for RedisFixture {
    async fn driver(&self) -> Arc<dyn Driver> {
        for (topic, partitions) in
            std::mem::take(&mut *self.partitions.lock().expect("no scenario panics"))
        {
            let shape = format!("{{\"partitions\":{partitions}}}");
            self.server.ask(&["HSET", "rm:topics", topic.as_str(), &shape]);
        }
        let options = RedisOptions::new(self.server.url());
        let (dedup_window, response_timeout) = (DEDUP_WINDOW, RESPONSE_TIMEOUT);
        let options = RedisOptions { dedup_window, response_timeout, ..options };
        RedisDriver::connect(options).await.expect("the server was just started")
    }

    fn lease(&self) -> LeaseTimes {
        let [lease, renew, sweep] = [900, 200, 150].map(Duration::from_millis);
        LeaseTimes { lease, renew, sweep }
    }

    async fn partitions(&self, topic: &Topic, partitions: u32) {
        self.partitions.lock().expect("no scenario panics").insert(topic.clone(), partitions);
    }

    fn dedup_window(&self) -> Option<Duration> {
        Some(DEDUP_WINDOW)
    }

    async fn foreign(&self, partition: &Partition, fields: Vec<(Bytes, Bytes)>) -> bool {
        let key = format!("rm:{{{partition}}}:log");
        let mut command = vec![b"XADD".to_vec(), key.into_bytes(), b"*".to_vec()];
        for (name, value) in fields {
            command.extend([name.to_vec(), value.to_vec()]);
        }
        self.server.ask(&command);
        true
    }
}

rumormill::conformance_tests!(RedisFixture::new());
