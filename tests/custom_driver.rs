//! The example's driver passes the suite that every driver must pass. This file is what a driver
//! of your own needs: a fixture, and one macro.

#[path = "../examples/custom_driver.rs"]
#[allow(dead_code, reason = "its `main` is run in tests/examples.rs")]
mod custom_driver;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use custom_driver::Counting;
use rumormill::Topic;
use rumormill::driver::conformance::Fixture;
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::{Driver, LeaseTimes};

#[derive(Default)]
struct CountingFixture {
    store: OnceLock<Arc<MemoryDriver>>,
    partitions: Mutex<BTreeMap<Topic, u32>>,
}

#[async_trait]
impl Fixture for CountingFixture {
    async fn driver(&self) -> Arc<dyn Driver> {
        let store = self.store.get_or_init(|| {
            let partitions_of = self.partitions.lock().expect("no panic under it").clone();
            MemoryDriver::new(MemoryOptions { partitions_of, ..MemoryOptions::default() })
        });
        Counting::new(store.client())
    }

    fn lease(&self) -> LeaseTimes {
        let [lease, renew, sweep] = [3, 1, 2].map(Duration::from_secs);
        LeaseTimes { lease, renew, sweep }
    }

    async fn partitions(&self, topic: &Topic, partitions: u32) {
        self.partitions.lock().expect("no panic under it").insert(topic.clone(), partitions);
    }
}

rumormill::conformance_tests!(CountingFixture::default(), start_paused = true);
