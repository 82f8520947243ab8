//! SeaStreamer on Redis: load-balanced consumers that acknowledge each message, rolling commits.

use std::sync::Arc;

use async_trait::async_trait;
use sea_streamer_redis::{AutoCommit, AutoStreamReset, RedisConsumerOptions, RedisStreamer};
use sea_streamer_types::{
    Buffer, Consumer, ConsumerGroup, ConsumerMode, ConsumerOptions, Message, Producer, StreamKey,
    Streamer,
};

use super::pump::pump;
use super::{Consumers, Peer};
use crate::Error;
use crate::job::Job;
use crate::tally::Tally;

/// Messages of one read; its default of 10 is slower.
const BATCH: usize = 500;

pub(super) struct SeaStreamer {
    url: String,
}

impl SeaStreamer {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    async fn connect(&self) -> Result<RedisStreamer, Error> {
        Ok(RedisStreamer::connect(self.url.parse()?, Default::default()).await?)
    }
}

#[async_trait]
impl Peer for SeaStreamer {
    async fn publish(&self, job: &Job) -> Result<(), Error> {
        let streamer = self.connect().await?;
        let producer = streamer.create_producer(StreamKey::new("sea")?, Default::default()).await?;
        pump(job, |_, data| {
            let sent = producer.send(data.as_slice());
            async move {
                let _receipt = sent?.await?;
                Ok(())
            }
        })
        .await
    }

    async fn consume(&self, job: &Job, tally: Arc<Tally>) -> Result<Consumers, Error> {
        let streamer = self.connect().await?;
        let mut tasks = tokio::task::JoinSet::new();
        for group in 0..job.groups {
            let mut options = RedisConsumerOptions::new(ConsumerMode::LoadBalanced);
            options.set_consumer_group(ConsumerGroup::new(format!("group{group}")))?;
            options.set_mkstream(true);
            options.set_auto_stream_reset(AutoStreamReset::Earliest);
            options.set_auto_commit(AutoCommit::Rolling);
            options.set_batch_size(BATCH);
            let consumer = streamer.create_consumer(&[StreamKey::new("sea")?], options).await?;
            let tally = Arc::clone(&tally);
            tasks.spawn(async move {
                loop {
                    let message = consumer.next().await?;
                    tally.handled(group, message.message().as_bytes());
                    consumer.ack(&message)?;
                }
            });
        }
        Ok(Box::pin(async move {
            let _at_work = streamer;
            match tasks.join_next().await {
                Some(ended) => ended?,
                None => std::future::pending().await,
            }
        }))
    }
}
