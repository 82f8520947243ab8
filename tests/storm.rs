//! Ten times more publishes than may be under way, while the server answers nothing: of those that
//! wait no event is encoded, so that memory grows by what their tasks take and no more, and every
//! publish has an answer that is true.

mod fault;
mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rumormill::driver::Driver;
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::{Bus, Clock, Event, EventId, PublishLimits, PublishOptions, Services, SystemClock};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::task::JoinSet;

use fault::ledger::Outcome;
use fault::process::Process;
use fault::table;
use server::Server;

/// Tells the program that it is to be the publisher, and how many publishes it tries at once.
const STORM: &str = "RUMORMILL_TEST_STORM";
/// What may be under way: the default.
const CAPACITY: usize = 4_096;
/// Large beside what a waiting publish costs its caller.
const PAYLOAD_BYTES: usize = 16 << 10;

/// What a publisher's process told.
struct Told {
    /// The most memory it had.
    kib: u64,
    outcomes: HashMap<EventId, Outcome>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_publishes_leaves_memory_flat() {
    let (once, tenfold) = (storm(CAPACITY).await, storm(CAPACITY * 10).await);
    let (small, large) = (once.kib / 1024, tenfold.kib / 1024);
    let count = |outcome| tenfold.outcomes.values().filter(|own| **own == outcome).count();
    let (stored, refused) = (count(Outcome::Stored), count(Outcome::NotStored));
    let unknown = count(Outcome::Unknown);
    table::line(
        "storm",
        &format!(
            "- A storm of {} publishes of {} KiB at once, with room for {CAPACITY}, at a server \
             that answers nothing: {large} MiB of memory at most, where {CAPACITY} take {small} \
             MiB; {stored} stored, {refused} not stored, {unknown} unknown.",
            CAPACITY * 10,
            PAYLOAD_BYTES >> 10,
        ),
    );
    assert!(refused > CAPACITY * 8, "what is beyond the limit is refused");
    // Each caller that waits has a task of its own, for which the library can do nothing; but
    // the event of none is encoded before its turn.
    let waiting = CAPACITY as u64 * 9;
    let each = (tenfold.kib.saturating_sub(once.kib) << 10) / waiting;
    assert!(each < PAYLOAD_BYTES as u64 / 2, "{each} bytes for each publish that waits");
}

/// A process that publishes while the server stands still; what it told is checked.
async fn storm(publishes: usize) -> Told {
    let server = Server::start();
    let mut process =
        Process::start("the_publisher", STORM, &format!("{publishes} {}", server.url()));
    let mut lines = process.lines();
    let told = tokio::task::block_in_place(|| {
        lines.find(|line| line == "connected").expect("it connects");
        server.pause();
        lines.find(|line| line == "answered").expect("every publish has an answer");
        server.resume();
        read(lines)
    });
    assert!(process.wait().success());
    assert_eq!(told.outcomes.len(), publishes, "every publish has an answer");
    let log = log(&server).await;
    for (id, outcome) in &told.outcomes {
        let times = log.get(id).copied().unwrap_or(0);
        let is_true = match outcome {
            Outcome::Stored => times == 1,
            Outcome::NotStored => times == 0,
            Outcome::Unknown => times <= 1,
        };
        assert!(is_true, "{outcome:?}, and {times} times in the log");
    }
    told
}

fn read(lines: impl Iterator<Item = String>) -> Told {
    let mut told = Told { kib: 0, outcomes: HashMap::new() };
    for line in lines {
        let mut words = line.split_whitespace();
        let (Some(word), Some(value)) = (words.next(), words.next()) else { continue };
        let outcome = match word {
            "stored" => Outcome::Stored,
            "refused" => Outcome::NotStored,
            "unknown" => Outcome::Unknown,
            "kib" => {
                told.kib = value.parse().expect("a number");
                continue;
            }
            _ => continue,
        };
        told.outcomes.insert(value.parse().expect("an id"), outcome);
    }
    told
}

/// How often each event stands in the log.
async fn log(server: &Server) -> HashMap<EventId, usize> {
    let driver = RedisDriver::connect(RedisOptions::new(server.url())).await.expect("it runs");
    let tools = driver.tools().expect("Redis has them");
    let partition = "storm:0".parse().expect("valid");
    let entries = tools.latest(&partition, CAPACITY * 10).await.expect("a log");
    let mut log = HashMap::new();
    for event in entries.iter().flat_map(|entry| &*entry.records) {
        *log.entry(event.as_ref().expect("an event").id()).or_default() += 1;
    }
    driver.close().await;
    log
}

/// An event that is small until it is encoded.
#[derive(Serialize, Deserialize, Event)]
#[event(type = "storm.drop")]
struct Drop {
    payload: Payload,
}

struct Payload;

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&[7; PAYLOAD_BYTES])
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        serde_bytes::ByteBuf::deserialize(from).map(|_| Self)
    }
}

/// The publisher's process; in a run of the tests it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_publisher() {
    let Ok(told) = std::env::var(STORM) else { return };
    let (publishes, url) = told.split_once(' ').expect("two words");
    let limits = PublishLimits { deadline: Duration::from_secs(3), ..PublishLimits::default() };
    assert_eq!(limits.unconfirmed_max, CAPACITY);
    let bus = Bus::builder().url(url).services(Services::none()).limits(limits);
    let bus = bus.build().await.expect("the server is there");
    bus.publish(&Drop { payload: Payload }).await.expect("the topic is known from now on");
    println!("\nconnected");
    let outcomes = publish(&bus, publishes.parse().expect("a number")).await;
    println!("answered");
    for (id, outcome) in outcomes {
        let word = match outcome {
            Outcome::Stored => "stored",
            Outcome::NotStored => "refused",
            Outcome::Unknown => "unknown",
        };
        println!("{word} {id}");
    }
    println!("kib {}", most_memory());
    bus.drain(Duration::from_secs(5)).await;
}

async fn publish(bus: &Bus, publishes: usize) -> Vec<(EventId, Outcome)> {
    let bus = Arc::new(bus.clone());
    let mut tasks = JoinSet::new();
    for _ in 0..publishes {
        let bus = Arc::clone(&bus);
        tasks.spawn(async move {
            let id = EventId::new(SystemClock.now());
            let options = PublishOptions::default().id(id);
            let answer = bus.publish_with(&Drop { payload: Payload }, options).await;
            (id, Outcome::from(&answer))
        });
    }
    tasks.join_all().await
}

/// KiB that this process had at most, as Linux tells.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()).expect("Linux tells");
    number.parse().expect("a number")
}
