//! Masters that are replaced, and the link to a replica.

use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::{About, Class, Kind};
use crate::Result;
use crate::args::Mode;
use crate::proxy::Flow;
use crate::site::{Line, Site, named_master};

/// How long the others may take to agree on a master, and to follow it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn kinds() -> Vec<Box<dyn Kind>> {
    vec![
        Box::new(FailedOver),
        Box::new(Link { cuts: true }),
        Box::new(Link { cuts: false }),
        Box::new(ReplicaFrozen),
        Box::new(Replaced { freezes: false, old: 0 }),
        Box::new(Replaced { freezes: true, old: 0 }),
    ]
}

fn not_in(site: &Site, mode: Mode) -> Option<String> {
    (site.mode != mode).then(|| format!("it takes --mode {}", mode.name()))
}

/// The master dies and its replica takes its place; the old one comes back as its replica.
struct FailedOver;

#[async_trait]
impl Kind for FailedOver {
    fn about(&self) -> About {
        About::new("failover", 50, Class::Server, 100..1_000)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        not_in(site, Mode::Replica)
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        site.server().kill().await
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let old = site.master;
        let new = 1 - old;
        site.nodes[new].say("REPLICAOF NO ONE").await?;
        site.lead_to(new);
        let socket = site.nodes[new].socket();
        let link = site.line(Line::Replicating)?;
        link.lead_to(&socket);
        let port = link.address.port().to_string();
        site.nodes[old].restart(&[]).await?;
        site.nodes[old].ask(&["REPLICAOF", "127.0.0.1", &port]).await?;
        until_followed(site, 1).await?;
        Ok(1)
    }
}

/// Waits until the master has so many replicas that follow.
pub(super) async fn until_followed(site: &mut Site, replicas: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let info = site.server().say("INFO replication").await?;
        if info.text().matches("state=online").count() >= replicas {
            return Ok(());
        }
        site.pass(Duration::from_millis(20)).await?;
    }
    Err("the replicas do not follow".into())
}

/// What goes to the replica is cut, or held back.
struct Link {
    cuts: bool,
}

#[async_trait]
impl Kind for Link {
    fn about(&self) -> About {
        let (name, row) =
            if self.cuts { ("replica-link-cut", 22) } else { ("replica-link-silent", 49) };
        About::new(name, row, Class::Network, 300..2_500)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        not_in(site, Mode::Replica)
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        let link = site.line(Line::Replicating)?;
        if self.cuts {
            link.refuse();
        } else {
            link.flow(Flow::Hold, Flow::Hold);
        }
        Ok(())
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let link = site.line(Line::Replicating)?;
        let hits = link.hits();
        link.pass();
        until_followed(site, 1).await?;
        Ok(hits)
    }
}

/// The replica stands still: publishes have nobody to confirm them.
struct ReplicaFrozen;

#[async_trait]
impl Kind for ReplicaFrozen {
    fn about(&self) -> About {
        About::new("replica-frozen", 49, Class::Server, 600..3_000).stalling()
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        not_in(site, Mode::Replica)
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        let replica = 1 - site.master;
        site.nodes[replica].freeze()
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let replica = 1 - site.master;
        site.nodes[replica].thaw()?;
        Ok(1)
    }
}

/// The master is gone or stands still until the sentinels have made another one.
struct Replaced {
    freezes: bool,
    old: usize,
}

#[async_trait]
impl Kind for Replaced {
    fn about(&self) -> About {
        let name = if self.freezes { "master-frozen" } else { "master-killed" };
        About::new(name, 52, Class::Server, 0..100)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        not_in(site, Mode::Sentinel)
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        self.old = site.master;
        if self.freezes { site.server().freeze() } else { site.server().kill().await }
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Site { sentinels, nodes, .. } = &mut *site;
            match named_master(sentinels, nodes).await {
                Some(new) if new != self.old && is_master(&mut nodes[new]).await => {
                    site.master = new;
                    break;
                }
                _ if Instant::now() > deadline => return Err("there is no new master".into()),
                _ => sleep(Duration::from_millis(50)).await,
            }
            site.pass(Duration::from_millis(20)).await?;
        }
        let port = site.server().port.to_string();
        let old = &mut site.nodes[self.old];
        if self.freezes {
            old.thaw()?;
        } else {
            old.restart(&["--replicaof", "127.0.0.1", &port]).await?;
        }
        until_followed(site, 2).await?;
        Ok(1)
    }
}

async fn is_master(node: &mut crate::node::Node) -> bool {
    let role = node.ask(&["ROLE"]).await;
    role.is_ok_and(|role| role.list().first().is_some_and(|role| role.text() == "master"))
}
