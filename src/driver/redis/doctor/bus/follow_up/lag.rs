//! What the server says is unread, compared with what is.

use super::{Place, count, places};
use crate::delivery::EntryId;
use crate::driver::admin::STEP_MAX;
use crate::driver::redis::admin::Look;
use crate::driver::redis::doctor::bus::asking::Asking;
use crate::driver::redis::doctor::bus::evidence::{Log, OnLog, OnPartition};
use crate::driver::redis::doctor::bus::logs;
use crate::driver::redis::reply;
use crate::error::Error;

/// Groups on partitions whose unread entries are counted for this.
const COUNTED_MAX: usize = 50;

/// What must not have moved for two numbers to be of one moment.
fn place_of(log: &Log, group: &OnLog) -> (EntryId, u64, u64, EntryId, Option<u64>) {
    (log.last, log.added, log.length, group.position, group.lag)
}

/// Counts where the server gives a number that is not plainly right, and looks again whether
/// nothing moved meanwhile.
pub(super) async fn look(
    asking: &mut Asking<'_>,
    partitions: &mut [OnPartition],
    cut: &mut Vec<String>,
) -> Result<(), Error> {
    let is_so = |on: &OnPartition, group: &OnLog| match (group.lag, ends(&on.log, group.position)) {
        (None, _) => false,
        (Some(lag), Some(unread)) => lag != unread,
        // Beyond that there is no counting it in one step.
        (Some(lag), None) => lag < step() || on.log.length < step(),
    };
    let places = places(partitions, COUNTED_MAX, cut, is_so);
    let key = |(at, _): &Place| asking.shared.keys.log(&partitions[*at].partition);
    let calls: Vec<_> = places
        .iter()
        .map(|place| {
            let on = &partitions[place.0];
            count(key(place), on.groups[place.1].position, &"+", STEP_MAX)
        })
        .collect();
    let looks: Vec<Look> = places
        .iter()
        .map(key)
        .flat_map(|key| {
            [Look::new(&["XINFO", "GROUPS"], &key), Look::new(&["XINFO", "STREAM"], &key)]
        })
        .collect();
    let counts = asking.call(&calls, "of a log").await?;
    let mut answers = asking.look(&looks).await?.into_iter();
    for ((at, own), counted) in places.into_iter().zip(counts) {
        let on = &partitions[at];
        let groups = asking.read("XINFO", logs::groups(answers.next().unwrap_or_default()));
        let log = logs::log(&on.partition, answers.next().unwrap_or_default());
        let log = asking.read("XINFO", log);
        let counted = asking.read("EVALSHA", reply::items(counted)).into_iter().next();
        let counted = asking.read("EVALSHA", reply::count(counted.unwrap_or_default()));
        let group = &on.groups[own];
        let again = groups.iter().find(|again| again.name == group.name);
        let stands = again.is_some_and(|again| place_of(&log, again) == place_of(&on.log, group));
        let all = ends(&on.log, group.position);
        let unread = all.unwrap_or(counted);
        // A count that took the whole step is a lower bound.
        let is_bound = all.is_none() && counted >= step();
        if let (true, Some(lag)) = (stands, group.lag)
            && (lag < unread || lag > unread && !is_bound)
        {
            partitions[at].groups[own].own.found.lag = Some((lag, unread));
        }
    }
    Ok(())
}

fn step() -> u64 {
    u64::try_from(STEP_MAX).unwrap_or(u64::MAX)
}

/// What is unread where that needs no counting: before the first entry, or behind the last.
fn ends(log: &Log, position: EntryId) -> Option<u64> {
    match (log.first_kept(), log.last_kept()) {
        (Some(first), _) if position < first => Some(log.length),
        (Some(_), Some(last)) if position < last => None,
        _ => Some(0),
    }
}
