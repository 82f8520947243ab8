//! Somebody else writes to the bus's keys, or takes them away.

use async_trait::async_trait;
use fastrand::Rng;

use super::{About, Class, Kind};
use crate::Result;
use crate::args::Mode;
use crate::history::Costs;
use crate::load::GROUPS;
use crate::site::{Site, log_key};

pub(super) fn kinds() -> Vec<Box<dyn Kind>> {
    vec![
        Box::new(GroupDestroyed { hits: 0 }),
        Box::new(ConsumersDeleted { hits: 0 }),
        Box::new(Strangers { hits: 0 }),
        Box::new(WrongType { before: 0 }),
        Box::new(SetBack { hits: 0 }),
        Box::new(Flushed { hits: 0 }),
        Box::new(Trimmed { hits: 0 }),
        Box::new(Expired { hits: 0 }),
        Box::new(Evicting { before: 0 }),
    ]
}

fn count(reply: &crate::session::Reply) -> u64 {
    u64::try_from(reply.int()).unwrap_or(0)
}

/// Only where the checker expects that everything may be gone.
fn only_without_file(site: &Site) -> Option<String> {
    (site.mode != Mode::None).then(|| "what was acknowledged would be gone".to_owned())
}

struct GroupDestroyed {
    hits: u64,
}

#[async_trait]
impl Kind for GroupDestroyed {
    fn about(&self) -> About {
        About::new("group-destroyed", 35, Class::Admin, 0..50)
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        let group = GROUPS[dice.usize(..GROUPS.len())];
        let log = log_key();
        self.hits = count(&site.server().ask(&["XGROUP", "DESTROY", &log, group]).await?);
        Ok(())
    }

    async fn heal(&mut self, _: &mut Site) -> Result<u64> {
        Ok(self.hits)
    }
}

struct ConsumersDeleted {
    hits: u64,
}

#[async_trait]
impl Kind for ConsumersDeleted {
    fn about(&self) -> About {
        About::new("consumers-deleted", 36, Class::Admin, 0..50)
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        let group = GROUPS[dice.usize(..GROUPS.len())];
        let log = log_key();
        // What a dead one holds would be gone for good, and nobody can tell.
        for consumer in site.living(group).await? {
            let delete = ["XGROUP", "DELCONSUMER", &log, group, &consumer];
            self.hits += count(&site.server().ask(&delete).await?);
        }
        Ok(())
    }

    /// It has an effect where something was pending.
    async fn heal(&mut self, _: &mut Site) -> Result<u64> {
        Ok(self.hits)
    }
}

/// Entries that are none of ours.
struct Strangers {
    hits: u64,
}

#[async_trait]
impl Kind for Strangers {
    fn about(&self) -> About {
        About::new("foreign-entries", 60, Class::Admin, 0..50)
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        let log = log_key();
        let big = "x".repeat(100_000);
        for _ in 0..dice.u32(1..6) {
            let fields: &[&str] = match dice.u8(..6) {
                0 => &["foo", "bar"],
                1 => &["", ""],
                2 => &["b", "\u{1}\u{2}\u{ff}", "p", "nobody-1"],
                3 => &["type", "chaos..made", "data", "{}"],
                4 => &["type", "chaos.made", "type", "chaos.made", "data", "{}"],
                _ => &["b", &big],
            };
            let mut add = vec!["XADD", &log, "*"];
            add.extend(fields);
            site.server().ask(&add).await?;
            self.hits += 1;
        }
        Ok(())
    }

    async fn heal(&mut self, _: &mut Site) -> Result<u64> {
        Ok(self.hits)
    }
}

/// A string stands where the log is to be; the log is put aside meanwhile.
struct WrongType {
    before: u64,
}

const ASIDE: &str = "aside{chaos:0}";

#[async_trait]
impl Kind for WrongType {
    fn about(&self) -> About {
        About::new("log-of-wrong-type", 33, Class::Admin, 200..900)
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        let (log, server) = (log_key(), site.server());
        self.before = server.errors().await?.get("WRONGTYPE").copied().unwrap_or(0);
        let swap = "redis.call('RENAME', KEYS[1], KEYS[2]) redis.call('SET', KEYS[1], 'other')";
        server.ask(&["EVAL", swap, "2", &log, ASIDE]).await.map(drop)
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let (log, server) = (log_key(), site.server());
        server.ask(&["RENAME", ASIDE, &log]).await?;
        let now = server.errors().await?.get("WRONGTYPE").copied().unwrap_or(0);
        Ok(now.saturating_sub(self.before))
    }
}

/// XGROUP SETID back: events are delivered again.
struct SetBack {
    hits: u64,
}

#[async_trait]
impl Kind for SetBack {
    fn about(&self) -> About {
        About::new("group-set-back", 39, Class::Admin, 0..50)
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        let group = GROUPS[dice.usize(..GROUPS.len())];
        let log = log_key();
        let last = site.server().ask(&["XREVRANGE", &log, "+", "-", "COUNT", "30"]).await?;
        let Some(entry) = last.list().last() else { return Ok(()) };
        let id = entry.list().first().map(|id| id.text().to_owned()).unwrap_or_default();
        site.server().ask(&["XGROUP", "SETID", &log, group, &id]).await?;
        self.hits = last.list().len() as u64;
        Ok(())
    }

    async fn heal(&mut self, _: &mut Site) -> Result<u64> {
        Ok(self.hits)
    }
}

struct Flushed {
    hits: u64,
}

#[async_trait]
impl Kind for Flushed {
    fn about(&self) -> About {
        About::new("everything-flushed", 34, Class::Admin, 0..50).costing(Costs::Everything)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        only_without_file(site)
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        self.hits = count(&site.server().say("DBSIZE").await?);
        site.server().say("FLUSHALL").await.map(drop)
    }

    async fn heal(&mut self, _: &mut Site) -> Result<u64> {
        Ok(self.hits)
    }
}

/// Somebody trims the log over what is pending and unread.
struct Trimmed {
    hits: u64,
}

#[async_trait]
impl Kind for Trimmed {
    fn about(&self) -> About {
        About::new("log-trimmed", 38, Class::Admin, 0..50).costing(Costs::Everything)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        only_without_file(site)
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        let keep = dice.u32(..3).to_string();
        let trim = ["XTRIM", &log_key(), "MAXLEN", &keep];
        self.hits = count(&site.server().ask(&trim).await?);
        Ok(())
    }

    async fn heal(&mut self, _: &mut Site) -> Result<u64> {
        Ok(self.hits)
    }
}

/// The log has a lifetime.
struct Expired {
    hits: u64,
}

#[async_trait]
impl Kind for Expired {
    fn about(&self) -> About {
        About::new("log-expires", 32, Class::Admin, 400..900).costing(Costs::Everything)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        only_without_file(site)
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        self.hits = count(&site.server().ask(&["PEXPIRE", &log_key(), "200"]).await?);
        Ok(())
    }

    async fn heal(&mut self, _: &mut Site) -> Result<u64> {
        Ok(self.hits)
    }
}

/// The server deletes keys to make room.
struct Evicting {
    before: u64,
}

impl Evicting {
    async fn evicted(site: &mut Site) -> Result<u64> {
        Ok(site.server().info("evicted_keys").await?.parse().unwrap_or(0))
    }
}

#[async_trait]
impl Kind for Evicting {
    fn about(&self) -> About {
        About::new("keys-evicted", 31, Class::Admin, 200..900).costing(Costs::Everything)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        only_without_file(site)
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        self.before = Self::evicted(site).await?;
        let server = site.server();
        server.say("CONFIG SET maxmemory-policy allkeys-random").await?;
        server.say("CONFIG SET maxmemory 1mb").await.map(drop)
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let server = site.server();
        server.say("CONFIG SET maxmemory 0").await?;
        server.say("CONFIG SET maxmemory-policy noeviction").await?;
        Ok(Self::evicted(site).await?.saturating_sub(self.before))
    }
}
