//! The relay, with a bus and a database that do not always do what they should.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rumormill::driver::Driver;
use rumormill::outbox::{End, MemoryOutbox, Most, Relay, RelayOptions, Row, Skip, Store};
use rumormill::{Bus, Clock, Error, ErrorKind, EventId, RetryPolicy, Services};
use tokio::sync::Notify;
use tokio::time::{Instant, advance};

use crate::kit::{bus, event, numbers};
use crate::picky::{Answer, Picky};

/// Numbered from 1, each of the key that its last digit is.
pub(crate) fn fill(outbox: &MemoryOutbox, events: std::ops::RangeInclusive<u32>) {
    for number in events {
        outbox.add(&event("a.b", Some(&(number % 10).to_string()), number)).expect("it is added");
    }
}

pub(crate) async fn relay(driver: &Arc<Picky>, outbox: &MemoryOutbox) -> Relay<MemoryOutbox> {
    Relay::new(&bus(Arc::clone(driver) as Arc<dyn Driver>).await, outbox.clone())
}

#[tokio::test(start_paused = true)]
async fn rows_are_published_in_batches_in_order_and_go() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    fill(&outbox, 1..=120);
    let mut relay = relay(&driver, &outbox).await;
    let round = relay.tick().await.expect("a round");
    assert_eq!((round.taken, round.sent, round.left), (120, 120, 0));
    assert_eq!(numbers(&*driver).await, (1..=120).collect::<Vec<_>>());
    let sizes: Vec<_> = driver.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [50, 50, 20]);
    assert_eq!(outbox.depth().waiting, 0);
    assert_eq!(relay.tick().await.expect("a round").taken, 0);
}

#[tokio::test(start_paused = true)]
async fn only_the_key_of_a_failing_event_waits() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    fill(&outbox, 1..=40);
    driver.rule(|numbers| numbers.contains(&13).then_some(Answer::Refused(ErrorKind::Server)));
    let mut relay = relay(&driver, &outbox).await;
    let round = relay.tick().await.expect("a round");
    assert_eq!((round.sent, round.left, round.set_aside), (37, 3, 0), "13, 23, 33");
    let others: Vec<_> = (1..=40).filter(|number| ![13, 23, 33].contains(number)).collect();
    assert_eq!(numbers(&*driver).await, others);
    // It is not tried again at once, nor is what stands behind it; another key goes on.
    driver.batches();
    fill(&outbox, 41..=44);
    assert_eq!(relay.tick().await.expect("a round").sent, 3);
    assert_eq!(driver.batches(), [[41, 42, 44]]);
    // When it is accepted, all of its key go, in order.
    driver.rule(|_| None);
    advance(Duration::from_secs(60)).await;
    relay.tick().await.expect("a round");
    assert_eq!(driver.batches(), [[13], [23], [33], [43]], "in doubt, they go alone");
    assert_eq!(outbox.depth().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_never_gets_through_is_set_aside_with_its_reason() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    driver.rule(|numbers| numbers.contains(&3).then_some(Answer::Refused(ErrorKind::Server)));
    let mut relay = relay(&driver, &outbox).await;
    fill(&outbox, 3..=3);
    let mut rounds = 0;
    while outbox.depth().set_aside == 0 {
        // Others go on all the time: it is the event's own fault.
        outbox.add(&event("a.b", None, 1_000 + rounds)).expect("it is added");
        relay.tick().await.expect("a round");
        advance(Duration::from_secs(60)).await;
        rounds += 1;
        assert!(rounds < 100, "it is never set aside");
    }
    let aside = outbox.set_aside(10);
    assert_eq!((aside.len(), &*aside[0].error), (1, "refused"));
    let tries = driver.batches().iter().filter(|batch| **batch == [3]).count();
    assert_eq!(tries, 16, "the first time, too, it was tried alone");
    // Those of its key go on; put back, it is tried again.
    driver.rule(|_| None);
    fill(&outbox, 13..=13);
    relay.tick().await.expect("a round");
    assert_eq!(driver.batches(), [[13]]);
    assert_eq!(outbox.put_back(&[]), 1);
    relay.tick().await.expect("a round");
    assert_eq!(driver.batches(), [[3]]);
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_stored_is_set_aside_at_once() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    driver.rule(|numbers| numbers.contains(&2).then_some(Answer::Refused(ErrorKind::TooLarge)));
    fill(&outbox, 1..=5);
    let mut relay = relay(&driver, &outbox).await;
    let round = relay.tick().await.expect("a round");
    assert_eq!((round.sent, round.set_aside, round.left), (4, 1, 0));
    assert_eq!(numbers(&*driver).await, [1, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_takes_nothing_sets_nothing_aside() {
    for kind in [ErrorKind::Server, ErrorKind::Unreachable, ErrorKind::Denied] {
        let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
        driver.rule(move |_| Some(Answer::Refused(kind)));
        fill(&outbox, 1..=200);
        let mut relay = relay(&driver, &outbox).await;
        for _ in 0..500 {
            relay.tick().await.expect("a round");
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!((outbox.depth().waiting, outbox.depth().set_aside), (200, 0), "{kind:?}");
        driver.rule(|_| None);
        let mut rounds = 0;
        while outbox.depth().waiting > 0 {
            relay.tick().await.expect("a round");
            advance(Duration::from_secs(1)).await;
            rounds += 1;
        }
        assert!(rounds <= 2, "{rounds} rounds after the bus was back");
        let log = numbers(&*driver).await;
        assert_eq!(log.len(), 200);
        assert_in_order(&log);
    }
}

/// Those of a key ascend.
fn assert_in_order(log: &[u32]) {
    let mut last = [0; 10];
    for number in log {
        let own = &mut last[*number as usize % 10];
        assert!(*own < *number, "{number} behind {own}: {log:?}");
        *own = *number;
    }
}

/// Any rule, any partitions: nothing lost, nothing twice, nothing overtaken.
#[tokio::test(start_paused = true)]
async fn whatever_the_bus_refuses_order_and_number_are_right_in_the_end() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (driver, outbox) = (Picky::new(random.u32(1..4)), MemoryOutbox::default());
        let mut own = random.fork();
        driver.rule({
            let random = std::sync::Mutex::new(own.fork());
            let kinds = [ErrorKind::Server, ErrorKind::Unreachable, ErrorKind::Timeout];
            move |numbers| {
                let random = &mut *random.lock().expect("no panic under it");
                let poison = numbers.iter().any(|number| number % 37 == 0) && random.u8(..) < 200;
                match random.u8(0..10) {
                    0 | 1 => Some(Answer::Refused(*random.choice(&kinds).expect("some"))),
                    2 => Some(Answer::Lost),
                    _ => poison.then_some(Answer::Refused(ErrorKind::Server)),
                }
            }
        });
        let mut relay = relay(&driver, &outbox).await;
        // More tries than an event that is refused at random needs.
        let retry = RetryPolicy { attempts_max: 1_000, ..RelayOptions::default().retry };
        relay = relay.options(RelayOptions { retry, ..RelayOptions::default() }).expect("valid");
        let mut next = 1;
        let mut rounds = 0;
        while next <= 300 || outbox.depth().waiting > 0 {
            let last = (next + own.u32(0..40)).min(301);
            fill(&outbox, next..=last - 1);
            next = last;
            relay.tick().await.expect("a round");
            advance(Duration::from_millis(own.u64(0..2_000))).await;
            rounds += 1;
            assert!(rounds < 10_000, "seed {seed}: {:?}", outbox.depth());
        }
        let log = numbers(&*driver).await;
        let mut sorted = log.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (1..=300).collect::<Vec<_>>(), "seed {seed}");
        assert_in_order(&log);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_and_not_said_is_stored_once() {
    let (driver, outbox) = (Picky::new(3), MemoryOutbox::default());
    for number in 1..=31 {
        outbox.add(&event("a.b", None, number)).expect("it is added");
    }
    driver.rule(|_| Some(Answer::Lost));
    let mut relay = relay(&driver, &outbox).await;
    relay.tick().await.expect("a round");
    assert_eq!(outbox.depth().waiting, 31);
    driver.rule(|_| None);
    advance(Duration::from_secs(2)).await;
    let round = relay.tick().await.expect("a round");
    assert_eq!((round.sent, round.deduplicated), (31, 31), "without a key, too");
    assert_eq!(numbers(&*driver).await.len(), 31);
}

/// A store whose calls fail, or hang, when they are told to.
struct Flawed {
    inner: MemoryOutbox,
    fails: AtomicBool,
    hangs: AtomicBool,
    looks: AtomicUsize,
    looked: Notify,
}

impl Flawed {
    fn new(inner: &MemoryOutbox) -> Arc<Self> {
        let (fails, hangs) = (AtomicBool::default(), AtomicBool::default());
        let (looks, looked) = (AtomicUsize::default(), Notify::new());
        Arc::new(Self { inner: inner.clone(), fails, hangs, looks, looked })
    }
}

struct Through(Arc<Flawed>);

#[async_trait]
impl Store for Through {
    async fn lead(&self, relay: EventId, lease: Duration) -> Result<bool, Error> {
        self.0.inner.lead(relay, lease).await
    }

    async fn pending(&self, most: Most, skip: &Skip) -> Result<Vec<Row>, Error> {
        self.0.looks.fetch_add(1, Ordering::Relaxed);
        self.0.looked.notify_one();
        self.0.inner.pending(most, skip).await
    }

    async fn end(&self, ends: &[(i64, End)]) -> Result<(), Error> {
        if self.0.hangs.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        if self.0.fails.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unreachable, "the database is away"));
        }
        self.0.inner.end(ends).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_down_is_not_published_again() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    fill(&outbox, 1..=3);
    let flawed = Flawed::new(&outbox);
    let bus = bus(Arc::clone(&driver) as Arc<dyn Driver>).await;
    let mut relay = Relay::new(&bus, Through(Arc::clone(&flawed)));
    flawed.fails.store(true, Ordering::Relaxed);
    relay.tick().await.expect_err("the database is away");
    relay.tick().await.expect_err("it is still");
    flawed.fails.store(false, Ordering::Relaxed);
    // Longer than the window in which the bus would know them.
    advance(Duration::from_secs(3_600)).await;
    fill(&outbox, 4..=4);
    assert_eq!(relay.tick().await.expect("a round").sent, 1);
    assert_eq!(driver.batches(), [vec![1, 2, 3], vec![4]]);
    assert_eq!(relay.handle().counts().database_failed, 2);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_does_not_answer_is_given_up_within_the_lease() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    fill(&outbox, 1..=1);
    let flawed = Flawed::new(&outbox);
    let bus = bus(Arc::clone(&driver) as Arc<dyn Driver>).await;
    let mut relay = Relay::new(&bus, Through(Arc::clone(&flawed)));
    flawed.hangs.store(true, Ordering::Relaxed);
    let error = relay.tick().await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

/// That something is stored is true whoever works; that something is not may be true no more.
#[tokio::test(start_paused = true)]
async fn a_relay_without_its_lease_says_what_is_stored_and_sets_nothing_aside() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    fill(&outbox, 1..=3);
    driver.rule(|numbers| numbers.contains(&2).then_some(Answer::Refused(ErrorKind::TooLarge)));
    let flawed = Flawed::new(&outbox);
    let bus = bus(Arc::clone(&driver) as Arc<dyn Driver>).await;
    let mut one = Relay::new(&bus, Through(Arc::clone(&flawed)));
    flawed.fails.store(true, Ordering::Relaxed);
    one.tick().await.expect_err("the database is away");
    flawed.fails.store(false, Ordering::Relaxed);
    advance(RelayOptions::default().lease).await;
    let other = EventId::new(rumormill::Timestamp::from_millis(1));
    assert!(outbox.lead(other, Duration::from_secs(3_600)).await.expect("it answers"));
    assert_eq!(outbox.depth().waiting, 3);
    assert!(!one.tick().await.expect("a round").leads);
    assert_eq!((outbox.depth().waiting, outbox.depth().set_aside), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_age_of_what_waits_is_told_while_nothing_is_read() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    fill(&outbox, 1..=20);
    driver.rule(|_| Some(Answer::Refused(ErrorKind::Unreachable)));
    let (mut one, mut other) = (relay(&driver, &outbox).await, relay(&driver, &outbox).await);
    let handle = one.handle();
    for _ in 0..10 {
        one.tick().await.expect("a round");
        assert!(handle.counts().oldest.is_some(), "{handle:?}");
    }
    assert_eq!(handle.counts().failed, 1, "one batch was tried: {handle:?}");
    // Who works no more has nothing to tell.
    advance(RelayOptions::default().lease).await;
    other.tick().await.expect("a round");
    one.tick().await.expect("a round");
    assert_eq!((handle.counts().leads, handle.counts().oldest), (false, None));
    assert!(other.handle().counts().oldest.is_some());
    driver.rule(|_| None);
    advance(Duration::from_secs(2)).await;
    other.tick().await.expect("a round");
    other.tick().await.expect("a round");
    assert_eq!(other.handle().counts().oldest, None);
}

/// A machine that sleeps: its own clock stands, and the wall's goes on.
#[tokio::test(start_paused = true)]
async fn a_relay_that_slept_through_its_lease_stores_no_more() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    fill(&outbox, 1..=120);
    let clock = Arc::new(Wall(AtomicU64::new(1_767_323_045_000)));
    let builder = Bus::builder().driver(Arc::clone(&driver) as Arc<dyn Driver>);
    let builder = builder.services(Services::none()).clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let bus = builder.build().await.expect("a bus");
    let mut relay = Relay::new(&bus, outbox.clone());
    let sleeper = Arc::clone(&clock);
    driver.rule(move |_| {
        sleeper.0.fetch_add(60_000, Ordering::Relaxed);
        None
    });
    let round = relay.tick().await.expect("a round");
    assert_eq!(round.sent, 50, "the batch under way, and no more");
    // It asks before it goes on.
    let other = EventId::new(rumormill::Timestamp::from_millis(1));
    assert!(!outbox.lead(other, Duration::from_secs(1)).await.expect("it answers"));
    advance(RelayOptions::default().lease).await;
    assert!(outbox.lead(other, Duration::from_secs(60)).await.expect("it answers"));
    assert!(!relay.tick().await.expect("a round").leads);
}

struct Wall(AtomicU64);

impl Clock for Wall {
    fn now(&self) -> rumormill::Timestamp {
        rumormill::Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_ends_in_time_where_nothing_answers() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    fill(&outbox, 1..=2);
    let flawed = Flawed::new(&outbox);
    flawed.hangs.store(true, Ordering::Relaxed);
    let bus = bus(Arc::clone(&driver) as Arc<dyn Driver>).await;
    let options = RelayOptions { lease: Duration::from_secs(3_600), ..RelayOptions::default() };
    let relay = Relay::new(&bus, Through(flawed)).options(options).expect("valid");
    let begun = Instant::now();
    // waits: for the relay to hang, on paused time
    let counts = relay.run(tokio::time::sleep(Duration::from_secs(1))).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn another_relay_takes_over_when_the_first_dies() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    let (mut one, mut other) = (relay(&driver, &outbox).await, relay(&driver, &outbox).await);
    fill(&outbox, 1..=2);
    assert!(one.tick().await.expect("a round").leads);
    fill(&outbox, 3..=4);
    assert!(!other.tick().await.expect("a round").leads);
    assert_eq!(outbox.depth().waiting, 2);
    drop(one);
    advance(RelayOptions::default().lease).await;
    let round = other.tick().await.expect("a round");
    assert!(round.leads);
    assert_eq!((round.sent, outbox.depth().waiting), (2, 0));
}

/// What a stopped process does, or a virtual machine that was moved.
#[tokio::test(start_paused = true)]
async fn a_relay_that_lost_its_lease_under_way_stores_nothing_twice() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    let (mut one, mut other) = (relay(&driver, &outbox).await, relay(&driver, &outbox).await);
    fill(&outbox, 1..=120);
    let lease = RelayOptions::default().lease;
    driver.rule(move |_| Some(Answer::Slow(lease + lease / 10)));
    let slow = tokio::spawn(async move { (one.tick().await, one.tick().await) });
    while driver.batches().is_empty() {
        tokio::task::yield_now().await;
    }
    advance(lease).await;
    driver.rule(|_| None);
    fill(&outbox, 121..=130);
    let round = other.tick().await.expect("a round");
    assert_eq!((round.leads, round.sent, round.deduplicated), (true, 130, 0));
    let (first, second) = slow.await.expect("it goes on");
    let first = first.expect("a round");
    assert_eq!((first.sent, first.deduplicated), (50, 50), "the batch under way, and no more");
    assert!(!second.expect("a round").leads);
    assert_eq!(numbers(&*driver).await, (1..=130).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_told_to_end_gives_the_lease_up() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    let (one, mut other) = (relay(&driver, &outbox).await, relay(&driver, &outbox).await);
    fill(&outbox, 1..=2);
    let (handle, stop) = (one.handle(), Arc::new(Notify::new()));
    let told = Arc::clone(&stop);
    let running = tokio::spawn(one.run(async move { told.notified().await }));
    while handle.counts().sent < 2 {
        tokio::task::yield_now().await;
    }
    stop.notify_one();
    let counts = running.await.expect("it ends");
    assert_eq!((counts.sent, counts.leads), (2, false));
    assert!(other.tick().await.expect("a round").leads, "at once");
}

#[tokio::test(start_paused = true)]
async fn a_relay_ends_with_its_bus() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    fill(&outbox, 1..=2);
    let relay = relay(&driver, &outbox).await;
    driver.close().await;
    let counts = relay.run(std::future::pending()).await;
    assert_eq!((counts.sent, outbox.depth().waiting), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_word_wakes_a_relay_and_nothing_keeps_it_busy() {
    let (driver, outbox) = (Picky::new(1), MemoryOutbox::default());
    let flawed = Flawed::new(&outbox);
    let bus = bus(Arc::clone(&driver) as Arc<dyn Driver>).await;
    let poll = Duration::from_secs(3_600);
    let options = RelayOptions { poll, ..RelayOptions::default() };
    let relay = Relay::new(&bus, Through(Arc::clone(&flawed))).options(options).expect("valid");
    let (handle, begun) = (relay.handle(), Instant::now());
    let running = tokio::spawn(relay.run(std::future::pending()));
    flawed.looked.notified().await;
    fill(&outbox, 1..=1);
    handle.wake();
    while handle.counts().sent < 1 {
        tokio::task::yield_now().await;
    }
    assert!(begun.elapsed() < poll, "it did not wait for the poll");
    // What fails is tried again at a rhythm, not in a loop.
    driver.rule(|_| Some(Answer::Refused(ErrorKind::Server)));
    fill(&outbox, 2..=9);
    handle.wake();
    let before = flawed.looks.load(Ordering::Relaxed);
    // waits: paused time passes at once
    tokio::time::sleep(Duration::from_secs(600)).await;
    let looks = flawed.looks.load(Ordering::Relaxed) - before;
    assert!((300..3_000).contains(&looks), "{looks} looks in ten minutes");
    running.abort();
}
