//! Subscribing and unsubscribing: several groups as one step.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::describe::RunningOutline;
use super::{Bus, Running};
use crate::driver::{Feed, GroupName, Subscription};
use crate::error::{Error, ErrorKind};
use crate::service::{Distribution, ServiceOptions};
use crate::service::{Instance, Route, Router, Routes};
use crate::worker::{DrainReport, Parts, Progress, Switch, Worker};

/// What a worker reads, and of a broadcast how far it is.
type Fed = (Feed, Option<Progress>);

/// One group of [`Bus::subscribe_many`]: its name, its routes, its options.
#[must_use]
pub struct GroupSubscription {
    group: String,
    routes: Routes<()>,
    options: ServiceOptions,
}

impl GroupSubscription {
    /// A group with these routes and default options.
    pub fn new(group: impl Into<String>, routes: impl FnOnce(Routes<()>) -> Routes<()>) -> Self {
        let (routes, options) = (routes(Routes::new()), ServiceOptions::default());
        Self { group: group.into(), routes, options }
    }

    /// How it is run.
    pub fn options(mut self, options: ServiceOptions) -> Self {
        self.options = options;
        self
    }

    fn bind(self) -> Result<Instance, Error> {
        let group = GroupName::new(self.group)?;
        let service = Arc::new(());
        let router = Router::new(self.routes, &service)?;
        if router.routes().is_empty() {
            return Err(Error::invalid(format!("group {group} has no route"))
                .with_help("add one with `on_fn` or `on_any_fn`"));
        }
        Ok(Instance { group, router, options: self.options, service })
    }
}

impl Bus {
    /// Subscribes several groups: all of them, or on failure none. Returns when every group
    /// exists.
    ///
    /// ```
    /// # use rumormill::{Bus, Event, GroupSubscription};
    /// # #[derive(serde::Serialize, serde::Deserialize, Event)]
    /// # #[event(type = "orders.placed")]
    /// # struct Placed;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), rumormill::Error> {
    /// # let bus = Bus::connect("memory:").await?;
    /// bus.subscribe_many([
    ///     GroupSubscription::new("invoices", |r| r.on_fn(|_: Placed, _| async { Ok(()) })),
    ///     GroupSubscription::new("audit", |r| r.on_any_fn(">", |_, _| async { Ok(()) })),
    /// ])
    /// .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`subscribe_routes`](Bus::subscribe_routes), of the first group that fails. No handler
    /// was called then. A group that the store made meanwhile stays there and begins, when it is
    /// subscribed again, where it would have begun now.
    ///
    /// # Cancel safety
    /// Dropped before it is done, no group is subscribed.
    pub async fn subscribe_many(
        &self,
        groups: impl IntoIterator<Item = GroupSubscription>,
    ) -> Result<(), Error> {
        let wanted = groups.into_iter().map(GroupSubscription::bind);
        self.launch(&mut wanted.collect::<Result<_, _>>()?).await
    }

    /// Ends this bus's subscription of a group: after it returns, no handler of it starts.
    /// Running handlers have until `deadline`; the group stays, with what it has not handled.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where this bus does not run the group.
    pub async fn unsubscribe(&self, group: &str, deadline: Duration) -> Result<DrainReport, Error> {
        self.unsubscribe_many(&[group], deadline).await
    }

    /// [`unsubscribe`](Bus::unsubscribe) for several groups, which drain side by side; the report
    /// is their sum.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where this bus does not run one of them: none is ended then.
    pub async fn unsubscribe_many(
        &self,
        groups: &[&str],
        deadline: Duration,
    ) -> Result<DrainReport, Error> {
        let workers = self.take(groups)?;
        let drains = workers.into_iter().map(|worker| worker.drain(deadline));
        let mut report = DrainReport::default();
        for drained in join_all(drains).await {
            report.add(drained);
        }
        Ok(report)
    }

    /// Takes workers out: all, or where one is not running, none.
    fn take(&self, groups: &[&str]) -> Result<Vec<Worker>, Error> {
        let mut running = self.running();
        for group in groups {
            if !matches!(running.get(*group), Some(Running::Worker(..))) {
                let text = format!("group {group:?} is not subscribed on this bus");
                return Err(Error::invalid(text));
            }
        }
        // A name that was given twice is there once.
        let taken = groups.iter().filter_map(|group| match running.remove(*group) {
            Some(Running::Worker(worker, _)) => Some(*worker),
            _ => None,
        });
        Ok(taken.collect())
    }

    /// Starts one service that was built, unless it only publishes.
    #[cfg(feature = "testing")]
    pub(crate) async fn start_instance(&self, instance: Instance) -> Result<(), Error> {
        if instance.router.routes().is_empty() {
            return Ok(());
        }
        self.launch(&mut vec![instance]).await
    }

    /// Starts every service that is not running and has routes.
    pub(super) async fn launch_idle(&self) -> Result<(), Error> {
        let mut taken = Taken { bus: self, instances: std::mem::take(&mut *self.idle()) };
        // A service without a route only publishes.
        let routed = |instance: &mut Instance| !instance.router.routes().is_empty();
        let wanted = taken.instances.extract_if(.., routed).collect();
        let mut wanted = Taken { bus: self, instances: wanted };
        self.launch(&mut wanted.instances).await
    }

    /// Starts what is `wanted` and takes it out; on failure all of it stays.
    async fn launch(&self, wanted: &mut Vec<Instance>) -> Result<(), Error> {
        for Instance { group, options, router, .. } in wanted.iter_mut() {
            *options = self.options_of(group, *options);
            options.check()?;
            if options.park_keys && !self.0.driver.parks_keys() {
                let text = format!("group {group} cannot park keys: this driver cannot");
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
            if router.needs_marks(&self.0.middleware) {
                self.check_marks(group, options)?;
            }
            router.routes().iter().try_for_each(|route| check(route, options))?;
        }
        let claims = wanted.iter().map(|instance| self.claim(&instance.group));
        let claims = claims.collect::<Result<Vec<_>, _>>()?;
        let feeds = self.feeds(wanted).await?;
        for ((mut instance, feed), claim) in wanted.drain(..).zip(feeds).zip(claims) {
            let timeout = instance.options.handler_timeout;
            instance.router.wrap(timeout, &self.0.middleware);
            let outline = RunningOutline::of(&instance);
            let worker = self.worker(instance, feed, Switch::default());
            claim.fulfil(worker, outline);
        }
        Ok(())
    }

    /// Checks that what the group handles can be known.
    fn check_marks(&self, group: &GroupName, options: &ServiceOptions) -> Result<(), Error> {
        let (text, help) = if options.distribution == Distribution::Broadcast {
            let text = format!("broadcast {group} cannot be idempotent: each instance handles all");
            (text, "add the middleware to the services that need it, not to the bus")
        } else if !self.0.driver.marks_handled() {
            let text = format!("group {group} cannot be idempotent: this driver keeps no marks");
            (text, "do without the middleware, or use `Deduplicate`, which knows this process only")
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Unsupported, text).with_help(help))
    }

    /// A consumer in each group; where one is refused, the others give back what they have.
    async fn feeds(&self, wanted: &[Instance]) -> Result<Vec<Fed>, Error> {
        let subscribed = wanted.iter().map(|instance| {
            let Instance { group, router, options, service: _ } = instance;
            let routes = router.routes().iter().map(|route| (route.pattern.clone(), route.version));
            let wish = Subscription {
                group: group.clone(),
                routes: routes.collect(),
                start: options.start,
                lease: options.lease,
                park_keys: options.park_keys,
            };
            self.feed(wish, options.distribution)
        });
        let (mut feeds, mut failure) = (Vec::with_capacity(wanted.len()), None);
        for answer in join_all(subscribed).await {
            match answer {
                Ok(fed) => feeds.push(fed),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let Some(error) = failure else { return Ok(feeds) };
        join_all(feeds.into_iter().map(|fed| self.give_back(fed))).await;
        Err(error)
    }

    /// Hands what a source read ahead to the other instances, without a handler.
    async fn give_back(&self, fed: Fed) {
        if fed.1.is_some() {
            return; // of a broadcast, which nobody else misses
        }
        let nobody = GroupSubscription::new("nobody", |routes| {
            routes.on_any_fn(">", |_, _| async { Ok(()) })
        });
        let stop = Switch::default();
        stop.throw();
        if let Ok(nobody) = nobody.bind() {
            self.worker(nobody, fed, stop).drain(Duration::ZERO).await;
        }
    }

    fn worker(&self, instance: Instance, fed: Fed, stop: Switch) -> Worker {
        let Instance { group, router, options, service: _ } = instance;
        let (feed, progress) = fed;
        Worker::start(Parts {
            feed,
            router,
            options,
            publisher: self.0.publisher.clone(),
            clock: Arc::clone(&self.0.clock),
            group,
            site: self.0.site.clone(),
            stop,
            progress,
            suspects: Arc::clone(&self.0.suspects),
            driver: Arc::clone(&self.0.driver),
        })
    }

    /// The options of a group, as the bus was told or as it says itself.
    pub(super) fn options_of(&self, group: &GroupName, own: ServiceOptions) -> ServiceOptions {
        let told = self.0.overrides.get(group.as_str()).copied().unwrap_or(own);
        ServiceOptions { distribution: own.distribution, ..told }
    }

    fn claim(&self, group: &GroupName) -> Result<Claim<'_>, Error> {
        let mut running = self.running();
        if running.contains_key(group) {
            let text = format!("this bus runs group {group} already");
            return Err(Error::new(ErrorKind::Conflict, text)
                .with_help("handle several types in one group with `subscribe_routes`"));
        }
        running.insert(group.clone(), Running::Starting);
        Ok(Claim { bus: self, group: Some(group.clone()) })
    }
}

/// Checks a route against the options that its service is run with.
fn check(route: &Route, options: &ServiceOptions) -> Result<(), Error> {
    let (Some(batch), pattern, depth) = (route.batch(), &route.pattern, options.lane_depth) else {
        return Ok(());
    };
    if options.distribution == Distribution::Broadcast {
        // What fails is tried again in its lane, before what is behind it; a batch has both.
        let text = format!("{pattern} takes batches, and a broadcast has none");
        return Err(Error::new(ErrorKind::Unsupported, text)
            .with_help("handle single events, or subscribe as a group"));
    }
    if options.park_keys {
        let text = format!("{pattern} takes batches, and its service parks keys");
        return Err(Error::new(ErrorKind::Unsupported, text)
            .with_help("handle single events, or do without park_keys"));
    }
    if batch.size > depth {
        let size = batch.size;
        let text = format!("batch size {size} of {pattern} is more than lane_depth {depth}");
        return Err(Error::invalid(text).with_help("a batch comes together in a lane: raise it"));
    }
    Ok(())
}

/// Services that are being started; what is left of them waits for the next call.
struct Taken<'a> {
    bus: &'a Bus,
    instances: Vec<Instance>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.bus.idle().append(&mut self.instances);
    }
}

/// A group's name, taken while it is being subscribed; given back when that fails or is dropped.
struct Claim<'a> {
    bus: &'a Bus,
    group: Option<GroupName>,
}

impl Claim<'_> {
    fn fulfil(mut self, worker: Worker, outline: RunningOutline) {
        if let Some(group) = self.group.take() {
            let worker = Box::new(worker);
            self.bus.running().insert(group, Running::Worker(worker, Box::new(outline)));
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            self.bus.running().remove(&group);
        }
    }
}
