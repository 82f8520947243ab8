//! Suspects (rule 7): events that were there each time a process died. One at a time runs, after
//! a note that it is running: the note that others find is the proof.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lane::{Kept, LaneShared};
use super::settlements::Ended;
use super::verdict::at;
use crate::delivery::{Cause, Delivery, Failure, Outcome};
use crate::driver::Settler;
use crate::service::{Handler, Route};

/// A suspect that was found running so often is what kills its process.
const FOUND_MAX: u32 = 3;
/// How long a store that did not take a note is left alone.
const BEGIN_PAUSE: Duration = Duration::from_millis(200);

/// The right to run a suspect, held until it is settled: the note of an innocent one must be gone
/// before the next begins.
pub(crate) type Turn = OwnedSemaphorePermit;

/// What it takes to run suspects.
pub(crate) struct Suspects {
    settler: Arc<dyn Settler>,
    turns: Arc<Semaphore>,
}

impl Suspects {
    pub(crate) fn new(settler: Arc<dyn Settler>, turns: Arc<Semaphore>) -> Self {
        Self { settler, turns }
    }

    /// Notes that it runs, again until the store answers: an event that runs without a note could
    /// kill its process for ever.
    async fn begin(&self, delivery: &Delivery) -> Option<u32> {
        let mut said = false;
        loop {
            match self.settler.begin(delivery).await {
                Ok(found) => return found,
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, "cannot note that a suspect runs; trying again");
                    }
                    tokio::time::sleep(BEGIN_PAUSE).await;
                }
            }
        }
    }
}

impl LaneShared {
    /// Runs a suspect when its turn comes, or ends it.
    pub(super) async fn suspect(&self, delivery: Delivery, route: &Arc<Route>) -> Ended {
        let Some((turn, found)) = self.turn(&delivery).await else {
            // It is draining, or the lease is lost: `before` says how it ends.
            let outcome = self.before(&delivery).unwrap_or(None);
            return Ended::new(delivery, outcome);
        };
        if found >= FOUND_MAX {
            let outcome = Outcome::DeadLetter { failure: crashed(found) };
            let outcome = Some(at(outcome, &route.pattern));
            return Ended::new(delivery, outcome).with(turn);
        }
        self.alone(delivery, route).await.with(turn)
    }

    /// Waits for its turn and notes that it runs; `None` where it is not to be run here.
    async fn turn(&self, delivery: &Delivery) -> Option<(Turn, u32)> {
        let turn = async {
            let turn = Arc::clone(&self.suspects.turns).acquire_owned().await.ok()?;
            Some((turn, self.suspects.begin(delivery).await?))
        };
        tokio::select! {
            biased;
            () = self.stop.thrown() => None,
            () = delivery.entry.lease.cancelled() => None,
            turn = turn => turn,
        }
    }

    async fn alone(&self, delivery: Delivery, route: &Arc<Route>) -> Ended {
        match &route.handler {
            Handler::Single(endpoint) => {
                self.single(delivery, route, &**endpoint, &mut Kept::default()).await
            }
            Handler::Batch(endpoint, options) => {
                let ended = self.batch(vec![delivery], route, endpoint, *options).await;
                ended.into_iter().next().expect("as many ends as events")
            }
        }
    }
}

fn crashed(found: u32) -> Failure {
    let text = format!(
        "it kills its process: those who took it over found it running {found} times, alone"
    );
    Failure::new(Cause::Crashed, text)
}
