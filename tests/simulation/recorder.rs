//! A driver that notes what the store really did, beneath the one that fails.

use std::sync::Arc;

use async_trait::async_trait;
use rumormill::delivery::{Bits, Delivery, Entry, Outcome, Settled, Settlement};
use rumormill::driver::admin::Admin;
use rumormill::driver::memory::MemoryDriver;
use rumormill::driver::{
    Append, Appended, Driver, Feed, Follow, Publish, Settler, Source, Subscribe, Subscription,
    Tools, TopicShape,
};
use rumormill::{Error, PublishError, Topic};

use crate::history::{End, Ended, Fact, Handed, History, Process, key_of, name_of};
use crate::plan::group_name;

pub struct Recorder {
    pub store: Arc<MemoryDriver>,
    pub history: History,
    pub process: Process,
}

#[async_trait]
impl Driver for Recorder {
    fn tools(&self) -> Option<&dyn Tools> {
        self.store.tools()
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.store.admin()
    }

    fn parks_keys(&self) -> bool {
        self.store.parks_keys()
    }

    fn marks_handled(&self) -> bool {
        self.store.marks_handled()
    }

    fn broadcasts(&self) -> Option<&dyn Follow> {
        self.store.broadcasts()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

#[async_trait]
impl Publish for Recorder {
    async fn declare(&self, topic: &Topic) -> Result<TopicShape, Error> {
        self.store.declare(topic).await
    }

    async fn append(&self, appends: Vec<Append>) -> Vec<Result<Appended, PublishError>> {
        self.store.append(appends).await
    }
}

#[async_trait]
impl Subscribe for Recorder {
    async fn subscribe(&self, subscription: Subscription) -> Result<Feed, Error> {
        let group = group_name(subscription.group.as_str());
        let Feed { source, settler, routes, consumer } = self.store.subscribe(subscription).await?;
        let scribe = Scribe {
            history: self.history.clone(),
            process: self.process,
            group,
            consumer: consumer.as_str().into(),
        };
        let source = Box::new(NotedSource { source, scribe: scribe.clone() });
        let settler = Arc::new(NotedSettler { settler, scribe });
        Ok(Feed { source, settler, routes, consumer })
    }
}

#[derive(Clone)]
struct Scribe {
    history: History,
    process: Process,
    group: &'static str,
    consumer: Arc<str>,
}

struct NotedSource {
    source: Box<dyn Source>,
    scribe: Scribe,
}

#[async_trait]
impl Source for NotedSource {
    async fn fetch(&mut self, budget: usize) -> Result<Vec<Entry>, Error> {
        let entries = self.source.fetch(budget).await?;
        let Scribe { history, process, group, consumer } = &self.scribe;
        let mut given = Vec::with_capacity(entries.len());
        for entry in entries.into_iter().map(Arc::new) {
            let name = |delivery: &Delivery| {
                let name = delivery.envelope().map_or_else(|| "malformed".into(), name_of);
                (name, delivery.origin())
            };
            let events = entry.deliveries().map(|delivery| name(&delivery)).collect();
            let handed = Handed {
                group,
                consumer: Arc::clone(consumer),
                queue: entry.queue,
                entry: entry.id,
                token: entry.token.0,
                attempt: entry.attempt,
                suspect: entry.suspect,
                events,
            };
            history.note(Fact::Handed(*process, handed));
            given.push(Arc::into_inner(entry).expect("its deliveries are gone"));
        }
        Ok(given)
    }

    async fn close(&mut self) {
        self.source.close().await;
    }
}

impl Drop for NotedSource {
    fn drop(&mut self) {
        let Scribe { history, process, consumer, .. } = &self.scribe;
        history.note(Fact::Left(*process, Arc::clone(consumer)));
    }
}

struct NotedSettler {
    settler: Arc<dyn Settler>,
    scribe: Scribe,
}

#[async_trait]
impl Settler for NotedSettler {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled, Error>> {
        let answers = self.settler.settle(settlements.clone()).await;
        let Scribe { history, process, group, consumer } = &self.scribe;
        for (Settlement { delivery, outcome }, answer) in settlements.iter().zip(&answers) {
            let envelope = delivery.envelope();
            let ended = Ended {
                group,
                consumer: Arc::clone(consumer),
                name: envelope.map_or_else(|| "malformed".into(), name_of),
                key: envelope.and_then(key_of),
                origin: delivery.origin(),
                attempt: delivery.attempt(),
                end: end_of(outcome),
                answer: answer.as_ref().ok().copied(),
            };
            history.note(Fact::Settled(*process, ended));
        }
        answers
    }

    async fn begin(&self, delivery: &Delivery) -> Result<Option<u32>, Error> {
        self.settler.begin(delivery).await
    }

    async fn is_parked(&self, delivery: &Delivery) -> Result<bool, Error> {
        self.settler.is_parked(delivery).await
    }

    async fn handled(&self, entry: &Entry) -> Result<Bits, Error> {
        self.settler.handled(entry).await
    }
}

fn end_of(outcome: &Outcome) -> End {
    match outcome {
        Outcome::Ack { outputs } | Outcome::AckOnce { outputs, .. } => {
            End::Ack { outputs: outputs.iter().map(|output| name_of(&output.envelope)).collect() }
        }
        Outcome::Retry { after, failure } => End::Retry { after: *after, cause: failure.cause },
        Outcome::DeadLetter { failure } => End::DeadLetter { cause: failure.cause },
        Outcome::Park => End::Park,
        Outcome::Split { after } => End::Split { after: *after },
    }
}
