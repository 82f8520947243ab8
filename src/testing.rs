//! For the tests of your services: a bus in memory, on paused time.
//!
//! [`TestBus`] runs services as the real bus does, with their middleware, retries and dead
//! letters; but time stands still until a test moves it, so that an hour of retries takes
//! milliseconds and the same test takes the same course each time. The feature is `testing`:
//! enable it under `[dev-dependencies]`.
//!
//! ```rust,test_harness
//! use rumormill::testing::TestBus;
//! use rumormill::{Context, Event};
//!
//! #[derive(serde::Serialize, serde::Deserialize, Event)]
//! #[event(type = "user_service.user.created")]
//! struct UserCreated { email: String }
//!
//! #[derive(serde::Serialize, serde::Deserialize, Event)]
//! #[event(type = "email_service.email.sent")]
//! struct EmailSent { to: String }
//!
//! #[tokio::test]
//! async fn who_signs_up_is_welcomed() -> Result<(), rumormill::Error> {
//!     let bus = TestBus::new().await;
//!     bus.subscribe("email", |user: UserCreated, ctx: Context| async move {
//!         Ok(ctx.publish(&EmailSent { to: user.email })?)
//!     }).await?;
//!     bus.publish(&UserCreated { email: "alice@example.com".into() }).await;
//!     assert_eq!(bus.expect_published::<EmailSent>().await.to, "alice@example.com");
//!     bus.expect_nothing_published::<EmailSent>().await;
//!     Ok(())
//! }
//! ```
//!
//! # Time
//!
//! The bus pauses tokio's clock, and the wall clock of the bus follows it. Time moves only
//!
//! - by [`advance`](TestBus::advance) and [`advance_to_next`](TestBus::advance_to_next),
//! - as far as a running handler itself sleeps, or a broadcast waits to call it again,
//! - and wherever the test sleeps: tokio then jumps to the next timer, whosever it is.
//!
//! A handler that waits for something outside the process (a socket, a file) finds that time runs
//! away under it; give the service a stand-in for that in its tests.

mod builder;
mod clock;
mod journal;
mod views;

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

pub use builder::TestBusBuilder;
pub use views::{Dead, Due, Pending};

use self::clock::PausedClock;
use self::journal::Journal;
use crate::bus::{Bus, BusBuilder, DRAIN_DEADLINE};
use crate::delivery::Receipt;
use crate::driver::memory::MemoryDriver;
use crate::error::{Error, PublishError};
use crate::event::Event;
use crate::service::{Instance, Service, Services};
use crate::time::{Clock, Timestamp};
use crate::worker::DrainReport;

/// How long, on the paused clock, handlers may run until [`TestBus::quiet`] gives up: more than
/// the default timeout of a handler.
const QUIET_MAX: Duration = Duration::from_secs(600);

/// How long, on the paused clock, an expectation waits for tasks outside the bus.
const PATIENCE: Duration = Duration::from_secs(5);

/// A bus for tests: in memory, on paused time. See [the module](self).
///
/// It is a [`Bus`] with a few powers more; those of the same name (`publish`, `drain`) panic where
/// the bus returns an error. What its expectations say when they fail is what happened instead.
pub struct TestBus {
    bus: Bus,
    driver: Arc<MemoryDriver>,
    clock: Arc<PausedClock>,
    journal: Mutex<Journal>,
}

/// What the tasks of a bus came to without the clock moving.
#[derive(PartialEq)]
enum Rest {
    /// Nothing is left to do.
    Quiet,
    /// What is left waits for time.
    Waiting,
    /// They make work for each other and would for ever.
    Never,
}

impl Deref for TestBus {
    type Target = Bus;

    fn deref(&self) -> &Bus {
        &self.bus
    }
}

impl TestBus {
    /// A bus that runs every registered service.
    ///
    /// # Panics
    /// Where a service cannot be built, and outside a current-thread runtime (`#[tokio::test]`
    /// without a flavor is one).
    pub async fn new() -> Self {
        Self::builder().start().await
    }

    /// A bus with other than the default settings.
    pub fn builder() -> TestBusBuilder {
        TestBusBuilder::new()
    }

    /// Runs a service that the test has built itself, with stand-ins for what it needs.
    ///
    /// # Panics
    /// Where its routes are not valid, or a service of this name runs already.
    pub async fn start_service<S: Service>(&self, service: S) -> Arc<S> {
        let instance = done("cannot build the service", Instance::new(service));
        let shared = Arc::clone(&instance.service);
        done("cannot start the service", self.bus.start_instance(instance).await);
        shared.downcast().expect("an instance holds the service it was made of")
    }

    /// A builder of another bus on the same store and clock: a second process, another version of
    /// a service. It comes with no service.
    pub fn instance(&self) -> BusBuilder {
        let builder = Bus::builder().driver(self.driver.client()).services(Services::none());
        builder.clock(self.clock.clone())
    }

    /// The moment on the bus's wall clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Publishes an event, or panics.
    #[track_caller]
    pub fn publish<E: Event>(&self, event: &E) -> impl Future<Output = Receipt> {
        let at = Location::caller();
        let publish = self.bus.publisher().publish(event);
        async move { stored(publish.await, E::TYPE.as_str(), at) }
    }

    /// Waits until nothing is left to do now: every event handled, failed and put off, or given
    /// up. Retries and delayed publishes that are due later stay where they are.
    ///
    /// # Panics
    /// When handlers have run for ten minutes of paused time, or make work for each other without
    /// end (some ten thousands of events in one go look the same).
    #[track_caller]
    pub fn quiet(&self) -> impl Future<Output = ()> {
        let at = Location::caller();
        self.quiet_at(at)
    }

    async fn quiet_at(&self, at: &'static Location<'static>) {
        let began = Instant::now();
        loop {
            let rest = self.rest().await;
            let waited = began.elapsed();
            if rest == Rest::Quiet {
                return;
            }
            if rest == Rest::Never || waited > QUIET_MAX {
                let story = self.story().await;
                panic!("the bus is not quiet after {waited:?} of paused time, at {at}\n{story}");
            }
            // What is left to do waits for time: a handler sleeps. Steps grow with the wait.
            tokio::time::sleep((waited / 64).max(Duration::from_millis(1))).await;
        }
    }

    /// Lets every task run that can, without moving the clock, for as long as that changes
    /// anything.
    async fn rest(&self) -> Rest {
        const TURNS: usize = 8;
        const CALM_LOOKS: usize = 4;
        const STUCK_LOOKS: usize = 32;
        // While there is something to run, tokio does not move the clock: what goes round in
        // circles must be counted.
        const LOOKS_MAX: usize = 400;
        let (mut calm, mut stuck, mut before) = (0, 0, (0, 0));
        for _ in 0..LOOKS_MAX {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
            let left = self.driver.left();
            let busy = left > 0 || !self.bus.have_broadcasts_heard().await;
            calm = if busy { 0 } else { calm + 1 };
            let now = (left, self.driver.appended());
            stuck = if now == before { stuck + 1 } else { 0 };
            before = now;
            if calm == CALM_LOOKS {
                return Rest::Quiet;
            }
            if stuck == STUCK_LOOKS {
                return Rest::Waiting;
            }
        }
        Rest::Never
    }

    /// Moves the clock, through everything that is due meanwhile, and waits for quiet.
    ///
    /// # Panics
    /// As [`quiet`](TestBus::quiet).
    #[track_caller]
    pub fn advance(&self, duration: Duration) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let target = Instant::now() + duration;
            self.quiet_at(at).await;
            while let Some(next) = self.next_due().and_then(|due| due.moment()) {
                if next > target {
                    break;
                }
                clock::move_to(next).await;
                self.quiet_at(at).await;
            }
            clock::move_to(target).await;
            self.quiet_at(at).await;
        }
    }

    /// Moves the clock to the next moment at which something is due, a retry or a delayed publish,
    /// waits for quiet, and tells what it was.
    ///
    /// # Panics
    /// When nothing is due, and as [`quiet`](TestBus::quiet).
    #[track_caller]
    pub fn advance_to_next(&self) -> impl Future<Output = Due> {
        let at = Location::caller();
        async move {
            self.quiet_at(at).await;
            let Some(due) = self.next_due() else {
                let story = self.story().await;
                panic!("nothing waits for a retry or was published with a delay, at {at}\n{story}");
            };
            if let Some(moment) = due.moment() {
                clock::move_to(moment).await;
            }
            self.quiet_at(at).await;
            due
        }
    }

    fn next_due(&self) -> Option<Due> {
        self.due().into_iter().find(|due| !due.after.is_zero())
    }

    /// Waits for an event of type `E` and gives it: the oldest that was not given before, whoever
    /// published it. Does not move the clock past a retry or a delayed publish.
    ///
    /// # Panics
    /// When none came and nothing is left to do, with what was published instead.
    #[track_caller]
    pub fn expect_published<E: Event>(&self) -> impl Future<Output = E> {
        let at = Location::caller();
        async move {
            let began = Instant::now();
            loop {
                self.quiet_at(at).await;
                if let Some(envelope) = self.take(E::TYPE.as_str()).await {
                    return views::decode(&Ok(envelope), at);
                }
                // Tasks outside the bus may be about to publish; retries keep their moment.
                let step = began.elapsed().max(Duration::from_millis(1));
                let next = self.next_due().map_or(PATIENCE, |due| due.after);
                if began.elapsed() >= PATIENCE || next <= step {
                    let (name, story) = (E::TYPE, self.story().await);
                    panic!("no {name} was published, at {at}\n{story}");
                }
                tokio::time::sleep(step).await;
            }
        }
    }

    /// Waits for quiet; then there is no event of type `E` that was not given before.
    ///
    /// # Panics
    /// When there is one, with what it is.
    #[track_caller]
    pub fn expect_nothing_published<E: Event>(&self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            self.quiet_at(at).await;
            if let Some(envelope) = self.take(E::TYPE.as_str()).await {
                let shown = views::show(&Ok(envelope));
                let story = self.story().await;
                panic!("{shown} was published, at {at}\n{story}");
            }
        }
    }

    /// Waits for quiet and gives the oldest dead letter of type `E`.
    ///
    /// # Panics
    /// When there is none, with what happened instead.
    #[track_caller]
    pub fn expect_dead<E: Event>(&self) -> impl Future<Output = Dead> {
        let at = Location::caller();
        async move {
            self.quiet_at(at).await;
            let dead = self.dead().into_iter().find(Dead::is::<E>);
            match dead {
                Some(dead) => dead,
                None => {
                    let (name, story) = (E::TYPE, self.story().await);
                    panic!("no {name} was dead-lettered, at {at}\n{story}");
                }
            }
        }
    }

    /// Events that handlers have in hand.
    pub fn pending(&self) -> Vec<Pending> {
        self.driver.pending().into_iter().map(Pending::new).collect()
    }

    /// Events that wait for their moment, the next one first.
    pub fn due(&self) -> Vec<Due> {
        self.driver.due().into_iter().map(Due::new).collect()
    }

    /// What the groups gave up, by group.
    pub fn dead(&self) -> Vec<Dead> {
        self.driver.dead().into_iter().map(Dead::new).collect()
    }

    /// Ends the bus as [`Bus::drain`] does, within [`DRAIN_DEADLINE`] of paused time.
    pub async fn drain(&self) -> DrainReport {
        self.bus.drain(DRAIN_DEADLINE).await
    }

    async fn take(&self, event_type: &str) -> Option<crate::Envelope> {
        let mut journal = self.journal.lock().await;
        journal.refresh(&*self.driver).await;
        journal.take(event_type)
    }

    /// What happened, for those who expected something else.
    async fn story(&self) -> String {
        let mut journal = self.journal.lock().await;
        journal.refresh(&*self.driver).await;
        let mut story = journal.to_string();
        views::list(&mut story, "in hand", &self.pending());
        views::list(&mut story, "due (`advance_to_next` moves the clock there)", &self.due());
        views::list(&mut story, "dead letters", &self.dead());
        story
    }
}

impl fmt::Debug for TestBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestBus").field("bus", &self.bus).field("now", &self.now()).finish()
    }
}

/// Seeds what the library draws by chance in this thread: event ids, the jitter of retries, where
/// the first event without a key goes. On a current-thread runtime with paused time the same seed
/// then makes the same course of events, in whatever run.
///
/// Ids repeat with the seed: begin with an empty store.
pub fn seed(seed: u64) {
    fastrand::seed(seed);
    crate::event_id::seed(seed);
}

fn stored(
    answer: Result<Receipt, PublishError>,
    name: &str,
    at: &'static Location<'static>,
) -> Receipt {
    match answer {
        Ok(receipt) => receipt,
        Err(error) => panic!("cannot publish {name}, at {at}: {error}{}", help(error.error())),
    }
}

fn done<T>(what: &str, result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}{}", help(&error)),
    }
}

fn help(error: &Error) -> String {
    error.help().map(|help| format!("\nhelp: {help}")).unwrap_or_default()
}
