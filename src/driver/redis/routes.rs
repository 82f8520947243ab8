//! What a group can route: registered by each member, read when the epoch changes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;

use super::fault::Fault;
use super::member::Member;
use super::script::{Call, ROUTES};
use super::{Shared, reply, wire};
use crate::driver::GroupName;
use crate::error::Error;
use crate::pattern::Pattern;

/// How long a pattern counts after the last member that has it was seen; as in `routes.lua`.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A pattern's value in the hash.
#[derive(Deserialize)]
struct Written {
    version: Option<u32>,
    seen: u64,
}

/// What a group can route, and when that was so.
pub(super) struct Loaded {
    pub(super) epoch: i64,
    pub(super) routes: Vec<(Pattern, Option<u32>)>,
}

impl Shared {
    /// Reads what a group can route.
    pub(super) async fn load_routes(&self, group: &GroupName) -> Result<Loaded, Error> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME").cmd("HGETALL").arg(self.keys.routes(group));
        let what = format!("read the routes of group {group}");
        let answers = self.commands.ask(&what, &pipeline).await?;
        read(answers).map_err(|fault| self.commands.error(what, &fault))
    }
}

fn read(answers: Vec<redis::Value>) -> Result<Loaded, Fault> {
    let mut answers = answers.into_iter();
    let now = reply::time(answers.next().unwrap_or_default())?;
    let oldest = now.saturating_sub(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX));
    let mut loaded = Loaded { epoch: 0, routes: Vec::new() };
    for (name, value) in reply::pairs(answers.next().unwrap_or_default())? {
        let (name, value) = (reply::text(name)?, reply::text(value)?);
        if name == wire::EPOCH {
            loaded.epoch = value.parse().unwrap_or(0);
            continue;
        }
        let written: Option<Written> = serde_json::from_str(&value).ok();
        match (name.parse(), written) {
            (Ok(pattern), Some(written)) if written.seen > oldest => {
                loaded.routes.push((pattern, written.version));
            }
            (Ok(_), Some(_)) => {}
            _ => tracing::warn!(name, value, "left out of the group's routes"),
        }
    }
    Ok(loaded)
}

impl Member {
    /// Registers this member's routes, says that it lives, and follows what the group can route.
    pub(super) async fn beat(&self) -> Result<(), Error> {
        let commands = &self.shared.commands;
        let what = format!("register the routes of group {}", self.group);
        let mut call = Call::new(&ROUTES, vec![self.shared.keys.routes(&self.group)]);
        for (pattern, version) in &self.own_routes {
            call.arg(pattern.as_str());
            match version {
                Some(version) => call.number(version),
                None => call.arg(""),
            };
        }
        let answer = commands.call(&what, &[call]).await?.pop().unwrap_or_default();
        let refuse = |fault| commands.error(&what, &fault);
        let mut answer = reply::items(answer).map_err(refuse)?.into_iter();
        let (epoch, now) = (answer.next().unwrap_or_default(), answer.next().unwrap_or_default());
        let epoch = reply::int(epoch).map_err(refuse)?.unwrap_or(0);
        let now = reply::count(now).map_err(refuse)?;
        let mut seen = redis::cmd("ZADD");
        seen.arg(self.shared.keys.consumers()).arg(now).arg(self.heartbeat());
        commands.ask_one(&what, seen).await?;
        self.follow_routes(epoch).await
    }

    fn heartbeat(&self) -> String {
        format!("{} {}", self.group, self.consumer)
    }

    /// Takes over what the group can route, where the epoch says that it changed.
    pub(super) async fn follow_routes(&self, epoch: i64) -> Result<(), Error> {
        if self.epoch.load(Ordering::Acquire) == epoch {
            return Ok(());
        }
        let loaded = self.shared.load_routes(&self.group).await?;
        self.take_routes(loaded);
        Ok(())
    }

    /// Replaces what is known of the group's routes.
    pub(super) fn take_routes(&self, loaded: Loaded) {
        // This member's own routes count whatever the server forgot.
        let own = self.own_routes.iter().cloned();
        self.routes.set(loaded.routes.into_iter().chain(own));
        self.epoch.store(loaded.epoch, Ordering::Release);
    }
}
