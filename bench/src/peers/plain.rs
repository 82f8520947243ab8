//! The `redis` crate as it is used by hand: a multiplexed connection with a command for each
//! publish, and a loop of reads and acks.

use std::sync::Arc;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{AsyncConnectionConfig, Client, cmd};

use super::pump::pump;
use super::{Consumers, Peer};
use crate::Error;
use crate::job::Job;
use crate::tally::Tally;

const STREAM: &str = "plain";

pub(super) struct Plain {
    url: String,
}

impl Plain {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Error> {
        // A blocking read takes longer than the crate's default allows.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let client = Client::open(self.url.as_str())?;
        Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
    }
}

#[async_trait]
impl Peer for Plain {
    async fn publish(&self, job: &Job) -> Result<(), Error> {
        let connection = self.connect().await?;
        pump(job, |_, data| {
            let mut connection = connection.clone();
            async move {
                let mut add = cmd("XADD");
                add.arg(STREAM).arg("*").arg("b").arg(data);
                let _id: String = add.query_async(&mut connection).await?;
                Ok(())
            }
        })
        .await
    }

    async fn consume(&self, job: &Job, tally: Arc<Tally>) -> Result<Consumers, Error> {
        let mut tasks = tokio::task::JoinSet::new();
        for group in 0..job.groups {
            let (number, group) = (group, format!("group{group}"));
            let mut connection = self.connect().await?;
            let mut create = cmd("XGROUP");
            create.arg("CREATE").arg(STREAM).arg(&group).arg("0").arg("MKSTREAM");
            let () = create.query_async(&mut connection).await?;
            tasks.spawn(read(connection, group, number, Arc::clone(&tally)));
        }
        Ok(Box::pin(async move {
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            std::future::pending().await
        }))
    }
}

async fn read(
    mut connection: MultiplexedConnection,
    group: String,
    number: usize,
    tally: Arc<Tally>,
) -> Result<(), Error> {
    loop {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&group).arg("c").arg("COUNT").arg(100).arg("BLOCK").arg(1000);
        read.arg("STREAMS").arg(STREAM).arg(">");
        let reply: Option<StreamReadReply> = read.query_async(&mut connection).await?;
        let keys = reply.into_iter().flat_map(|reply| reply.keys);
        let mut ack = cmd("XACK");
        ack.arg(STREAM).arg(&group);
        let mut any = false;
        for entry in keys.flat_map(|key| key.ids) {
            let data: Vec<u8> = entry.get("b").ok_or("no payload")?;
            tally.handled(number, &data);
            ack.arg(entry.id);
            any = true;
        }
        if any {
            let _acked: u64 = ack.query_async(&mut connection).await?;
        }
    }
}
