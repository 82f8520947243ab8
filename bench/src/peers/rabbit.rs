//! RabbitMQ by lapin: persistent messages to a fanout exchange, publisher confirms, a durable
//! queue for each group, several messages in an ack where several have come.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};

use super::pump::pump;
use super::{Consumers, Peer};
use crate::Error;
use crate::job::Job;
use crate::tally::Tally;

const EXCHANGE: &str = "bench";
/// Messages that a consumer has without an ack.
const PREFETCH: u16 = 1000;
/// Messages of an ack.
const ACK_MAX: usize = 100;
const PERSISTENT: u8 = 2;

pub(super) struct Rabbit {
    url: String,
}

impl Rabbit {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    async fn connect(&self) -> Result<Connection, Error> {
        Ok(Connection::connect(&self.url, ConnectionProperties::default()).await?)
    }
}

#[async_trait]
impl Peer for Rabbit {
    async fn publish(&self, job: &Job) -> Result<(), Error> {
        let connection = self.connect().await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        pump(job, |_, data| {
            let channel = channel.clone();
            async move {
                let (options, properties) = (
                    BasicPublishOptions::default(),
                    BasicProperties::default().with_delivery_mode(PERSISTENT),
                );
                let sent = channel
                    .basic_publish(EXCHANGE.into(), "".into(), options, &data, properties)
                    .await?;
                if sent.await?.is_nack() {
                    return Err("the server refused a message".into());
                }
                Ok(())
            }
        })
        .await
    }

    async fn consume(&self, job: &Job, tally: Arc<Tally>) -> Result<Consumers, Error> {
        let connection = self.connect().await?;
        let mut tasks = tokio::task::JoinSet::new();
        for group in 0..job.groups {
            let channel = connection.create_channel().await?;
            let consumer = declare(&channel, &format!("group{group}")).await?;
            tasks.spawn(read(consumer, group, Arc::clone(&tally)));
        }
        Ok(Box::pin(async move {
            let _at_work = connection;
            match tasks.join_next().await {
                Some(ended) => ended?,
                None => std::future::pending().await,
            }
        }))
    }
}

/// An empty queue, bound to the exchange.
async fn declare(channel: &Channel, queue: &str) -> Result<Consumer, Error> {
    let none = FieldTable::default;
    let exchange = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Fanout, exchange, none()).await?;
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), none()).await?;
    let bind = QueueBindOptions::default();
    channel.queue_bind(queue.into(), EXCHANGE.into(), "".into(), bind, none()).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let consume = BasicConsumeOptions::default();
    Ok(channel.basic_consume(queue.into(), queue.into(), consume, none()).await?)
}

async fn read(mut consumer: Consumer, group: usize, tally: Arc<Tally>) -> Result<(), Error> {
    let mut unacked = 0;
    while let Some(delivery) = consumer.next().await {
        let mut delivery = delivery?;
        loop {
            tally.handled(group, &delivery.data);
            unacked += 1;
            if unacked == ACK_MAX {
                break;
            }
            match consumer.next().now_or_never().flatten() {
                Some(next) => delivery = next?,
                None => break,
            }
        }
        delivery.ack(BasicAckOptions { multiple: true }).await?;
        unacked = 0;
    }
    Err("the consumer ended".into())
}
