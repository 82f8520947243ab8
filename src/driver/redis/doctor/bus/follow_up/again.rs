//! Looking at a log again, where the first look makes it seem that something was lost: nothing
//! that was read at different moments may say so.

use super::places;
use crate::delivery::EntryId;
use crate::driver::redis::admin::Look;
use crate::driver::redis::doctor::bus::asking::Asking;
use crate::driver::redis::doctor::bus::evidence::{Log, OnLog, OnPartition};
use crate::driver::redis::doctor::bus::logs;
use crate::error::Error;

/// Groups on partitions that are looked at again.
const AGAIN_MAX: usize = 100;

/// Compares checkpoints and positions with the logs as they are now.
pub(super) async fn look(
    asking: &mut Asking<'_>,
    partitions: &mut [OnPartition],
    cut: &mut Vec<String>,
) -> Result<(), Error> {
    let is_so = |on: &OnPartition, group: &OnLog| {
        went_back(&on.log, group) || is_beyond(&on.log, group) || trimmed(&on.log, group) > 0
    };
    for (at, own) in places(partitions, AGAIN_MAX, cut, is_so) {
        let on = &partitions[at];
        let key = asking.shared.keys.log(&on.partition);
        let looks = [Look::new(&["XINFO", "GROUPS"], &key), Look::new(&["XINFO", "STREAM"], &key)];
        let mut answers = asking.look(&looks).await?.into_iter();
        let groups = asking.read("XINFO", logs::groups(answers.next().unwrap_or_default()));
        let log = logs::log(&on.partition, answers.next().unwrap_or_default());
        let log = asking.read("XINFO", log);
        let group = &partitions[at].groups[own];
        let (went_back, beyond) = (went_back(&log, group), is_beyond(&log, group));
        let again = groups.iter().find(|again| again.name == group.name);
        let stands = again.filter(|again| again.position == group.position);
        let trimmed = stands.map_or(0, |again| trimmed(&log, again));
        let found = &mut partitions[at].groups[own].own.found;
        (found.went_back, found.beyond, found.trimmed) = (went_back, beyond, trimmed);
    }
    Ok(())
}

/// The log's last id or its count of entries is less than what the group noted of it.
fn went_back(log: &Log, group: &OnLog) -> bool {
    let noted = &group.own.checkpoint;
    let last: Option<EntryId> = noted.get("last").and_then(|last| last.parse().ok());
    let added: Option<u64> = noted.get("added").and_then(|added| added.parse().ok());
    last.is_some_and(|last| last > log.last) || added.is_some_and(|added| added > log.added)
}

fn is_beyond(log: &Log, group: &OnLog) -> bool {
    let safe: Option<EntryId> = group.own.checkpoint.get("safe").and_then(|id| id.parse().ok());
    safe.is_some_and(|safe| safe > log.last) && !went_back(log, group)
}

/// Entries that went before the group read them, as `checkpoint.lua` counts them.
fn trimmed(log: &Log, group: &OnLog) -> u64 {
    let is_before = log.first_kept().is_none_or(|first| group.position < first);
    let due = if group.position >= log.last { log.added } else { log.added - log.length };
    match group.read {
        Some(read) if is_before || group.position >= log.last => due.saturating_sub(read),
        _ => 0,
    }
}
