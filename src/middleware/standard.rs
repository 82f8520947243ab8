use std::time::Duration;

use async_trait::async_trait;

use super::catch_panic::caught;
use super::timeout::limited;
use super::trace::traced;
use super::{Middleware, Next};
use crate::error::HandlerError;
use crate::service::Context;

/// [`Trace`](super::Trace), [`CatchPanic`](super::CatchPanic) and [`Timeout`](super::Timeout) as
/// one: nearly every route has these three in this order, and as three each event costs two
/// boxes more.
pub(super) struct Standard(pub(super) Duration);

#[async_trait]
impl Middleware for Standard {
    fn name(&self) -> &'static str {
        "standard"
    }

    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
        traced(ctx, caught(limited(self.0, next.run(ctx)))).await
    }
}
