//! What a bus runs, as plain values for tools.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Bus, Running};
use crate::delivery::Start;
use crate::driver::GroupName;
use crate::middleware::Middleware;
use crate::service::{Distribution, Instance, Route, ServiceOptions};

/// One group of a bus: what it handles and how it is run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceDescription {
    /// The group: the service's name.
    pub group: String,
    /// Whether it is subscribed; a registered service is not before [`Bus::start`].
    pub running: bool,
    /// In the order they were added.
    pub routes: Vec<RouteDescription>,
    /// The effective options.
    pub options: OptionsDescription,
}

/// One route of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteDescription {
    /// The event type or the pattern.
    pub pattern: String,
    /// The newest version that the handler decodes; `None`: it takes any.
    pub version: Option<u32>,
    /// Which events the handler gets, in words; `None`: all.
    pub filter: Option<String>,
    /// How many handlers of this route may run at a time; `None`: as many as there are lanes.
    pub concurrency: Option<usize>,
    /// How events come together, where the handler takes batches.
    pub batch: Option<BatchDescription>,
    /// The names of the middleware around the handler, outermost first.
    pub middleware: Vec<String>,
}

/// How the events of a batch come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchDescription {
    /// Most events of a batch.
    pub size: usize,
    /// How long the first waits for more. Milliseconds.
    pub linger_ms: u64,
}

/// How a group is run; see [`ServiceOptions`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the field of the same name of `ServiceOptions`")]
pub struct OptionsDescription {
    /// `shared` or `broadcast`.
    pub distribution: String,
    pub lanes: usize,
    pub lane_depth: usize,
    pub in_flight_bytes_max: usize,
    pub handler_timeout_ms: u64,
    /// `RetryPolicy` in words.
    pub retry: String,
    pub attempts_max: u32,
    pub settle_wait_ms: u64,
    /// `earliest`, `new`, `after ID` or `at TIME`.
    pub start: String,
    pub lease_ms: u64,
}

/// What it takes to describe a group that runs: in words it would weigh more than the routes.
pub(super) struct RunningOutline {
    group: GroupName,
    routes: Vec<Arc<Route>>,
    /// Of the service.
    middleware: Vec<Arc<dyn Middleware>>,
    options: ServiceOptions,
}

impl RunningOutline {
    pub(super) fn of(instance: &Instance) -> Self {
        let Instance { group, router, options, service: _ } = instance;
        let (group, options) = (group.clone(), *options);
        let (routes, middleware) = (router.routes().to_vec(), router.middleware.clone());
        Self { group, routes, middleware, options }
    }
}

impl Bus {
    /// What this bus runs, and what it was built with and does not run yet, by name.
    pub fn services(&self) -> Vec<ServiceDescription> {
        let mut services: Vec<_> =
            self.idle().iter().map(|instance| self.describe(instance)).collect();
        services.extend(self.running().values().filter_map(|running| match running {
            Running::Worker(_, outline) => Some(self.describe_outline(outline, true)),
            Running::Starting => None,
        }));
        services.sort_by(|a, b| a.group.cmp(&b.group));
        services
    }

    fn describe(&self, instance: &Instance) -> ServiceDescription {
        let mut outline = RunningOutline::of(instance);
        outline.options = self.options_of(&outline.group, outline.options);
        self.describe_outline(&outline, false)
    }

    fn describe_outline(&self, outline: &RunningOutline, running: bool) -> ServiceDescription {
        let RunningOutline { group, routes, middleware, options } = outline;
        let routes = routes.iter().map(|route| self.describe_route(middleware, route));
        ServiceDescription {
            group: group.to_string(),
            running,
            routes: routes.collect(),
            options: OptionsDescription::from(options),
        }
    }

    fn describe_route(
        &self,
        middleware: &[Arc<dyn Middleware>],
        route: &Route,
    ) -> RouteDescription {
        let stack = route.stack(Duration::ZERO, &self.0.middleware, middleware);
        RouteDescription {
            pattern: route.pattern.to_string(),
            version: route.version,
            filter: (!route.filter.is_always()).then(|| route.filter.to_string()),
            concurrency: route.concurrency.as_ref().map(|bulkhead| bulkhead.limit()),
            batch: route.batch().map(|batch| BatchDescription {
                size: batch.size,
                linger_ms: millis(batch.linger),
            }),
            middleware: stack.iter().map(|middleware| middleware.name().to_owned()).collect(),
        }
    }
}

impl From<&ServiceOptions> for OptionsDescription {
    fn from(options: &ServiceOptions) -> Self {
        Self {
            distribution: match options.distribution {
                Distribution::Shared => "shared".to_owned(),
                Distribution::Broadcast => "broadcast".to_owned(),
            },
            lanes: options.lanes,
            lane_depth: options.lane_depth,
            in_flight_bytes_max: options.in_flight_bytes_max,
            handler_timeout_ms: millis(options.handler_timeout),
            retry: options.retry.to_string(),
            attempts_max: options.retry.attempts_max,
            settle_wait_ms: millis(options.settle_wait),
            start: match options.start {
                Start::Earliest => "earliest".to_owned(),
                Start::New => "new".to_owned(),
                Start::After(id) => format!("after {id}"),
                Start::At(time) => format!("at {time}"),
            },
            lease_ms: millis(options.lease.lease),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
