//! The server is there and says no.

use std::fs;
use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;

use super::{About, Class, Kind};
use crate::Result;
use crate::args::Mode;
use crate::session::Session;
use crate::site::Site;

pub(super) fn kinds() -> Vec<Box<dyn Kind>> {
    let between = |name, row, begin, end, error, lasts| -> Box<dyn Kind> {
        Box::new(Between { name, row, begin, end, error, lasts, before: 0 })
    };
    let noperm = "ACL SETUSER app -xadd -xreadgroup";
    vec![
        Box::new(Full { stranger: None, before: 0 }),
        between("no-permission", 62, noperm, "ACL SETUSER app +@all", "NOPERM", (300, 1_200)),
        between(
            "user-off",
            62,
            "ACL SETUSER app off",
            "ACL SETUSER app on",
            "WRONGPASS",
            (300, 1_200),
        ),
        between(
            "too-few-replicas",
            49,
            "CONFIG SET min-replicas-to-write 9",
            "CONFIG SET min-replicas-to-write 0",
            "NOREPLICAS",
            (300, 1_200),
        ),
        between(
            "made-a-replica",
            53,
            "REPLICAOF 127.0.0.1 1",
            "REPLICAOF NO ONE",
            "READONLY",
            (300, 1_200),
        ),
        Box::new(MaxClients { operator: None, refused: 0 }),
        Box::new(Paused { what: "ALL" }),
        Box::new(Paused { what: "WRITE" }),
        Box::new(Killed { hits: 0 }),
        Box::new(Flushed { hits: 0 }),
        Box::new(Misconf { before: 0 }),
    ]
}

/// Between two commands of an operator's.
struct Between {
    name: &'static str,
    row: u8,
    begin: &'static str,
    end: &'static str,
    error: &'static str,
    lasts: (u64, u64),
    before: u64,
}

async fn refused(site: &mut Site, error: &str) -> Result<u64> {
    Ok(site.server().errors().await?.get(error).copied().unwrap_or(0))
}

#[async_trait]
impl Kind for Between {
    fn about(&self) -> About {
        About::new(self.name, self.row, Class::Configuration, self.lasts.0..self.lasts.1)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        let demotes = self.begin.starts_with("REPLICAOF");
        (demotes && site.nodes.len() > 1).then(|| "the replica would be lost".to_owned())
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        self.before = refused(site, self.error).await?;
        site.server().say(self.begin).await?;
        if self.name == "user-off" {
            // What is logged in stays so until it is closed.
            site.server().say("CLIENT KILL TYPE normal").await?;
        }
        Ok(())
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        site.server().say(self.end).await?;
        Ok(refused(site, self.error).await?.saturating_sub(self.before))
    }
}

/// A stranger has announced a command that takes all the memory. Not below a quarter of which a
/// log may lie: it would be trimmed.
struct Full {
    stranger: Option<Session>,
    before: u64,
}

#[async_trait]
impl Kind for Full {
    fn about(&self) -> About {
        About::new("out-of-memory", 30, Class::Configuration, 300..1_500)
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        self.before = refused(site, "OOM").await?;
        let mut stranger = site.server().session().await?;
        stranger.send_raw(b"*2\r\n$3\r\nGET\r\n$134217728\r\n").await?;
        self.stranger = Some(stranger);
        site.server().say("CONFIG SET maxmemory 120mb").await.map(drop)
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        self.stranger = None;
        site.server().say("CONFIG SET maxmemory 0").await?;
        Ok(refused(site, "OOM").await?.saturating_sub(self.before))
    }
}

/// No room for another client.
struct MaxClients {
    operator: Option<Session>,
    refused: u64,
}

#[async_trait]
impl Kind for MaxClients {
    fn about(&self) -> About {
        About::new("max-clients", 28, Class::Configuration, 300..1_500)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        (site.mode == Mode::Sentinel).then(|| "the sentinels could not ask".to_owned())
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        self.refused = site.server().info("rejected_connections").await?.parse().unwrap_or(0);
        let mut operator = site.server().session().await?;
        operator.ask(&["CONFIG", "SET", "maxclients", "1"]).await?;
        operator.ask(&["CLIENT", "KILL", "TYPE", "normal"]).await?;
        self.operator = Some(operator);
        Ok(())
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let mut operator = self.operator.take().ok_or("it was injected")?;
        operator.ask(&["CONFIG", "SET", "maxclients", "10000"]).await?;
        let refused: u64 = site.server().info("rejected_connections").await?.parse().unwrap_or(0);
        Ok(refused.saturating_sub(self.refused))
    }
}

/// CLIENT PAUSE.
struct Paused {
    what: &'static str,
}

#[async_trait]
impl Kind for Paused {
    fn about(&self) -> About {
        let name = if self.what == "ALL" { "clients-paused" } else { "writes-paused" };
        About::new(name, 15, Class::Configuration, 500..3_500).stalling()
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        (site.mode == Mode::Sentinel).then(|| "it would be taken for down".to_owned())
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        // Longer than it is held; it is ended by name.
        site.server().ask(&["CLIENT", "PAUSE", "3500", self.what]).await.map(drop)
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        // Where all are paused, this waits as well.
        site.server().say("CLIENT UNPAUSE").await?;
        Ok(1)
    }
}

/// CLIENT KILL.
struct Killed {
    hits: u64,
}

#[async_trait]
impl Kind for Killed {
    fn about(&self) -> About {
        About::new("clients-killed", 27, Class::Network, 0..100)
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        let killed = site.server().say("CLIENT KILL TYPE normal").await?;
        self.hits = u64::try_from(killed.int()).unwrap_or(0);
        Ok(())
    }

    async fn heal(&mut self, _: &mut Site) -> Result<u64> {
        Ok(self.hits)
    }
}

/// The scripts are forgotten, again and again.
struct Flushed {
    hits: u64,
}

#[async_trait]
impl Kind for Flushed {
    fn about(&self) -> About {
        About::new("scripts-flushed", 68, Class::Configuration, 0..50)
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        let before = refused(site, "NOSCRIPT").await?;
        for _ in 0..dice.u32(5..25) {
            site.server().say("SCRIPT FLUSH").await?;
            site.pass(Duration::from_millis(40)).await?;
        }
        self.hits = refused(site, "NOSCRIPT").await?.saturating_sub(before);
        Ok(())
    }

    async fn heal(&mut self, _: &mut Site) -> Result<u64> {
        Ok(self.hits)
    }
}

/// A folder stands where the snapshot is to be, so it fails, so the server takes no writes.
struct Misconf {
    before: u64,
}

impl Misconf {
    async fn snapshot(site: &mut Site, how: &str) -> Result<()> {
        site.server().say("BGSAVE").await?;
        for _ in 0..200 {
            site.pass(Duration::from_millis(20)).await?;
            let server = site.server();
            let running = server.info("rdb_bgsave_in_progress").await?;
            if running == "0" && server.info("rdb_last_bgsave_status").await? == how {
                return Ok(());
            }
        }
        Err(format!("the snapshot does not end with {how}").into())
    }
}

#[async_trait]
impl Kind for Misconf {
    fn about(&self) -> About {
        About::new("snapshot-fails", 11, Class::Power, 300..1_000)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        (site.mode == Mode::Sentinel).then(|| "it would be taken for down".to_owned())
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        self.before = refused(site, "MISCONF").await?;
        fs::create_dir_all(site.server().path("taken").join("by-others"))?;
        site.server().say("CONFIG SET dbfilename taken").await?;
        site.server().ask(&["CONFIG", "SET", "save", "3600 1000000"]).await?;
        Self::snapshot(site, "err").await
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        site.server().say("CONFIG SET dbfilename dump.rdb").await?;
        Self::snapshot(site, "ok").await?;
        site.server().ask(&["CONFIG", "SET", "save", ""]).await?;
        Ok(refused(site, "MISCONF").await?.saturating_sub(self.before))
    }
}
