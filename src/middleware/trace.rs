use std::future::Future;

use async_trait::async_trait;
use tracing::Instrument;

use super::{Middleware, Next};
use crate::error::HandlerError;
use crate::service::Context;

/// A span per delivery, and a log line per failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trace;

#[async_trait]
impl Middleware for Trace {
    fn name(&self) -> &'static str {
        "trace"
    }

    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
        traced(ctx, next.run(ctx)).await
    }
}

pub(super) async fn traced(
    ctx: &Context,
    handling: impl Future<Output = Result<(), HandlerError>>,
) -> Result<(), HandlerError> {
    let span = tracing::info_span!(
        "handle",
        group = ctx.group(),
        event = %ctx.envelope().event_type(),
        id = %ctx.envelope().id(),
        attempt = ctx.attempt(),
        traceparent = ctx.envelope().traceparent(),
    );
    let result = handling.instrument(span.clone()).await;
    if let Err(error) = &result {
        let _entered = span.enter();
        tracing::warn!(%error, rejected = error.is_reject(), "handler failed");
    }
    result
}
