//! Handlers with their types erased, once.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use super::context::Skip;
use super::{Context, Filter, Handle, HandleAny};
use crate::envelope::Envelope;
use crate::error::HandlerError;
use crate::event::Event;

/// A boxed future that borrows.
pub(crate) type Handling<'a> = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send + 'a>>;

/// A handler whose event type is erased: takes the event from the context.
pub trait Endpoint: Send + Sync + 'static {
    /// Decodes the event and handles it.
    fn call<'a>(&'a self, ctx: &'a Context) -> Handling<'a>;
}

fn decoded<E: Event>(ctx: &Context) -> Result<E, HandlerError> {
    ctx.envelope().event().map_err(HandlerError::undecodable)
}

/// The event, where it passes the filter; counted where it does not.
pub(super) fn wanted<E: Event>(ctx: &Context, filter: &Filter) -> Result<Option<E>, HandlerError> {
    let event = decoded(ctx)?;
    if filter.passes(ctx.envelope(), &event) {
        return Ok(Some(event));
    }
    ctx.skip(Skip::Filtered);
    Ok(None)
}

/// A service's handler of one type.
pub(super) struct Typed<S, E>(pub(super) Arc<S>, pub(super) Filter, pub(super) PhantomData<fn(E)>);

impl<S: Handle<E> + 'static, E: Event> Endpoint for Typed<S, E> {
    fn call<'a>(&'a self, ctx: &'a Context) -> Handling<'a> {
        Box::pin(async move {
            match wanted(ctx, &self.1)? {
                Some(event) => self.0.handle(event, ctx).await,
                None => Ok(()),
            }
        })
    }
}

/// A service's handler of patterns.
pub(super) struct Any<S>(pub(super) Arc<S>);

impl<S: HandleAny + 'static> Endpoint for Any<S> {
    fn call<'a>(&'a self, ctx: &'a Context) -> Handling<'a> {
        Box::pin(self.0.handle_any(ctx.envelope(), ctx))
    }
}

/// A closure on one type.
pub(super) struct TypedFn<F, E>(pub(super) F, pub(super) Filter, pub(super) PhantomData<fn(E)>);

impl<F, Fut, E> Endpoint for TypedFn<F, E>
where
    F: Fn(E, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    E: Event,
{
    fn call<'a>(&'a self, ctx: &'a Context) -> Handling<'a> {
        Box::pin(async move {
            match wanted(ctx, &self.1)? {
                Some(event) => (self.0)(event, ctx.clone()).await,
                None => Ok(()),
            }
        })
    }
}

/// A closure on patterns.
pub(super) struct AnyFn<F>(pub(super) F);

impl<F, Fut> Endpoint for AnyFn<F>
where
    F: Fn(Envelope, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    fn call<'a>(&'a self, ctx: &'a Context) -> Handling<'a> {
        Box::pin((self.0)(ctx.envelope().clone(), ctx.clone()))
    }
}
