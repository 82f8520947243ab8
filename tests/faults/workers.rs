//! A worker dies with events in its hands.

use std::sync::Arc;
use std::time::Duration;

use rumormill::{Context, ServiceOptions};
use tokio::time::Instant;

use crate::fault::drive::{Case, Healed, Stage, drive, recovery};
use crate::fault::ledger::{Ledger, Recovery, Story};
use crate::fault::load::{GROUP, LEASE, LOG, Load, Numbered, connect};
use crate::fault::process::Process;
use crate::fault::table::Promise;
use crate::fault::{PATIENCE, comes};
use crate::server::{Reply, Server};

/// Tells the program that it is to be the worker.
const WORKER: &str = "RUMORMILL_TEST_WORKER";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_killed() {
    // A sweep comes up to a fifth late; then the event has to be run.
    let promise = Promise::within(LEASE.lease + LEASE.sweep + Duration::from_millis(500));
    let case = Case { promise, ..Case::new(28, "worker killed") };
    let stage = Stage::new(Server::start()).await;
    let load = Load::start(&stage.server.url()).await;
    let ledger = Arc::clone(&load.ledger);
    drive(case, stage, load, async |stage| {
        // Another process in the group, which never comes to an end with anything.
        let mut worker = Process::start("workers::the_worker", WORKER, &stage.server.url());
        assert!(comes(PATIENCE, || held_by(stage, worker.id()) >= 4).await, "it holds nothing");
        worker.kill();
        let killed = Instant::now();
        worker.wait();
        Healed::Recovered(taken_over(&ledger, killed).await)
    })
    .await;
}

/// How soon the group had everything that was with the dead.
async fn taken_over(ledger: &Ledger, killed: Instant) -> Recovery {
    let waits = |story: &Story| {
        story.delivered.is_none() && story.stored().is_some_and(|stored| stored <= killed)
    };
    let held = ledger.find(waits);
    assert!(!held.is_empty(), "the dead held something");
    assert!(comes(PATIENCE, || ledger.count(waits) == 0).await, "what it held comes back");
    let number = |number| held.iter().any(|(_, story)| story.number == number);
    let back = ledger.find(|story| number(story.number));
    let last = back.iter().filter_map(|(_, story)| story.delivered).max().expect("they are back");
    let Recovery { publish, .. } = recovery(ledger, killed).await.expect("publishing goes on");
    Recovery { publish, delivery: last - killed }
}

/// How many entries a process holds.
fn held_by(stage: &Stage, process: u32) -> i64 {
    let consumers =
        tokio::task::block_in_place(|| stage.server.say(&format!("XINFO CONSUMERS {LOG} {GROUP}")));
    let own = |consumer: &&Reply| consumer.list()[1].text().contains(&format!(".{process}."));
    consumers.list().iter().filter(own).map(|consumer| consumer.list()[3].int()).sum()
}

/// The worker's process; in a run of the tests it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker() {
    let Ok(url) = std::env::var(WORKER) else { return };
    let bus = connect(&url).await;
    let options = ServiceOptions { lease: LEASE, ..ServiceOptions::default() };
    let never = |_: Numbered, _: Context| std::future::pending();
    bus.subscribe_routes(GROUP, options, |routes| routes.on_fn(never)).await.expect("a group");
    // waits: to be killed
    tokio::time::sleep(Duration::from_secs(120)).await;
}
