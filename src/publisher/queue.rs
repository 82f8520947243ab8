//! The events of one partition that wait to be written, and the task that writes them.
//!
//! Natural batching: a lone event goes at once; while `inflight_appends_max` appends are under
//! way, what arrives waits, and goes together when one of them is answered. No timer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot};

use super::{Permit, PublishLimits, Shared};
use crate::delivery::{Partition, Receipt};
use crate::driver::{Append, Driver};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, PublishError};

type Answer = oneshot::Sender<Result<Receipt, PublishError>>;

/// An event that waits, with who is to be told.
pub(super) struct Waiting {
    number: u64,
    envelope: Envelope,
    deduplicate: bool,
    asker: Asker,
}

struct Asker {
    answer: Answer,
    _permit: Permit,
}

impl Waiting {
    pub(super) fn new(
        envelope: Envelope,
        deduplicate: bool,
        answer: Answer,
        permit: Permit,
    ) -> Self {
        let asker = Asker { answer, _permit: permit };
        Self { number: 0, envelope, deduplicate, asker }
    }
}

pub(super) struct Queue {
    partition: Partition,
    state: Mutex<State>,
    /// Something was pushed while the writer runs.
    pushed: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    next_number: u64,
    /// A writer task runs. Set and cleared under the lock together with `waiting`, so a push
    /// either finds a writer that will look again or starts one.
    writing: bool,
}

/// A writer that is dropped before its end, with its runtime or in a panic, leaves room for the
/// next.
struct Writing<'a> {
    queue: &'a Queue,
    ended: bool,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.queue.state().writing = false;
        }
    }
}

impl Queue {
    pub(super) fn new(partition: Partition) -> Arc<Self> {
        Arc::new(Self { partition, state: Mutex::default(), pushed: Notify::new() })
    }

    /// Adds an event and sees to it that somebody writes; gives its number.
    pub(super) fn push(self: &Arc<Self>, mut waiting: Waiting, shared: &Arc<Shared>) -> u64 {
        let mut state = self.state();
        let number = state.next_number;
        state.next_number += 1;
        waiting.number = number;
        state.waiting.push_back(waiting);
        if std::mem::replace(&mut state.writing, true) {
            self.pushed.notify_one();
        } else {
            let (queue, shared) = (Arc::clone(self), Arc::clone(shared));
            let limits = shared.limits;
            let driver = Arc::clone(&shared.driver);
            shared.writers.spawn(async move { queue.write(&*driver, limits).await });
        }
        number
    }

    /// Takes an event back that was not sent yet.
    pub(super) fn withdraw(&self, number: u64) -> bool {
        let mut state = self.state();
        let at = state.waiting.iter().position(|waiting| waiting.number == number);
        at.and_then(|at| state.waiting.remove(at)).is_some()
    }

    /// Writes until nothing waits. Appends are first polled in the order in which they are made,
    /// which is the order in which the driver stores them.
    async fn write(&self, driver: &dyn Driver, limits: PublishLimits) {
        let mut writing = Writing { queue: self, ended: false };
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < limits.inflight_appends_max {
                let Some(batch) = self.take(&limits) else { break };
                under_way.push(self.append(driver, batch));
            }
            if under_way.is_empty() {
                if self.stop() {
                    writing.ended = true;
                    return;
                }
                continue;
            }
            tokio::select! {
                biased;
                _ = under_way.next() => {}
                () = self.pushed.notified(), if under_way.len() < limits.inflight_appends_max => {}
            }
        }
    }

    /// The next batch: the oldest event and what fits beside it. Events that are deduplicated go
    /// apart: their batches cost more.
    fn take(&self, limits: &PublishLimits) -> Option<Vec<Waiting>> {
        let mut state = self.state();
        let mut batch = vec![state.waiting.pop_front()?];
        let mut bytes = batch[0].envelope.weight();
        while batch.len() < limits.batch_events_max {
            let Some(next) = state.waiting.front() else { break };
            bytes += next.envelope.weight();
            if bytes > limits.batch_bytes_max || next.deduplicate != batch[0].deduplicate {
                break;
            }
            batch.extend(state.waiting.pop_front());
        }
        Some(batch)
    }

    fn stop(&self) -> bool {
        let mut state = self.state();
        debug_assert!(state.writing, "one writer at a time, and it is this one");
        let idle = state.waiting.is_empty();
        state.writing = !idle;
        idle
    }

    async fn append(&self, driver: &dyn Driver, batch: Vec<Waiting>) {
        let deduplicate = batch[0].deduplicate;
        let (envelopes, askers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.envelope, waiting.asker)).unzip();
        let ids: Vec<_> = envelopes.iter().map(Envelope::id).collect();
        let partition = self.partition.clone();
        let delay = std::time::Duration::ZERO;
        let append = Append { partition, envelopes, delay, deduplicate };
        let answer = driver.append(vec![append]).await.pop().unwrap_or_else(|| Err(no_answer()));
        for (index, (id, asker)) in ids.into_iter().zip(askers).enumerate() {
            let answer = match &answer {
                Ok(appended) => Ok(super::receipt(id, &self.partition, index, appended)),
                Err(error) => Err(repeat(error)),
            };
            // A caller that went away does not want to know.
            let _gone = asker.answer.send(answer);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same answer for each event of a batch.
fn repeat(error: &PublishError) -> PublishError {
    match error {
        PublishError::NotStored(error) => PublishError::NotStored(error.copy()),
        PublishError::Unknown(error) => PublishError::Unknown(error.copy()),
    }
}

/// For a driver that breaks its contract, or a runtime that was shut down under way.
pub(super) fn no_answer() -> PublishError {
    PublishError::Unknown(Error::new(ErrorKind::Closed, "the driver gave no answer"))
}
