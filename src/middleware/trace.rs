use async_trait::async_trait;
use tracing::{Instrument, Span};

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
        let span = span(ctx);
        let answer = next.run(ctx).instrument(span.clone()).await;
        let _entered = span.enter();
        note(&answer);
        answer
    }
}

/// The span of a delivery.
pub(super) fn span(ctx: &Context) -> Span {
    tracing::info_span!(
        "handle",
        group = ctx.group(),
        event = %ctx.envelope().event_type(),
        id = %ctx.envelope().id(),
        attempt = ctx.attempt(),
        traceparent = ctx.envelope().traceparent(),
    )
}

/// A line for a failure; its caller is in the span.
pub(super) fn note(answer: &Result<(), HandlerError>) {
    if let Err(error) = answer {
        tracing::warn!(%error, rejected = error.is_reject(), "handler failed");
    }
}
