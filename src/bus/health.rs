//! How the bus is, and what was lost below it.

use super::Bus;
use crate::driver::monitor::{Health, HealthChanges, Incidents, Losses};

impl Bus {
    /// How the connections and the server are. [`Health::is_ready`] is what a readiness probe
    /// should answer: it turns red when a connection is lost, or when a reader does not come back
    /// in time.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), rumormill::Error> {
    /// let bus = rumormill::Bus::connect("memory:").await?;
    /// assert!(bus.health().is_ready());
    /// # Ok(())
    /// # }
    /// ```
    pub fn health(&self) -> Health {
        self.0.driver.monitor().map(|monitor| monitor.health()).unwrap_or_default()
    }

    /// Tells each time that the health changes. `None` where the driver does not tell.
    pub fn health_changes(&self) -> Option<HealthChanges> {
        self.0.driver.monitor().map(|monitor| monitor.health_changes())
    }

    /// What goes wrong below from now on, each thing once: a group that was gone, a log whose
    /// history was lost, entries that were trimmed before they were read. `None` where the driver
    /// loses nothing that it would have to tell.
    pub fn incidents(&self) -> Option<Incidents> {
        self.0.driver.monitor().map(|monitor| monitor.incidents())
    }

    /// What was lost below since this bus connected, over all groups.
    pub fn losses(&self) -> Losses {
        self.0.driver.monitor().map(|monitor| monitor.losses()).unwrap_or_default()
    }

    /// What one group lost since this bus connected, as far as this bus saw it.
    pub fn losses_of(&self, group: &str) -> Losses {
        self.0.driver.monitor().map(|monitor| monitor.losses_of(group)).unwrap_or_default()
    }
}
