//! One event that kills its process, among a thousand innocent ones in the same entries: it alone
//! is dead-lettered. Real processes on a real server, started again whenever they die.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rumormill::codec::ContentType;
use rumormill::delivery::{Cause, Partition};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{Append, Driver, GroupName, LeaseTimes, Publish};
use rumormill::{Bus, Envelope, Event, EventType, ServiceOptions, Services, Timestamp};
use serde::{Deserialize, Serialize};

mod server;

use server::Server;

const GROUP: &str = "printers";
const ENTRIES: u64 = 20;
const INNOCENT_PER_ENTRY: u64 = 50;
const KILLER: u64 = 666_666;

/// What a worker process is told.
const URL: &str = "RUMORMILL_SUSPECTS_URL";
const HANDLED: &str = "RUMORMILL_SUSPECTS_HANDLED";

#[derive(Serialize, Deserialize, Event)]
#[event(type = "pages.page.written")]
struct PageWritten {
    number: u64,
}

fn options() -> ServiceOptions {
    let [lease, renew, sweep] = [1_000, 200, 200].map(Duration::from_millis);
    ServiceOptions { lease: LeaseTimes { lease, renew, sweep }, ..ServiceOptions::default() }
}

/// What a worker process runs: this test binary, told by its environment. Without it, nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_process() {
    let (Ok(url), Ok(handled)) = (std::env::var(URL), std::env::var(HANDLED)) else { return };
    let bus = Bus::builder().url(url).services(Services::none()).build().await;
    let bus = bus.expect("connected");
    let routes = |routes: rumormill::Routes<()>| {
        routes.on_fn(move |page: PageWritten, _| {
            if page.number == KILLER {
                std::process::abort();
            }
            let mut file = OpenOptions::new().append(true).create(true).open(&handled);
            let line = format!("{}\n", page.number);
            let written = file.as_mut().map(|file| file.write_all(line.as_bytes()));
            assert!(written.is_ok_and(|written| written.is_ok()), "the page is printed");
            std::future::ready(Ok(()))
        })
    };
    bus.subscribe_routes(GROUP, options(), routes).await.expect("subscribed");
    std::future::pending::<()>().await;
}

/// Worker processes that are started again when they die.
struct Workers<'a> {
    server: &'a Server,
    handled: &'a Path,
    children: Vec<Child>,
    deaths: usize,
}

impl<'a> Workers<'a> {
    fn start(server: &'a Server, handled: &'a Path, count: usize) -> Self {
        let mut workers = Self { server, handled, children: Vec::new(), deaths: 0 };
        workers.children = (0..count).map(|_| workers.spawn()).collect();
        workers
    }

    fn spawn(&self) -> Child {
        Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "worker_process"])
            .env(URL, self.server.url())
            .env(HANDLED, self.handled)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a worker starts")
    }

    fn raise_the_dead(&mut self) {
        for place in 0..self.children.len() {
            if self.children[place].try_wait().expect("it is ours").is_some() {
                self.deaths += 1;
                self.children[place] = self.spawn();
            }
        }
    }
}

impl Drop for Workers<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

fn page(number: u64) -> Envelope {
    let event_type = EventType::from_static("pages.page.written");
    let payload = serde_json::to_vec(&PageWritten { number }).expect("JSON");
    let now = Timestamp::from_millis(1_767_323_045_678);
    Envelope::builder(event_type, ContentType::JSON, payload, now).build().expect("within limits")
}

/// Twenty entries of fifty innocent events; in the middle of one of them, the killer.
async fn publish(driver: &RedisDriver) {
    let partition: Partition = "pages:0".parse().expect("valid");
    driver.declare(&partition.topic).await.expect("declared");
    let entry = |number: u64| {
        let first = number * INNOCENT_PER_ENTRY;
        let mut envelopes: Vec<_> = (first..first + INNOCENT_PER_ENTRY).map(page).collect();
        if number == ENTRIES / 2 {
            envelopes.insert(envelopes.len() / 2, page(KILLER));
        }
        Append {
            partition: partition.clone(),
            envelopes,
            delay: Duration::ZERO,
            deduplicate: false,
        }
    };
    for stored in driver.append((0..ENTRIES).map(entry).collect()).await {
        stored.expect("stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_that_kills_its_process_is_the_only_one_dead_lettered() {
    let server = Server::start();
    let driver = RedisDriver::connect(RedisOptions::new(server.url())).await.expect("connects");
    publish(&driver).await;
    let directory = tempfile::tempdir().expect("a directory");
    let handled = directory.path().join("handled");
    let mut workers = Workers::start(&server, &handled, 2);
    let group = GroupName::new(GROUP).expect("valid");
    let settled = async {
        loop {
            workers.raise_the_dead();
            let backlog =
                driver.tools().expect("tools").backlog(&group).await.expect("the server tells");
            if backlog.dead > 0 && backlog.is_settled() {
                return;
            }
            // waits: for the group to have nothing before it, with a deadline
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(240), settled).await.expect("it settles");
    let deaths = workers.deaths;
    drop(workers);
    println!("{deaths} processes died");
    assert!(deaths >= 3, "{deaths} deaths prove nothing");
    let dead = driver
        .tools()
        .expect("tools")
        .dead_letters(&group, 10_000)
        .await
        .expect("the server tells");
    let numbers: Vec<u64> = dead
        .iter()
        .map(|letter| {
            let envelope = letter.record.as_ref().expect("an event");
            let page: PageWritten = serde_json::from_slice(envelope.payload()).expect("JSON");
            page.number
        })
        .collect();
    assert_eq!(numbers, [KILLER]);
    assert_eq!(dead[0].failure.cause, Cause::Crashed, "{:?}", dead[0].failure);
    let printed = std::fs::read_to_string(&handled).expect("the innocent were handled");
    let printed: BTreeSet<u64> = printed.lines().map(|line| line.parse().expect("one")).collect();
    assert_eq!(printed, (0..ENTRIES * INNOCENT_PER_ENTRY).collect(), "each at least once");
    assert_eq!(server.say("EXISTS rm:{pages:0}:running:printers").int(), 0, "no note is left");
    driver.close().await;
}
