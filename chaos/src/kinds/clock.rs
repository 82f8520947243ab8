//! The server's clock on the wall jumps, and jumps back: with the shim in the server.

use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;

use super::{About, Class, Kind};
use crate::site::{Site, log_key};
use crate::{Result, shim, time};

/// How far it jumps at most. What is to be tried again while it is ahead is due so much later when
/// it is right again, and a round waits for that in the end.
pub(crate) const JUMP_MAX: Duration = Duration::from_secs(60);
const SECOND: i64 = 1_000_000;

pub(super) fn kinds() -> Vec<Box<dyn Kind>> {
    vec![
        Box::new(Jump { is_forward: true, ahead: 0, before: 0 }),
        Box::new(Jump { is_forward: false, ahead: 0, before: 0 }),
    ]
}

struct Jump {
    is_forward: bool,
    /// Microseconds.
    ahead: i64,
    /// Entries that the log had had.
    before: u64,
}

#[async_trait]
impl Kind for Jump {
    fn about(&self) -> About {
        let name = if self.is_forward { "clock-forward" } else { "clock-back" };
        // Shorter and longer than a lease.
        About::new(name, 58, Class::Server, 1_000..6_000)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        site.shim.as_ref().err().cloned()
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        let most = i64::try_from(JUMP_MAX.as_secs()).expect("a minute");
        let seconds = dice.i64(5..=most);
        self.ahead = SECOND * if self.is_forward { seconds } else { -seconds };
        self.before = added(site).await?;
        shim::set_clock(site.server(), self.ahead)
    }

    /// Counts the entries that the server took in by the wrong clock.
    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let wrong_by = clock(site).await? - time::wall_micros();
        let seen = added(site).await?.saturating_sub(self.before);
        shim::set_clock(site.server(), 0)?;
        let is_wrong = (wrong_by - self.ahead).abs() < SECOND;
        let right_by = (clock(site).await? - time::wall_micros()).abs();
        if right_by >= SECOND {
            return Err(format!("the clock is still wrong by {right_by} us").into());
        }
        Ok(if is_wrong { seen } else { 0 })
    }
}

/// Microseconds since 1970, as the server has them.
async fn clock(site: &mut Site) -> Result<i64> {
    let answer = site.server().say("TIME").await?;
    let part = |at: usize| answer.list().get(at).map_or(Ok(0), |part| part.text().parse::<i64>());
    Ok(part(0)? * SECOND + part(1)?)
}

/// How many entries were ever added to the log.
async fn added(site: &mut Site) -> Result<u64> {
    let stream = site.server().ask(&["XINFO", "STREAM", &log_key()]).await?;
    Ok(stream.get("entries-added").map_or(0, |count| u64::try_from(count.int()).unwrap_or(0)))
}
