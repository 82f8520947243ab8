//! How a test bus is put together.

use std::any::Any;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Mutex;

use super::clock::PausedClock;
use super::{TestBus, done};
use crate::bus::{Bus, BusBuilder};
use crate::driver::memory::{MemoryDriver, MemoryOptions};
use crate::service::ServiceOptions;
use crate::service::Services;
use crate::time::Timestamp;

/// 2026-01-02T03:04:05Z.
const STARTS_AT: Timestamp = Timestamp::from_millis(1_767_323_045_000);

/// Events per topic that stay to be expected after every group has settled them.
const HISTORY_EVENTS_MAX: usize = 1_000_000;

/// The settings of a [`TestBus`], each with its default.
#[must_use]
pub struct TestBusBuilder {
    bus: BusBuilder,
    memory: MemoryOptions,
    starts_at: Timestamp,
    seed: u64,
}

impl TestBusBuilder {
    pub(super) fn new() -> Self {
        let memory =
            MemoryOptions { history_events_max: HISTORY_EVENTS_MAX, ..MemoryOptions::default() };
        Self { bus: Bus::builder(), memory, starts_at: STARTS_AT, seed: 1 }
    }

    /// Which of the registered services run. Default: all.
    pub fn services(self, services: Services) -> Self {
        self.bus(|bus| bus.services(services))
    }

    /// Shares a value with the services; see [`Init::resource`](crate::Init::resource).
    pub fn resource<T: Any + Send + Sync>(self, value: T) -> Self {
        self.bus(|bus| bus.resource(value))
    }

    /// [`resource`](TestBusBuilder::resource) for a value that the test keeps sharing itself.
    pub fn shared<T: Any + Send + Sync>(self, value: Arc<T>) -> Self {
        self.bus(|bus| bus.shared(value))
    }

    /// Configures a service; see [`Init::configuration`](crate::Init::configuration).
    pub fn configure(self, service: impl Into<String>, values: impl Serialize) -> Self {
        self.bus(|bus| bus.configure(service, values))
    }

    /// Options of a service or group, in place of those it names itself.
    pub fn options(self, service: impl Into<String>, options: ServiceOptions) -> Self {
        self.bus(|bus| bus.options(service, options))
    }

    /// Any other setting of the bus. Address, driver and clock are the test bus's own.
    pub fn bus(mut self, set: impl FnOnce(BusBuilder) -> BusBuilder) -> Self {
        self.bus = set(self.bus);
        self
    }

    /// Partitions of each topic. Default 1.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.memory.partitions = partitions;
        self
    }

    /// Where the wall clock begins. Default 2026-01-02T03:04:05Z.
    pub fn starts_at(mut self, moment: Timestamp) -> Self {
        self.starts_at = moment;
        self
    }

    /// What the waits before retries are drawn from; the same seed, the same waits. Default 1.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Pauses time, connects, and starts the services.
    ///
    /// # Panics
    /// Where a setting is not valid or a service cannot be built, and outside a current-thread
    /// runtime (`#[tokio::test]` without a flavor is one).
    pub async fn start(self) -> TestBus {
        let Self { bus, memory, starts_at, seed } = self;
        let clock = Arc::new(PausedClock::new(starts_at));
        // The runtime has one thread, and the generator is the thread's.
        fastrand::seed(seed);
        let driver = MemoryDriver::new(MemoryOptions { clock: clock.clone(), ..memory });
        let bus = bus.driver(driver.client()).clock(clock.clone());
        let bus = done("cannot build the bus", bus.build().await);
        if bus.has_services() {
            done("cannot start the services", bus.start().await);
        }
        TestBus { bus, driver, clock, journal: Mutex::default() }
    }
}
