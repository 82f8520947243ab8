use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Sleep, sleep};

use super::{Middleware, Next};
use crate::error::HandlerError;
use crate::service::Context;

/// Drops a handler's future that takes too long; the event is retried. The time counts from where
/// it first waits for something: until then nobody could drop it.
#[derive(Clone, Copy, Debug)]
pub struct Timeout(Duration);

impl Timeout {
    /// Cancels after `limit`.
    pub const fn after(limit: Duration) -> Self {
        Self(limit)
    }
}

#[async_trait]
impl Middleware for Timeout {
    fn name(&self) -> &'static str {
        "timeout"
    }

    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
        limited(self.0, next.run(ctx)).await
    }
}

/// A handler that never waits costs no timer.
async fn limited(
    limit: Duration,
    handling: impl Future<Output = Result<(), HandlerError>>,
) -> Result<(), HandlerError> {
    let mut handling = pin!(handling);
    let mut ringing = pin!(None::<Alarm>);
    poll_fn(|cx| {
        if let Poll::Ready(result) = handling.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        if ringing.is_none() {
            ringing.set(Some(alarm(limit)));
        }
        let rings = ringing.as_mut().as_pin_mut().map_or(Poll::Pending, |alarm| alarm.poll(cx));
        rings.map(|()| Err(late(limit)))
    })
    .await
}

pub(super) type Alarm = Unconstrained<Sleep>;

/// Rings after `limit`. A handler that always uses up tokio's budget leaves none for it.
pub(super) fn alarm(limit: Duration) -> Alarm {
    unconstrained(sleep(limit))
}

pub(super) fn late(limit: Duration) -> HandlerError {
    HandlerError::retry(format!("handler took longer than {limit:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    /// What always uses up tokio's budget leaves none for a timer that asks for it.
    #[tokio::test]
    async fn a_handler_that_never_rests_is_cancelled() {
        let busy = async {
            loop {
                tokio::task::coop::consume_budget().await;
            }
        };
        let limited = limited(Duration::from_millis(20), busy);
        let ended = timeout(Duration::from_secs(60), limited).await.expect("it ends");
        assert!(ended.expect_err("cancelled").to_string().contains("longer than 20ms"));
    }
}
