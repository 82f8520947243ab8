//! The calls of one writer that are under way, and who waits for their answers.

use tokio::time::Instant;

use super::room::Held;
use super::tell::Tell;
use crate::error::PublishError;
use crate::event_id::EventId;

/// Who waits for the answer of an event.
pub(super) struct Asker {
    pub(super) id: EventId,
    pub(super) until: Instant,
    pub(super) tell: Tell,
}

/// One call: its events in their order, and how many of them each of its entries has.
pub(super) struct Flight {
    pub(super) askers: Vec<Asker>,
    pub(super) sizes: Vec<usize>,
    /// The room of its events, until the store has answered.
    pub(super) held: Held,
}

/// The calls under way, by number.
#[derive(Default)]
pub(super) struct Flights(Vec<Option<Flight>>);

impl Flights {
    pub(super) fn add(&mut self, flight: Flight) -> usize {
        let free = self.0.iter().position(Option::is_none);
        let number = free.unwrap_or(self.0.len());
        if free.is_none() {
            self.0.push(None);
        }
        self.0[number] = Some(flight);
        number
    }

    pub(super) fn remove(&mut self, number: usize) -> Flight {
        self.0[number].take().expect("a call lands once")
    }

    /// Tells those who waited until `now`; gives when the next is late.
    pub(super) fn tell_late(
        &mut self,
        now: Instant,
        error: impl Fn() -> PublishError,
    ) -> Option<Instant> {
        let mut earliest: Option<Instant> = None;
        let open = self.0.iter_mut().flatten().flat_map(|flight| &mut flight.askers);
        for asker in open.filter(|asker| !asker.tell.is_told()) {
            if asker.until <= now {
                asker.tell.tell(Err(error()));
            } else {
                earliest = Some(earliest.map_or(asker.until, |own| own.min(asker.until)));
            }
        }
        earliest
    }
}
