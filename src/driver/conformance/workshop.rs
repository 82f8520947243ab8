//! What the scenarios with handlers share: a bus on the fixture's store, and an inbox for what its
//! handlers saw.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Fixture;
use super::kit::{DEADLINE, group, patient};
use crate::codec::ContentType;
use crate::delivery::DeadLetter;
use crate::driver::{Backlog, Driver};
use crate::envelope::Envelope;
use crate::error::HandlerError;
use crate::service::{Context, Routes, Services};
use crate::service::{RetryPolicy, ServiceOptions};
use crate::time::{Clock, SystemClock};
use crate::{Bus, EventType};

/// What handlers saw, in order.
pub(super) struct Inbox<T> {
    pub(super) sender: mpsc::Sender<T>,
    receiver: mpsc::Receiver<T>,
}

impl<T> Inbox<T> {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(100_000);
        Self { sender, receiver }
    }

    pub(super) async fn next(&mut self) -> T {
        let next = timeout(DEADLINE, self.receiver.recv()).await.expect("a handler was called");
        next.expect("the inbox keeps a sender")
    }

    pub(super) async fn take(&mut self, count: usize) -> Vec<T> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            taken.push(self.next().await);
        }
        taken
    }

    /// What came meanwhile, without waiting.
    pub(super) fn rest(&mut self) -> Vec<T> {
        std::iter::from_fn(|| self.receiver.try_recv().ok()).collect()
    }
}

/// A bus without registered services on a client of the fixture's store.
pub(super) async fn bus(fixture: &dyn Fixture) -> Bus {
    bus_on(fixture.driver().await).await
}

pub(super) async fn bus_on(driver: Arc<dyn Driver>) -> Bus {
    let builder = Bus::builder().driver(driver).services(Services::none());
    builder.build().await.expect("a bus on a driver that is connected")
}

/// Options with the fixture's lease, for scenarios in which one is to end.
pub(super) fn mortal(fixture: &dyn Fixture) -> ServiceOptions {
    ServiceOptions { lease: fixture.lease(), ..options(fixture) }
}

/// Options with retries that come soon.
pub(super) fn options(fixture: &dyn Fixture) -> ServiceOptions {
    let lease = patient(fixture.lease());
    let soon = Duration::from_millis(20);
    ServiceOptions {
        lease,
        settle_wait: Duration::from_millis(20),
        retry: RetryPolicy { attempts_max: 3, first: soon, factor: 1.0, cap: soon },
        ..ServiceOptions::default()
    }
}

/// Handles everything of the scenario's topic with a closure on envelopes.
pub(super) async fn handle<F, Fut>(bus: &Bus, name: &str, options: ServiceOptions, handler: F)
where
    F: Fn(Envelope, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    let routes = |routes: Routes<()>| routes.on_any_fn("conformance.>", handler);
    bus.subscribe_routes(name, options, routes).await.expect("subscribed");
}

/// Handles everything of the scenario's topic by writing the payload, a JSON string, into an inbox.
pub(super) async fn collect(bus: &Bus, name: &str, options: ServiceOptions, inbox: &Inbox<String>) {
    let seen = inbox.sender.clone();
    handle(bus, name, options, move |envelope, _| {
        let seen = seen.clone();
        async move {
            seen.send(text(&envelope)).await?;
            Ok(())
        }
    })
    .await;
}

/// A JSON event of `conformance.thing.happened`.
pub(super) fn thing(key: Option<&str>, payload: &str) -> Envelope {
    let event_type = EventType::from_static("conformance.thing.happened");
    let payload = serde_json::to_vec(payload).expect("a string is JSON");
    let builder = Envelope::builder(event_type, ContentType::JSON, payload, SystemClock.now());
    builder.key(key.map(str::to_owned)).build().expect("within limits")
}

pub(super) fn text(envelope: &Envelope) -> String {
    envelope.payload_as().expect("a JSON string")
}

pub(super) async fn publish(bus: &Bus, envelopes: Vec<Envelope>) {
    for answer in bus.publisher().publish_envelopes(envelopes).await {
        answer.expect("stored");
    }
}

/// Waits until every group of the bus has nothing left.
pub(super) async fn settled(bus: &Bus) {
    timeout(DEADLINE, bus.settled()).await.expect("all is settled").expect("the store tells");
}

pub(super) async fn dead_letters(bus: &Bus, name: &'static str) -> Vec<DeadLetter> {
    let tools = bus.driver().tools().expect("a driver in this suite has tools");
    tools.dead_letters(&group(name), 1_000).await.expect("the store tells")
}

pub(super) async fn backlog(bus: &Bus, name: &'static str) -> Backlog {
    let tools = bus.driver().tools().expect("a driver in this suite has tools");
    tools.backlog(&group(name)).await.expect("the store tells")
}

pub(super) async fn end(bus: Bus) {
    timeout(DEADLINE, bus.drain(Duration::from_secs(5))).await.expect("drained");
}
