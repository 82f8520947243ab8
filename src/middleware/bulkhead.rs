use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::{Middleware, Next};
use crate::error::HandlerError;
use crate::service::Context;

/// Lets so many deliveries through at a time, in this process; the others wait for their turn in
/// the order they came, each in its lane.
///
/// [`Routes::concurrency`](crate::Routes::concurrency) puts one around a single handler. Added
/// with `with(..)` it is shared by everything it wraps: all handlers of a service, or of the bus.
/// There it stands inside the timeout, which then covers the wait too.
#[derive(Clone, Debug)]
pub struct Bulkhead {
    permits: Arc<Semaphore>,
    limit: usize,
}

impl Bulkhead {
    /// At most `limit` at a time; 0 counts as 1.
    pub fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(limit)), limit }
    }

    /// How many may run at a time.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Waits for a turn, which lasts until the permit is dropped.
    pub(crate) async fn turn(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.permits.acquire().await.expect("a bulkhead's semaphore is never closed")
    }
}

#[async_trait]
impl Middleware for Bulkhead {
    fn name(&self) -> &'static str {
        "bulkhead"
    }

    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
        let _turn = self.turn().await;
        next.run(ctx).await
    }
}
