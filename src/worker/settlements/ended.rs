//! How a delivery came to its end, on its way to the settler: small where it is a plain ack.

use tokio::sync::oneshot;

use crate::delivery::{Delivery, Outcome};
use crate::worker::suspects::Turn;

/// A delivery that ended.
pub(crate) struct Ended {
    pub(crate) delivery: Delivery,
    /// Nothing: it ended in a plain ack, as nearly all do.
    more: Option<Box<More>>,
}

pub(super) struct More {
    /// None: another instance holds it now.
    pub(super) outcome: Option<Outcome>,
    /// Of a suspect: no other runs until it is settled.
    pub(super) turn: Option<Turn>,
    /// Dropped when the settlement was answered.
    pub(super) stored: Option<oneshot::Sender<()>>,
}

impl Ended {
    /// No outcome: another instance holds it now.
    pub(crate) fn new(delivery: Delivery, outcome: Option<Outcome>) -> Self {
        let is_plain = outcome.as_ref().is_some_and(Outcome::is_plain_ack);
        let more = More { outcome, turn: None, stored: None };
        Self { delivery, more: (!is_plain).then(|| Box::new(more)) }
    }

    fn more(&mut self) -> &mut More {
        let ack = || More { outcome: Some(Outcome::ack()), turn: None, stored: None };
        self.more.get_or_insert_with(|| Box::new(ack()))
    }

    pub(in crate::worker) fn with(mut self, turn: Turn) -> Self {
        self.more().turn = Some(turn);
        self
    }

    /// Answers, with an error, when it is settled or will not be.
    pub(in crate::worker) fn wait(&mut self) -> oneshot::Receiver<()> {
        let (stored, waits) = oneshot::channel();
        self.more().stored = Some(stored);
        waits
    }

    pub(in crate::worker) fn is_dead_letter(&self) -> bool {
        let outcome = self.more.as_ref().and_then(|more| more.outcome.as_ref());
        matches!(outcome, Some(Outcome::DeadLetter { .. }))
    }

    pub(super) fn take_apart(self) -> (Delivery, Option<More>) {
        (self.delivery, self.more.map(|more| *more))
    }
}
