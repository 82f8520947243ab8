//! The stores that the model is held against.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rumormill::delivery::EntryId;
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Driver, LeaseTimes};
use rumormill::{Clock, Timestamp};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

use crate::server::Server;

/// A store, and what may befall it.
pub trait Store {
    /// Its counts are exact at any moment, and time can be moved.
    const EXACT: bool;

    fn new() -> Self;
    fn runtime(&self) -> Arc<Runtime>;
    fn driver(&self) -> Arc<dyn Driver>;
    fn lease(&self) -> LeaseTimes;
    /// An hour passes, as far as events wait for it.
    fn advance(&self) -> impl Future<Output = ()>;
    /// What is stored outlives it.
    fn restart(&self) {}
    /// Drops what lies before an entry of the only log.
    fn trim(&self, before: EntryId) {
        let _kept = before;
    }
}

pub struct Memory {
    runtime: Arc<Runtime>,
    driver: Arc<MemoryDriver>,
}

struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_767_323_045_000).plus(self.0.elapsed())
    }
}

impl Store for Memory {
    const EXACT: bool = true;

    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = Arc::new(runtime.expect("a runtime"));
        let clock = {
            let _entered = runtime.enter();
            Arc::new(PausedClock(Instant::now()))
        };
        let driver = MemoryDriver::new(MemoryOptions { clock, ..MemoryOptions::default() });
        Self { runtime, driver }
    }

    fn runtime(&self) -> Arc<Runtime> {
        Arc::clone(&self.runtime)
    }

    fn driver(&self) -> Arc<dyn Driver> {
        self.driver.client()
    }

    fn lease(&self) -> LeaseTimes {
        LeaseTimes::default()
    }

    async fn advance(&self) {
        // waits: for an hour of paused time to pass
        sleep(Duration::from_secs(3_600)).await;
    }
}

thread_local! {
    /// One server for all cases of a test; each has a namespace of its own.
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

pub struct Redis {
    runtime: Arc<Runtime>,
    driver: Arc<dyn Driver>,
    namespace: String,
}

impl Store for Redis {
    const EXACT: bool = false;

    fn new() -> Self {
        static NAMESPACES: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("case{}", NAMESPACES.fetch_add(1, Ordering::Relaxed));
        let url = SERVER.with_borrow_mut(|server| server.get_or_insert_with(Server::durable).url());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = Arc::new(runtime.expect("a runtime"));
        let options = RedisOptions { namespace: namespace.clone(), ..RedisOptions::new(url) };
        let driver = runtime.block_on(RedisDriver::connect(options)).expect("the server runs");
        Self { runtime, driver, namespace }
    }

    fn runtime(&self) -> Arc<Runtime> {
        Arc::clone(&self.runtime)
    }

    fn driver(&self) -> Arc<dyn Driver> {
        Arc::clone(&self.driver)
    }

    fn lease(&self) -> LeaseTimes {
        let [lease, renew, sweep] = [600, 150, 100].map(Duration::from_millis);
        LeaseTimes { lease, renew, sweep }
    }

    /// What is due later is due now: the server's clock cannot be moved.
    async fn advance(&self) {
        const NOW: &str = "for _, record in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
            redis.call('ZADD', KEYS[1], 0, record)
        end";
        SERVER.with_borrow(|server| {
            let server = server.as_ref().expect("it runs");
            for group in ["plain", "parking"] {
                let (namespace, partition) = (&self.namespace, crate::system::partition());
                server.ask(&[
                    "EVAL",
                    NOW,
                    "1",
                    &format!("{namespace}:{{{partition}}}:due:{group}"),
                ]);
            }
        });
    }

    fn restart(&self) {
        SERVER.with_borrow_mut(|server| {
            let server = server.as_mut().expect("it runs");
            server.kill();
            server.restart();
        });
    }

    fn trim(&self, before: EntryId) {
        let key = format!("{}:{{{}}}:log", self.namespace, crate::system::partition());
        SERVER.with_borrow(|server| {
            let server = server.as_ref().expect("it runs");
            server.ask(&["XTRIM", &key, "MINID", &before.to_string()]);
        });
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.runtime.block_on(self.driver.close());
    }
}
