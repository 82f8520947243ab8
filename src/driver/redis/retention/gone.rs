//! Which groups hold something on a log, and which were gone for so long that they no longer do.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use redis::Value;
use serde::Deserialize;

use crate::delivery::Partition;
use crate::driver::GroupName;
use crate::driver::redis::fault::{Fault, accept};
use crate::driver::redis::{Shared, reply};
use crate::error::Error;
use crate::time::Timestamp;

/// A route's value in the hash.
#[derive(Deserialize)]
struct Written {
    seen: u64,
}

/// When something was last heard of a group, by the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::driver::redis) struct Standing {
    /// It has no routes: it is another program's.
    pub(in crate::driver::redis) foreign: bool,
    /// Nothing was heard of another program's group that has no consumer.
    pub(in crate::driver::redis) last_seen: Option<Timestamp>,
    pub(in crate::driver::redis) now: Timestamp,
}

impl Standing {
    /// Whether the group no longer holds anything.
    pub(in crate::driver::redis) fn is_gone(self, group_kept: Duration) -> bool {
        self.last_seen.is_some_and(|seen| self.now.since(seen) >= group_kept)
    }
}

/// The groups of a log, by name, as bytes: another program's may be anything.
pub(in crate::driver::redis) type Standings = Vec<(Vec<u8>, Standing)>;

impl Shared {
    /// For each partition, the names of those groups that no longer hold anything.
    pub(super) async fn gone_groups(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<Result<Vec<Vec<u8>>, Error>>, Error> {
        let kept = self.retention.group_kept;
        let gone = |groups: Standings| {
            let gone = groups.into_iter().filter(|(_, standing)| standing.is_gone(kept));
            gone.map(|(name, _)| name).collect()
        };
        let standings = self.standings(partitions).await?.into_iter();
        Ok(standings.map(|standings| standings.map(gone)).collect())
    }

    /// How the groups of partitions stand; an error each for those that hold no log.
    pub(in crate::driver::redis) async fn standings(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<Result<Standings, Error>>, Error> {
        let what = "look for groups that are gone";
        let mut pipeline = redis::pipe();
        for partition in partitions {
            pipeline.cmd("XINFO").arg("GROUPS").arg(self.keys.log(partition));
        }
        let answers = self.commands.ask(what, &pipeline).await?;
        let names: Vec<Result<Vec<Vec<u8>>, Fault>> = answers.into_iter().map(names).collect();
        let (now, seen) = self.newest_signs(names.iter().flatten().flatten()).await?;
        let mut standings = Vec::new();
        for (partition, names) in partitions.iter().zip(names) {
            let names = match names {
                Ok(names) => names,
                Err(fault) => {
                    let what = format!("{what} in key {}", self.keys.log(partition));
                    standings.push(Err(self.commands.error(what, &fault)));
                    continue;
                }
            };
            let mut groups = Standings::new();
            for name in names {
                let (foreign, last_seen) = match seen.get(&name) {
                    Some(seen) => (false, Some(*seen)),
                    None => (true, self.last_deed(partition, &name, now).await?),
                };
                groups.push((name, Standing { foreign, last_seen, now }));
            }
            standings.push(Ok(groups));
        }
        Ok(standings)
    }

    /// When the groups that have routes were last heard of.
    async fn newest_signs(
        &self,
        names: impl Iterator<Item = &Vec<u8>>,
    ) -> Result<(Timestamp, HashMap<Vec<u8>, Timestamp>), Error> {
        let what = "read the signs of life of groups";
        let names: BTreeSet<GroupName> = names.filter_map(|name| group_name(name)).collect();
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        for name in &names {
            pipeline.cmd("HVALS").arg(self.keys.routes(name));
        }
        let odd = |fault: Fault| self.commands.error(what, &fault);
        let mut answers = self.commands.ask(what, &pipeline).await?.into_iter();
        let now = reply::time(answers.next().unwrap_or_default()).map_err(odd)?;
        let now = Timestamp::from_millis(now);
        let mut signs = HashMap::new();
        for (name, answer) in names.into_iter().zip(answers) {
            if let Some(seen) = newest(answer).map_err(odd)? {
                signs.insert(name.as_str().as_bytes().to_vec(), Timestamp::from_millis(seen));
            }
        }
        Ok((now, signs))
    }

    /// A group without routes: what its consumers last did says whether it lives.
    async fn last_deed(
        &self,
        partition: &Partition,
        name: &[u8],
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        let key = self.keys.log(partition);
        let what = format!("look at the consumers of key {key}");
        let mut pipeline = redis::pipe();
        pipeline.cmd("XINFO").arg("CONSUMERS").arg(&key).arg(name);
        let answer = self.commands.ask(&what, &pipeline).await?.pop().unwrap_or_default();
        let idle = least_idle(answer).map_err(|fault| self.commands.error(what, &fault))?;
        Ok(idle.map(|idle| Timestamp::from_millis(now.as_millis().saturating_sub(idle))))
    }
}

fn group_name(name: &[u8]) -> Option<GroupName> {
    GroupName::new(String::from_utf8(name.to_vec()).ok()?).ok()
}

/// The names in an answer of XINFO GROUPS; none where there is no stream.
fn names(answer: Value) -> Result<Vec<Vec<u8>>, Fault> {
    let rows = match accept(answer) {
        Err(fault) if fault.to_string().contains("no such key") => return Ok(Vec::new()),
        rows => reply::items(rows?)?,
    };
    let mut names = Vec::new();
    for row in rows {
        for (field, value) in reply::pairs(row)? {
            if reply::text(field)? == "name" {
                names.push(reply::bytes(value)?.unwrap_or_default().to_vec());
            }
        }
    }
    Ok(names)
}

/// The newest sign of life among the values of a group's routes.
fn newest(values: Value) -> Result<Option<u64>, Fault> {
    let mut newest = None;
    for value in reply::items(values)? {
        // The epoch is a number, and no sign of life.
        let written: Option<Written> = serde_json::from_str(&reply::text(value)?).ok();
        newest = newest.max(written.map(|written| written.seen));
    }
    Ok(newest)
}

/// How many milliseconds ago the last of a group's consumers did something; nothing without a
/// consumer.
fn least_idle(answer: Value) -> Result<Option<u64>, Fault> {
    let rows = match accept(answer) {
        // The group went meanwhile.
        Err(fault) if fault.code() == "NOGROUP" => return Ok(None),
        rows => reply::items(rows?)?,
    };
    let mut least: Option<u64> = None;
    for row in rows {
        for (field, value) in reply::pairs(row)? {
            if reply::text(field)? == "idle" {
                let idle = reply::count(value)?;
                least = Some(least.map_or(idle, |least| least.min(idle)));
            }
        }
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_for_long_enough_holds_nothing() {
        let week = Duration::from_secs(7 * 24 * 60 * 60);
        let seen = Timestamp::from_millis(1_700_000_000_000);
        let gone = |last_seen, ago| {
            let standing = Standing { foreign: false, last_seen, now: seen.plus(ago) };
            standing.is_gone(week)
        };
        assert!(gone(Some(seen), week));
        assert!(!gone(Some(seen), week - Duration::from_millis(1)));
        assert!(!gone(None, week), "a group that nobody has read yet waits for its reader");
    }

    #[test]
    fn the_newest_sign_of_life_counts() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let values = ["{\"version\":1,\"seen\":5}", "7", "{\"version\":null,\"seen\":9}", "{}"];
        let values = Value::Array(values.map(text).to_vec());
        assert_eq!(newest(values).expect("read"), Some(9));
        assert_eq!(newest(Value::Array(vec![text("7")])).expect("read"), None);
    }
}
