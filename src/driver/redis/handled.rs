//! Which events a group has handled, by their ids: marks that `settle.lua` sets with the end of a
//! delivery.
//!
//! A group has one sorted set of them per partition, by when they end. A string per event would
//! take a third more bytes (166 against 125), and be a key of the script each: so it is one, and
//! one command looks up a whole entry. A settlement that adds a mark removes up to two that have
//! ended, and sets the key's own expiry, so the marks of a group that is gone go with the last
//! window. What holds a mark is the partition of the event's first place, where its retries are as
//! well: the mark and the end of the delivery are one step on one slot.

use redis::Pipeline;

use super::fault::Fault;
use super::member::Member;
use super::reply;
use crate::delivery::{Bits, Entry};
use crate::error::Error;

/// Most ids of one command.
const IDS_MAX: usize = 1000;

/// Looks the unsettled events of an entry up, in one round trip.
pub(super) async fn look(member: &Member, entry: &Entry) -> Result<Bits, Error> {
    let commands = &member.shared.commands;
    let key = member.keys(&entry.partition).handled;
    let asked = unsettled(entry);
    let mut pipeline = Pipeline::new();
    pipeline.cmd("TIME");
    for some in asked.chunks(IDS_MAX) {
        pipeline.cmd("ZMSCORE").arg(&key);
        for (_, id) in some {
            pipeline.arg(&id[..]);
        }
    }
    let what = format!("ask what group {} has handled in key {key}", member.group);
    let mut answers = commands.ask(&what, &pipeline).await?.into_iter();
    let refuse = |fault| commands.error(&what, &fault);
    let now = reply::time(answers.next().unwrap_or_default()).map_err(refuse)?;
    let mut ends = Vec::with_capacity(asked.len());
    for answer in answers {
        ends.extend(reply::items(answer).map_err(refuse)?);
    }
    if ends.len() != asked.len() {
        let text = format!("{} answers to {} questions", ends.len(), asked.len());
        return Err(refuse(Fault::Odd(text)));
    }
    let mut handled = Bits::new();
    for ((index, _), end) in asked.into_iter().zip(ends) {
        if reply::score(end).map_err(refuse)?.is_some_and(|end| end > now) {
            handled.insert(index);
        }
    }
    Ok(handled)
}

fn unsettled(entry: &Entry) -> Vec<(u32, [u8; 16])> {
    let events = (0..).zip(&*entry.records).filter(|(index, _)| !entry.settled.contains(*index));
    events
        .filter_map(|(index, record)| Some((index, *record.as_ref().ok()?.id().as_bytes())))
        .collect()
}
