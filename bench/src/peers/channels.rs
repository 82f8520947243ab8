//! tokio's channels: what memory costs without ids, receipts or retries.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio::task::JoinSet;

use super::{Consumers, Peer};
use crate::Error;
use crate::job::Job;
use crate::tally::Tally;

/// Events that a channel holds.
const CAPACITY: usize = 4096;

type Events = Arc<[Vec<u8>]>;

/// A bounded channel to each group.
pub(super) struct Mpsc {
    /// Events of a message.
    batch: usize,
    senders: Mutex<Vec<mpsc::Sender<Events>>>,
}

impl Mpsc {
    pub(super) fn new(batch: usize) -> Self {
        Self { batch, senders: Mutex::default() }
    }
}

#[async_trait]
impl Peer for Mpsc {
    async fn publish(&self, job: &Job) -> Result<(), Error> {
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let batch = self.batch as u64;
        for first in (0..job.events).step_by(self.batch) {
            let numbers = first..(first + batch).min(job.events);
            let events: Events = numbers.map(|number| job.payload(number, 0)).collect();
            for sender in &senders {
                sender.send(Arc::clone(&events)).await?;
            }
        }
        Ok(())
    }

    async fn consume(&self, job: &Job, tally: Arc<Tally>) -> Result<Consumers, Error> {
        let mut tasks = JoinSet::new();
        for group in 0..job.groups {
            let (sender, mut receiver) = mpsc::channel::<Events>(CAPACITY / self.batch);
            self.senders.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
            let tally = Arc::clone(&tally);
            tasks.spawn(async move {
                while let Some(events) = receiver.recv().await {
                    events.iter().for_each(|event| tally.handled(group, event));
                }
            });
        }
        Ok(at_work(tasks))
    }
}

/// A ring that every group reads; it overwrites what is old, so the publisher waits for the
/// slowest group, by a permit for each place.
pub(super) struct Broadcast {
    sender: broadcast::Sender<Vec<u8>>,
    room: Mutex<Vec<Arc<Semaphore>>>,
}

impl Broadcast {
    pub(super) fn new() -> Self {
        Self { sender: broadcast::Sender::new(CAPACITY), room: Mutex::default() }
    }
}

#[async_trait]
impl Peer for Broadcast {
    async fn publish(&self, job: &Job) -> Result<(), Error> {
        let room = self.room.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut left, some) = (0, CAPACITY / 2);
        for number in 0..job.events {
            if left == 0 {
                for room in &room {
                    room.acquire_many(u32::try_from(some)?).await?.forget();
                }
                left = some;
            }
            left -= 1;
            self.sender.send(job.payload(number, 0)).map_err(|_| "nobody listens")?;
        }
        Ok(())
    }

    async fn consume(&self, job: &Job, tally: Arc<Tally>) -> Result<Consumers, Error> {
        let mut tasks = JoinSet::new();
        for group in 0..job.groups {
            let (mut receiver, tally) = (self.sender.subscribe(), Arc::clone(&tally));
            let room = Arc::new(Semaphore::new(CAPACITY));
            self.room.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&room));
            tasks.spawn(async move {
                let mut taken = 0;
                while let Ok(event) = receiver.recv().await {
                    tally.handled(group, &event);
                    taken += 1;
                    if taken == CAPACITY / 2 {
                        room.add_permits(taken);
                        taken = 0;
                    }
                }
            });
        }
        Ok(at_work(tasks))
    }
}

fn at_work(mut tasks: JoinSet<()>) -> Consumers {
    Box::pin(async move {
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Err("the consumers ended".into())
    })
}
