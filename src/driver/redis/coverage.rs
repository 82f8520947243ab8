//! Which partitions a subscription reads, and how new ones are taken up.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use super::groups;
use super::member::{Member, Out};
use super::reader::Reader;
use super::ride::Rides;
use super::topics::partitions_of;
use crate::delivery::{Partition, Start};
use crate::error::Error;
use crate::pattern::Pattern;

/// Partitions per reader: with a log and a retry stream each, 32 streams. A blocked wake costs
/// Redis more with every stream of the reader.
pub(super) const PARTITIONS_PER_READER: usize = 16;

/// What is read, and by whom.
#[derive(Default)]
pub(super) struct Coverage {
    known: BTreeSet<Partition>,
}

/// What others know of a reader.
#[derive(Default)]
pub(super) struct Assigned {
    partitions: Mutex<Vec<Partition>>,
    /// The id of its connection, else 0.
    pub(super) client: AtomicI64,
    /// The acks that its next write may carry.
    pub(super) rides: Rides,
}

impl Assigned {
    /// The partitions.
    pub(super) fn list(&self) -> Vec<Partition> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it reads this partition.
    pub(super) fn has(&self, partition: &Partition) -> bool {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).contains(partition)
    }

    fn take(&self, partition: &Partition) -> bool {
        let mut list = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let room = list.len() < PARTITIONS_PER_READER;
        if room {
            list.push(partition.clone());
        }
        room
    }
}

/// Where groups begin that do not exist yet.
pub(super) enum Begin<'a> {
    /// At the start that the subscription asks for, where the group did not know the topic.
    First { start: Start, before: &'a [Pattern] },
    /// With the first entry: the topic appeared after the group.
    Earliest,
}

impl Begin<'_> {
    fn start(&self, partition: &Partition) -> Start {
        match self {
            Self::First { start, before } => {
                let known = before.iter().any(|pattern| pattern.covers_topic(&partition.topic));
                if known { Start::Earliest } else { *start }
            }
            Self::Earliest => Start::Earliest,
        }
    }
}

/// Makes the groups on all partitions that match and are not read yet, and reads them.
pub(super) async fn cover(member: &Arc<Member>, begin: Begin<'_>, out: &Out) -> Result<(), Error> {
    let mut coverage = member.coverage.lock().await;
    let shapes = member.shared.load_topics().await?;
    let matches = |partition: &Partition| {
        member.own_routes.iter().any(|(pattern, _)| pattern.covers_topic(&partition.topic))
    };
    let partitions = partitions_of(&shapes);
    let fresh: Vec<Partition> = partitions
        .filter(|partition| matches(partition) && !coverage.known.contains(partition))
        .collect();
    if fresh.is_empty() {
        return Ok(());
    }
    let starts: Vec<(Partition, Start)> =
        fresh.iter().map(|partition| (partition.clone(), begin.start(partition))).collect();
    let refused = groups::create(member, &starts).await?;
    if let (Begin::First { .. }, Some((partition, fault))) = (&begin, refused.first()) {
        return Err(groups::refusal(member, partition, fault));
    }
    // One that cannot be read does not keep the others from being read. It is tried again.
    refused.iter().for_each(|(partition, fault)| member.find_unusable(partition, fault));
    let is_refused = |own: &Partition| refused.iter().any(|(partition, _)| partition == own);
    for partition in fresh.into_iter().filter(|own| !is_refused(own)) {
        member.shared.schedule.watch_group(&member.shared.keys, &partition, &member.group);
        assign(member, &partition, out);
        coverage.known.insert(partition);
    }
    Ok(())
}

fn assign(member: &Arc<Member>, partition: &Partition, out: &Out) {
    if member.lines().iter().any(|reader| reader.take(partition)) {
        return;
    }
    let assigned = Arc::new(Assigned::default());
    assigned.take(partition);
    start_reader(member, assigned, out);
}

/// A subscription that matches nothing yet has a reader as well: it looks for topics.
pub(super) async fn start_first(member: &Arc<Member>, out: &Out) {
    let _alone = member.coverage.lock().await;
    if member.lines().is_empty() {
        start_reader(member, Arc::default(), out);
    }
}

fn start_reader(member: &Arc<Member>, assigned: Arc<Assigned>, out: &Out) {
    if member.closed.is_cancelled() {
        return;
    }
    member.lines().push(Arc::clone(&assigned));
    let reader = Reader::new(Arc::clone(member), assigned, out.clone());
    member.shared.runtime.spawn(member.readers.track_future(reader.run()));
}

impl Coverage {
    /// All partitions that are read.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        self.known.iter().cloned().collect()
    }
}
