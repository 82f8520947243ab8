//! When settlements go, and that a store which is away loses none.

use std::sync::Mutex;

use async_trait::async_trait;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::delivery::{Bits, Entry, EntryId, Partition, Queue, Token};
use crate::delivery::{Cause, Failure};
use crate::service::{Distribution, ServiceOptions};
use crate::{ContentType, Envelope, ErrorKind, EventType, Timestamp};

/// Writes down each call: the indexes it settles; fails as often as it is told.
#[derive(Default)]
struct Scripted {
    calls: Mutex<Vec<Vec<u32>>>,
    sites: Mutex<Vec<Site>>,
    failures: Mutex<u32>,
    called: tokio::sync::Notify,
}

#[async_trait]
impl Settler for Scripted {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled, Error>> {
        let indexes = settlements.iter().map(|settlement| settlement.delivery.index).collect();
        self.calls.lock().unwrap().push(indexes);
        let site = |settlement: &Settlement| match &settlement.outcome {
            Outcome::DeadLetter { failure } => Some(failure.site.clone()),
            _ => None,
        };
        self.sites.lock().unwrap().extend(settlements.iter().filter_map(site));
        self.called.notify_one();
        let mut failures = self.failures.lock().unwrap();
        let failing = *failures > 0;
        *failures = failures.saturating_sub(1);
        let answer = |_| match failing {
            true => Err(Error::new(ErrorKind::Unreachable, "away")),
            false => Ok(Settled::Done),
        };
        settlements.into_iter().map(answer).collect()
    }
}

struct Setup {
    settler: Arc<Scripted>,
    in_flight: Arc<InFlight>,
    ended: Sender<Ended>,
    task: tokio::task::JoinHandle<()>,
    kill: Switch,
    entry: Arc<Entry>,
}

impl Setup {
    /// An entry of three events, and settlements that wait a second for the rest of it.
    fn new(failures: u32) -> Self {
        Self::of(failures, entry(), ServiceOptions::default())
    }

    fn of(failures: u32, entry: Entry, options: ServiceOptions) -> Self {
        let settler = Arc::new(Scripted { failures: Mutex::new(failures), ..Scripted::default() });
        let in_flight = Arc::new(InFlight::new(&options));
        let group = GroupName::new("g").expect("valid");
        let kill = Switch::default();
        let (ended, task) = Settlements::start(
            Arc::clone(&settler) as Arc<dyn Settler>,
            Arc::clone(&in_flight),
            Duration::from_secs(1),
            &group,
            Site { version: "1.2".into(), host: "h".into(), ..Site::default() },
            kill.clone(),
        );
        let entry = Arc::new(entry);
        entry.deliveries().for_each(|delivery| in_flight.took(1, delivery.weight()));
        Self { settler, in_flight, ended, task: tokio::spawn(task), kill, entry }
    }

    async fn end(&self, index: u32, outcome: Option<Outcome>) {
        let delivery = Delivery { entry: Arc::clone(&self.entry), index };
        assert!(self.ended.send(Ended::new(delivery, outcome)).await.is_ok());
    }

    async fn ack(&self, index: u32) {
        self.end(index, Some(Outcome::ack())).await;
    }

    /// The calls until every sender is gone; each must then be answered and counted.
    async fn finish(self) -> Vec<Vec<u32>> {
        let Self { settler, in_flight, ended, task, .. } = self;
        drop(ended);
        task.await.expect("no panic");
        let all = InFlight::new(&ServiceOptions::default()).budget();
        assert_eq!(in_flight.budget(), all, "nothing is in flight any more");
        std::mem::take(&mut *settler.calls.lock().unwrap())
    }
}

fn entry() -> Entry {
    let event_type = EventType::from_static("a.b");
    let event = || {
        Envelope::builder(event_type.clone(), ContentType::JSON, "1", Timestamp::from_millis(1))
            .build()
            .expect("within limits")
    };
    Entry {
        partition: Partition { topic: event_type.topic(), index: 0 },
        queue: Queue::Log,
        id: EntryId { millis: 1, seq: 0 },
        records: [Ok(event()), Ok(event()), Ok(event())].into(),
        settled: Bits::new(),
        attempt: 1,
        origin: None,
        token: Token(1),
        suspect: false,
        lease: CancellationToken::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_entry_goes_as_one_call() {
    let setup = Setup::new(0);
    for index in [2, 0, 1] {
        setup.ack(index).await;
    }
    let called = tokio::time::timeout(Duration::from_millis(500), setup.settler.called.notified());
    called.await.expect("before the wait is over");
    assert_eq!(setup.finish().await, [[0, 1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn acks_do_not_wait_for_the_rest_for_ever() {
    let setup = Setup::new(0);
    setup.ack(0).await;
    setup.settler.called.notified().await;
    setup.ack(1).await;
    setup.ack(2).await;
    setup.settler.called.notified().await;
    assert_eq!(setup.finish().await, [vec![0], vec![1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_plain_ack_goes_at_once() {
    let setup = Setup::new(0);
    setup.ack(0).await;
    setup.end(1, Some(Outcome::Split { after: Duration::ZERO })).await;
    let called = tokio::time::timeout(Duration::from_millis(500), setup.settler.called.notified());
    called.await.expect("before the wait is over");
    setup.ack(2).await;
    assert_eq!(setup.finish().await, [vec![0, 1], vec![2]]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_is_repeated() {
    let setup = Setup::new(3);
    for index in 0..3 {
        setup.ack(index).await;
    }
    assert_eq!(setup.finish().await, vec![[0, 1, 2]; 4]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_another_instance_took_is_not_settled() {
    let setup = Setup::new(0);
    setup.ack(0).await;
    setup.end(1, None).await;
    setup.ack(2).await;
    assert_eq!(setup.finish().await, [[0, 2]]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_over_its_deadline_does_not_wait_for_the_store() {
    let setup = Setup::new(u32::MAX);
    setup.ack(0).await;
    setup.settler.called.notified().await;
    setup.kill.throw();
    let Setup { ended, task, .. } = setup;
    drop(ended);
    tokio::time::timeout(Duration::from_secs(10), task).await.expect("it ends").expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn acks_wait_for_the_rest_of_their_entry_a_while() {
    let setup = Setup::new(0);
    setup.ack(0).await;
    let called = tokio::time::timeout(Duration::from_millis(900), setup.settler.called.notified());
    assert!(called.await.is_err(), "the wait is not over");
    setup.ack(1).await;
    setup.ack(2).await;
    assert_eq!(setup.finish().await, [[0, 1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_half_settled_entry_goes_as_one_call() {
    let settled = Bits::from_bytes([0b010]);
    let setup = Setup::of(0, Entry { settled, ..entry() }, ServiceOptions::default());
    setup.ack(0).await;
    setup.ack(2).await;
    let called = tokio::time::timeout(Duration::from_millis(500), setup.settler.called.notified());
    called.await.expect("before the wait is over");
    assert_eq!(setup.finish().await, [[0, 2]]);
}

#[tokio::test(start_paused = true)]
async fn each_entry_waits_for_its_own_rest() {
    let setup = Setup::new(0);
    setup.ack(0).await;
    // waits: paused time
    tokio::time::sleep(Duration::from_millis(500)).await;
    let other = Arc::new(entry());
    let end = async |index| {
        let delivery = Delivery { entry: Arc::clone(&other), index };
        setup.in_flight.took(1, delivery.weight());
        assert!(setup.ended.send(Ended::new(delivery, Some(Outcome::ack()))).await.is_ok());
    };
    end(1).await;
    setup.settler.called.notified().await;
    end(0).await;
    end(2).await;
    setup.settler.called.notified().await;
    setup.ack(1).await;
    setup.ack(2).await;
    assert_eq!(setup.finish().await, [vec![0], vec![0, 1, 2], vec![1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_names_the_program_that_gave_it_up() {
    let setup = Setup::new(0);
    setup.ack(0).await;
    setup.ack(1).await;
    let failure = Failure::new(Cause::Rejected, "no");
    setup.end(2, Some(Outcome::DeadLetter { failure })).await;
    let settler = Arc::clone(&setup.settler);
    setup.finish().await;
    let sites = settler.sites.lock().unwrap().clone();
    let named: Vec<_> = sites.iter().map(|site| (&*site.version, &*site.host)).collect();
    assert_eq!(named, [("1.2", "h")]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_tried_again_is_counted_of_a_broadcast_alone() {
    for (distribution, given_up) in [(Distribution::Broadcast, 2), (Distribution::Shared, 0)] {
        let options = ServiceOptions { distribution, ..ServiceOptions::default() };
        let setup = Setup::of(0, entry(), options);
        setup.ack(0).await;
        let failure = || Failure::new(Cause::Failed, "no");
        setup.end(1, Some(Outcome::DeadLetter { failure: failure() })).await;
        let after = Duration::ZERO;
        setup.end(2, Some(Outcome::Retry { after, failure: failure() })).await;
        let in_flight = Arc::clone(&setup.in_flight);
        setup.finish().await;
        assert_eq!(in_flight.broadcast_counts(0).given_up, given_up, "{distribution:?}");
    }
}
