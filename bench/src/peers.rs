//! Who is compared: one file each.

mod ceiling;
mod channels;
#[cfg(feature = "nats")]
mod nats;
mod plain;
mod pump;
#[cfg(feature = "rabbitmq")]
mod rabbit;
mod rumormill;
#[cfg(feature = "sea-streamer")]
mod sea_streamer;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use crate::Error;
use crate::job::Job;
use crate::tally::Tally;

/// Consumers at work; ends only with an error.
pub(crate) type Consumers = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A way from publishers to handlers.
#[async_trait]
pub(crate) trait Peer: Send + Sync {
    /// Makes what the groups are to find, where the job publishes before they come.
    async fn prepare(&self, _job: &Job) -> Result<(), Error> {
        Err("this peer has no backlog".into())
    }

    /// Publishes every event of the job; returns when all are confirmed.
    async fn publish(&self, job: &Job) -> Result<(), Error>;

    /// Starts a consumer for each group; returns when what is published reaches them.
    async fn consume(&self, job: &Job, tally: Arc<Tally>) -> Result<Consumers, Error>;
}

/// The server that a peer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Redis,
    NatsFile,
    NatsMemory,
    Rabbit,
    /// None: publisher and consumer share a process.
    Nothing,
}

/// Who is compared, and what each guarantees beside its number.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) guarantees: &'static str,
}

const fn entry(name: &'static str, needs: Needs, guarantees: &'static str) -> Entry {
    Entry { name, needs, guarantees }
}

/// How the names of those end that publish many events in a call.
pub(crate) const MANY: &str = "-many";

pub(crate) const PEERS: &[Entry] = &[
    entry(
        "rumormill",
        Needs::Redis,
        "receipts, at least once, order per key, retries, dead letters, leases; as Redis keeps it",
    ),
    entry("rumormill-many", Needs::Redis, "the same, published in two calls of half the window"),
    entry("rumormill-entry", Needs::Redis, "the same, with one event per entry"),
    entry(
        "rumormill-current",
        Needs::Redis,
        "the same, its connections on the service's runtime (`Io::Current`)",
    ),
    entry(
        "ceiling-batch",
        Needs::Redis,
        "receipts and acks by hand, 50 events per entry; nothing is decoded, retried or recovered",
    ),
    entry("ceiling-entry", Needs::Redis, "the same, with one event per entry"),
    entry(
        "sea-streamer",
        Needs::Redis,
        "receipts, at least once by claiming; no retries, no dead letters; as Redis keeps it",
    ),
    entry(
        "redis-crate",
        Needs::Redis,
        "receipts and acks, a future per publish; nothing is recovered; as Redis keeps it",
    ),
    entry(
        "nats-file",
        Needs::NatsFile,
        "receipts, at least once, redelivery; on file, synced about every two minutes",
    ),
    entry("nats-memory", Needs::NatsMemory, "the same, in the server's memory"),
    entry(
        "rabbitmq",
        Needs::Rabbit,
        "confirms, at least once, redelivery; durable queues, persistent messages, synced with \
         the confirms",
    ),
    entry(
        "memory-typed",
        Needs::Nothing,
        "order per key, receipts, back-pressure, retries; encoded and decoded; lost with the \
         process",
    ),
    entry("memory-typed-many", Needs::Nothing, "the same, two calls of half the window"),
    entry("memory-envelope", Needs::Nothing, "the same, handlers take the envelope"),
    entry("memory-envelope-many", Needs::Nothing, "the same, two calls of half the window"),
    entry(
        "tokio-mpsc",
        Needs::Nothing,
        "order, back-pressure; no ids, no receipts, no retries; lost with the process",
    ),
    entry("tokio-mpsc-64", Needs::Nothing, "the same, 64 events a message"),
    entry(
        "tokio-broadcast",
        Needs::Nothing,
        "order; who is slow loses events, so the publisher here waits for the slowest",
    ),
];

/// The entry of a name.
pub(crate) fn entry_of(name: &str) -> Option<&'static Entry> {
    PEERS.iter().find(|entry| entry.name == name)
}

/// The peer of a name at an address.
pub(crate) fn find(name: &str, url: &str) -> Result<Box<dyn Peer>, Error> {
    use self::rumormill::{Handlers, Publishing, Rumormill};
    let memory = |handlers, publishing| Rumormill::in_memory(handlers, publishing);
    Ok(match name {
        "rumormill" => Box::new(Rumormill::new(url, Handlers::Typed, Publishing::Each)),
        "rumormill-many" => Box::new(Rumormill::new(url, Handlers::Typed, Publishing::Many)),
        "rumormill-entry" => Box::new(Rumormill::new(url, Handlers::Typed, Publishing::Alone)),
        "rumormill-current" => Box::new(Rumormill::on_current(url)),
        "ceiling-batch" => Box::new(ceiling::Ceiling::new(url, 50)?),
        "ceiling-entry" => Box::new(ceiling::Ceiling::new(url, 1)?),
        #[cfg(feature = "sea-streamer")]
        "sea-streamer" => Box::new(sea_streamer::SeaStreamer::new(url)),
        "redis-crate" => Box::new(plain::Plain::new(url)),
        #[cfg(feature = "nats")]
        "nats-file" => Box::new(nats::Nats::new(url, false)),
        #[cfg(feature = "nats")]
        "nats-memory" => Box::new(nats::Nats::new(url, true)),
        #[cfg(feature = "rabbitmq")]
        "rabbitmq" => Box::new(rabbit::Rabbit::new(url)),
        "memory-typed" => Box::new(memory(Handlers::Typed, Publishing::Each)),
        "memory-typed-many" => Box::new(memory(Handlers::Typed, Publishing::Many)),
        "memory-envelope" => Box::new(memory(Handlers::Envelope, Publishing::Each)),
        "memory-envelope-many" => Box::new(memory(Handlers::Envelope, Publishing::Many)),
        "tokio-mpsc" => Box::new(channels::Mpsc::new(1)),
        "tokio-mpsc-64" => Box::new(channels::Mpsc::new(64)),
        "tokio-broadcast" => Box::new(channels::Broadcast::new()),
        other => return Err(format!("no peer of this build is called {other}").into()),
    })
}

/// Whether a peer is part of this build, and its server is found.
pub(crate) fn is_there(entry: &Entry) -> bool {
    let is_built = find(entry.name, "redis://127.0.0.1:1").is_ok();
    is_built && (entry.needs == Needs::Nothing || crate::server::program(entry.needs).is_some())
}

#[cfg(all(test, feature = "nats", feature = "rabbitmq", feature = "sea-streamer"))]
mod tests {
    use super::*;

    #[test]
    fn every_peer_of_the_list_is_found() {
        for entry in PEERS {
            assert!(find(entry.name, "redis://127.0.0.1:1").is_ok(), "{}", entry.name);
        }
    }
}
