//! One consumer's deliveries.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::state::{Member, State};
use super::{Store, after};
use crate::delivery::Entry;
use crate::driver::{Source, Subscription};
use crate::error::Error;
use crate::pattern::Covered;

/// While it lives, the leases of what it handed out do not end: there is no connection over which
/// a renewal could fail. When it is dropped they run for one lease more, as after a crash.
pub(super) struct MemorySource {
    store: Arc<Store>,
    closed: CancellationToken,
    member: Member,
    topics: Covered,
    lease: Duration,
    /// The partitions it reads, as of this many in all.
    parts: Vec<usize>,
    parts_seen: usize,
    /// Where the next round begins, so that no partition is always last.
    turn: usize,
}

impl MemorySource {
    pub(super) fn new(
        store: Arc<Store>,
        driver_closed: &CancellationToken,
        member: Member,
        subscription: &Subscription,
    ) -> Self {
        Self {
            store,
            closed: driver_closed.child_token(),
            member,
            topics: Covered::by(subscription.routes.iter().map(|(pattern, _)| pattern)),
            lease: subscription.lease.lease,
            parts: Vec::new(),
            parts_seen: 0,
            turn: 0,
        }
    }

    /// Takes what there is, one entry per partition and round; else tells when to look again.
    fn take(&mut self, budget: usize, now: Instant) -> (Vec<Entry>, Option<Instant>) {
        let store = Arc::clone(&self.store);
        let mut state = store.state();
        state.advance(now);
        state.expire_routes(self.member.group, now);
        self.refresh(&state);
        let mut taken = Vec::new();
        let (mut events, mut empty) = (0, 0);
        while events < budget.max(1) && empty < self.parts.len() {
            let place = self.parts[self.turn % self.parts.len()];
            self.turn = self.turn.wrapping_add(1);
            match state.take(place, self.member, now) {
                Some(entry) => {
                    events += entry.records.len();
                    taken.push(entry);
                    empty = 0;
                }
                None => empty += 1,
            }
        }
        let next = if taken.is_empty() { self.next_instant(&state) } else { None };
        (taken, next)
    }

    fn refresh(&mut self, state: &State) {
        if self.parts_seen != state.part_count() {
            self.parts_seen = state.part_count();
            self.parts = state.parts_of(&self.topics);
        }
    }

    fn next_instant(&self, state: &State) -> Option<Instant> {
        let own = self.parts.iter();
        let own = own.filter_map(|part| state.next_instant(*part, self.member.group));
        own.chain(state.next_delayed()).min()
    }
}

/// Takes until there is something, whenever the store changes or the next moment comes that `take`
/// names; nothing once `closed`. Nothing is awaited between taking and returning: a call that is
/// dropped has taken nothing.
pub(super) async fn await_entries(
    store: &Store,
    closed: &CancellationToken,
    mut take: impl FnMut(Instant) -> (Vec<Entry>, Option<Instant>),
) -> Vec<Entry> {
    loop {
        let notified = store.changed.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if closed.is_cancelled() {
            return Vec::new();
        }
        let (entries, next) = take(Instant::now());
        if !entries.is_empty() {
            return entries;
        }
        match next {
            Some(next) => tokio::select! {
                biased;
                () = notified => {}
                () = sleep_until(next) => {}
            },
            None => notified.await,
        }
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn fetch(&mut self, budget: usize) -> Result<Vec<Entry>, Error> {
        let (store, closed) = (Arc::clone(&self.store), self.closed.clone());
        Ok(await_entries(&store, &closed, |now| self.take(budget, now)).await)
    }

    async fn close(&mut self) {
        self.closed.cancel();
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        let now = Instant::now();
        self.store.state().leave(self.member, after(now, self.lease), now);
        self.store.changed.notify_waiters();
    }
}
