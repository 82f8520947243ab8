//! The only reader: fetches what the lanes can take, and hands over what is left at the end.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::dispatcher::Dispatcher;
use super::in_flight::InFlight;
use super::switch::Switch;
use crate::delivery::{Entry, Outcome};
use crate::driver::Source;
use crate::trouble::Trouble;

/// How long a source that failed is left alone.
const FETCH_PAUSE: Duration = Duration::from_secs(1);
/// The same for one that is closed: somebody waits for the end of its drain.
const CLOSED_PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Consumer {
    pub(crate) source: Box<dyn Source>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) stop: Switch,
}

impl Consumer {
    /// Reads until `stop`; hands over what it still holds; keeps the source, and with it the
    /// leases, until `finished`.
    pub(crate) async fn run(self, finished: CancellationToken) {
        let Self { mut source, mut dispatcher, in_flight, stop } = self;
        let mut trouble = Trouble::default();
        while !stop.is_thrown() {
            dispatcher.fill();
            let budget = in_flight.budget();
            // A fetch that may bring much is not begun anew for every bit of room.
            let wants_more = in_flight.is_tight(budget) || dispatcher.is_full();
            let entries = tokio::select! {
                biased;
                () = stop.thrown() => break,
                entries = source.fetch(budget), if budget > 0 => entries,
                () = in_flight.freed.notified(), if wants_more => continue,
            };
            match entries {
                Ok(entries) if entries.is_empty() => break,
                Ok(entries) => {
                    if let Some(times) = trouble.over() {
                        tracing::info!("fetching again{times}");
                    }
                    let is_few = is_few(&entries);
                    dispatcher.dispatch(entries).await;
                    if is_few {
                        // What ends at once is settled in the same write as the next read.
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => pause(&stop, &error, &mut trouble).await,
            }
        }
        source.close().await;
        hand_over(&mut *source, dispatcher).await;
        finished.cancelled().await;
        drop(source);
    }
}

/// So few events that the store does less for them than for a read of its own for their acks. While
/// more are handled the next are read.
const FEW: usize = 128;

fn is_few(entries: &[Entry]) -> bool {
    entries.iter().map(|entry| entry.records.len()).sum::<usize>() < FEW
}

async fn pause(stop: &Switch, error: &crate::Error, trouble: &mut Trouble) {
    if let Some(times) = trouble.failed() {
        tracing::error!(%error, "cannot fetch; trying again every {FETCH_PAUSE:?}{times}");
    }
    tokio::select! {
        biased;
        () = stop.thrown() => {}
        () = tokio::time::sleep(FETCH_PAUSE) => {}
    }
}

/// Gives what was read and not placed to the other instances, and lets the lanes end.
async fn hand_over(source: &mut dyn Source, mut dispatcher: Dispatcher) {
    dispatcher.hand_over_waiting().await;
    loop {
        let entries = match source.fetch(1).await {
            Ok(entries) if entries.is_empty() => return,
            Ok(entries) => entries,
            // Behind it there may be entries, or the end.
            Err(_) => {
                tokio::time::sleep(CLOSED_PAUSE).await;
                continue;
            }
        };
        for entry in entries.into_iter().map(Arc::new) {
            for delivery in entry.deliveries() {
                dispatcher.take(&delivery);
                dispatcher.hand_over(delivery, Outcome::Split { after: Duration::ZERO }).await;
            }
        }
    }
}
