use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::{Middleware, Next};
use crate::error::HandlerError;
use crate::service::Context;

/// Calls a handler again at once, within its lease, where it says
/// [`HandlerError::retry_in_place`]: for what is over in milliseconds, such as a lost race for a
/// row.
///
/// What the failed try published is discarded. All tries together are one attempt; when the tries
/// or the time are spent, the error is an ordinary one and the event waits for its next attempt.
/// The key's later events wait meanwhile, so that their order stays. A drain waits for it, too.
///
/// ```
/// # async fn bus() -> Result<(), rumormill::Error> {
/// use rumormill::{Bus, middleware::RetryInPlace};
/// let bus = Bus::builder().with(RetryInPlace { tries_max: 5, ..RetryInPlace::default() });
/// # let _ = bus;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryInPlace {
    /// Tries in all, the first included. Default 3.
    pub tries_max: u32,
    /// No try begins later than this after the first. Default 1 s.
    pub within: Duration,
    /// The pause before the second try; it doubles with each further one. Default 10 ms.
    pub pause: Duration,
}

impl Default for RetryInPlace {
    fn default() -> Self {
        Self { tries_max: 3, within: Duration::from_secs(1), pause: Duration::from_millis(10) }
    }
}

impl RetryInPlace {
    /// How long after the failed try `tries` (from 1) the next one comes, if at all.
    fn next_pause(&self, tries: u32, spent: Duration) -> Option<Duration> {
        let factor = 2_u32.saturating_pow(tries.saturating_sub(1));
        let pause = self.pause.saturating_mul(factor);
        (tries < self.tries_max && spent.saturating_add(pause) <= self.within).then_some(pause)
    }
}

#[async_trait]
impl Middleware for RetryInPlace {
    fn name(&self) -> &'static str {
        "retry_in_place"
    }

    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
        let (begun, outputs) = (Instant::now(), ctx.output_count());
        let mut tries = 1;
        loop {
            let result = next.run(ctx).await;
            let Err(error) = &result else { return result };
            let pause = self.next_pause(tries, begun.elapsed());
            let Some(pause) = pause.filter(|_| error.is_in_place()) else { return result };
            tracing::debug!(%error, tries, "trying again in place");
            sleep(pause).await;
            if ctx.is_expired() {
                return result;
            }
            ctx.discard_outputs(outputs);
            tries += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_and_time_are_bounded() {
        let millis = Duration::from_millis;
        let policy = RetryInPlace { tries_max: 4, within: millis(100), pause: millis(10) };
        let pauses: Vec<_> = (1..=4).map(|n| policy.next_pause(n, Duration::ZERO)).collect();
        assert_eq!(pauses, [Some(millis(10)), Some(millis(20)), Some(millis(40)), None]);
        assert_eq!(policy.next_pause(1, millis(90)), Some(millis(10)));
        assert_eq!(policy.next_pause(1, millis(91)), None);
        let endless = RetryInPlace { tries_max: u32::MAX, ..policy };
        assert_eq!(endless.next_pause(u32::MAX - 1, Duration::ZERO), None);
    }
}
