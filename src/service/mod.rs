//! Services: structs that handle events, their routes, and what a handler gets to see.

mod backoff;
mod batch;
mod context;
mod endpoint;
mod filter;
mod handled;
mod init;
mod options;
mod register;
mod router;
mod routes;

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

pub use backoff::RetryPolicy;
pub use batch::{BATCH_LINGER_MAX, BATCH_SIZE_MAX, Batch, BatchItem, BatchOptions, HandleBatch};
pub(crate) use batch::{BatchEndpoint, Guest, Slot};
pub use context::{Context, OUTPUTS_MAX};
pub(crate) use context::{Outbox, Skip};
pub use endpoint::Endpoint;
pub(crate) use endpoint::Handling;
pub use filter::Filter;
pub(crate) use handled::Handled;
pub use init::Init;
pub(crate) use init::Resources;
pub use options::{Distribution, ServiceOptions};
pub use register::{Instance, Outline, OutlinedRoute, Registration, Services, construction_failed};
pub(crate) use router::{Handler, Route, Router};
pub use routes::Routes;

use crate::envelope::Envelope;
use crate::error::HandlerError;
use crate::event::Event;

/// A service: a named group of handlers, of which many instances may run.
///
/// All instances of one name share the events of the group; every other service gets its own copy
/// of each event. Register it with [`register!`](crate::register) and the bus runs it.
///
/// ```
/// use rumormill::{Context, Event, Handle, HandlerError, Routes, Service};
/// # #[derive(serde::Serialize, serde::Deserialize, Event)]
/// # #[event(type = "user_service.user.created")]
/// # struct UserCreated { email: String }
/// struct EmailService;
///
/// impl Service for EmailService {
///     const NAME: &'static str = "email";
///
///     fn routes(routes: Routes<Self>) -> Routes<Self> {
///         routes.on::<UserCreated>()
///     }
/// }
///
/// impl Handle<UserCreated> for EmailService {
///     async fn handle(&self, event: UserCreated, _: &Context) -> Result<(), HandlerError> {
///         println!("welcome, {}", event.email);
///         Ok(())
///     }
/// }
/// ```
pub trait Service: Send + Sync + Sized + 'static {
    /// The group's name: one segment, `[A-Za-z0-9_-]{1,64}`.
    const NAME: &'static str;

    /// What the service handles. No route: it only publishes.
    fn routes(routes: Routes<Self>) -> Routes<Self>;

    /// How it is run; the bus may be built with other options for this name.
    fn options() -> ServiceOptions {
        ServiceOptions::default()
    }
}

/// A handler of one event type.
///
/// Called at least once per event and group: make it idempotent. `Ok` acknowledges, an error is
/// retried with backoff (`?` on any error), [`HandlerError::reject`] gives up at once, a panic
/// counts as an error. Events of one key are handled in order, one at a time.
///
/// # Cancel safety
/// The future is dropped when its timeout passes, its lease is lost or a drain's deadline ends;
/// the event is then tried again.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has a route for `{E}` but no handler of it",
    note = "add `impl Handle<{E}> for {Self}` with `async fn handle(&self, event, ctx)`"
)]
pub trait Handle<E: Event>: Send + Sync {
    /// Handles one event.
    fn handle(
        &self,
        event: E,
        ctx: &Context,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// A handler of whatever its patterns match, which gets the envelope. As [`Handle`] otherwise.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has a route for a pattern but does not implement `HandleAny`",
    note = "add `impl HandleAny for {Self}` with `async fn handle_any(&self, envelope, ctx)`"
)]
pub trait HandleAny: Send + Sync {
    /// Handles one event, still encoded; [`Envelope::event`] gives it as its struct,
    /// [`Envelope::payload_as`] as any value.
    fn handle_any(
        &self,
        envelope: &Envelope,
        ctx: &Context,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// The built services by name, for [`Bus::service`](crate::Bus::service).
pub(crate) fn by_name(instances: &[Instance]) -> HashMap<String, Arc<dyn Any + Send + Sync>> {
    let pair =
        |instance: &Instance| (instance.group.as_str().to_owned(), Arc::clone(&instance.service));
    instances.iter().map(pair).collect()
}
