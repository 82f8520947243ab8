//! What things cost in memory, measured as resident bytes on the memory driver: an idle
//! subscription, an event that waits, one in flight, a queued retry; and whether a busy bus grows.
//!
//! ```text
//! cargo run --release --example memory_use              # the costs, one process for each
//! cargo run --release --example memory_use soak 60      # a minute of events, a line a second
//! ```
//!
//! Linux only: the figures are the growth of resident memory in `/proc/self/statm`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::driver::{Backlog, Tools};
use rumormill::{Bus, Event, GroupSubscription, HandlerError, ServiceOptions};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

type Failure = Box<dyn std::error::Error>;

const TYPES: usize = 100_000;
const GROUPS: usize = 50;
const EVENTS: usize = 100_000;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user_service.user.created", key = user_id)]
struct UserCreated {
    user_id: String,
    email: String,
    username: String,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        None => each_alone(),
        Some("idle") => idle().await,
        Some("waiting") => waiting().await,
        Some("in_flight") => in_flight().await,
        Some("retries") => retries().await,
        Some("soak") => soak(args.next().unwrap_or_default().parse().unwrap_or(30)).await,
        Some(other) => Err(format!("{other:?}: idle, waiting, in_flight, retries or soak").into()),
    }
}

/// What one measurement freed would be there for the next.
fn each_alone() -> Result<(), Failure> {
    for what in ["idle", "waiting", "in_flight", "retries"] {
        std::process::Command::new(std::env::current_exe()?).arg(what).status()?;
    }
    Ok(())
}

fn resident() -> Result<u64, Failure> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split_whitespace().nth(1).unwrap_or("0").parse()?;
    Ok(pages * 4_096)
}

fn print(what: &str, before: u64, count: usize) -> Result<(), Failure> {
    let grown = resident()?.saturating_sub(before);
    let each = grown / count as u64;
    println!("{what}: {each} bytes each, {} MiB for {count}", grown >> 20);
    Ok(())
}

async fn idle() -> Result<(), Failure> {
    let (before, started) = (resident()?, Instant::now());
    let bus = Bus::connect("memory:").await?;
    let of_group = |group: usize| {
        let own = (group..TYPES).step_by(GROUPS);
        GroupSubscription::new(format!("group{group}"), |routes| {
            own.fold(routes, |routes, number| {
                let pattern = format!("topic{}.thing{number}.created", number % 100);
                routes.on_any_fn(&pattern, |_, _| async { Ok(()) })
            })
        })
    };
    bus.subscribe_many((0..GROUPS).map(of_group)).await?;
    println!("{TYPES} event types in {GROUPS} groups: started in {:?}", started.elapsed());
    print("idle subscription", before, TYPES)
}

/// A store with room, and a bus on it.
async fn roomy() -> Result<(Arc<MemoryDriver>, Bus), Failure> {
    let options = MemoryOptions { unsettled_bytes_max: 1 << 30, ..MemoryOptions::default() };
    let driver = MemoryDriver::new(options);
    let bus = Bus::builder().driver(driver.client()).build().await?;
    Ok((driver, bus))
}

fn wide() -> ServiceOptions {
    ServiceOptions { lane_depth: 65_536, in_flight_bytes_max: 1 << 30, ..Default::default() }
}

async fn publish(bus: &Bus) -> Result<(), Failure> {
    for thousand in 0..EVENTS / 1_000 {
        let event = |number: usize| UserCreated {
            user_id: format!("user_{}", thousand * 1_000 + number),
            email: "carol@example.com".to_owned(),
            username: "carol".to_owned(),
        };
        let events: Vec<_> = (0..1_000).map(event).collect();
        for answer in bus.publish_many(&events).await {
            answer?;
        }
    }
    Ok(())
}

async fn until(driver: &MemoryDriver, done: impl Fn(&Backlog) -> bool) -> Result<(), Failure> {
    while !done(&driver.backlog(&"group".parse()?).await?) {
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn waiting() -> Result<(), Failure> {
    let (driver, bus) = roomy().await?;
    bus.subscribe("group", |_: UserCreated, _| async { Ok(()) }).await?;
    bus.unsubscribe("group", Duration::ZERO).await?;
    let before = resident()?;
    publish(&bus).await?;
    until(&driver, |backlog| backlog.unread > 0).await?;
    print("event that waits in the store", before, EVENTS)
}

async fn in_flight() -> Result<(), Failure> {
    let (driver, bus) = roomy().await?;
    bus.subscribe("group", |_: UserCreated, _| async { Ok(()) }).await?;
    bus.unsubscribe("group", Duration::ZERO).await?;
    publish(&bus).await?;
    let before = resident()?;
    bus.subscribe_routes("group", wide(), |routes| {
        routes.on_fn(|_: UserCreated, _| std::future::pending::<Result<(), HandlerError>>())
    })
    .await?;
    until(&driver, |backlog| backlog.unread == 0).await?;
    print("event in flight, beyond that", before, EVENTS)
}

async fn retries() -> Result<(), Failure> {
    let (driver, bus) = roomy().await?;
    let before = resident()?;
    bus.subscribe_routes("group", wide(), |routes| {
        let later = || Err(HandlerError::retry_after(Duration::from_secs(3_600), "later"));
        routes.on_fn(move |_: UserCreated, _| async move { later() })
    })
    .await?;
    publish(&bus).await?;
    until(&driver, |backlog| backlog.due == EVENTS as u64).await?;
    print("queued retry", before, EVENTS)
}

async fn soak(seconds: u64) -> Result<(), Failure> {
    let (_driver, bus) = roomy().await?;
    let handled = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&handled);
    bus.subscribe("group", move |_: UserCreated, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }
    })
    .await?;
    let mut samples = Vec::new();
    let started = Instant::now();
    while started.elapsed().as_secs() < seconds {
        publish(&bus).await?;
        let (events, bytes) = (handled.load(Ordering::Relaxed), resident()?);
        println!("{events} events handled, {} KiB resident", bytes >> 10);
        samples.push((events, bytes));
    }
    bus.settled().await?;
    // The first half warms up: arenas, maps and the history reach their size.
    if let (Some(half), Some(last)) = (samples.get(samples.len() / 2), samples.last()) {
        let grown = i128::from(last.1) - i128::from(half.1);
        println!("second half: {grown} bytes over {} events", last.0 - half.0);
    }
    Ok(())
}
