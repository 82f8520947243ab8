//! What a service handles.

use std::any::TypeId;
use std::collections::HashSet;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use super::batch::{Batch, BatchFn, BatchOptions, TypedBatch};
use super::endpoint::{Any, AnyFn, Typed, TypedFn};
use super::router::Handler;
use super::{Context, Filter, Handle, HandleAny, HandleBatch};
use crate::envelope::Envelope;
use crate::error::{Error, HandlerError};
use crate::event::Event;
use crate::middleware::{Bulkhead, Middleware};
use crate::pattern::Pattern;

type Make<S> = Box<dyn FnOnce(&Arc<S>, Filter) -> Handler + Send>;

/// The routes of a service: which handler takes which events.
///
/// For one event exactly one handler of the service is called: the one on its type, else the one
/// on the most specific pattern (a literal segment before `*`, `*` before `>`).
#[must_use]
pub struct Routes<S> {
    pub(super) made: Vec<RouteDraft<S>>,
    pub(super) middleware: Vec<Arc<dyn Middleware>>,
    pub(super) flaw: Option<Error>,
    /// What is routed already.
    patterns: HashSet<Pattern>,
}

pub(super) struct RouteDraft<S> {
    pub(super) pattern: Pattern,
    pub(super) version: Option<u32>,
    pub(super) filter: Filter,
    pub(super) concurrency: Option<Bulkhead>,
    /// As its handler has it once it is made.
    pub(super) batch: Option<BatchOptions>,
    /// The type that is decoded for the handler, where one is.
    decoded: Option<TypeId>,
    pub(super) make: Make<S>,
}

impl<S: Send + Sync + 'static> Routes<S> {
    pub(crate) fn new() -> Self {
        let (made, middleware, patterns) = (Vec::new(), Vec::new(), HashSet::new());
        Self { made, middleware, flaw: None, patterns }
    }

    /// Events of type `E` go to the service's [`Handle<E>`].
    pub fn on<E: Event>(self) -> Self
    where
        S: Handle<E>,
    {
        let make = |service: &Arc<S>, filter| {
            Handler::Single(Arc::new(Typed::<S, E>(Arc::clone(service), filter, PhantomData)))
        };
        self.add_typed::<E>(Box::new(make))
    }

    /// Events that `pattern` matches go to the service's [`HandleAny`]. A pattern that is not
    /// valid is reported when the service is started.
    pub fn on_any(self, pattern: &str) -> Self
    where
        S: HandleAny,
    {
        let make = |service: &Arc<S>, _| Handler::Single(Arc::new(Any(Arc::clone(service))));
        self.add_parsed(pattern, Box::new(make))
    }

    /// Events of type `E` go to a closure.
    pub fn on_fn<E, F, Fut>(self, handler: F) -> Self
    where
        E: Event,
        F: Fn(E, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let make = move |_: &Arc<S>, filter| {
            Handler::Single(Arc::new(TypedFn(handler, filter, PhantomData)))
        };
        self.add_typed::<E>(Box::new(make))
    }

    /// Events that `pattern` matches go to a closure. A pattern that is not valid is reported when
    /// the service is started.
    pub fn on_any_fn<F, Fut>(self, pattern: &str, handler: F) -> Self
    where
        F: Fn(Envelope, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let make = move |_: &Arc<S>, _| Handler::Single(Arc::new(AnyFn(handler)));
        self.add_parsed(pattern, Box::new(make))
    }

    /// Events of type `E` go to the service's [`HandleBatch<E>`], several at a time. Not in a
    /// [broadcast](crate::Distribution::Broadcast), which tries again before it goes on.
    pub fn on_batch<E: Event>(self, options: BatchOptions) -> Self
    where
        S: HandleBatch<E>,
    {
        let make = move |service: &Arc<S>, filter| {
            let endpoint = TypedBatch::<S, E>(Arc::clone(service), filter, PhantomData);
            Handler::Batch(Arc::new(endpoint), options)
        };
        self.add_batch::<E>(options, Box::new(make))
    }

    /// Events of type `E` go to a closure, several at a time; see [`HandleBatch`].
    pub fn on_batch_fn<E, F, Fut>(self, options: BatchOptions, handler: F) -> Self
    where
        E: Event,
        F: Fn(Batch<E>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let make = move |_: &Arc<S>, filter| {
            Handler::Batch(Arc::new(BatchFn(handler, filter, PhantomData)), options)
        };
        self.add_batch::<E>(options, Box::new(make))
    }

    /// Narrows the route that was added last to the events that pass `filter`. What does not pass
    /// is acknowledged without running the handler, and counted
    /// ([`Bus::counts`](crate::Bus::counts)); it goes to no other route. A second filter narrows
    /// further.
    ///
    /// The filter is this instance's: while two versions of a service run side by side, each
    /// event is judged by the one that gets it.
    ///
    /// ```
    /// # use rumormill::{Bus, Event, Filter, ServiceOptions};
    /// # #[derive(serde::Serialize, serde::Deserialize, Event)]
    /// # #[event(type = "orders.placed")]
    /// # struct Placed { amount: u64 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), rumormill::Error> {
    /// # let bus = Bus::connect("memory:").await?;
    /// bus.subscribe_routes("fraud", ServiceOptions::default(), |routes| {
    ///     routes.on_fn(|_: Placed, _| async { Ok(()) }).when(
    ///         !Filter::header("tenant", "test") & Filter::payload(|e: &Placed| e.amount > 1_000),
    ///     )
    /// })
    /// .await
    /// # }
    /// ```
    pub fn when(mut self, filter: Filter) -> Self {
        let Some(last) = self.made.last_mut() else {
            return self.flawed(no_route_before("when"));
        };
        if let Err(error) = filter.check(last.decoded) {
            return self.flawed(error);
        }
        let own = std::mem::replace(&mut last.filter, Filter::always());
        last.filter = own.and(filter);
        self
    }

    /// Lets the handler of the route that was added last run so many times at a time, in this
    /// process. What waits for its turn keeps its lane; the wait is not counted as the handler's
    /// time. On a batch route it counts batches.
    pub fn concurrency(mut self, limit: usize) -> Self {
        let Some(last) = self.made.last_mut() else {
            return self.flawed(no_route_before("concurrency"));
        };
        if limit == 0 {
            let text = format!("concurrency of {} is 0: its handler could never run", last.pattern);
            return self.flawed(Error::invalid(text));
        }
        last.concurrency = Some(Bulkhead::new(limit));
        self
    }

    /// Wraps every handler of the service, inside what was added before and inside the bus's own
    /// list (see [`crate::middleware`]).
    pub fn with(mut self, middleware: impl Middleware) -> Self {
        self.middleware.push(Arc::new(middleware));
        self
    }

    fn add_parsed(self, pattern: &str, make: Make<S>) -> Self {
        match pattern.parse() {
            Ok(pattern) => self.add(pattern, None, None, make),
            Err(error) => self.flawed(error),
        }
    }

    fn add_batch<E: Event>(self, options: BatchOptions, make: Make<S>) -> Self {
        if let Err(flaw) = options.check() {
            return self.flawed(flaw);
        }
        let mut added = self.add_typed::<E>(make);
        if let Some(last) = added.made.last_mut() {
            last.batch = Some(options);
        }
        added
    }

    fn add_typed<E: Event>(self, make: Make<S>) -> Self {
        self.add(E::TYPE.into(), Some(E::VERSION), Some(TypeId::of::<E>()), make)
    }

    fn add(
        mut self,
        pattern: Pattern,
        version: Option<u32>,
        decoded: Option<TypeId>,
        make: Make<S>,
    ) -> Self {
        if !self.patterns.insert(pattern.clone()) {
            let text = format!("{pattern} is routed twice");
            let help = "a service calls one handler per event; do both things in it";
            self = self.flawed(Error::invalid(text).with_help(help));
        }
        let (filter, concurrency) = (Filter::always(), None);
        self.made.push(RouteDraft {
            pattern,
            version,
            filter,
            concurrency,
            batch: None,
            decoded,
            make,
        });
        self
    }

    /// The first flaw is the one that is reported.
    fn flawed(mut self, flaw: Error) -> Self {
        self.flaw.get_or_insert(flaw);
        self
    }
}

fn no_route_before(call: &str) -> Error {
    Error::invalid(format!("`{call}` stands before any route"))
        .with_help("it belongs to the route that was added last: write it behind one")
}
