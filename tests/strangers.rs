//! A stranger who deletes live consumers all the time: what goes with them is taken back, so
//! nothing is lost and nothing is run for no reason.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumormill::driver::LeaseTimes;
use rumormill::{Bus, Context, Event, HandlerError, RetryPolicy, ServiceOptions, Services};
use serde::{Deserialize, Serialize};

mod server;

use server::Server;

const EVENTS: u64 = 3_000;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "pages.page.written")]
struct PageWritten {
    number: u64,
}

/// How often each event succeeded.
type Done = Arc<Mutex<BTreeMap<u64, u32>>>;

async fn worker(server: &Server, done: &Done) -> Bus {
    let builder = Bus::builder().url(server.url()).services(Services::none());
    let bus = builder.build().await.expect("connected");
    let done = Arc::clone(done);
    let handler = move |page: PageWritten, ctx: Context| {
        let done = Arc::clone(&done);
        async move {
            // waits: as a handler does, so that much is in flight
            tokio::time::sleep(Duration::from_millis(1)).await;
            if page.number.is_multiple_of(3) && ctx.attempt() == 1 {
                return Err(HandlerError::retry("the first time it fails"));
            }
            *done.lock().expect("no handler panics").entry(page.number).or_default() += 1;
            Ok(())
        }
    };
    let [lease, renew, sweep] = [10_000, 100, 200].map(Duration::from_millis);
    let options = ServiceOptions {
        lease: LeaseTimes { lease, renew, sweep },
        retry: RetryPolicy { first: Duration::from_millis(10), ..RetryPolicy::default() },
        ..ServiceOptions::default()
    };
    bus.subscribe_routes("g", options, |routes| routes.on_fn(handler)).await.expect("subscribed");
    bus
}

/// Deletes the consumers of the group on a stream, and what is pending for them.
fn delete_consumers(server: &Server, stream: &str) -> u64 {
    let Some(rows) = server.try_ask(&["XINFO", "CONSUMERS", stream, "g"]) else { return 0 };
    let delete = |row: &server::Reply| {
        let name = row.list()[1].text();
        server.ask(&["XGROUP", "DELCONSUMER", stream, "g", &name]).int()
    };
    rows.list().iter().map(delete).sum::<i64>().unsigned_abs()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_deletes_consumers_all_the_time_loses_nothing() {
    let server = Server::start();
    let done: Done = Arc::default();
    let workers = [worker(&server, &done).await, worker(&server, &done).await];
    let (stop, deleted) = (AtomicBool::new(false), AtomicU64::new(0));
    let stranger = || {
        while !stop.load(Ordering::Relaxed) {
            for stream in ["rm:{pages:0}:log", "rm:{pages:0}:retry:g"] {
                deleted.fetch_add(delete_consumers(&server, stream), Ordering::Relaxed);
            }
            // waits: for the workers to read again
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(stranger);
        let events: Vec<_> = (0..EVENTS).map(|number| PageWritten { number }).collect();
        let run = async {
            for events in events.chunks(100) {
                for answer in workers[0].publish_many(events).await {
                    answer.expect("stored");
                }
            }
            // What was just taken off the books is not seen as pending, and comes back.
            while done.lock().expect("no handler panics").len() < events.len() {
                // waits: for the last event
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = tokio::task::block_in_place(|| {
            let handle = tokio::runtime::Handle::current();
            handle.block_on(async { tokio::time::timeout(Duration::from_secs(60), run).await })
        });
        stop.store(true, Ordering::Relaxed);
        let handled = done.lock().expect("no handler panics").len();
        assert!(ended.is_ok(), "only {handled} of {EVENTS} were handled");
    });
    let settled = tokio::time::timeout(Duration::from_secs(30), workers[0].settled()).await;
    settled.expect("in time").expect("the server tells");
    let deleted = deleted.load(Ordering::Relaxed);
    let twice =
        done.lock().expect("no handler panics").values().filter(|times| **times > 1).count();
    println!("{deleted} pending entries were deleted, {twice} events were handled twice");
    assert!(deleted > 0, "nothing was pending when consumers were deleted");
    assert_eq!(twice, 0, "events were handled twice");
    let [left, right] = workers;
    left.drain(Duration::from_secs(5)).await;
    right.drain(Duration::from_secs(5)).await;
}
