//! The bus: connect, publish, subscribe, run, drain. What most users touch.

mod broadcast;
mod builder;
mod describe;
mod force;
mod health;
mod launch;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

pub use builder::BusBuilder;
use describe::RunningOutline;
pub use describe::{BatchDescription, OptionsDescription, RouteDescription, ServiceDescription};
pub use launch::GroupSubscription;

use crate::delivery::Site;
use crate::driver::{Backlog, Driver, GroupName, Tools};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, HandlerError, PublishError};
use crate::event::Event;
use crate::middleware::Middleware;
use crate::publisher::{PublishOptions, Publisher};
use crate::service::ServiceOptions;
use crate::service::{Context, Instance, Routes, Service};
use crate::time::Clock;
use crate::worker::{DrainReport, GroupCounts, Worker};
use crate::{Receipt, Registration};

/// How long [`Bus::drain`] and [`Bus::run`] give running handlers, unless told otherwise: under
/// the 30 s after which most supervisors kill.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// An event bus. Cloning shares it. End it with [`Bus::drain`] or [`Bus::run`]; dropping the last
/// clone ends it, too, but gives running handlers no time and tells nobody what it did.
///
/// ```
/// use rumormill::{Bus, Context, Event};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(type = "user_service.user.created", key = user_id)]
/// struct UserCreated {
///     user_id: String,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::connect("memory:").await?;
/// bus.subscribe("email", |event: UserCreated, _: Context| async move {
///     println!("welcome, {}", event.user_id);
///     Ok(())
/// })
/// .await?;
/// bus.publish(&UserCreated { user_id: "user_alice".into() }).await?;
/// bus.settled().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    driver: Arc<dyn Driver>,
    publisher: Publisher,
    clock: Arc<dyn Clock>,
    /// What dead letters say of this program.
    site: Site,
    middleware: Vec<Arc<dyn Middleware>>,
    overrides: HashMap<String, ServiceOptions>,
    services: HashMap<String, Arc<dyn Any + Send + Sync>>,
    /// Built and not started.
    idle: Mutex<Vec<Instance>>,
    /// By name, so that a drain takes the same course each time.
    running: Mutex<BTreeMap<GroupName, Running>>,
    /// One permit: suspects run one at a time; see rule 7.
    suspects: Arc<Semaphore>,
}

enum Running {
    /// Being subscribed: the name is taken.
    Starting,
    Worker(Box<Worker>, Box<RunningOutline>),
}

impl Bus {
    /// Connects and builds every registered service; none of them runs before [`Bus::start`] or
    /// [`Bus::run`]. The address is `memory:`, or with the feature `redis` one of `redis://`,
    /// `rediss://` (feature `tls`), `unix://`.
    ///
    /// # Errors
    /// Where the address is not valid, the server cannot be reached or is none, or a service
    /// cannot be built: each with what to do.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder().url(url).build().await
    }

    /// A bus with other than the default settings.
    pub fn builder() -> BusBuilder {
        BusBuilder::new()
    }

    /// Publishes an event and waits for its receipt. See [`Publisher::publish`].
    ///
    /// # Errors
    /// [`PublishError::NotStored`] is certain; [`PublishError::Unknown`] means that the answer was
    /// lost.
    ///
    /// # Cancel safety
    /// Dropped after its first poll, the event may or may not be stored, once.
    pub async fn publish<E: Event>(&self, event: &E) -> Result<Receipt, PublishError> {
        self.0.publisher.publish(event).await
    }

    /// [`publish`](Bus::publish) with a key, headers, an expiry or an id of the caller's.
    ///
    /// # Errors
    /// As [`publish`](Bus::publish).
    pub async fn publish_with<E: Event>(
        &self,
        event: &E,
        options: PublishOptions,
    ) -> Result<Receipt, PublishError> {
        self.0.publisher.publish_with(event, options).await
    }

    /// Publishes many events: as many answers, in their order. See [`Publisher::publish_many`].
    pub async fn publish_many<E: Event>(&self, events: &[E]) -> Vec<Result<Receipt, PublishError>> {
        self.0.publisher.publish_many(events).await
    }

    /// Publishes an event that no group gets before `delay` has passed.
    ///
    /// # Errors
    /// As [`publish`](Bus::publish).
    pub async fn publish_after<E: Event>(
        &self,
        event: &E,
        delay: Duration,
    ) -> Result<Receipt, PublishError> {
        self.0.publisher.publish_after(event, delay).await
    }

    /// The publishing half, to hand to others.
    pub fn publisher(&self) -> &Publisher {
        &self.0.publisher
    }

    /// The store below, for tools.
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.0.driver
    }

    /// Handles events of one type in group `group`, with default options, from now on.
    ///
    /// Returns when the group exists: what is published from then on reaches it. A bus has one
    /// subscription per group; for several types use [`Bus::subscribe_routes`].
    ///
    /// # Errors
    /// Where the name is not valid, this bus runs the group already, or the store refuses.
    pub async fn subscribe<E, F, Fut>(&self, group: &str, handler: F) -> Result<(), Error>
    where
        E: Event,
        F: Fn(E, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let routes = |routes: Routes<()>| routes.on_fn(handler);
        self.subscribe_routes(group, ServiceOptions::default(), routes).await
    }

    /// Handles whatever `pattern` matches in group `group`, as envelopes.
    ///
    /// # Errors
    /// As [`subscribe`](Bus::subscribe), and where the pattern is not valid.
    pub async fn subscribe_any<F, Fut>(
        &self,
        group: &str,
        pattern: &str,
        handler: F,
    ) -> Result<(), Error>
    where
        F: Fn(Envelope, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let routes = |routes: Routes<()>| routes.on_any_fn(pattern, handler);
        self.subscribe_routes(group, ServiceOptions::default(), routes).await
    }

    /// Handles several types and patterns in group `group`:
    ///
    /// ```
    /// # use rumormill::{Bus, Event, ServiceOptions};
    /// # #[derive(serde::Serialize, serde::Deserialize, Event)]
    /// # #[event(type = "orders.placed")]
    /// # struct Placed;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), rumormill::Error> {
    /// # let bus = Bus::connect("memory:").await?;
    /// bus.subscribe_routes("audit", ServiceOptions::default(), |routes| {
    ///     routes
    ///         .on_fn(|_: Placed, _| async { Ok(()) })
    ///         .on_any_fn("payments.>", |envelope, _| async move {
    ///             println!("{}", envelope.event_type());
    ///             Ok(())
    ///         })
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`subscribe`](Bus::subscribe), and where a route or an option is not valid.
    pub async fn subscribe_routes(
        &self,
        group: &str,
        options: ServiceOptions,
        routes: impl FnOnce(Routes<()>) -> Routes<()>,
    ) -> Result<(), Error> {
        self.subscribe_many([GroupSubscription::new(group, routes).options(options)]).await
    }

    /// A service that this bus built, where it is of type `S`.
    pub fn service<S: Service>(&self) -> Option<Arc<S>> {
        self.0.services.get(S::NAME).and_then(|service| Arc::clone(service).downcast().ok())
    }

    /// Starts the services that the bus was built with: all of them, or on failure none. Returns
    /// when every group exists. A second call does nothing.
    ///
    /// # Errors
    /// Where there is nothing to run at all, or as [`subscribe`](Bus::subscribe).
    pub async fn start(&self) -> Result<(), Error> {
        if self.0.services.is_empty() && self.running().is_empty() {
            return Err(nothing_to_run());
        }
        self.launch_idle().await
    }

    /// Whether the bus was built with a service.
    #[cfg(feature = "testing")]
    pub(crate) fn has_services(&self) -> bool {
        !self.0.services.is_empty()
    }

    /// Starts the services, waits for `until`, then drains within [`DRAIN_DEADLINE`].
    ///
    /// ```no_run
    /// # async fn run(bus: rumormill::Bus) -> Result<(), rumormill::Error> {
    /// let report = bus.run(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await?;
    /// println!("{} finished, {} handed over", report.finished, report.handed_over);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`start`](Bus::start).
    pub async fn run(&self, until: impl Future<Output = ()>) -> Result<DrainReport, Error> {
        self.start().await?;
        until.await;
        Ok(self.drain(DRAIN_DEADLINE).await)
    }

    /// Ends the bus: stops reading, gives running handlers until `deadline`, hands everything else
    /// to the other instances at once, answers every accepted publish, closes the driver.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        let workers = std::mem::take(&mut *self.running());
        let drains = workers.into_values().filter_map(|running| match running {
            Running::Worker(worker, _) => Some(worker.drain(deadline)),
            Running::Starting => None,
        });
        let mut report = DrainReport::default();
        for drained in futures_util::future::join_all(drains).await {
            report.add(drained);
        }
        self.0.publisher.close().await;
        self.0.driver.close().await;
        report
    }

    /// Waits until the groups that this bus runs have nothing left: nothing unread, running,
    /// waiting for a retry; and until its broadcasts have handled what is published. For tests,
    /// demos and jobs that end.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub async fn settled(&self) -> Result<(), Error> {
        const PAUSE: Duration = Duration::from_millis(5);
        let mut quiet_rounds = 0;
        // Twice in a row: what one group published may be what another one still has to read.
        while quiet_rounds < 2 {
            if self.is_settled().await? {
                quiet_rounds += 1;
            } else {
                quiet_rounds = 0;
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    async fn is_settled(&self) -> Result<bool, Error> {
        let groups: Vec<_> = self.running().keys().cloned().collect();
        for group in groups {
            let settled = match self.is_heard(&group).await? {
                Some(heard) => heard,
                None => self.backlog(&group).await?.is_settled(),
            };
            if !settled {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the broadcasts of this bus have handled everything that is published.
    #[cfg(feature = "testing")]
    pub(crate) async fn have_broadcasts_heard(&self) -> bool {
        let names: Vec<_> = self.running().keys().cloned().collect();
        for name in names {
            if matches!(self.is_heard(&name).await, Ok(Some(false))) {
                return false;
            }
        }
        true
    }

    async fn backlog(&self, group: &GroupName) -> Result<Backlog, Error> {
        self.tools()?.backlog(group).await
    }

    fn tools(&self) -> Result<&dyn Tools, Error> {
        self.0.driver.tools().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "this driver does not tell what is left")
        })
    }

    /// The services registered in this program.
    pub fn registered() -> impl Iterator<Item = &'static Registration> {
        inventory::iter::<Registration>()
    }

    /// How many events of a group this bus acknowledged without a handler, and why. All zero
    /// where it does not run the group.
    pub fn counts(&self, group: &str) -> GroupCounts {
        match self.running().get(group) {
            Some(Running::Worker(worker, _)) => worker.counts(),
            _ => GroupCounts::default(),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<GroupName, Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nothing_to_run() -> Error {
    Error::invalid("nothing to run: no service is registered and nothing is subscribed").with_help(
        "register one with `rumormill::register!`, or call `bus.subscribe`; if the services are in \
         a crate of which the program names nothing, the linker left them out: add `use the_crate \
         as _;`",
    )
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<_> = self.running().keys().cloned().collect();
        f.debug_struct("Bus").field("groups", &groups).finish_non_exhaustive()
    }
}
