use std::time::Duration;

use async_trait::async_trait;

use super::{Middleware, Next};
use crate::error::HandlerError;
use crate::service::Context;

/// Drops a handler's future that takes too long; the event is retried.
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
        match tokio::time::timeout(self.0, next.run(ctx)).await {
            Ok(result) => result,
            Err(_) => Err(HandlerError::retry(format!("handler took longer than {:?}", self.0))),
        }
    }
}
