//! rumormill itself, with typed events, the usual middleware and a decoding handler.

mod event;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::redis::{Io, RedisDriver, RedisOptions};
use rumormill::{
    Bus, Context, Envelope, PublishLimits, Publisher, Routes, ServiceOptions, Services,
};
use tokio::sync::OnceCell;

use self::event::Happened;
use super::pump::pump;
use super::{Consumers, Peer};
use crate::Error;
use crate::job::Job;
use crate::tally::Tally;

/// A service that is prepared has nothing running.
const DRAIN: Duration = Duration::from_secs(5);

/// What handlers take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Handlers {
    Typed,
    Envelope,
}

/// How events are published.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Publishing {
    /// One by one; what waits goes together.
    Each,
    /// One by one, one in an entry.
    Alone,
    /// Several in a call.
    Many,
}

/// Where events are kept, and who reads and writes there.
enum Place {
    Memory,
    Redis(String),
    /// With the connections on the runtime that publishes and handles.
    Current(String),
}

/// What the memory driver keeps at most. The channels that are measured beside it hold 4,096
/// events; with the default, which is sixteen times as much, publishers run ahead of handlers until
/// no event comes from the processor's cache any more.
const IN_MEMORY_BYTES_MAX: usize = 4 << 20;

pub(super) struct Rumormill {
    place: Place,
    handlers: Handlers,
    publishing: Publishing,
    /// Shared where publisher and consumer share the process.
    bus: OnceCell<Bus>,
}

impl Rumormill {
    pub(super) fn new(url: &str, handlers: Handlers, publishing: Publishing) -> Self {
        let place = Place::Redis(url.to_owned());
        Self { place, handlers, publishing, bus: OnceCell::new() }
    }

    pub(super) fn in_memory(handlers: Handlers, publishing: Publishing) -> Self {
        Self { place: Place::Memory, handlers, publishing, bus: OnceCell::new() }
    }

    pub(super) fn on_current(url: &str) -> Self {
        let place = Place::Current(url.to_owned());
        Self { place, ..Self::new(url, Handlers::Typed, Publishing::Each) }
    }

    async fn bus(&self, job: &Job) -> Result<Bus, Error> {
        let mut limits = PublishLimits::default();
        // The encoded event is some bytes longer.
        limits.payload_bytes_max = limits.payload_bytes_max.max(job.payload + 64);
        // A round has a deadline of its own.
        limits.deadline = Duration::from_secs(60);
        limits.linger = Duration::from_micros(job.linger_us);
        if self.publishing == Publishing::Alone {
            limits.batch_events_max = 1;
        }
        let build = async || {
            let builder = Bus::builder().services(Services::none()).limits(limits);
            let builder = match &self.place {
                Place::Redis(url) => builder.url(url),
                Place::Memory => {
                    let unsettled_bytes_max = IN_MEMORY_BYTES_MAX;
                    let options = MemoryOptions { unsettled_bytes_max, ..MemoryOptions::default() };
                    builder.driver(MemoryDriver::new(options))
                }
                Place::Current(url) => {
                    let options = RedisOptions { io: Io::Current, ..RedisOptions::new(url) };
                    builder.driver(RedisDriver::connect(options).await?)
                }
            };
            builder.build().await
        };
        Ok(self.bus.get_or_try_init(build).await?.clone())
    }

    async fn publish_many(&self, job: &Job, publisher: &Publisher) -> Result<(), Error> {
        // Two calls share the window, so that one is under way while the other is made.
        let many = (job.window / 2).max(1);
        let event = |number| Happened::new(job, number, job.payload(number, 0));
        let calls = (0..job.events).step_by(many).map(|first| {
            let events = first..(first + many as u64).min(job.events);
            let events: Vec<Happened> = events.map(event).collect();
            async move { publisher.publish_many(&events).await }
        });
        let mut answers = stream::iter(calls).buffered(2);
        while let Some(published) = answers.next().await {
            published.into_iter().try_for_each(|one| one.map(drop))?;
        }
        Ok(())
    }

    async fn subscribe(&self, bus: &Bus, job: &Job, tally: &Arc<Tally>) -> Result<(), Error> {
        let default = ServiceOptions::default();
        let lanes = if job.lanes == 0 { default.lanes } else { job.lanes };
        for group in 0..job.groups {
            let options = ServiceOptions { lanes, ..ServiceOptions::default() };
            // For the process' life, which is the round's: handlers share it without counting.
            let own = Group { job: job.clone(), tally: Arc::clone(tally), group };
            let own: &'static Group = Box::leak(Box::new(own));
            let routes = |routes| own.routes(routes, self.handlers);
            bus.subscribe_routes(&format!("group{group}"), options, routes).await?;
        }
        Ok(())
    }
}

/// What the handlers of a group share.
struct Group {
    job: Job,
    tally: Arc<Tally>,
    group: usize,
}

impl Group {
    /// The route of the events, and those beside it that match none of them.
    fn routes(&'static self, mut routes: Routes<()>, handlers: Handlers) -> Routes<()> {
        for pattern in 0..self.job.patterns {
            routes = routes.on_any_fn(&format!("bench.other{pattern}.*"), |_, _| async { Ok(()) });
        }
        if handlers == Handlers::Typed && self.job.topics == 0 {
            return routes.on_fn(move |event: Happened, _: Context| async move {
                self.handled(event.payload()).await;
                Ok(())
            });
        }
        for pattern in event::patterns(&self.job) {
            routes = routes.on_any_fn(&pattern, move |envelope: Envelope, _| async move {
                self.handled(event::payload(&self.job, &envelope)).await;
                Ok(())
            });
        }
        routes
    }

    async fn handled(&self, payload: &[u8]) {
        let wait_us = self.job.handler_us(Job::number(payload));
        if wait_us > 0 {
            tokio::time::sleep(Duration::from_micros(wait_us)).await;
        }
        self.tally.handled(self.group, payload);
    }
}

#[async_trait]
impl Peer for Rumormill {
    async fn prepare(&self, job: &Job) -> Result<(), Error> {
        let bus = self.bus(job).await?;
        self.subscribe(&bus, job, &Arc::new(Tally::new(job))).await?;
        bus.drain(DRAIN).await;
        Ok(())
    }

    async fn publish(&self, job: &Job) -> Result<(), Error> {
        let bus = self.bus(job).await?;
        let publisher = bus.publisher();
        if self.publishing == Publishing::Many {
            return self.publish_many(job, publisher).await;
        }
        if job.topics > 0 {
            return pump(job, |number, data| {
                let (publisher, envelope) = (publisher.clone(), event::envelope(job, number, data));
                async move {
                    publisher.publish_envelope(envelope?).await?;
                    Ok(())
                }
            })
            .await;
        }
        pump(job, |number, data| {
            let (publisher, event) = (publisher.clone(), Happened::new(job, number, data));
            async move {
                publisher.publish(&event).await?;
                Ok(())
            }
        })
        .await
    }

    async fn consume(&self, job: &Job, tally: Arc<Tally>) -> Result<Consumers, Error> {
        let bus = self.bus(job).await?;
        self.subscribe(&bus, job, &tally).await?;
        Ok(Box::pin(async move {
            let _at_work = bus;
            std::future::pending().await
        }))
    }
}
