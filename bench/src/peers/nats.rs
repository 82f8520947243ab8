//! NATS JetStream: publishes with acks, durable pull consumers that acknowledge each message.

use std::sync::Arc;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::jetstream::{self, Context};
use async_trait::async_trait;
use futures_util::StreamExt;

use super::pump::pump;
use super::{Consumers, Peer};
use crate::Error;
use crate::job::Job;
use crate::tally::Tally;

const SUBJECT: &str = "bench.thing.happened";

pub(super) struct Nats {
    url: String,
    in_memory: bool,
}

impl Nats {
    pub(super) fn new(url: &str, in_memory: bool) -> Self {
        Self { url: url.to_owned(), in_memory }
    }

    async fn context(&self) -> Result<Context, Error> {
        Ok(jetstream::new(async_nats::connect(&self.url).await?))
    }
}

#[async_trait]
impl Peer for Nats {
    async fn publish(&self, job: &Job) -> Result<(), Error> {
        let context = self.context().await?;
        pump(job, |_, data| {
            let context = context.clone();
            async move {
                let _ack = context.publish(SUBJECT, data.into()).await?.await?;
                Ok(())
            }
        })
        .await
    }

    async fn consume(&self, job: &Job, tally: Arc<Tally>) -> Result<Consumers, Error> {
        let context = self.context().await?;
        let storage = if self.in_memory { StorageType::Memory } else { StorageType::File };
        let config = Config {
            name: "bench".to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            storage,
            ..Config::default()
        };
        let stream = context.create_stream(config).await?;
        let mut tasks = tokio::task::JoinSet::new();
        for group in 0..job.groups {
            let config = pull::Config {
                durable_name: Some(format!("group{group}")),
                ack_policy: AckPolicy::Explicit,
                max_ack_pending: 10_000,
                ..pull::Config::default()
            };
            let consumer = stream.create_consumer(config).await?;
            let mut messages = consumer.stream().max_messages_per_batch(500).messages().await?;
            let tally = Arc::clone(&tally);
            tasks.spawn(async move {
                while let Some(message) = messages.next().await {
                    let message = message?;
                    tally.handled(group, &message.payload);
                    message.ack().await?;
                }
                Err::<(), Error>("the consumer ended".into())
            });
        }
        Ok(Box::pin(async move {
            match tasks.join_next().await {
                Some(ended) => ended?,
                None => std::future::pending().await,
            }
        }))
    }
}
