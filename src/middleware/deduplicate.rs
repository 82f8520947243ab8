use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Middleware, Next};
use crate::error::HandlerError;
use crate::event_id::EventId;
use crate::service::{Context, Skip};

/// Acknowledges an event without its handler where this process handled one of the same id in the
/// same group a short while ago; counted in [`Bus::counts`](crate::Bus::counts).
///
/// It spares work, it does not promise "exactly once", for which there is
/// [`Idempotent`](super::Idempotent): the memory is this process' own, ends with it, and knows
/// nothing of the other instances. Two events of one id that run at the same time, in two lanes,
/// both run. An event is remembered once its handler succeeded, and only where the handler
/// published nothing through its context: outputs go out with the end of the delivery, and where
/// that end is lost, only a repeat brings them.
pub struct Deduplicate {
    window: Duration,
    entries_max: usize,
    /// By group: each group handles its own copy of an event.
    groups: Mutex<HashMap<String, Seen>>,
}

impl Deduplicate {
    /// Remembers for `window`, and at most `entries_max` events per group: beyond it the oldest is
    /// forgotten first. An entry takes about 80 bytes.
    pub fn new(window: Duration, entries_max: usize) -> Self {
        Self { window, entries_max, groups: Mutex::default() }
    }

    fn is_seen(&self, ctx: &Context) -> bool {
        let mut groups = self.groups();
        let Some(seen) = groups.get_mut(ctx.group()) else { return false };
        seen.forget(Instant::now(), self.window);
        seen.ids.contains(&ctx.envelope().id())
    }

    fn remember(&self, ctx: &Context) {
        let mut groups = self.groups();
        let seen = groups.entry(ctx.group().to_owned()).or_default();
        seen.remember(ctx.envelope().id(), Instant::now(), self.entries_max);
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Middleware for Deduplicate {
    fn name(&self) -> &'static str {
        "deduplicate"
    }

    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
        if self.is_seen(ctx) {
            tracing::debug!(id = %ctx.envelope().id(), group = ctx.group(), "handled before");
            ctx.skip(Skip::Duplicate);
            return Ok(());
        }
        let result = next.run(ctx).await;
        if result.is_ok() && ctx.output_count() == 0 {
            self.remember(ctx);
        }
        result
    }
}

impl fmt::Debug for Deduplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deduplicate")
            .field("window", &self.window)
            .field("entries_max", &self.entries_max)
            .finish_non_exhaustive()
    }
}

/// Ids in the order they came.
#[derive(Default)]
struct Seen {
    ids: HashSet<EventId>,
    order: VecDeque<(Instant, EventId)>,
}

impl Seen {
    fn remember(&mut self, id: EventId, now: Instant, entries_max: usize) {
        if !self.ids.insert(id) {
            return;
        }
        self.order.push_back((now, id));
        while self.order.len() > entries_max {
            self.forget_oldest();
        }
    }

    fn forget(&mut self, now: Instant, window: Duration) {
        while self.order.front().is_some_and(|(at, _)| now.duration_since(*at) >= window) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.ids.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(seed: u8) -> EventId {
        EventId::derived(&[seed])
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_forgets_the_oldest_first() {
        let (mut seen, window) = (Seen::default(), Duration::from_secs(10));
        seen.remember(id(1), Instant::now(), 100);
        tokio::time::advance(window / 2).await;
        seen.remember(id(2), Instant::now(), 100);
        tokio::time::advance(window / 2).await;
        seen.forget(Instant::now(), window);
        assert_eq!(seen.ids.iter().copied().collect::<Vec<_>>(), [id(2)]);
    }

    proptest! {
        /// What is remembered are the last distinct ids that came, and never more than the limit.
        #[test]
        fn the_limit_forgets_the_oldest_first(
            seeds in proptest::collection::vec(0..20_u8, 0..200),
            entries_max in 0..10_usize,
        ) {
            let (mut seen, now) = (Seen::default(), Instant::now());
            let mut model: Vec<EventId> = Vec::new();
            for seed in seeds {
                seen.remember(id(seed), now, entries_max);
                if !model.contains(&id(seed)) {
                    model.push(id(seed));
                }
                model.drain(..model.len().saturating_sub(entries_max));
                prop_assert_eq!(seen.order.len(), seen.ids.len());
                prop_assert!(model.iter().all(|id| seen.ids.contains(id)));
                prop_assert_eq!(model.len(), seen.ids.len());
            }
        }
    }
}
