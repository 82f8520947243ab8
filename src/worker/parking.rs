//! Parked keys: in a group that parks them, each event with a key is asked about before it runs,
//! and nothing runs behind a dead letter of its key before that is stored.

use std::sync::Arc;
use std::time::Duration;

use super::channel::{Gone, Sender};
use super::settlements::Ended;
use crate::delivery::Delivery;
use crate::driver::Settler;
use crate::envelope::Envelope;

/// How long a store that did not answer is left alone.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// Whether a group parks keys, and who knows which.
#[derive(Clone)]
pub(crate) struct Parking(Option<Arc<dyn Settler>>);

impl Parking {
    pub(crate) fn new(park_keys: bool, settler: &Arc<dyn Settler>) -> Self {
        Self(park_keys.then(|| Arc::clone(settler)))
    }

    /// Whether events of the group have to be asked about, and ends to be waited for.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether an event has to wait behind a dead letter of its key. Asks until the store answers:
    /// an event that ran unasked could overtake one. Ends by itself only with an answer.
    pub(super) async fn holds(&self, delivery: &Delivery) -> bool {
        let Some(settler) = self.0.as_ref().filter(|_| has_key(delivery)) else { return false };
        let mut said = false;
        loop {
            match settler.is_parked(delivery).await {
                Ok(parked) => return parked,
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, "cannot ask whether a key is parked; trying again");
                    }
                    tokio::time::sleep(ASK_PAUSE).await;
                }
            }
        }
    }

    /// Sends the end of a delivery on its way. A dead letter that parks its key is waited for.
    pub(super) async fn send(&self, to: &Sender<Ended>, mut end: Ended) -> Result<(), Gone> {
        let parks = self.0.is_some() && end.is_dead_letter() && has_key(&end.delivery);
        if !parks {
            return to.send(end).await;
        }
        let stored = end.wait();
        to.send(end).await?;
        // It is dropped when the settlement was answered, or will not be.
        let _dropped = stored.await;
        Ok(())
    }
}

fn has_key(delivery: &Delivery) -> bool {
    delivery.envelope().and_then(Envelope::key).is_some()
}
