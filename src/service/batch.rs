//! Handlers that take several events at a time.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::endpoint::{Handling, wanted};
use super::{Context, Filter};
use crate::error::{Error, HandlerError};
use crate::event::Event;

/// Most events of a batch.
pub const BATCH_SIZE_MAX: usize = 65_536;
/// The longest that the first event of a batch waits for more: 1 min.
pub const BATCH_LINGER_MAX: Duration = Duration::from_secs(60);

/// How events come together in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Most events of a batch; no more than the service's
    /// [`lane_depth`](crate::ServiceOptions::lane_depth). Default 50.
    pub size: usize,
    /// How long the first event waits for more. Default 20 ms; zero takes what is there.
    pub linger: Duration,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self { size: 50, linger: Duration::from_millis(20) }
    }
}

impl BatchOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the value.
    pub fn check(&self) -> Result<(), Error> {
        let Self { size, linger } = *self;
        if size == 0 || size > BATCH_SIZE_MAX {
            let text = format!("batch size is {size}, 1 to {BATCH_SIZE_MAX} are possible");
            return Err(Error::invalid(text));
        }
        if linger > BATCH_LINGER_MAX {
            let text = format!("batch linger is {linger:?}, {BATCH_LINGER_MAX:?} at most");
            return Err(Error::invalid(text));
        }
        Ok(())
    }
}

/// A handler of one event type that takes several events at a time, for what is cheaper together:
/// one transaction, one request.
///
/// `Ok` acknowledges every event but those that were [failed](BatchItem::fail) by name; an error
/// or a panic fails all others. Each event has its own attempt, outputs and end. The events of one
/// batch are of one type and one version, in the order of their lane; events of one key are never
/// in two batches at a time. What cannot be decoded, does not pass the route's filter or was
/// stopped by a middleware is settled by itself and not in the batch.
///
/// ```
/// use rumormill::{Batch, BatchOptions, Event, HandleBatch, HandlerError, Routes, Service};
/// # #[derive(serde::Serialize, serde::Deserialize, Event)]
/// # #[event(type = "orders.placed")]
/// # struct Placed { amount: i64 }
/// struct Ledger;
///
/// impl Service for Ledger {
///     const NAME: &'static str = "ledger";
///
///     fn routes(routes: Routes<Self>) -> Routes<Self> {
///         routes.on_batch::<Placed>(BatchOptions::default())
///     }
/// }
///
/// impl HandleBatch<Placed> for Ledger {
///     async fn handle_batch(&self, batch: Batch<Placed>) -> Result<(), HandlerError> {
///         for item in &batch {
///             if item.event.amount < 0 {
///                 item.fail(HandlerError::reject("a negative amount"));
///             }
///         }
///         Ok(()) // all others are acknowledged
///     }
/// }
/// ```
///
/// # Cancel safety
/// The future is dropped when the timeout passes or a drain's deadline ends, and when the leases
/// of all its events are lost; the events are then tried again.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has a batch route for `{E}` but no handler of it",
    note = "add `impl HandleBatch<{E}> for {Self}` with `async fn handle_batch(&self, batch)`"
)]
pub trait HandleBatch<E: Event>: Send + Sync {
    /// Handles at least one event.
    fn handle_batch(
        &self,
        batch: Batch<E>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// Events of one type, at least one, for a handler that takes several.
#[derive(Debug)]
pub struct Batch<E> {
    items: Vec<BatchItem<E>>,
}

/// One event of a [`Batch`].
#[derive(Debug)]
pub struct BatchItem<E> {
    /// The event.
    pub event: E,
    /// Its own context: attempt, headers, outputs.
    pub ctx: Context,
    failure: Arc<Slot>,
}

/// Where an item's own failure is noted.
pub(crate) type Slot = Mutex<Option<HandlerError>>;

impl<E> BatchItem<E> {
    /// Fails this event and no other: it is retried, or rejected, as `error` says. The last word
    /// before the handler returns counts.
    pub fn fail(&self, error: impl Into<HandlerError>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.into());
    }
}

impl<E> Batch<E> {
    /// How many events.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Never: a batch has at least one event.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The events with their contexts, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, BatchItem<E>> {
        self.items.iter()
    }

    /// The events alone, in order.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &E> {
        self.items.iter().map(|item| &item.event)
    }
}

impl<E> IntoIterator for Batch<E> {
    type Item = BatchItem<E>;
    type IntoIter = std::vec::IntoIter<BatchItem<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a, E> IntoIterator for &'a Batch<E> {
    type Item = &'a BatchItem<E>;
    type IntoIter = std::slice::Iter<'a, BatchItem<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// An event whose type is erased, on its way into a batch.
pub(crate) struct Guest {
    pub(crate) event: Box<dyn Any + Send>,
    pub(crate) ctx: Context,
    pub(crate) failure: Arc<Slot>,
}

/// A batch handler whose event type is erased.
pub(crate) trait BatchEndpoint: Send + Sync + 'static {
    /// Decodes one event; `None` where it does not pass the route's filter.
    fn decode(&self, ctx: &Context) -> Result<Option<Box<dyn Any + Send>>, HandlerError>;

    /// Handles what [`decode`](BatchEndpoint::decode) gave.
    fn call(&self, guests: Vec<Guest>) -> Handling<'_>;
}

fn decode<E: Event>(
    ctx: &Context,
    filter: &Filter,
) -> Result<Option<Box<dyn Any + Send>>, HandlerError> {
    Ok(wanted::<E>(ctx, filter)?.map(|event| -> Box<dyn Any + Send> { Box::new(event) }))
}

fn batch<E: Event>(guests: Vec<Guest>) -> Batch<E> {
    let item = |Guest { event, ctx, failure }| {
        let event = event.downcast::<E>().ok()?;
        Some(BatchItem { event: *event, ctx, failure })
    };
    let items = guests.into_iter().map(item).collect::<Option<_>>();
    Batch { items: items.expect("an endpoint gets back what it decoded") }
}

/// A service's batch handler of one type.
pub(super) struct TypedBatch<S, E>(
    pub(super) Arc<S>,
    pub(super) Filter,
    pub(super) PhantomData<fn(E)>,
);

impl<S: HandleBatch<E> + 'static, E: Event> BatchEndpoint for TypedBatch<S, E> {
    fn decode(&self, ctx: &Context) -> Result<Option<Box<dyn Any + Send>>, HandlerError> {
        decode::<E>(ctx, &self.1)
    }

    fn call(&self, guests: Vec<Guest>) -> Handling<'_> {
        Box::pin(self.0.handle_batch(batch(guests)))
    }
}

/// A closure on batches of one type.
pub(super) struct BatchFn<F, E>(pub(super) F, pub(super) Filter, pub(super) PhantomData<fn(E)>);

impl<F, Fut, E> BatchEndpoint for BatchFn<F, E>
where
    F: Fn(Batch<E>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    E: Event,
{
    fn decode(&self, ctx: &Context) -> Result<Option<Box<dyn Any + Send>>, HandlerError> {
        decode::<E>(ctx, &self.1)
    }

    fn call(&self, guests: Vec<Guest>) -> Handling<'_> {
        Box::pin((self.0)(batch(guests)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_a_batch_are_inclusive() {
        let check = |size, linger| BatchOptions { size, linger }.check().is_ok();
        assert!(BatchOptions::default().check().is_ok());
        assert!(check(1, Duration::ZERO) && check(BATCH_SIZE_MAX, BATCH_LINGER_MAX));
        assert!(!check(0, Duration::ZERO) && !check(BATCH_SIZE_MAX + 1, Duration::ZERO));
        assert!(!check(1, BATCH_LINGER_MAX + Duration::from_millis(1)));
    }
}
