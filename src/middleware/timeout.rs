use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
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
pub(super) async fn limited(
    limit: Duration,
    handling: impl Future<Output = Result<(), HandlerError>>,
) -> Result<(), HandlerError> {
    let mut handling = pin!(handling);
    let mut alarm = pin!(None::<Sleep>);
    poll_fn(|cx| {
        if let Poll::Ready(result) = handling.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        if alarm.is_none() {
            alarm.set(Some(sleep(limit)));
        }
        let rings = alarm.as_mut().as_pin_mut().map_or(Poll::Pending, |alarm| alarm.poll(cx));
        let late = || HandlerError::retry(format!("handler took longer than {limit:?}"));
        rings.map(|()| Err(late()))
    })
    .await
}
