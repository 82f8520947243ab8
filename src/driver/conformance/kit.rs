//! What the scenarios share: events, a client, a consumer, and waiting with a deadline.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::Fixture;
use crate::codec::ContentType;
use crate::delivery::{
    Cause, Delivery, Entry, EntryId, Failure, Outcome, Output, Partition, Settled, Settlement,
    Site, Start,
};
use crate::driver::{
    Append, Appended, Backlog, Driver, Feed, GroupName, LeaseTimes, Settler, Subscription,
};
use crate::envelope::Envelope;
use crate::event_type::{EventType, Topic};
use crate::pattern::Pattern;
use crate::time::Timestamp;

/// What must happen happens within this time, or the scenario fails. Longer than any lease and
/// sweep of a fixture, shorter than [`LeaseTimes::default`].
pub(super) const DEADLINE: Duration = Duration::from_secs(20);
/// How long a scenario watches where nothing may happen.
pub(super) const WATCH: Duration = Duration::from_millis(300);
/// A store's clock is its own and counts whole milliseconds: what comes after a delay may come
/// this much early by the clock of the test.
pub(super) const CLOCK_SLACK: Duration = Duration::from_millis(10);
/// The topic of the scenarios that need one.
pub(super) const TOPIC: &str = "conformance";

pub(super) fn topic(name: &'static str) -> Topic {
    Topic::new(name).expect("a topic")
}

pub(super) fn partition(topic_name: &'static str, index: u32) -> Partition {
    Partition { topic: topic(topic_name), index }
}

pub(super) fn group(name: &'static str) -> GroupName {
    GroupName::new(name).expect("a group")
}

/// An event of the usual type.
pub(super) fn event(payload: impl Into<Bytes>) -> Envelope {
    let event_type = EventType::from_static("conformance.thing.happened");
    let now = Timestamp::from_millis(1_767_323_045_678);
    let builder = Envelope::builder(event_type, ContentType::MESSAGE_PACK, payload, now);
    builder.key(Some("a key")).build().expect("an event")
}

pub(super) fn entry(partition: &Partition, envelopes: Vec<Envelope>) -> Append {
    let (partition, delay) = (partition.clone(), Duration::ZERO);
    Append { partition, envelopes, delay, deduplicate: false }
}

pub(super) fn texts(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

pub(super) fn failure() -> Failure {
    let site = Site { handler: "a.>".into(), version: "1.2".into(), host: "h".into() };
    Failure { cause: Cause::Failed, errors: vec!["the post is late".into(), "rain".into()], site }
}

pub(super) fn retry(after: Duration) -> Outcome {
    Outcome::Retry { after, failure: failure() }
}

pub(super) fn dead_letter() -> Outcome {
    Outcome::DeadLetter { failure: failure() }
}

pub(super) fn split() -> Outcome {
    Outcome::Split { after: Duration::ZERO }
}

pub(super) fn output(topic_name: &'static str, payload: &'static str) -> Output {
    Output { partition: partition(topic_name, 0), envelope: event(payload) }
}

pub(super) fn payload(delivery: &Delivery) -> String {
    let envelope = delivery.record().as_ref().expect("an event");
    String::from_utf8(envelope.payload().to_vec()).expect("a text")
}

pub(super) fn payloads(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(payload).collect()
}

/// The same in ascending order, where the order is not promised.
pub(super) fn sorted(deliveries: &[Delivery]) -> Vec<String> {
    let mut payloads = payloads(deliveries);
    payloads.sort();
    payloads
}

/// One client of the fixture's store.
pub(super) struct Client {
    pub(super) driver: Arc<dyn Driver>,
    lease: LeaseTimes,
}

impl Client {
    /// A client, with the usual topic declared.
    pub(super) async fn new(fixture: &dyn Fixture) -> Self {
        let client = Self { driver: fixture.driver().await, lease: fixture.lease() };
        client.declare(TOPIC).await;
        client
    }

    /// A client whose consumers keep what they hold, however late a busy machine lets them renew:
    /// for scenarios in which no lease is to end.
    pub(super) async fn patient(fixture: &dyn Fixture) -> Self {
        let client = Self::new(fixture).await;
        Self { lease: patient(client.lease), ..client }
    }

    pub(super) async fn declare(&self, name: &'static str) -> Vec<Partition> {
        let shape = self.driver.declare(&topic(name)).await.expect("declared");
        shape.partitions().collect()
    }

    /// Appends, all of which must be stored.
    pub(super) async fn append(&self, appends: Vec<Append>) -> Vec<Appended> {
        let count = appends.len();
        let answers = timeout(DEADLINE, self.driver.append(appends)).await.expect("an answer");
        assert_eq!(answers.len(), count);
        answers.into_iter().map(|answer| answer.expect("stored")).collect()
    }

    /// Appends events to the usual topic, one per entry.
    pub(super) async fn publish<T: AsRef<str>>(&self, payloads: &[T]) -> Vec<EntryId> {
        self.publish_to(&partition(TOPIC, 0), payloads).await
    }

    pub(super) async fn publish_to<T: AsRef<str>>(
        &self,
        partition: &Partition,
        payloads: &[T],
    ) -> Vec<EntryId> {
        let one = |text: &T| entry(partition, vec![event(text.as_ref().to_owned())]);
        let appended = self.append(payloads.iter().map(one).collect()).await;
        appended.into_iter().map(|appended| appended.entry.expect("an id")).collect()
    }

    /// Appends events to the usual topic, all in one entry.
    pub(super) async fn publish_batch<T: AsRef<str>>(&self, payloads: &[T]) -> EntryId {
        let batch = payloads.iter().map(|text| event(text.as_ref().to_owned())).collect();
        let appended = self.append(vec![entry(&partition(TOPIC, 0), batch)]).await;
        appended[0].entry.expect("an id")
    }

    /// A wish for everything from the earliest event on.
    pub(super) fn wish(&self, name: &'static str) -> Subscription {
        Subscription {
            group: group(name),
            routes: vec![(Pattern::all(), None)],
            start: Start::Earliest,
            lease: self.lease,
            park_keys: false,
        }
    }

    /// A consumer of everything from the earliest event on.
    pub(super) async fn join(&self, name: &'static str) -> Consumer {
        self.subscribe(self.wish(name)).await
    }

    pub(super) async fn subscribe(&self, subscription: Subscription) -> Consumer {
        let feed = timeout(DEADLINE, self.driver.subscribe(subscription)).await;
        Consumer { feed: feed.expect("an answer").expect("subscribed") }
    }

    /// What a group has before it; `None` where the driver has no tools.
    pub(super) async fn backlog(&self, name: &'static str) -> Option<Backlog> {
        let tools = self.driver.tools()?;
        Some(tools.backlog(&group(name)).await.expect("a backlog"))
    }

    /// Waits until a group has nothing before it but what `backlog` says.
    pub(super) async fn settles_to(&self, name: &'static str, backlog: Backlog) {
        let what = format!("{backlog:?}");
        self.settles(name, &what, |last| *last == backlog).await;
    }

    /// Waits until a group has one event before it that is due `delay` after `since`.
    pub(super) async fn keeps_back(&self, name: &'static str, since: Instant, delay: Duration) {
        let due = Backlog { due: 1, ..Backlog::default() };
        self.settles(name, "one is due", |own| {
            // On a busy machine its time may have come by now.
            let is_late = since.elapsed() + CLOCK_SLACK >= delay;
            *own == due || is_late && own.unread + own.pending + own.due == 1
        })
        .await;
    }

    /// Waits until what a group has before it is right.
    async fn settles(&self, name: &'static str, what: &str, is_right: impl Fn(&Backlog) -> bool) {
        let Some(mut last) = self.backlog(name).await else { return };
        let settled = async {
            while !is_right(&last) {
                sleep(Duration::from_millis(10)).await;
                last = self.backlog(name).await.expect("tools as before");
            }
        };
        let settled = timeout(DEADLINE, settled).await;
        assert!(settled.is_ok(), "the backlog of {name} stays {last:?}, {what} is right");
    }
}

/// One consumer of one group.
pub(super) struct Consumer {
    pub(super) feed: Feed,
}

impl Consumer {
    /// The next entries; fails where there are none in time.
    pub(super) async fn fetch(&mut self, budget: usize) -> Vec<Arc<Entry>> {
        let entries = timeout(DEADLINE, self.feed.source.fetch(budget)).await;
        let entries = entries.expect("entries in time").expect("a working source");
        entries.into_iter().map(Arc::new).collect()
    }

    /// Exactly so many events.
    pub(super) async fn take(&mut self, events: usize) -> Vec<Delivery> {
        let mut taken: Vec<Delivery> = Vec::new();
        while taken.len() < events {
            let entries = self.fetch(events - taken.len()).await;
            assert!(!entries.is_empty(), "the source ended after {:?}", payloads(&taken));
            taken.extend(entries.iter().flat_map(Entry::deliveries));
        }
        assert_eq!(taken.len(), events, "{:?}", payloads(&taken));
        taken
    }

    /// Watches that nothing comes for a while.
    pub(super) async fn gets_nothing(&mut self, watch: Duration) {
        if let Ok(entries) = timeout(watch, self.feed.source.fetch(10)).await {
            panic!("nothing was to come, but {entries:?} came");
        }
    }

    pub(super) async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Settled> {
        settle(&*self.feed.settler, settlements).await
    }

    /// Ends deliveries the same way; each must be applied.
    pub(super) async fn end(&self, deliveries: &[Delivery], outcome: &Outcome) {
        let settled = self.settle(all(deliveries, outcome)).await;
        assert_eq!(settled, vec![Settled::Done; deliveries.len()]);
    }

    pub(super) async fn ack(&self, deliveries: &[Delivery]) {
        self.end(deliveries, &Outcome::ack()).await;
    }

    /// Takes exactly so many events and acks them.
    pub(super) async fn handle(&mut self, events: usize) -> Vec<String> {
        let deliveries = self.take(events).await;
        self.ack(&deliveries).await;
        payloads(&deliveries)
    }

    /// Dies as a crashed process does; its settler stays, as an answer that is still under way.
    pub(super) fn crash(self) -> Arc<dyn Settler> {
        self.feed.settler
    }
}

/// The same with a lease that outlasts a scenario.
pub(super) fn patient(times: LeaseTimes) -> LeaseTimes {
    LeaseTimes { lease: times.lease.max(LeaseTimes::default().lease), ..times }
}

/// The same end for each.
pub(super) fn all(deliveries: &[Delivery], outcome: &Outcome) -> Vec<Settlement> {
    deliveries.iter().map(|delivery| delivery.clone().settle(outcome.clone())).collect()
}

pub(super) async fn settle(settler: &dyn Settler, settlements: Vec<Settlement>) -> Vec<Settled> {
    let count = settlements.len();
    let answers = timeout(DEADLINE, settler.settle(settlements)).await.expect("an answer in time");
    assert_eq!(answers.len(), count);
    answers.into_iter().map(|answer| answer.expect("settled")).collect()
}

/// The time in which abandoned work comes back to a group, with room to spare.
pub(super) fn comeback(fixture: &dyn Fixture) -> Duration {
    let LeaseTimes { lease, renew: _, sweep } = fixture.lease();
    lease + sweep * 2
}

/// Polls a future so many times and then drops it: `None`, unless it was done before.
pub(super) async fn polled<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
