//! Becoming a consumer of a group, and the end from which deliveries come.

use std::collections::VecDeque;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Shared;
use super::connection::closed;
use super::coverage::{Begin, Coverage, cover, start_first};
use super::dead_cap::{self, DeadCap};
use super::flight::Flight;
use super::lease::Keeper;
use super::member::{Demand, Handed, Member};
use super::reader::average::Sizes;
use super::settle::RedisSettler;
use crate::delivery::Entry;
use crate::driver::{Feed, GroupRoutes, Source, Subscription, host_name};
use crate::error::Error;
use crate::pattern::Pattern;

/// Reads on their way to the source. Readers wait when it is full; they only read what the source
/// waits for.
const READS_MAX: usize = 8;

/// Makes the caller a consumer of the group.
pub(super) async fn subscribe(shared: &Arc<Shared>, wish: Subscription) -> Result<Feed, Error> {
    if shared.closing.is_cancelled() {
        return Err(closed(&format!("subscribe group {}", wish.group)));
    }
    wish.lease.check()?;
    if wish.routes.is_empty() {
        let text = format!("group {} subscribes to no pattern", wish.group);
        return Err(Error::invalid(text).with_help("name at least one pattern"));
    }
    for topic in wish.routes.iter().filter_map(|(pattern, _)| pattern.topic()) {
        shared.declare_topic(&topic).await?;
    }
    // What the group knew before tells an old topic that is new to it from one that appeared
    // since.
    let before = shared.load_routes(&wish.group).await?;
    let before: Vec<Pattern> = before.routes.into_iter().map(|(pattern, _)| pattern).collect();
    let start = wish.start;
    let member = Arc::new(member(shared, wish));
    let (out, entries) = mpsc::channel(READS_MAX);
    let source = RedisSource { member: Arc::clone(&member), entries, ahead: VecDeque::new() };
    // Groups come before routes: whoever finds the routes may rely on the groups.
    cover(&member, Begin::First { start, before: &before }, &out).await?;
    start_first(&member, &out).await;
    member.beat().await?;
    member.take_routes(shared.load_routes(&member.group).await?);
    // Before the first fetch can ask for anything.
    dead_cap::check(&member).await?;
    shared.enter(&member);
    shared.runtime.spawn(dead_cap::run(Arc::clone(&member)));
    shared.runtime.spawn(Keeper::new(Arc::clone(&member), out).run());
    Ok(Feed {
        source: Box::new(source),
        settler: Arc::new(RedisSettler { member: Arc::clone(&member) }),
        routes: Arc::clone(&member.routes),
        consumer: member.consumer.clone(),
    })
}

fn member(shared: &Arc<Shared>, wish: Subscription) -> Member {
    Member {
        consumer: consumer_name(wish.group.as_str()),
        shared: Arc::clone(shared),
        group: wish.group,
        own_routes: wish.routes,
        routes: Arc::new(GroupRoutes::default()),
        epoch: AtomicI64::new(0),
        lease: wish.lease,
        park_keys: wish.park_keys,
        flight: Flight::default(),
        sizes: Sizes::default(),
        demand: Demand::new(),
        dead_cap: DeadCap::default(),
        yields: Mutex::default(),
        claiming: tokio::sync::Mutex::new(()),
        settling: tokio::sync::RwLock::new(()),
        coverage: tokio::sync::Mutex::new(Coverage::default()),
        assigned: Mutex::new(Vec::new()),
        readers: TaskTracker::new(),
        closed: CancellationToken::new(),
        dropped: CancellationToken::new(),
    }
}

/// `GROUP.HOST.PID.RANDOM`: tells a person who it is, and is never used twice.
fn consumer_name(group: &str) -> String {
    let host = host_name();
    let host = if host.is_empty() { "host" } else { &host };
    format!("{group}.{host}.{}.{}", std::process::id(), uuid::Uuid::new_v4().simple())
}

/// The end from which deliveries come: a channel's receiver.
struct RedisSource {
    member: Arc<Member>,
    entries: mpsc::Receiver<Handed>,
    /// What was handed over beyond the budget.
    ahead: VecDeque<Entry>,
}

impl RedisSource {
    /// What is there, up to the budget; one entry at least, where there is any.
    fn take(&mut self, budget: usize) -> Result<Vec<Entry>, Error> {
        let (mut taken, mut events) = (Vec::new(), 0);
        while events < budget {
            match self.ahead.pop_front() {
                Some(entry) => {
                    // What was lost while it waited is somebody else's.
                    if entry.lease.is_cancelled() {
                        continue;
                    }
                    events += entry.records.len() - entry.settled.len();
                    taken.push(entry);
                }
                None => match self.entries.try_recv() {
                    Ok(Ok(entries)) => self.ahead.extend(entries),
                    Ok(Err(error)) if taken.is_empty() => return Err(error),
                    _ => break,
                },
            }
        }
        Ok(taken)
    }
}

#[async_trait]
impl Source for RedisSource {
    async fn fetch(&mut self, budget: usize) -> Result<Vec<Entry>, Error> {
        let budget = budget.max(1);
        let member = Arc::clone(&self.member);
        loop {
            let taken = self.take(budget)?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            let _wish = member.demand.raise(budget);
            match self.entries.recv().await {
                Some(handed) => self.ahead.extend(handed?),
                None => return Ok(Vec::new()),
            }
        }
    }

    async fn close(&mut self) {
        let member = Arc::clone(&self.member);
        let stopped = member.stop_reading();
        tokio::pin!(stopped);
        // A reader may be waiting for room.
        loop {
            tokio::select! {
                () = &mut stopped => return,
                Some(handed) = self.entries.recv() => self.ahead.extend(handed.unwrap_or_default()),
            }
        }
    }
}

impl Drop for RedisSource {
    fn drop(&mut self) {
        self.member.dropped.cancel();
        self.member.shared.farewell(&self.member);
    }
}
