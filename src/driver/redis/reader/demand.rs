//! What a reader does while nobody asks for events: it takes acks along.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::timeout;

use super::Reader;
use crate::driver::redis::ride;
use crate::driver::redis::socket::When;

/// How long acks wait for a read that is likely to come.
const RIDE_WAIT: Duration = Duration::from_millis(2);

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
            // Who settles mostly asks for more right then. Where all room is taken that waits for
            // these acks, and they are not held back for a read.
            yield_now().await;
            let asked = match self.member.demand.now() {
                // In vain once: not again before the next read.
                0 if std::mem::take(&mut self.has_room) => {
                    timeout(RIDE_WAIT, self.member.demand.wait()).await.ok()
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
