//! The power fails, a disk is slow or full: with the shim in the server.

use async_trait::async_trait;
use fastrand::Rng;

use super::{About, Class, Kind};
use crate::Result;
use crate::args::Mode;
use crate::history::Costs;
use crate::shim;
use crate::site::Site;

pub(super) fn kinds() -> Vec<Box<dyn Kind>> {
    vec![
        Box::new(PowerLoss { run_id: String::new() }),
        Box::new(SlowSync { before: 0 }),
        Box::new(DiskFull),
    ]
}

/// Why the shim is not in the servers.
fn no_shim(site: &Site) -> Option<String> {
    if !site.mode.has_file() {
        return Some("the server keeps no file".to_owned());
    }
    site.shim.as_ref().err().cloned()
}

/// The server is killed, and its log cut to what was synced.
struct PowerLoss {
    run_id: String,
}

#[async_trait]
impl Kind for PowerLoss {
    fn about(&self) -> About {
        About::new("power-loss", 3, Class::Power, 100..600)
    }

    fn costs(&self, site: &Site) -> Costs {
        if site.mode == Mode::Everysec { Costs::Recent } else { Costs::Nothing }
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        if site.mode == Mode::Sentinel {
            return Some("see master-killed".to_owned());
        }
        no_shim(site)
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        self.run_id = site.server().info("run_id").await?;
        site.server().kill().await?;
        let gone = shim::lose_power(site.server())?;
        site.history.note(format!("the power failed: {gone} bytes were not synced"));
        Ok(())
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        site.server().restart(&[]).await?;
        let run_id = site.server().info("run_id").await?;
        if site.mode == Mode::Replica {
            super::replicas::until_followed(site, 1).await?;
        }
        Ok(u64::from(run_id != self.run_id))
    }
}

/// Each sync takes long.
struct SlowSync {
    before: u64,
}

#[async_trait]
impl Kind for SlowSync {
    fn about(&self) -> About {
        About::new("slow-sync", 5, Class::Power, 800..2_500)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        no_shim(site)
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        self.before = shim::hits(site.server());
        shim::slow_syncs(site.server(), dice.u64(100..600))
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        shim::slow_syncs(site.server(), 0)?;
        Ok(shim::hits(site.server()).saturating_sub(self.before))
    }
}

/// Nothing can be written to the log: a server that syncs each write gives up, another refuses.
struct DiskFull;

#[async_trait]
impl Kind for DiskFull {
    fn about(&self) -> About {
        About::new("disk-full", 10, Class::Power, 300..1_200)
    }

    fn costs(&self, site: &Site) -> Costs {
        if site.mode == Mode::Everysec { Costs::Recent } else { Costs::Nothing }
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        if site.mode == Mode::Sentinel {
            return Some("the master would end: see master-killed".to_owned());
        }
        no_shim(site)
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        shim::fill_disk(site.server(), true)
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let server = site.server();
        let hits = shim::hits(server);
        shim::fill_disk(server, false)?;
        if !server.is_running() {
            server.restart(&[]).await?;
        }
        if site.mode == Mode::Replica {
            super::replicas::until_followed(site, 1).await?;
        }
        Ok(hits)
    }
}
