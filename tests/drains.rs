//! Instances come and go under load, buses of this process and processes that get SIGTERM: nothing
//! is lost, nothing runs twice, and what was handed over runs elsewhere at once. Ten drains;
//! `RUMORMILL_DRAINS=200` makes it two hundred.

mod fault;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rumormill::{Bus, Context, DRAIN_DEADLINE, DrainReport, EventId, ServiceOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use fault::ledger::{Ledger, Story};
use fault::load::{GROUP, Numbered, Publishing, connect};
use fault::process::Process;
use fault::{PATIENCE, asked, comes, hold, table};
use server::Server;

/// Tells the program that it is to be an instance.
const INSTANCE: &str = "RUMORMILL_TEST_INSTANCE";
/// What a handler takes: some events run, and some wait for them.
const WORK: Duration = Duration::from_millis(12);
/// Each of so many drains is that of a process.
const PROCESS_EVERY: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drains_lose_nothing_and_run_nothing_twice() {
    let server = Server::start();
    let ledger = Arc::new(Ledger::default());
    let publishing = Publishing::start(connect(&server.url()).await, &ledger);
    let staying = Instance::start(&server, &ledger).await;
    let drains = asked("RUMORMILL_DRAINS", 10);
    let (mut report, mut waits) = (DrainReport::default(), Vec::new());
    for number in 1..=drains {
        let ended = if number % PROCESS_EVERY == 0 {
            terminate(&server, &ledger).await
        } else {
            let leaving = Instance::start(&server, &ledger).await;
            leaving.works().await;
            add(&mut report, leaving.bus.drain(DRAIN_DEADLINE).await);
            Instant::now()
        };
        waits.push(until_run_elsewhere(&ledger, ended).await);
    }
    publishing.end().await;
    let unrun = |story: &Story| story.is_acknowledged() && story.runs == 0;
    comes(PATIENCE, || ledger.count(unrun) == 0).await;
    add(&mut report, staying.bus.drain(DRAIN_DEADLINE).await);
    let lost = ledger.count(unrun);
    let twice = ledger.count(|story| story.runs > 1);
    let acknowledged = ledger.count(Story::is_acknowledged);
    table::line(
        "drains",
        &format!(
            "- {drains} drains under load, each fifth of a process by SIGTERM: {acknowledged} \
             events acknowledged, {} handed over by those in this process, {lost} lost, {twice} \
             run twice; everything that waited at a drain's end ran elsewhere within {} s (median \
             / 99th percentile / longest).",
            report.handed_over,
            table::ranks(waits),
        ),
    );
    assert_eq!((lost, twice, report.forced), (0, 0, 0));
    assert!(report.handed_over > 0, "nothing was handed over: {report:?}");
}

fn add(sum: &mut DrainReport, one: DrainReport) {
    sum.finished += one.finished;
    sum.handed_over += one.handed_over;
    sum.forced += one.forced;
}

/// How long after `ended` the last event ran that was acknowledged by then.
async fn until_run_elsewhere(ledger: &Ledger, ended: Instant) -> Duration {
    let due = |story: &Story| story.stored().is_some_and(|stored| stored <= ended);
    let all_run = comes(PATIENCE, || ledger.count(|story| due(story) && story.runs == 0) == 0);
    assert!(all_run.await, "what was handed over runs elsewhere");
    let late = ledger.find(|story| due(story) && story.delivered.is_some_and(|at| at > ended));
    let waits = late.iter().filter_map(|(_, story)| story.delivered).map(|at| at - ended);
    waits.max().unwrap_or_default()
}

/// An instance in this process.
struct Instance {
    bus: Bus,
    run: Arc<AtomicUsize>,
}

impl Instance {
    async fn start(server: &Server, ledger: &Arc<Ledger>) -> Self {
        let bus = connect(&server.url()).await;
        let run = Arc::new(AtomicUsize::new(0));
        let (count, ledger) = (Arc::clone(&run), Arc::clone(ledger));
        work(&bus, move |id| {
            count.fetch_add(1, Ordering::Relaxed);
            ledger.deliver(id);
        })
        .await;
        Self { bus, run }
    }

    /// Waits until it is in the middle of its work.
    async fn works(&self) {
        let works = comes(PATIENCE, || self.run.load(Ordering::Relaxed) > 4).await;
        assert!(works, "it gets its share");
        hold(Duration::from_millis(fastrand::u64(..50))).await;
    }
}

async fn work(bus: &Bus, begin: impl Fn(EventId) + Send + Sync + 'static) {
    let handler = move |_: Numbered, context: Context| {
        begin(context.envelope().id());
        async move {
            hold(WORK).await;
            Ok(())
        }
    };
    let routes = |routes: rumormill::Routes<()>| routes.on_fn(handler);
    bus.subscribe_routes(GROUP, ServiceOptions::default(), routes).await.expect("a group");
}

/// An instance in a process of its own that is told to end; gives the moment of its end.
async fn terminate(server: &Server, ledger: &Arc<Ledger>) -> Instant {
    let mut process = Process::start("the_instance", INSTANCE, &server.url());
    let run = Arc::new(AtomicUsize::new(0));
    let (lines, ledger, count) = (process.lines(), Arc::clone(ledger), Arc::clone(&run));
    let reading = thread::spawn(move || {
        for id in lines.filter_map(|line| line.strip_prefix("run ")?.parse().ok()) {
            count.fetch_add(1, Ordering::Relaxed);
            ledger.deliver(id);
        }
    });
    assert!(comes(PATIENCE, || run.load(Ordering::Relaxed) > 4).await, "it gets its share");
    process.terminate();
    let status = process.wait();
    let ended = Instant::now();
    assert!(status.success(), "the drain was clean: {status}");
    reading.join().expect("it reads to the end");
    ended
}

/// The instance's process; in a run of the tests it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_instance() {
    let Ok(url) = std::env::var(INSTANCE) else { return };
    let mut told = signal(SignalKind::terminate()).expect("signals can be caught");
    // What the test harness began to print ends here.
    println!();
    let bus = connect(&url).await;
    work(&bus, |id| println!("run {id}")).await;
    let until = async {
        told.recv().await;
    };
    let report = bus.run(until).await.expect("there is something to run");
    assert!(report.is_clean(), "{report:?}");
}
