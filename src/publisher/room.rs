//! Room for events without an answer, and the line of those who wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{AcquireError, MutexGuard, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::{PublishLimits, Publisher, closed};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, PublishError};

/// One permit per event that may be without an answer, and one per byte of them.
pub(super) struct Room {
    events: Semaphore,
    bytes: Semaphore,
}

impl Room {
    pub(super) fn new(limits: &PublishLimits) -> Arc<Self> {
        let events = Semaphore::new(limits.unconfirmed_max);
        Arc::new(Self { events, bytes: Semaphore::new(limits.unconfirmed_bytes_max) })
    }

    /// What was taken before and not given back: dropping it does that.
    pub(super) fn held(self: &Arc<Self>, events: usize, bytes: usize) -> Held {
        Held { room: Arc::clone(self), events, bytes }
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> (usize, usize) {
        (self.events.available_permits(), self.bytes.available_permits())
    }

    pub(super) fn close(&self) {
        self.events.close();
        self.bytes.close();
    }
}

/// Room of some events, given back all at once.
pub(super) struct Held {
    room: Arc<Room>,
    events: usize,
    bytes: usize,
}

impl Held {
    pub(super) fn add(&mut self, events: usize, bytes: usize) {
        self.events += events;
        self.bytes += bytes;
    }

    /// Somebody else answers for it now; gives the bytes.
    pub(super) fn hand_on(mut self) -> usize {
        self.events = 0;
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.events > 0 {
            self.room.events.add_permits(self.events);
        }
        if self.bytes > 0 {
            self.room.bytes.add_permits(self.bytes);
        }
    }
}

/// Who waits for room, one behind the other.
#[derive(Default)]
pub(super) struct Line {
    turn: tokio::sync::Mutex<()>,
    length: AtomicUsize,
}

impl Line {
    /// Who joins is counted at once, and until it leaves.
    fn join(&self) -> Counted<'_> {
        self.length.fetch_add(1, Ordering::AcqRel);
        Counted(self)
    }

    fn is_empty(&self) -> bool {
        self.length.load(Ordering::Acquire) == 0
    }
}

struct Counted<'a>(&'a Line);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.length.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The first place in line.
pub(super) struct First<'a> {
    // In this order: who is next finds the line as short as it is.
    _counted: Counted<'a>,
    _turn: MutexGuard<'a, ()>,
}

impl Publisher {
    /// A place in line, where there may be no room: the first encodes its event and waits for room,
    /// the others wait with nothing in their hands. Otherwise what waits would have no limit.
    pub(super) async fn line(&self, until: Instant) -> Result<Option<First<'_>>, PublishError> {
        if self.is_free() {
            return Ok(None);
        }
        self.join_line(until).await.map(Some)
    }

    /// Whether any event finds room, and nobody is in line: they are not overtaken, which would
    /// break the order of a key.
    pub(super) fn is_free(&self) -> bool {
        self.0.line.is_empty() && self.has_room()
    }

    /// Waits behind all who are in line.
    pub(super) async fn join_line(&self, until: Instant) -> Result<First<'_>, PublishError> {
        let counted = self.0.line.join();
        match timeout_at(until, self.0.line.turn.lock()).await {
            Ok(turn) => Ok(First { _counted: counted, _turn: turn }),
            Err(_) => Err(PublishError::NotStored(self.full())),
        }
    }

    /// Whether any event finds room.
    fn has_room(&self) -> bool {
        let PublishLimits { payload_bytes_max, unconfirmed_bytes_max, .. } = self.0.limits;
        self.0.room.events.available_permits() > 0
            && self.0.room.bytes.available_permits() >= payload_bytes_max.min(unconfirmed_bytes_max)
    }

    /// Waits for room. Both semaphores are fair: nobody overtakes who waits for more of it.
    pub(super) async fn permit(
        &self,
        envelope: &Envelope,
        until: Instant,
    ) -> Result<Held, PublishError> {
        let room = &self.0.room;
        if let Some(bytes) = self.try_room(envelope) {
            return Ok(room.held(1, bytes));
        }
        let bytes = self.room_for(envelope);
        let both = async {
            let event = room.events.acquire().await?;
            let enough = room.bytes.acquire_many(bytes).await?;
            event.forget();
            enough.forget();
            Ok::<_, AcquireError>(room.held(1, bytes as usize))
        };
        timeout_at(until, both)
            .await
            .map_err(|_| PublishError::NotStored(self.full()))?
            .map_err(|_| PublishError::NotStored(closed()))
    }

    /// Takes room that is there at once; gives its bytes. Who calls gives it back.
    pub(super) fn try_room(&self, envelope: &Envelope) -> Option<usize> {
        let (room, bytes) = (&self.0.room, self.room_for(envelope));
        let event = room.events.try_acquire().ok()?;
        room.bytes.try_acquire_many(bytes).ok()?.forget();
        event.forget();
        Some(bytes as usize)
    }

    /// Of the room for bytes, what an event takes.
    fn room_for(&self, envelope: &Envelope) -> u32 {
        let most = u32::try_from(self.0.limits.unconfirmed_bytes_max).unwrap_or(u32::MAX);
        u32::try_from(envelope.weight()).unwrap_or(u32::MAX).clamp(1, most)
    }

    fn full(&self) -> Error {
        let PublishLimits { unconfirmed_max, unconfirmed_bytes_max, deadline, .. } = self.0.limits;
        let text = format!(
            "published events had no answer for {deadline:?}, as many as may wait \
             ({unconfirmed_max}, or {unconfirmed_bytes_max} bytes)"
        );
        Error::new(ErrorKind::Timeout, text).with_help("publish more slowly, or find what is slow")
    }
}
