//! Parked keys: whether what holds them is there, and since when something waits.

use std::collections::BTreeSet;

use redis::Value;

use super::{FIELDS_MAX, Place, keys, places};
use crate::delivery::EntryId;
use crate::driver::admin::STEP_MAX;
use crate::driver::redis::admin::Look;
use crate::driver::redis::doctor::bus::asking::Asking;
use crate::driver::redis::doctor::bus::evidence::{OnLog, OnPartition};
use crate::driver::redis::doctor::bus::gather::shown;
use crate::driver::redis::fault::Fault;
use crate::driver::redis::{reply, wire};
use crate::error::Error;

/// Groups on partitions whose dead letters are read for this.
const READ_MAX: usize = 20;

/// What was seen of one group on a partition.
#[derive(Default)]
struct Seen {
    orphans: BTreeSet<(String, String)>,
    oldest: Option<EntryId>,
}

/// Looks at groups that hold keys back. What holds one may move from stream to set and back
/// between two answers: an orphan is one that was seen twice.
pub(super) async fn look(
    asking: &mut Asking<'_>,
    partitions: &mut [OnPartition],
    cut: &mut Vec<String>,
) -> Result<(), Error> {
    let is_so = |_: &OnPartition, group: &OnLog| group.own.parking + group.own.parked > 0;
    for place in places(partitions, READ_MAX, cut, is_so) {
        let first = seen(asking, partitions, place).await?;
        let second = match first.orphans.is_empty() {
            true => Seen::default(),
            false => seen(asking, partitions, place).await?,
        };
        let found = &mut partitions[place.0].groups[place.1].own.found;
        found.orphans = first.orphans.intersection(&second.orphans).cloned().collect();
        found.parked = first.oldest;
    }
    Ok(())
}

async fn seen(
    asking: &mut Asking<'_>,
    partitions: &[OnPartition],
    place: Place,
) -> Result<Seen, Error> {
    let Some(keys) = keys(asking, partitions, place) else { return Ok(Seen::default()) };
    let looks = [
        Look::new(&["XLEN"], &keys.retry),
        Look::new(&["ZCARD"], &keys.due),
        Look::new(&["XRANGE"], &keys.dead).arg("-").arg("+").arg("COUNT").arg(STEP_MAX + 1),
        Look::new(&["HSCAN"], &keys.parking).arg(0).arg("COUNT").arg(FIELDS_MAX),
        Look::new(&["ZRANGE"], &keys.parked).arg(0).arg(FIELDS_MAX - 1),
    ];
    let mut answers = asking.look(&looks).await?.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    let retrying =
        asking.read("XLEN", reply::count(next())) + asking.read("ZCARD", reply::count(next()));
    let letters = asking.read("XRANGE", reply::entries(next()));
    let holders = asking.read("HSCAN", held(next()));
    let waiting = asking.read("ZRANGE", reply::items(next())).into_iter();
    let oldest = waiting.filter_map(|member| origin(&shown(member))).min();
    // What is redriven holds its key as well; and not all letters were read.
    if retrying > 0 || letters.len() > STEP_MAX {
        return Ok(Seen { orphans: BTreeSet::new(), oldest });
    }
    let parks = letters.into_iter().flat_map(|(_, fields)| fields.unwrap_or_default());
    let parks: BTreeSet<String> = parks
        .filter(|(name, _)| name == wire::PARKED)
        .map(|(_, place)| String::from_utf8_lossy(&place).into_owned())
        .collect();
    let orphans = holders.into_iter().filter(|(key, origin)| {
        let place = format!("{key}/{origin}");
        !parks.contains(&place)
    });
    Ok(Seen { orphans: orphans.collect(), oldest })
}

/// What holds each key: its hash, and an origin.
fn held(answer: Value) -> Result<Vec<(String, String)>, Fault> {
    let page = reply::items(answer)?.pop().unwrap_or_default();
    let mut found = Vec::new();
    for (key, origins) in reply::pairs(page)?.into_iter().take(FIELDS_MAX) {
        let key = shown(key);
        let origins = shown(origins);
        found.extend(origins.split_whitespace().map(|origin| (key.clone(), origin.to_owned())));
    }
    Ok(found)
}

/// When what waits was stored first: key's hash, `/`, padded id, `/`, index, `/`, record.
fn origin(member: &str) -> Option<EntryId> {
    let (millis, seq) = member.split('/').nth(1)?.split_once('-')?;
    Some(EntryId { millis: millis.parse().ok()?, seq: seq.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_what_waits_is_found_before_its_record() {
        let place = format!("{:032x}/{:020}-{:020}/{:010}", 7, 5, 6, 0);
        let id = EntryId { millis: 5, seq: 6 };
        assert_eq!(origin(&format!("{place}/\u{fffd}x-y/z")), Some(id));
        assert_eq!(origin("other"), None);
    }
}
