//! What a service handles.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use super::endpoint::{Any, AnyFn, Endpoint, Typed, TypedFn};
use super::{Context, Handle, HandleAny};
use crate::envelope::Envelope;
use crate::error::{Error, HandlerError};
use crate::event::Event;
use crate::middleware::Middleware;
use crate::pattern::Pattern;

type Make<S> = Box<dyn FnOnce(&Arc<S>) -> Arc<dyn Endpoint> + Send>;

/// The routes of a service: which handler takes which events.
///
/// For one event exactly one handler of the service is called: the one on its type, else the one
/// on the most specific pattern (a literal segment before `*`, `*` before `>`).
#[must_use]
pub struct Routes<S> {
    pub(super) made: Vec<RouteDraft<S>>,
    pub(super) middleware: Vec<Arc<dyn Middleware>>,
    pub(super) flaw: Option<Error>,
}

pub(super) struct RouteDraft<S> {
    pub(super) pattern: Pattern,
    pub(super) version: Option<u32>,
    pub(super) make: Make<S>,
}

impl<S: Send + Sync + 'static> Routes<S> {
    pub(crate) fn new() -> Self {
        Self { made: Vec::new(), middleware: Vec::new(), flaw: None }
    }

    /// Events of type `E` go to the service's [`Handle<E>`].
    pub fn on<E: Event>(self) -> Self
    where
        S: Handle<E>,
    {
        let make = |service: &Arc<S>| -> Arc<dyn Endpoint> {
            Arc::new(Typed::<S, E>(Arc::clone(service), PhantomData))
        };
        self.add(E::TYPE.into(), Some(E::VERSION), Box::new(make))
    }

    /// Events that `pattern` matches go to the service's [`HandleAny`]. A pattern that is not
    /// valid is reported when the service is started.
    pub fn on_any(self, pattern: &str) -> Self
    where
        S: HandleAny,
    {
        let make = |service: &Arc<S>| -> Arc<dyn Endpoint> { Arc::new(Any(Arc::clone(service))) };
        self.add_parsed(pattern, Box::new(make))
    }

    /// Events of type `E` go to a closure.
    pub fn on_fn<E, F, Fut>(self, handler: F) -> Self
    where
        E: Event,
        F: Fn(E, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let make =
            move |_: &Arc<S>| -> Arc<dyn Endpoint> { Arc::new(TypedFn(handler, PhantomData)) };
        self.add(E::TYPE.into(), Some(E::VERSION), Box::new(make))
    }

    /// Events that `pattern` matches go to a closure. A pattern that is not valid is reported when
    /// the service is started.
    pub fn on_any_fn<F, Fut>(self, pattern: &str, handler: F) -> Self
    where
        F: Fn(Envelope, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let make = move |_: &Arc<S>| -> Arc<dyn Endpoint> { Arc::new(AnyFn(handler)) };
        self.add_parsed(pattern, Box::new(make))
    }

    /// Wraps every handler of the service, inside what was added before and inside the bus's own
    /// list (see [`crate::middleware`]).
    pub fn with(mut self, middleware: impl Middleware) -> Self {
        self.middleware.push(Arc::new(middleware));
        self
    }

    fn add_parsed(mut self, pattern: &str, make: Make<S>) -> Self {
        match pattern.parse() {
            Ok(pattern) => self.add(pattern, None, make),
            Err(error) => {
                self.flaw.get_or_insert(error);
                self
            }
        }
    }

    fn add(mut self, pattern: Pattern, version: Option<u32>, make: Make<S>) -> Self {
        if self.made.iter().any(|made| made.pattern == pattern) {
            let text = format!("{pattern} is routed twice");
            let help = "a service calls one handler per event; do both things in it";
            self.flaw.get_or_insert(Error::invalid(text).with_help(help));
        }
        self.made.push(RouteDraft { pattern, version, make });
        self
    }
}
