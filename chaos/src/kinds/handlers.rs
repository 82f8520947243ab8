//! Handlers that panic, take too long, or take their process along: published as events whose
//! handlers do that.

use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;

use super::{About, Class, Kind};
use crate::Result;
use crate::load::Act;
use crate::site::Site;

/// How long such an event may take to come to a handler.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn kinds() -> Vec<Box<dyn Kind>> {
    let kind = |name, row, act, most| -> Box<dyn Kind> {
        Box::new(Acting { name, row, act, most, before: 0 })
    };
    vec![
        kind("handler-panics", 42, Act::Panic, 4),
        kind("handler-outlasts-lease", 41, Act::Slow, 2),
        kind("handler-aborts", 43, Act::Abort, 1),
        kind("handler-always-aborts", 43, Act::Poison, 1),
    ]
}

struct Acting {
    name: &'static str,
    row: u8,
    act: Act,
    most: u32,
    before: u64,
}

#[async_trait]
impl Kind for Acting {
    fn about(&self) -> About {
        About::new(self.name, self.row, Class::Worker, 0..100)
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        self.before = site.watch.acts(self.act);
        site.order(self.act, dice.u32(1..=self.most)).await
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let (act, before) = (self.act, self.before);
        site.until(PATIENCE, |site| site.watch.acts(act) > before).await?;
        Ok(site.watch.acts(self.act) - self.before)
    }
}
