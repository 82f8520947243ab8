//! Several groups as one step: all of them, or none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rumormill::delivery::{Entry, Start};
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::{
    Append, Appended, Driver, Feed, Publish, Source, Subscribe, Subscription, Tools,
};
use rumormill::driver::{LeaseTimes, TopicShape};
use rumormill::{
    Bus, Error, ErrorKind, Event, GroupSubscription, PublishError, ServiceOptions, Services, Topic,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.placed")]
struct Placed;

/// A memory driver that refuses the group `refused`.
struct Choosy(Arc<MemoryDriver>);

#[async_trait]
impl Publish for Choosy {
    async fn declare(&self, topic: &Topic) -> Result<TopicShape, Error> {
        self.0.declare(topic).await
    }

    async fn append(&self, appends: Vec<Append>) -> Vec<Result<Appended, PublishError>> {
        self.0.append(appends).await
    }
}

#[async_trait]
impl Subscribe for Choosy {
    async fn subscribe(&self, subscription: Subscription) -> Result<Feed, Error> {
        if subscription.group.as_str() == "refused" {
            return Err(Error::new(ErrorKind::Denied, "this group is not for you"));
        }
        let mut feed = self.0.subscribe(subscription).await?;
        let read = timeout(Duration::from_millis(1), feed.source.fetch(10)).await;
        let ahead = read.unwrap_or_else(|_| Ok(Vec::new()))?;
        feed.source = Box::new(Ahead { source: feed.source, ahead });
        Ok(feed)
    }
}

/// A source that has read ahead already.
struct Ahead {
    source: Box<dyn Source>,
    ahead: Vec<Entry>,
}

#[async_trait]
impl Source for Ahead {
    async fn fetch(&mut self, budget: usize) -> Result<Vec<Entry>, Error> {
        match std::mem::take(&mut self.ahead) {
            ahead if ahead.is_empty() => self.source.fetch(budget).await,
            ahead => Ok(ahead),
        }
    }

    async fn close(&mut self) {
        self.source.close().await;
    }
}

#[async_trait]
impl Driver for Choosy {
    fn tools(&self) -> Option<&dyn Tools> {
        self.0.tools()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

async fn bus() -> Bus {
    let driver = Arc::new(Choosy(MemoryDriver::new(MemoryOptions::default())));
    let builder = Bus::builder().driver(driver).services(Services::none());
    builder.build().await.expect("a bus in memory")
}

fn counting(group: &str, count: &Arc<AtomicU32>) -> GroupSubscription {
    let count = Arc::clone(count);
    GroupSubscription::new(group, |routes| {
        routes.on_fn(move |_: Placed, _| {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok(()))
        })
    })
}

#[tokio::test(start_paused = true)]
async fn many_groups_are_subscribed_and_ended_in_one_call() {
    let (bus, count) = (bus().await, Arc::default());
    bus.subscribe_many(["a", "b", "c"].map(|group| counting(group, &count))).await.expect("all");
    bus.publish(&Placed).await.expect("stored");
    bus.settled().await.expect("settled");
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let deadline = Duration::from_secs(5);
    let error = bus.unsubscribe_many(&["a", "unknown"], deadline).await.expect_err("one is not");
    assert!(error.to_string().contains("unknown"), "{error}");
    assert_eq!(bus.services().len(), 3, "none was ended");
    let report = bus.unsubscribe_many(&["a", "b", "a"], deadline).await.expect("both run");
    assert!(report.is_clean());
    let left: Vec<_> = bus.services().into_iter().map(|service| service.group).collect();
    assert_eq!(left, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn where_one_group_is_refused_none_is_subscribed() {
    let (bus, count) = (bus().await, Arc::default());
    bus.publish(&Placed).await.expect("stored");
    let groups = ["a", "refused", "b"].map(|group| counting(group, &count));
    let error = bus.subscribe_many(groups).await.expect_err("one is refused");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(bus.services().is_empty());
    assert_eq!(count.load(Ordering::SeqCst), 0, "no handler was called");
    // The names are free, and what the others had read is theirs at once.
    bus.subscribe_many(["a", "b"].map(|group| counting(group, &count))).await.expect("both");
    timeout(LeaseTimes::default().lease / 2, bus.settled())
        .await
        .expect("nobody holds it")
        .expect("settled");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_flaw_in_one_group_stops_all_before_the_store_is_asked() {
    let (bus, count) = (bus().await, Arc::default());
    let options = ServiceOptions { lanes: 0, start: Start::New, ..ServiceOptions::default() };
    let flawed = [counting("a", &count), counting("b", &count).options(options)];
    assert!(bus.subscribe_many(flawed).await.is_err());
    let twice = [counting("a", &count), counting("a", &count)];
    assert_eq!(bus.subscribe_many(twice).await.expect_err("taken").kind(), ErrorKind::Conflict);
    let empty = [counting("a", &count), GroupSubscription::new("b", |routes| routes)];
    assert!(bus.subscribe_many(empty).await.is_err());
    assert!(bus.services().is_empty());
    bus.subscribe_many([counting("a", &count)]).await.expect("the name is free");
}
