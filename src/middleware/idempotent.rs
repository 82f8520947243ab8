use std::time::Duration;

use async_trait::async_trait;

use super::{Middleware, Next};
use crate::error::{Error, HandlerError};
use crate::service::{Context, Skip};

/// Handles an event once per group and event id, in all instances together, for a window of time
/// (default 24 h): what comes again is acknowledged without its handler, and counted in
/// [`Bus::counts`](crate::Bus::counts).
///
/// The store keeps the marks. A mark is set **in the same step as the end of the delivery**, with
/// what the handler published through its [`Context`]; where another delivery of the id was as
/// quick, that step finds its mark and leaves the outputs out. So **what a handler publishes
/// through its context is published exactly once** per group and id within the window, whatever is
/// redelivered, crashes, or is published twice. A retry, a dead letter, a panic or a timeout
/// leaves no mark, so a dead letter that is redriven runs.
///
/// The handler itself may still run more than once: after a crash between its success and that
/// step, or where two copies are run within a moment of each other. What it does elsewhere needs a
/// guard of its own: a transaction of the database with the event's id in it; an e-mail has none.
/// All instances of a group should have it: what one without it handles leaves no mark.
/// There is no way to put a command of one's own into the step: one that fails would leave half of
/// it done, and all keys of a step lie in one hash slot.
///
/// Marks are kept per partition, and both copies of an event come to the same one where they have
/// the same key, or are published with deduplication. What has no key and is published twice
/// without it may come to two partitions of a topic, and is then handled twice.
///
/// On Redis an event costs a script's share in place of that of a plain acknowledgement, a look-up
/// per entry, and about 125 bytes for the window; `docs/how-to/idempotent.md` has the numbers. A
/// driver without the power ([`Driver::marks_handled`](crate::driver::Driver::marks_handled)) and
/// a broadcast are refused when the service is subscribed.
///
/// ```
/// # async fn bus() -> Result<(), rumormill::Error> {
/// use std::time::Duration;
/// use rumormill::{Bus, middleware::Idempotent};
/// let bus = Bus::builder().with(Idempotent::within(Duration::from_secs(3600))?);
/// # let _ = bus;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotent {
    window: Duration,
}

impl Idempotent {
    /// The default window: a day of repeats.
    pub const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
    /// The shortest window: who publishes an event again does so after a restart, or later.
    pub const WINDOW_MIN: Duration = Duration::from_secs(60);
    /// The longest window. At 100 events a second a group's marks take 38 GB for it.
    pub const WINDOW_MAX: Duration = Duration::from_secs(35 * 24 * 60 * 60);

    /// Knows what was handled for `window`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for less than
    /// [`WINDOW_MIN`](Idempotent::WINDOW_MIN) or more than [`WINDOW_MAX`](Idempotent::WINDOW_MAX).
    pub fn within(window: Duration) -> Result<Self, Error> {
        let (least, most) = (Self::WINDOW_MIN, Self::WINDOW_MAX);
        if (least..=most).contains(&window) {
            return Ok(Self { window });
        }
        let text = format!(
            "a window of {window:?} for handled events is not between {least:?} and {most:?}"
        );
        Err(Error::invalid(text).with_help("the default is a day"))
    }

    /// How long what was handled is known.
    pub fn window(&self) -> Duration {
        self.window
    }
}

impl Default for Idempotent {
    fn default() -> Self {
        Self { window: Self::WINDOW }
    }
}

#[async_trait]
impl Middleware for Idempotent {
    fn name(&self) -> &'static str {
        "idempotent"
    }

    fn needs_marks(&self) -> bool {
        true
    }

    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
        if ctx.is_handled().await? {
            tracing::debug!(id = %ctx.envelope().id(), group = ctx.group(), "handled before");
            ctx.skip(Skip::Duplicate);
            return Ok(());
        }
        let result = next.run(ctx).await;
        // What a filter kept from the handler was not handled.
        if result.is_ok() && ctx.skipped().is_none() {
            ctx.once(self.window);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_has_limits() {
        let (least, most) = (Idempotent::WINDOW_MIN, Idempotent::WINDOW_MAX);
        for window in [least, Idempotent::default().window(), most] {
            assert_eq!(Idempotent::within(window).expect("within the limits").window(), window);
        }
        for window in [Duration::ZERO, least - Duration::from_millis(1), most * 2] {
            let error = Idempotent::within(window).expect_err("beyond the limits");
            assert!(error.to_string().contains(&format!("{window:?}")), "{error}");
        }
    }
}
