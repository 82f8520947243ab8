//! A driver in memory that refuses what it is told to refuse.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::{
    Append, Appended, Driver, Feed, Publish, Subscribe, Subscription, Tools, TopicShape,
};
use rumormill::{Error, ErrorKind, PublishError, Topic};

use crate::kit::number;

/// What a batch is answered, by its numbers: nothing where it is to be stored.
type Rule = Box<dyn Fn(&[u32]) -> Option<Answer> + Send>;

/// How a batch is refused.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Refused(ErrorKind),
    /// As by a server that is full.
    Full,
    /// It is stored, and nobody is told.
    Lost,
    /// It is stored after this long.
    Slow(Duration),
}

pub(crate) struct Picky {
    inner: Arc<MemoryDriver>,
    rule: Mutex<Rule>,
    /// The rule is for this partition only.
    partition: Mutex<Option<u32>>,
    /// Events that were stored, by partition.
    stored: Mutex<HashMap<u32, usize>>,
    /// Every batch that came, in order.
    batches: Mutex<Vec<Vec<u32>>>,
}

impl Picky {
    pub(crate) fn new(partitions: u32) -> Arc<Self> {
        let options = MemoryOptions { partitions, ..MemoryOptions::default() };
        let rule: Rule = Box::new(|_| None);
        Arc::new(Self {
            inner: MemoryDriver::new(options),
            rule: Mutex::new(rule),
            partition: Mutex::default(),
            stored: Mutex::default(),
            batches: Mutex::default(),
        })
    }

    pub(crate) fn rule(&self, rule: impl Fn(&[u32]) -> Option<Answer> + Send + 'static) {
        *self.rule.lock().expect("no panic under it") = Box::new(rule);
    }

    /// The rules are for one partition.
    pub(crate) fn only_in(&self, partition: u32) {
        *self.partition.lock().expect("no panic under it") = Some(partition);
    }

    /// How many events of a partition were stored.
    pub(crate) fn stored_in(&self, partition: u32) -> usize {
        *self.stored.lock().expect("no panic under it").entry(partition).or_default()
    }

    /// The batches that came since the last call.
    pub(crate) fn batches(&self) -> Vec<Vec<u32>> {
        std::mem::take(&mut *self.batches.lock().expect("no panic under it"))
    }

    async fn answer(&self, append: Append) -> Result<Appended, PublishError> {
        let numbers: Vec<_> = append.envelopes.iter().map(number).collect();
        let index = append.partition.index;
        let only = *self.partition.lock().expect("no panic under it");
        let answer = match only {
            Some(only) if only != index => None,
            _ => (*self.rule.lock().expect("no panic under it"))(&numbers),
        };
        let events = numbers.len();
        self.batches.lock().expect("no panic under it").push(numbers);
        assert!(append.deduplicate, "a relay repeats itself");
        let stored = match answer {
            Some(Answer::Refused(kind)) => {
                return Err(PublishError::NotStored(Error::new(kind, "refused")));
            }
            Some(Answer::Full) => {
                let error = Error::new(ErrorKind::Server, "full").passing();
                return Err(PublishError::NotStored(error));
            }
            Some(Answer::Slow(time)) => {
                // waits: as long as the bus is slow, on paused time
                tokio::time::sleep(time).await;
                self.inner.append(vec![append]).await.remove(0)
            }
            _ => self.inner.append(vec![append]).await.remove(0),
        };
        *self.stored.lock().expect("no panic under it").entry(index).or_default() += events;
        match answer {
            Some(Answer::Lost) => {
                Err(PublishError::Unknown(Error::new(ErrorKind::Unreachable, "lost")))
            }
            _ => stored,
        }
    }
}

#[async_trait]
impl Publish for Picky {
    async fn declare(&self, topic: &Topic) -> Result<TopicShape, Error> {
        self.inner.declare(topic).await
    }

    async fn append(&self, appends: Vec<Append>) -> Vec<Result<Appended, PublishError>> {
        let mut answers = Vec::new();
        for append in appends {
            answers.push(self.answer(append).await);
        }
        answers
    }
}

#[async_trait]
impl Subscribe for Picky {
    async fn subscribe(&self, subscription: Subscription) -> Result<Feed, Error> {
        self.inner.subscribe(subscription).await
    }
}

#[async_trait]
impl Driver for Picky {
    fn tools(&self) -> Option<&dyn Tools> {
        self.inner.tools()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
