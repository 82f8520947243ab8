//! Reading the logs without a group: what a broadcast is made of. It writes nothing: no group, no
//! routes, no heartbeat, no topic; and it moves no delayed event, which who publishes does.
//!
//! The places are concrete ids from the first read on (`$` would lose what comes between two
//! reads), and they are kept here alone.

mod places;
mod reader;

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use redis::Pipeline;
use tokio::sync::mpsc;

use self::places::Places;
use self::reader::{FollowReader, Following};
use super::Shared;
use super::connection::closed;
use super::member::{Demand, Handed};
use super::tools::extent;
use super::topics::partitions_of;
use crate::delivery::{Entry, Partition};
use crate::driver::{Followed, GroupName, Missed, Source};
use crate::error::Error;
use crate::pattern::Pattern;

/// Reads on their way to the source. The reader reads only what the source waits for.
const READS_MAX: usize = 2;
/// Partitions per pipeline.
const PARTITIONS_MAX: usize = 50;

/// Finds the end of every log that matches, and follows them from there.
pub(super) async fn follow(
    shared: &Arc<Shared>,
    name: &GroupName,
    patterns: &[Pattern],
) -> Result<Followed, Error> {
    if shared.closing.is_cancelled() {
        return Err(closed(&format!("subscribe broadcast {name}")));
    }
    let places = anchor(shared, name, patterns).await?;
    let anchors = places.list();
    let missed = Missed::default();
    let following = Arc::new(Following {
        shared: Arc::clone(shared),
        name: name.clone(),
        patterns: patterns.to_vec(),
        demand: Demand::new(),
        missed: missed.clone(),
        closed: shared.closing.child_token(),
    });
    let (out, entries) = mpsc::channel(READS_MAX);
    // The source is there first: where this call is dropped, the reader ends with it.
    let source =
        FollowSource { following: Arc::clone(&following), entries, ahead: VecDeque::new() };
    shared.runtime.spawn(FollowReader::new(following, places, out).run());
    Ok(Followed { source: Box::new(source), anchors, missed })
}

/// What appears after the topics were read is read from its beginning: the ends of all others are
/// asked for later, so nothing falls between.
async fn anchor(shared: &Shared, name: &GroupName, patterns: &[Pattern]) -> Result<Places, Error> {
    let what = format!("find where broadcast {name} begins");
    let shapes = shared.load_topics().await?;
    let matching: Vec<Partition> =
        partitions_of(&shapes).filter(|partition| covers(patterns, partition)).collect();
    let mut places = Places::default();
    for partitions in matching.chunks(PARTITIONS_MAX) {
        let mut pipeline = Pipeline::new();
        for partition in partitions {
            pipeline.cmd("XINFO").arg("STREAM").arg(shared.keys.log(partition));
        }
        let answers = shared.commands.ask(&what, &pipeline).await?;
        for (partition, answer) in partitions.iter().zip(answers) {
            let extent = extent(answer);
            let extent = extent.map_err(|fault| shared.commands.error(&what, &fault))?;
            places.anchor(partition, extent);
        }
    }
    Ok(places)
}

fn covers(patterns: &[Pattern], partition: &Partition) -> bool {
    patterns.iter().any(|pattern| pattern.covers_topic(&partition.topic))
}

/// The end from which entries come: a channel's receiver.
struct FollowSource {
    following: Arc<Following>,
    entries: mpsc::Receiver<Handed>,
    /// What was handed over beyond the budget.
    ahead: VecDeque<Entry>,
}

impl FollowSource {
    fn take(&mut self, budget: usize) -> Vec<Entry> {
        let (mut taken, mut events) = (Vec::new(), 0);
        while events < budget
            && let Some(entry) = self.ahead.pop_front()
        {
            events += entry.records.len();
            taken.push(entry);
        }
        taken
    }
}

#[async_trait]
impl Source for FollowSource {
    async fn fetch(&mut self, budget: usize) -> Result<Vec<Entry>, Error> {
        let budget = budget.max(1);
        let following = Arc::clone(&self.following);
        loop {
            let taken = self.take(budget);
            if !taken.is_empty() {
                return Ok(taken);
            }
            let _wish = following.demand.raise(budget);
            match self.entries.recv().await {
                Some(handed) => self.ahead.extend(handed?),
                None => return Ok(Vec::new()),
            }
        }
    }

    async fn close(&mut self) {
        self.following.closed.cancel();
    }
}

impl Drop for FollowSource {
    fn drop(&mut self) {
        self.following.closed.cancel();
    }
}
