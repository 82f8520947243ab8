//! The way of an event into its queue: at once where there is room, else in its turn.

use std::sync::Arc;

use tokio::time::Instant;

use super::Publisher;
use super::queue::{Queue, Waiting};
use super::room::{First, Held};
use super::tell::Tell;
use super::topics::{Last, Turn};
use crate::envelope::Envelope;
use crate::error::PublishError;

/// What is known before an event is encoded.
pub(super) struct Known<'a> {
    pub(super) deduplicate: bool,
    pub(super) now: Instant,
    pub(super) last: &'a mut Last,
}

/// An event that could not be written at once, and who waits for its answer.
pub(super) struct Left<Encode> {
    state: State<Encode>,
    tell: Tell,
}

/// An event with its room and its queue.
struct Placed<'a> {
    envelope: Envelope,
    queue: Arc<Queue>,
    held: Held,
    /// Kept until it is in the queue.
    in_line: Option<First<'a>>,
}

pub(super) enum State<Encode> {
    ToEncode(Encode),
    /// With its queue, where that is known.
    Encoded(Envelope, Option<Arc<Queue>>),
    Refused(PublishError),
}

impl Publisher {
    /// Has an event written where nothing has to be waited for: there is room, nobody is in line
    /// for it, and its topic is known. Else gives back what there is.
    pub(super) fn enqueue_at_once<Encode>(
        &self,
        encode: Encode,
        known: Known<'_>,
        tell: Tell,
    ) -> Result<(), Left<Encode>>
    where
        Encode: FnOnce() -> Result<Envelope, PublishError>,
    {
        let Known { deduplicate, now, last } = known;
        if !self.is_free() {
            return Err(Left { state: State::ToEncode(encode), tell });
        }
        let envelope = match encode() {
            Ok(envelope) => envelope,
            Err(error) => return Err(Left { state: State::Refused(error), tell }),
        };
        let turn = if deduplicate { Turn::OfId } else { Turn::Next };
        let Some(queue) = self.known_queue(&envelope, turn, now, last) else {
            return Err(Left { state: State::Encoded(envelope, None), tell });
        };
        let Some(bytes) = self.try_room(&envelope) else {
            let queue = Arc::clone(queue);
            return Err(Left { state: State::Encoded(envelope, Some(queue)), tell });
        };
        let until = now + self.0.limits.deadline;
        queue.push(Waiting { envelope, deduplicate, until, tell, bytes }, &self.0);
        Ok(())
    }

    /// The same where something may have to be waited for. False where that was in vain, which is
    /// told.
    pub(super) async fn enqueue<Encode>(
        &self,
        left: Left<Encode>,
        deduplicate: bool,
        until: Instant,
    ) -> bool
    where
        Encode: FnOnce() -> Result<Envelope, PublishError>,
    {
        let Left { state, mut tell } = left;
        match self.wait_for_room(state, deduplicate, until).await {
            Ok(Placed { envelope, queue, held, in_line }) => {
                let bytes = held.hand_on();
                queue.push(Waiting { envelope, deduplicate, until, tell, bytes }, &self.0);
                drop(in_line);
                true
            }
            Err(error) => {
                tell.tell(Err(error));
                false
            }
        }
    }

    async fn wait_for_room<Encode>(
        &self,
        state: State<Encode>,
        deduplicate: bool,
        until: Instant,
    ) -> Result<Placed<'_>, PublishError>
    where
        Encode: FnOnce() -> Result<Envelope, PublishError>,
    {
        let turn = if deduplicate { Turn::OfId } else { Turn::Next };
        let (mut in_line, envelope, known) = match state {
            State::Refused(error) => return Err(error),
            State::Encoded(envelope, known) => (None, envelope, known),
            State::ToEncode(encode) => {
                let in_line = self.line(until).await?;
                let envelope = encode()?;
                let mut last = Last::default();
                let known = self.known_queue(&envelope, turn, Instant::now(), &mut last).cloned();
                (in_line, envelope, known)
            }
        };
        if in_line.is_none() && known.is_none() && !self.knows(&envelope) {
            // Who asks for a topic first must not be overtaken while the answer is on its way.
            in_line = Some(self.join_line(until).await?);
        }
        let held = match self.try_room(&envelope) {
            Some(bytes) => self.0.room.held(1, bytes),
            None => {
                if in_line.is_none() {
                    // Nor must who waits for room.
                    in_line = Some(self.join_line(until).await?);
                }
                self.permit(&envelope, until).await?
            }
        };
        let queue = match known {
            Some(queue) => queue,
            None => {
                let partition = self.partition_until(&envelope, deduplicate, until).await?;
                self.queue(&partition)
            }
        };
        Ok(Placed { envelope, queue, held, in_line })
    }
}
