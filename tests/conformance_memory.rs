//! The memory driver passes the suite that every driver must pass, under paused time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rumormill::delivery::Partition;
use rumormill::driver::conformance::Fixture;
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::{Driver, LeaseTimes};
use rumormill::{Clock, Timestamp, Topic};
use tokio::time::Instant;

/// A wall clock that goes with the paused time of the test.
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_767_323_045_000).plus(self.0.elapsed())
    }
}

#[derive(Default)]
struct MemoryFixture {
    store: OnceLock<Arc<MemoryDriver>>,
    partitions: Mutex<BTreeMap<Topic, u32>>,
}

impl MemoryFixture {
    fn store(&self) -> &Arc<MemoryDriver> {
        self.store.get_or_init(|| {
            MemoryDriver::new(MemoryOptions {
                partitions_of: self.partitions.lock().expect("no test panics under it").clone(),
                clock: Arc::new(PausedClock(Instant::now())),
                ..MemoryOptions::default()
            })
        })
    }
}

#[async_trait]
impl Fixture for MemoryFixture {
    async fn driver(&self) -> Arc<dyn Driver> {
        self.store().client()
    }

    fn lease(&self) -> LeaseTimes {
        let [lease, renew, sweep] = [3, 1, 2].map(Duration::from_secs);
        LeaseTimes { lease, renew, sweep }
    }

    async fn partitions(&self, topic: &Topic, partitions: u32) {
        self.partitions.lock().expect("no test panics under it").insert(topic.clone(), partitions);
    }

    fn dedup_window(&self) -> Option<Duration> {
        Some(MemoryOptions::default().dedup_window)
    }

    async fn foreign(&self, partition: &Partition, fields: Vec<(Bytes, Bytes)>) -> bool {
        self.store().append_foreign(partition, fields).expect("the partition is declared");
        true
    }
}

rumormill::conformance_tests!(MemoryFixture::default(), start_paused = true);
