//! rumormill itself, with typed events, the usual middleware and a decoding handler.

use std::sync::Arc;

use async_trait::async_trait;
use rumormill::{Bus, Context, Event, PublishLimits, Services};
use serde::{Deserialize, Serialize};

use super::pump::pump;
use super::{Consumers, Peer};
use crate::Error;
use crate::job::Job;
use crate::measure::Tally;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "bench.thing.happened")]
struct Happened {
    #[serde(with = "bytes")]
    data: Vec<u8>,
}

/// A payload as a byte string, not as a list of numbers.
mod bytes {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(data: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(data)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

pub(super) struct Rumormill {
    url: String,
    /// As in `PublishLimits`; nothing: the default.
    batch_events_max: Option<usize>,
}

impl Rumormill {
    pub(super) fn new(url: &str, batch_events_max: Option<usize>) -> Self {
        Self { url: url.to_owned(), batch_events_max }
    }

    async fn bus(&self) -> Result<Bus, Error> {
        let mut limits = PublishLimits::default();
        if let Some(events) = self.batch_events_max {
            limits.batch_events_max = events;
        }
        let builder = Bus::builder().url(&self.url).services(Services::none()).limits(limits);
        Ok(builder.build().await?)
    }
}

#[async_trait]
impl Peer for Rumormill {
    async fn publish(&self, job: &Job) -> Result<(), Error> {
        let bus = self.bus().await?;
        let publisher = bus.publisher();
        pump(job, |data| {
            let publisher = publisher.clone();
            async move {
                publisher.publish(&Happened { data }).await?;
                Ok(())
            }
        })
        .await
    }

    async fn consume(&self, job: &Job, tally: Arc<Tally>) -> Result<Consumers, Error> {
        let bus = self.bus().await?;
        for group in 0..job.groups {
            let tally = Arc::clone(&tally);
            let handler = move |event: Happened, _: Context| {
                let tally = Arc::clone(&tally);
                async move {
                    tally.handled(&event.data);
                    Ok(())
                }
            };
            bus.subscribe(&format!("group{group}"), handler).await?;
        }
        Ok(Box::pin(async move {
            let _at_work = bus;
            std::future::pending().await
        }))
    }
}
