//! Gathering the evidence, first round: topics, logs, groups, routes, heartbeats, keys.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;
use serde::Deserialize;

use super::asking::Asking;
use super::evidence::{Declared, Evidence, Heartbeats, OnPartition, Route};
use super::{follow_up, keyspace, logs, pending};
use crate::delivery::Partition;
use crate::driver::GroupName;
use crate::driver::admin::{PARTITIONS_MAX, TopicLimits};
use crate::driver::redis::admin::{Look, facts};
use crate::driver::redis::fault::Fault;
use crate::driver::redis::{Shared, reply, topics, wire};
use crate::error::Error;
use crate::pattern::Pattern;

/// Partitions that are looked at, the first ones by name, and partitions of groups.
pub(super) const LOGS_MAX: usize = 2000;
pub(super) const PAIRS_MAX: usize = 2000;
/// Groups whose routes are read.
const GROUPS_MAX: usize = 1000;
/// The latest heartbeats that are looked at.
const HEARTBEATS_MAX: usize = 10_000;
/// A heartbeat that is so old is of a consumer that nobody cleared away.
const OLD_MS: u64 = 60 * 60 * 1000;

/// A route's value in the hash.
#[derive(Deserialize)]
struct Written {
    seen: u64,
}

impl Evidence {
    /// Looks at them. Fails only where the server cannot be reached or is not serving.
    pub(in crate::driver::redis::doctor) async fn gather(shared: &Shared) -> Result<Self, Error> {
        let mut asking = Asking::new(shared);
        let mut cut = Vec::new();
        let (now, declared) = declared(&mut asking).await?;
        let heartbeats = heartbeats(&mut asking, now).await?;
        let partitions = partitions(&declared, &mut cut);
        let mut partitions = logs::look(&mut asking, &declared, partitions).await?;
        pending::look(&mut asking, &mut partitions, &mut cut).await?;
        let keyspace = keyspace::look(&mut asking, &mut cut).await?;
        let names = names(shared, &partitions, &heartbeats, &keyspace, &mut cut);
        let routes = routes(&mut asking, names).await?;
        follow_up::look(&mut asking, &mut partitions, &mut cut).await?;
        let Asking { refused, unusable, .. } = asking;
        Ok(Self {
            keys: shared.keys.clone(),
            now,
            dead_letters_max: shared.dead_letters_max,
            group_kept: shared.retention.group_kept,
            topics: declared,
            partitions,
            routes,
            heartbeats,
            keyspace,
            unusable,
            refused,
            cut,
        })
    }
}

/// What time it is on the server, and what topics are written down.
async fn declared(asking: &mut Asking<'_>) -> Result<(u64, Vec<Declared>), Error> {
    let key = asking.shared.keys.topics();
    let time = Look::of(&key, redis::cmd("TIME"));
    let memory = Look::of(&key, redis::cmd("INFO"));
    let looks = [time, memory.arg("memory"), Look::new(&["HGETALL"], &key)];
    let mut answers = asking.look(&looks).await?.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    let now = asking.read("TIME", reply::time(next()));
    let memory = asking.read("INFO", reply::text(next()));
    let maxmemory = crate::driver::redis::retention::maxmemory(&memory);
    let mut all = Vec::new();
    for (name, json) in asking.read("HGETALL", reply::pairs(next())) {
        let (name, json) = (shown(name), shown(json));
        let topic: Result<crate::event_type::Topic, Error> = name.parse();
        let (limits, flaw) = match &topic {
            Ok(topic) => topics::limits(topic, &json),
            Err(_) => (TopicLimits::default(), None),
        };
        let flaw = flaw.or_else(|| limits.check().err().map(|error| error.to_string()));
        let shape = topic.and_then(|topic| topics::read(&topic, &json));
        let shape = shape.map_err(|error| error.to_string());
        let kept = asking.shared.retention.kept(&limits, maxmemory);
        all.push(Declared { name, shape, flaw, kept });
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok((now, all))
}

/// A string as far as it is text.
pub(super) fn shown(value: Value) -> String {
    let bytes = reply::bytes(value).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The partitions to look at.
fn partitions(declared: &[Declared], cut: &mut Vec<String>) -> Vec<Partition> {
    let shapes = declared.iter().filter_map(|topic| topic.shape.as_ref().ok());
    let counts = shapes.clone().map(|shape| u64::from(shape.partitions));
    let total: u64 = counts.sum();
    let of_one = PARTITIONS_MAX as usize;
    let all = shapes.flat_map(|shape| shape.partitions().take(of_one)).take(LOGS_MAX);
    let partitions: Vec<Partition> = all.collect();
    if total > u64::try_from(partitions.len()).unwrap_or(u64::MAX) {
        let looked = partitions.len();
        let last = partitions.last().map(Partition::to_string).unwrap_or_default();
        cut.push(format!("{looked} of {total} partitions, by name up to {last}"));
    }
    partitions
}

async fn heartbeats(asking: &mut Asking<'_>, now: u64) -> Result<Heartbeats, Error> {
    let key = asking.shared.keys.consumers();
    let latest = Look::new(&["ZREVRANGE"], &key).arg(0).arg(HEARTBEATS_MAX - 1).arg("WITHSCORES");
    let old = Look::new(&["ZCOUNT"], &key).arg("-inf").arg(now.saturating_sub(OLD_MS));
    let mut answers = asking.look(&[latest, old]).await?.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    let mut groups: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (name, heard) in asking.read("ZREVRANGE", facts::scores(next())) {
        if let Some((group, consumer)) = name.split_once(' ') {
            groups.entry(group.to_owned()).or_default().insert(consumer.to_owned(), heard);
        }
    }
    let old = asking.read("ZCOUNT", reply::count(next()));
    Ok(Heartbeats { groups, old })
}

/// The groups of which anything is known.
fn names(
    shared: &Shared,
    partitions: &[OnPartition],
    heartbeats: &Heartbeats,
    keyspace: &super::evidence::Keyspace,
    cut: &mut Vec<String>,
) -> BTreeSet<GroupName> {
    let on_logs = partitions.iter().flat_map(|on| &on.groups).map(|group| group.name.clone());
    let heard = heartbeats.groups.keys().cloned();
    let named = keyspace.keys.iter().filter_map(|key| shared.keys.parse(&key.name)?.group);
    let all = on_logs.chain(heard).chain(named).filter_map(|name| GroupName::new(name).ok());
    let mut all: BTreeSet<GroupName> = all.collect();
    if all.len() > GROUPS_MAX {
        cut.push(format!("the routes of {} groups beyond {GROUPS_MAX}", all.len() - GROUPS_MAX));
        all = all.into_iter().take(GROUPS_MAX).collect();
    }
    all
}

async fn routes(
    asking: &mut Asking<'_>,
    names: BTreeSet<GroupName>,
) -> Result<BTreeMap<String, Vec<Route>>, Error> {
    let look = |group| Look::new(&["HGETALL"], &asking.shared.keys.routes(group));
    let looks: Vec<Look> = names.iter().map(look).collect();
    let answers = asking.look(&looks).await?;
    let mut all = BTreeMap::new();
    for (group, answer) in names.into_iter().zip(answers) {
        let written: Result<Vec<(Value, Value)>, Fault> = reply::pairs(answer);
        let mut routes = Vec::new();
        for (pattern, value) in asking.read("HGETALL", written) {
            let (pattern, value) = (shown(pattern), shown(value));
            if pattern != wire::EPOCH {
                let parsed: Option<Pattern> = pattern.parse().ok();
                let written: Option<Written> = serde_json::from_str(&value).ok();
                let read = parsed.zip(written.map(|written| written.seen));
                routes.push(Route { pattern, read });
            }
        }
        if !routes.is_empty() {
            all.insert(group.as_str().to_owned(), routes);
        }
    }
    Ok(all)
}
