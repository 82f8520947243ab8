//! Deduplicated appends: a mark per event id says for a window where the event lies.
//!
//! Marks and entry are written by one script, so such an append may be repeated at any time within
//! the window, and needs no look at the log. The script travels in full: a server that had lost it
//! would refuse this append while the next one of the partition is stored. Its text costs less
//! than a batch does.

use redis::Value;
use tokio::time::Instant;

use super::{Answer, Appending};
use crate::driver::redis::connection::Live;
use crate::driver::redis::fault::Fault;
use crate::driver::redis::script::{Call, DEDUP};
use crate::driver::redis::{reply, wire};
use crate::driver::{Appended, Placed};

/// What the script answers where the entry is there and a mark of it could not be written.
pub(super) const UNMARKED: &str = "UNMARKED";
pub(super) const TOO_LATE: &str = "its mark may be gone by now, so that it would be stored twice";

impl Appending<'_> {
    pub(super) fn deduplicated(&self, at: usize) -> Call {
        let append = &self.appends[at];
        let keys = &self.shared.keys;
        let marks = append.envelopes.iter().map(|event| keys.seen(&append.partition, event.id()));
        let keys = std::iter::once(keys.log(&append.partition)).chain(marks).collect();
        let mut call = Call::new(&DEDUP, keys);
        call.number(&self.shared.dedup_window.as_millis());
        call.arg(wire::BATCH).arg(wire::PUBLISHER).arg(self.name(at));
        call.number(&u8::from(self.sent.is_some()));
        for envelope in &append.envelopes {
            call.arg(wire::encode_batch([envelope]));
        }
        call
    }

    pub(super) fn read_deduplicated(&self, at: usize, value: Value, live: &Live) -> Answer {
        let places = read(value).map_err(|fault| self.fail(at, &fault))?;
        let entry = places.iter().find(|place| !place.repeated).map(|place| place.entry);
        // What is sent again may lie behind later ones that have no answer yet.
        if let Some(id) = entry.filter(|_| !self.again) {
            self.note(at, id, live);
        }
        Ok(Appended { entry, durability: live.durability, places })
    }

    /// Whether all marks of the first sending are there still when this one arrives.
    pub(super) fn is_marked(&self) -> bool {
        let latest = Instant::now() + self.shared.connector.patience();
        self.sent.is_none_or(|sent| latest - sent < self.shared.dedup_window)
    }
}

fn read(value: Value) -> Result<Vec<Placed>, Fault> {
    let mut items = reply::items(value)?.into_iter();
    let mut places = Vec::with_capacity(items.len() / 3);
    while let (Some(entry), Some(index), Some(repeated)) =
        (items.next(), items.next(), items.next())
    {
        places.push(Placed {
            entry: reply::id(entry)?,
            index: u32::try_from(reply::count(index)?).unwrap_or(u32::MAX),
            repeated: reply::count(repeated)? == 1,
        });
    }
    Ok(places)
}
