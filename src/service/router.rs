//! Finds the handler of an event by its header: exact type, then patterns, then the answer is
//! remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Filter;
use super::endpoint::Endpoint;
use super::routes::Routes;
use crate::error::Error;
use crate::event_type::EventType;
use crate::middleware::Middleware;
use crate::pattern::{Matcher, Pattern};

/// Most event types whose route is remembered; beyond it the memory starts anew.
const REMEMBERED_MAX: usize = 10_000;

/// One route of a running service.
pub(crate) struct Route {
    pub(crate) pattern: Pattern,
    /// The newest version that the handler decodes; `None`: it takes any.
    pub(crate) version: Option<u32>,
    /// What the handler gets of what the pattern matches.
    pub(crate) filter: Filter,
    pub(crate) endpoint: Arc<dyn Endpoint>,
}

/// The routes of one running service.
pub(crate) struct Router {
    routes: Vec<Arc<Route>>,
    matcher: Matcher<Arc<Route>>,
    remembered: Mutex<HashMap<EventType, Option<Arc<Route>>>>,
    /// What wraps each handler, outermost first.
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
        for draft in routes.made {
            let endpoint = (draft.make)(service, draft.filter.clone());
            let (pattern, version, filter) = (draft.pattern, draft.version, draft.filter);
            let route = Arc::new(Route { pattern: pattern.clone(), version, filter, endpoint });
            matcher.insert(&pattern, Arc::clone(&route));
            bound.push(route);
        }
        let remembered = Mutex::default();
        Ok(Self { routes: bound, matcher, remembered, middleware: routes.middleware })
    }

    pub(crate) fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route of an event type. A literal pattern is the most specific, so the type's own
    /// handler comes before any wildcard.
    pub(crate) fn route(&self, event_type: &EventType) -> Option<Arc<Route>> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = remembered.get(event_type) {
            return route.clone();
        }
        let route = self.matcher.first(event_type).cloned();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        // The name is copied: the event's own shares the bytes of the whole entry.
        let name = event_type.as_str().to_owned();
        if let Ok(name) = EventType::new(name) {
            remembered.insert(name, route.clone());
        }
        route
    }
}
