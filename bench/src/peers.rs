//! Who is compared: one file each.

mod ceiling;
mod nats;
mod plain;
mod pump;
mod rumormill;
mod sea_streamer;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use crate::Error;
use crate::job::Job;
use crate::measure::Tally;

/// Consumers at work; ends only with an error.
pub(crate) type Consumers = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A way from publishers to handlers.
#[async_trait]
pub(crate) trait Peer: Send + Sync {
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
}

/// Who is compared, and what each guarantees beside its number.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) guarantees: &'static str,
}

pub(crate) const PEERS: &[Entry] = &[
    Entry {
        name: "rumormill",
        needs: Needs::Redis,
        guarantees: "receipts, at least once, retries, dead letters, leases, order per key",
    },
    Entry {
        name: "rumormill-entry",
        needs: Needs::Redis,
        guarantees: "the same, with one event per entry",
    },
    Entry {
        name: "ceiling-batch",
        needs: Needs::Redis,
        guarantees: "receipts and acks by hand; nothing is retried, recovered or decoded",
    },
    Entry {
        name: "ceiling-entry",
        needs: Needs::Redis,
        guarantees: "the same, with one event per entry",
    },
    Entry {
        name: "sea-streamer",
        needs: Needs::Redis,
        guarantees: "receipts, at least once by claiming; no retries, no dead letters",
    },
    Entry {
        name: "redis-crate",
        needs: Needs::Redis,
        guarantees: "receipts and acks; a task per publish; nothing is recovered",
    },
    Entry {
        name: "nats-file",
        needs: Needs::NatsFile,
        guarantees: "receipts, at least once, redelivery; synced about every two minutes",
    },
    Entry { name: "nats-memory", needs: Needs::NatsMemory, guarantees: "the same, in memory" },
];

/// The peer of a name at an address.
pub(crate) fn find(name: &str, url: &str) -> Result<Box<dyn Peer>, Error> {
    Ok(match name {
        "rumormill" => Box::new(rumormill::Rumormill::new(url, None)),
        "rumormill-entry" => Box::new(rumormill::Rumormill::new(url, Some(1))),
        "ceiling-batch" => Box::new(ceiling::Ceiling::new(url, 50)?),
        "ceiling-entry" => Box::new(ceiling::Ceiling::new(url, 1)?),
        "sea-streamer" => Box::new(sea_streamer::SeaStreamer::new(url)),
        "redis-crate" => Box::new(plain::Plain::new(url)),
        "nats-file" => Box::new(nats::Nats::new(url, false)),
        "nats-memory" => Box::new(nats::Nats::new(url, true)),
        other => return Err(format!("no peer is called {other}").into()),
    })
}
