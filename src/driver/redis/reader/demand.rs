//! What a reader does while nobody asks for events: it takes acks along.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::Reader;
use crate::driver::redis::ride;
use crate::driver::redis::socket::When;

/// How long acks wait for a read that is likely to come.
const RIDE_WAIT: Duration = Duration::from_millis(2);
/// After they have waited in vain they do not for so long: it costs a fiftieth of the time at most.
const VAIN_PAUSE: Duration = Duration::from_millis(100);

/// Whether the next read is likely to be asked for at once: while much room is left.
#[derive(Default)]
pub(super) struct Next {
    /// Most events that were asked for lately: all the room that there is.
    most: usize,
    is_near: bool,
    /// When acks waited for it in vain last.
    vain: Option<Instant>,
}

impl Next {
    /// After a read that brought so many events of those that were asked for.
    pub(super) fn follows(&mut self, events: usize, budget: usize) {
        // How much room there is follows the handlers and the entries.
        self.most = budget.max(self.most - self.most / 16);
        self.is_near = budget.saturating_sub(events) >= self.most / 2;
    }

    fn is_near(&self) -> bool {
        self.is_near && self.vain.is_none_or(|at| at.elapsed() >= VAIN_PAUSE)
    }
}

impl Reader {
    /// Waits until events are asked for. Acks may board meanwhile; they leave with the next read,
    /// where it comes at once.
    pub(super) async fn demand(&mut self) -> usize {
        loop {
            if self.connection.is_some() {
                self.assigned.rides.open();
            }
            tokio::select! {
                biased;
                budget = self.member.demand.wait() => return budget,
                () = self.assigned.rides.boarded() => {}
            }
            // Who settles mostly asks for more right then. But who has no room left asks once
            // these acks are answered: then they go without a read.
            yield_now().await;
            let asked = match self.member.demand.now() {
                0 if self.next.is_near() => {
                    let asked = timeout(RIDE_WAIT, self.member.demand.wait()).await.ok();
                    if asked.is_none() {
                        self.next.vain = Some(Instant::now());
                    }
                    asked
                }
                0 => None,
                budget => Some(budget),
            };
            match asked {
                None => self.send_rides().await,
                Some(budget) => return budget,
            }
        }
    }

    pub(super) async fn send_rides(&self) {
        let rides = self.assigned.rides.depart();
        if let Some(connection) = &self.connection {
            ride::deliver(connection, rides, When::Now).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_next_read_is_near_while_half_of_all_room_is_left() {
        let mut next = Next::default();
        assert!(!next.is_near(), "nothing was read");
        next.follows(1, 1_000);
        assert!(next.is_near());
        next.follows(501, 1_000);
        assert!(!next.is_near());
        next.follows(1, 400);
        assert!(!next.is_near(), "most of the room is taken");
        (0..32).for_each(|_| next.follows(1, 400));
        assert!(next.is_near(), "there is no more room than that");
        next.follows(1, 1_000);
        next.follows(100, 900);
        assert!(next.is_near());
        next.vain = Some(Instant::now());
        assert!(!next.is_near(), "it was waited for in vain");
        tokio::time::advance(VAIN_PAUSE).await;
        assert!(next.is_near());
    }
}
