//! How a bus runs suspects: one at a time in the process, beside everything else, and handed over
//! as any other event when it drains.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumormill::codec::ContentType;
use rumormill::delivery::{Cause, Delivery, Entry, Outcome, Settlement};
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::{
    Append, Driver, Feed, GroupName, LeaseTimes, Publish, SUSPECT_FROM, Subscribe, Subscription,
};
use rumormill::{
    Batch, BatchOptions, Bus, Envelope, Event, EventType, Routes, ServiceOptions, Services, Start,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Serialize, Deserialize, Event)]
#[event(type = "pages.page.written")]
struct PageWritten {
    number: u64,
}

async fn publish(driver: &MemoryDriver, numbers: impl IntoIterator<Item = u64>) {
    let event_type = EventType::from_static("pages.page.written");
    driver.declare(&event_type.topic()).await.expect("declared");
    let page = |number| {
        let payload = serde_json::to_vec(&PageWritten { number }).expect("JSON");
        let now = Timestamp::from_millis(1_767_323_045_678);
        let builder = Envelope::builder(event_type.clone(), ContentType::JSON, payload, now);
        builder.build().expect("within limits")
    };
    let envelopes = numbers.into_iter().map(page).collect();
    let partition = "pages:0".parse().expect("valid");
    let append = Append { partition, envelopes, delay: Duration::ZERO, deduplicate: false };
    driver.append(vec![append]).await.remove(0).expect("stored");
}

async fn join(driver: &MemoryDriver, group: &str) -> Feed {
    let wish = Subscription {
        group: GroupName::new(group.to_owned()).expect("valid"),
        routes: vec![("pages.>".parse().expect("valid"), None)],
        start: Start::Earliest,
        lease: LeaseTimes::default(),
        park_keys: false,
    };
    driver.subscribe(wish).await.expect("subscribed")
}

async fn fetch(feed: &mut Feed) -> Arc<Entry> {
    let entries = timeout(PATIENCE, feed.source.fetch(1)).await.expect("in time");
    Arc::new(entries.expect("a working source").remove(0))
}

/// Consumers that take what there is and die, until the next hand-out makes it suspect.
async fn die(driver: &MemoryDriver, group: &str) {
    for _ in 1..SUSPECT_FROM {
        let mut feed = join(driver, group).await;
        fetch(&mut feed).await;
    }
}

async fn bus(driver: &MemoryDriver) -> Bus {
    let builder = Bus::builder().driver(driver.client()).services(Services::none());
    builder.build().await.expect("built")
}

/// How many run at once, and the most that ever did.
#[derive(Default)]
struct Load {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

impl Load {
    async fn run(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.all.fetch_add(1, Ordering::SeqCst);
        // waits: long enough for others to begin meanwhile, if they may
        sleep(Duration::from_secs(5)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn suspects_of_all_groups_run_one_at_a_time() {
    let driver = MemoryDriver::new(MemoryOptions::default());
    publish(&driver, 0..20).await;
    for group in ["one", "two"] {
        die(&driver, group).await;
    }
    let bus = bus(&driver).await;
    let load: Arc<Load> = Arc::default();
    for group in ["one", "two"] {
        let load = Arc::clone(&load);
        let handler = move |_: PageWritten, _| {
            let load = Arc::clone(&load);
            async move {
                load.run().await;
                Ok(())
            }
        };
        bus.subscribe(group, handler).await.expect("subscribed");
    }
    timeout(PATIENCE, bus.settled()).await.expect("in time").expect("settled");
    assert_eq!(load.all.load(Ordering::SeqCst), 40);
    assert_eq!(load.most.load(Ordering::SeqCst), 1, "suspects ran beside one another");
}

#[tokio::test(start_paused = true)]
async fn a_batch_handler_gets_suspects_one_by_one() {
    let driver = MemoryDriver::new(MemoryOptions::default());
    publish(&driver, 0..20).await;
    die(&driver, "g").await;
    let bus = bus(&driver).await;
    let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
    let seen = Arc::clone(&sizes);
    let options = BatchOptions { size: 10, linger: Duration::from_millis(20) };
    let routes = |routes: Routes<()>| {
        routes.on_batch_fn(options, move |batch: Batch<PageWritten>| {
            seen.lock().expect("no handler panics").push(batch.len());
            std::future::ready(Ok(()))
        })
    };
    bus.subscribe_routes("g", ServiceOptions::default(), routes).await.expect("subscribed");
    timeout(PATIENCE, bus.settled()).await.expect("in time").expect("settled");
    assert_eq!(*sizes.lock().expect("no handler panics"), [1; 20]);
    publish(&driver, 20..40).await;
    timeout(PATIENCE, bus.settled()).await.expect("in time").expect("settled");
    let sizes = sizes.lock().expect("no handler panics")[20..].to_vec();
    assert!(sizes.iter().any(|size| *size > 1), "the innocent come together: {sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn others_do_not_wait_for_a_suspect() {
    let driver = MemoryDriver::new(MemoryOptions::default());
    publish(&driver, 0..20).await;
    die(&driver, "g").await;
    let bus = bus(&driver).await;
    let (gate, fresh): (Arc<Notify>, Arc<AtomicUsize>) = Default::default();
    let (opened, counted) = (Arc::clone(&gate), Arc::clone(&fresh));
    let handler = move |page: PageWritten, _| {
        let (gate, fresh) = (Arc::clone(&opened), Arc::clone(&counted));
        async move {
            if page.number < 20 {
                gate.notified().await;
                gate.notify_one();
            } else {
                fresh.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }
    };
    bus.subscribe("g", handler).await.expect("subscribed");
    publish(&driver, 20..60).await;
    let handled = async {
        while fresh.load(Ordering::SeqCst) < 40 {
            // waits: for the innocent, while a suspect runs for ever
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), handled).await.expect("they do not wait");
    gate.notify_one();
    timeout(PATIENCE, bus.settled()).await.expect("in time").expect("settled");
}

#[tokio::test(start_paused = true)]
async fn a_drain_hands_over_the_suspects_that_wait_for_their_turn() {
    let driver = MemoryDriver::new(MemoryOptions::default());
    publish(&driver, 0..5).await;
    for group in ["busy", "waiting"] {
        die(&driver, group).await;
    }
    let bus = bus(&driver).await;
    let (begun, gate): (Arc<Notify>, Arc<Notify>) = Default::default();
    let (running, opened) = (Arc::clone(&begun), Arc::clone(&gate));
    let handler = move |_: PageWritten, _| {
        let (running, opened) = (Arc::clone(&running), Arc::clone(&opened));
        async move {
            running.notify_one();
            opened.notified().await;
            opened.notify_one();
            Ok(())
        }
    };
    bus.subscribe("busy", handler).await.expect("subscribed");
    timeout(PATIENCE, begun.notified()).await.expect("the first runs");
    let nobody = |_: PageWritten, _| async { panic!("no suspect runs beside another") };
    bus.subscribe("waiting", nobody).await.expect("subscribed");
    // waits: for the suspects of this group to be read
    sleep(Duration::from_secs(60)).await;
    let began = Instant::now();
    let report = bus.unsubscribe("waiting", Duration::from_secs(5)).await.expect("it ran");
    assert!(began.elapsed() < Duration::from_secs(5), "it did not wait for its turn");
    assert_eq!((report.finished, report.handed_over, report.forced), (0, 5, 0));
    let mut heir = join(&driver, "waiting").await;
    for _ in 0..5 {
        let entry = fetch(&mut heir).await;
        assert!(entry.suspect, "it stays suspect");
        settle(&heir, &entry).await;
    }
    gate.notify_one();
    timeout(PATIENCE, bus.settled()).await.expect("in time").expect("settled");
}

async fn settle(feed: &Feed, entry: &Arc<Entry>) {
    let ack = |delivery: Delivery| -> Settlement { delivery.settle(Outcome::ack()) };
    let settled = feed.settler.settle(entry.deliveries().map(ack).collect()).await;
    assert!(settled.iter().all(Result::is_ok), "{settled:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_found_running_three_times_is_not_run_again() {
    let driver = MemoryDriver::new(MemoryOptions::default());
    publish(&driver, 0..2).await;
    die(&driver, "g").await;
    let mut feed = join(&driver, "g").await;
    let entry = fetch(&mut feed).await;
    let split = |delivery: Delivery| delivery.settle(Outcome::Split { after: Duration::ZERO });
    feed.settler.settle(entry.deliveries().map(split).collect()).await;
    for found in 0..3 {
        // The first of the two is begun, and its consumer dies.
        let mut entries = [fetch(&mut feed).await, fetch(&mut feed).await];
        entries.sort_by_key(|entry| entry.id);
        let delivery = entries[0].deliveries().next().expect("one event");
        assert_eq!(feed.settler.begin(&delivery).await.expect("a note"), Some(found));
        drop(feed);
        feed = join(&driver, "g").await;
    }
    drop(feed);
    let bus = bus(&driver).await;
    let handled: Arc<Mutex<Vec<u64>>> = Arc::default();
    let seen = Arc::clone(&handled);
    let handler = move |page: PageWritten, _| {
        seen.lock().expect("no handler panics").push(page.number);
        std::future::ready(Ok(()))
    };
    bus.subscribe("g", handler).await.expect("subscribed");
    timeout(PATIENCE, bus.settled()).await.expect("in time").expect("settled");
    assert_eq!(*handled.lock().expect("no handler panics"), [1]);
    let group = GroupName::new("g").expect("valid");
    let dead = driver.tools().expect("tools").dead_letters(&group, 10).await.expect("told");
    let causes: Vec<Cause> = dead.iter().map(|letter| letter.failure.cause).collect();
    assert_eq!(causes, [Cause::Crashed]);
}
