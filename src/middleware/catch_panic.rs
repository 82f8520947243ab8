use std::any::Any;
use std::panic::AssertUnwindSafe;

use async_trait::async_trait;
use futures_util::FutureExt;

use super::{Middleware, Next};
use crate::error::HandlerError;
use crate::service::Context;

/// Turns a panic into an error of this event: it is retried, the others go on.
///
/// The handler may leave its own shared state half changed; that is the handler's to guard.
#[derive(Clone, Copy, Debug, Default)]
pub struct CatchPanic;

#[async_trait]
impl Middleware for CatchPanic {
    fn name(&self) -> &'static str {
        "catch_panic"
    }

    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
        let handling = next.run(ctx);
        if planted!(NoPanicGuard) {
            return handling.await;
        }
        let caught = AssertUnwindSafe(handling).catch_unwind().await;
        caught.unwrap_or_else(|panic| Err(panicked(&*panic)))
    }
}

/// What a panic says, as an error that is retried.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> HandlerError {
    HandlerError::retry(format!("handler panicked: {}", text(panic)))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)")
}
