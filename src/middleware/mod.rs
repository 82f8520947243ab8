//! Behaviour around handlers: one behaviour, one file.
//!
//! A delivery passes this list from the outside in; each middleware calls the [`Next`]:
//!
//! | | middleware | what it does |
//! |---|---|---|
//! | 1 | [`Trace`] | a span per delivery, a log line per failure |
//! | 2 | [`CatchPanic`] | a panic becomes an error of this event only |
//! | 3 | [`Bulkhead`] | where the route says [`concurrency`](crate::Routes::concurrency) |
//! | 4 | [`Timeout`] | cancels a handler that takes too long |
//! | 5 | the bus's | `Bus::builder().with(..)`, in the order of the calls |
//! | 6 | the service's | `routes.with(..)`, in the order of the calls |
//! | | the handler | |
//!
//! [`Bus::services`](crate::Bus::services) tells each route's list. Ready to be added:
//! [`RetryInPlace`], [`Deduplicate`], [`Idempotent`], and [`Bulkhead`] for a limit that handlers
//! share. Whoever is first in the list sees the result last: put [`Idempotent`] and
//! [`Deduplicate`] before [`RetryInPlace`], and before what may turn a success into an error.
//!
//! Each event of a batch passes the list by itself, and they meet at its end: one that is stopped
//! on the way is not in the batch, one that is held up longer than the batch's linger comes in a
//! later call. [`Bulkhead`]s of [`concurrency`](crate::Routes::concurrency) count whole batches,
//! before the list.
//!
//! Middleware sees the context and the result; it never sees a driver and cannot settle.
//! [`CatchPanic`] is outside what users add, so a panic in their middleware is caught as well.

mod bulkhead;
mod catch_panic;
mod deduplicate;
mod idempotent;
mod retry_in_place;
mod standard;
mod timeout;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use bulkhead::Bulkhead;
pub use catch_panic::CatchPanic;
pub(crate) use catch_panic::panicked;
pub use deduplicate::Deduplicate;
pub use idempotent::Idempotent;
pub use retry_in_place::RetryInPlace;
pub(crate) use standard::Standard;
pub use timeout::Timeout;
pub use trace::Trace;

use crate::error::HandlerError;
use crate::service::{Context, Endpoint, Handling};

/// A behaviour around every handler of a service.
///
/// ```
/// use rumormill::middleware::{Middleware, Next};
/// use rumormill::{Context, HandlerError};
///
/// struct OnlyTenant(String);
///
/// #[rumormill::async_trait]
/// impl Middleware for OnlyTenant {
///     fn name(&self) -> &'static str {
///         "only_tenant"
///     }
///
///     async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
///         match ctx.envelope().header("tenant") {
///             Some(tenant) if tenant == self.0 => next.run(ctx).await,
///             _ => Ok(()), // not ours: acknowledged without running
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// A short name, for logs and tools.
    fn name(&self) -> &'static str;

    /// Whether it asks what the group has handled: then a service with it is refused where the
    /// store does not keep that. One that wraps another passes the question on.
    fn needs_marks(&self) -> bool {
        false
    }

    /// Handles one delivery: calls `next`, or decides without it.
    ///
    /// # Cancel safety
    /// The future may be dropped at any await, as a handler's.
    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError>;
}

/// The rest of the list, and the handler at its end. A copy runs it once more.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    rest: &'a [Arc<dyn Middleware>],
    endpoint: &'a dyn Endpoint,
}

impl<'a> Next<'a> {
    pub(crate) fn new(rest: &'a [Arc<dyn Middleware>], endpoint: &'a dyn Endpoint) -> Self {
        Self { rest, endpoint }
    }

    /// Runs the rest of the list.
    ///
    /// # Errors
    /// What the handler, or a middleware further in, says.
    pub async fn run(self, ctx: &Context) -> Result<(), HandlerError> {
        self.begin(ctx).await
    }

    /// What runs the rest of the list.
    pub(crate) fn begin(self, ctx: &'a Context) -> Handling<'a> {
        match self.rest.split_first() {
            Some((first, rest)) => first.handle(ctx, Next { rest, ..self }),
            None => self.endpoint.call(ctx),
        }
    }
}

/// The list of one route: what every route has, around what its users added.
pub(crate) fn stack(
    concurrency: Option<&Bulkhead>,
    timeout: Duration,
    bus: &[Arc<dyn Middleware>],
    service: &[Arc<dyn Middleware>],
) -> Vec<Arc<dyn Middleware>> {
    let mut stack: Vec<Arc<dyn Middleware>> = vec![Arc::new(Trace), Arc::new(CatchPanic)];
    if let Some(bulkhead) = concurrency {
        stack.push(Arc::new(bulkhead.clone()));
    }
    stack.push(Arc::new(Timeout::after(timeout)));
    stack.extend(bus.iter().chain(service).cloned());
    stack
}
