//! What the tests of faults share: a proxy that breaks connections, a load that is written down
//! event by event, and the loop that breaks, mends and checks.
//!
//! Used by several tests (`mod fault;`), none of which needs all of it.
#![allow(dead_code, unreachable_pub)]

pub mod audit;
pub mod drive;
pub mod ledger;
pub mod load;
pub mod process;
pub mod proxy;
pub mod resp;
pub mod table;

use std::time::Duration;

use tokio::time::Instant;

/// Longer than anything here takes to recover; a test that waits for it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something holds; false where it does not in time.
pub async fn comes(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !holds() {
        if Instant::now() >= deadline {
            return false;
        }
        // waits: for the condition, with a deadline
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

/// Lets time pass in which a fault lasts.
pub async fn hold(time: Duration) {
    // waits: as long as the fault is to last
    tokio::time::sleep(time).await;
}

/// How often each fault is injected: `RUMORMILL_FAULT_ROUNDS`, default 1.
pub fn rounds() -> usize {
    asked("RUMORMILL_FAULT_ROUNDS", 1)
}

/// A number from the environment, at least 1.
pub fn asked(name: &str, default: usize) -> usize {
    let number = std::env::var(name).ok().filter(|text| !text.is_empty());
    let read = |text: String| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}"));
    number.map_or(default, read).max(1)
}
