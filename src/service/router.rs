//! Finds the handler of an event by its header: exact type, then patterns, then the answer is
//! remembered.

use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Filter;
use super::batch::{BatchEndpoint, BatchOptions};
use super::context::Context;
use super::endpoint::Endpoint;
use super::routes::Routes;
use crate::error::{Error, HandlerError};
use crate::event_type::EventType;
use crate::middleware::{Bulkhead, Middleware, Next, Standard, stack};
use crate::pattern::{Hashed, Matcher, Pattern};

/// Most event types whose route is remembered; beyond it the memory starts anew.
const REMEMBERED_MAX: usize = 10_000;

/// One route of a running service.
pub(crate) struct Route {
    pub(crate) pattern: Pattern,
    /// The newest version that the handler decodes; `None`: it takes any.
    pub(crate) version: Option<u32>,
    /// What the handler gets of what the pattern matches.
    pub(crate) filter: Filter,
    /// How many handlers of this route may run at a time.
    pub(crate) concurrency: Option<Bulkhead>,
    /// The limit of the standard three around the handler, where they come together and are run as
    /// one; see [`Standard`].
    limit: Option<Duration>,
    /// What else wraps the handler, outermost first; set when the router is started.
    middleware: Arc<[Arc<dyn Middleware>]>,
    pub(crate) handler: Handler,
}

/// What a route's events go to.
#[derive(Clone)]
pub(crate) enum Handler {
    /// One event at a time.
    Single(Arc<dyn Endpoint>),
    /// Several at a time.
    Batch(Arc<dyn BatchEndpoint>, BatchOptions),
}

impl Route {
    /// Runs what wraps the handler, and `endpoint` in the handler's place.
    pub(crate) async fn run(
        &self,
        endpoint: &dyn Endpoint,
        ctx: &Context,
    ) -> Result<(), HandlerError> {
        let next = Next::new(&self.middleware, endpoint);
        match self.limit {
            Some(limit) => Standard::new(limit, ctx, next).await,
            None => next.run(ctx).await,
        }
    }

    /// Whether a middleware of it asks what the group has handled.
    pub(crate) fn needs_marks(&self) -> bool {
        self.middleware.iter().any(|middleware| middleware.needs_marks())
    }

    /// How its events come together, where they do.
    pub(crate) fn batch(&self) -> Option<BatchOptions> {
        match &self.handler {
            Handler::Single(_) => None,
            Handler::Batch(_, options) => Some(*options),
        }
    }

    /// The list around the handler. A batch takes its turn as a whole, before the list.
    pub(crate) fn stack(
        &self,
        timeout: Duration,
        bus: &[Arc<dyn Middleware>],
        service: &[Arc<dyn Middleware>],
    ) -> Vec<Arc<dyn Middleware>> {
        stack(self.turns(), timeout, bus, service)
    }

    fn turns(&self) -> Option<&Bulkhead> {
        self.concurrency.as_ref().filter(|_| self.batch().is_none())
    }
}

/// The routes of one running service.
pub(crate) struct Router {
    routes: Vec<Arc<Route>>,
    /// By the place in `routes`.
    matcher: Matcher<usize>,
    remembered: Remembered,
    /// What the service wraps each handler in, outermost first.
    pub(crate) middleware: Vec<Arc<dyn Middleware>>,
}

impl Router {
    /// Binds the routes to the service they belong to.
    pub(crate) fn new<S>(routes: Routes<S>, service: &Arc<S>) -> Result<Self, Error> {
        if let Some(flaw) = routes.flaw {
            return Err(flaw);
        }
        let mut matcher = Matcher::new();
        let mut bound = Vec::with_capacity(routes.made.len());
        for (place, draft) in routes.made.into_iter().enumerate() {
            matcher.insert(&draft.pattern, place);
            bound.push(Arc::new(Route {
                handler: (draft.make)(service, draft.filter.clone()),
                pattern: draft.pattern,
                version: draft.version,
                filter: draft.filter,
                concurrency: draft.concurrency,
                limit: None,
                middleware: Arc::default(),
            }));
        }
        let remembered = Remembered::new();
        Ok(Self { routes: bound, matcher, remembered, middleware: routes.middleware })
    }

    /// The whole list around each handler: the bus's standard and own parts, then the service's.
    pub(crate) fn wrap(&mut self, timeout: Duration, bus: &[Arc<dyn Middleware>]) {
        let shared: Arc<[_]> = bus.iter().chain(&self.middleware).cloned().collect();
        for route in &mut self.routes {
            let route = Arc::get_mut(route).expect("no route is shared before its first event");
            route.limit = route.turns().is_none().then_some(timeout);
            route.middleware = match route.limit {
                Some(_) => Arc::clone(&shared),
                None => route.stack(timeout, bus, &self.middleware).into(),
            };
        }
    }

    /// Whether a middleware around a handler asks what the group has handled.
    pub(crate) fn needs_marks(&self, bus: &[Arc<dyn Middleware>]) -> bool {
        bus.iter().chain(&self.middleware).any(|middleware| middleware.needs_marks())
    }

    pub(crate) fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route of an event type, by its place among the [`routes`](Router::routes). A literal
    /// pattern is the most specific, so the type's own handler comes before any wildcard.
    pub(crate) fn route(&mut self, event_type: &EventType) -> Option<usize> {
        let find = || self.matcher.first(event_type).copied();
        self.remembered.get(event_type, find)
    }
}

/// The routes of the types that came lately.
struct Remembered {
    /// By the hash of the name.
    places: Hashed<(EventType, Option<usize>)>,
    /// The one that came last, which is mostly the next one as well.
    last: Option<(EventType, Option<usize>)>,
    /// Nobody who publishes is to know which names have one hash.
    seed: u64,
}

impl Remembered {
    fn new() -> Self {
        Self { places: Hashed::default(), last: None, seed: fastrand::u64(..) }
    }

    fn get(
        &mut self,
        event_type: &EventType,
        find: impl FnOnce() -> Option<usize>,
    ) -> Option<usize> {
        if let Some((own, place)) = &self.last
            && own == event_type
        {
            return *place;
        }
        let name = event_type.as_str();
        let hash = xxh3_64_with_seed(name.as_bytes(), self.seed);
        if let Some((own, place)) = self.places.get(&hash)
            && own == event_type
        {
            self.last = Some((own.clone(), *place));
            return *place;
        }
        let place = find();
        if self.places.len() >= REMEMBERED_MAX {
            self.places.clear();
        }
        // The name is copied: the event's own shares the bytes of the whole entry.
        if let Ok(own) = EventType::new(name.to_owned()) {
            self.places.insert(hash, (own, place));
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_looked_up_once() {
        let mut remembered = Remembered::new();
        let name = |number: usize| EventType::new(format!("a.b{number}")).expect("valid");
        for number in 0..REMEMBERED_MAX * 2 {
            assert_eq!(remembered.get(&name(number), || Some(number)), Some(number));
            assert!(remembered.places.len() <= REMEMBERED_MAX);
            let known = remembered.get(&name(number), || unreachable!("it is known"));
            assert_eq!(known, Some(number));
        }
        assert_eq!(remembered.get(&name(0), || None), None, "it is forgotten");
    }

    #[test]
    fn a_name_with_the_hash_of_another_is_not_taken_for_it() {
        let mut remembered = Remembered::new();
        let name = EventType::from_static("a.b");
        let hash = xxh3_64_with_seed(b"a.b", remembered.seed);
        remembered.places.insert(hash, (EventType::from_static("a.c"), Some(7)));
        assert_eq!(remembered.get(&name, || Some(1)), Some(1));
        assert_eq!(remembered.get(&name, || unreachable!("it is known")), Some(1));
    }
}
