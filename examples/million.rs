//! A million events through the memory bus, and none of them lost.
//!
//! ```text
//! cargo run --release --example million -- --handlers 3
//! ```
//!
//! Publishes numbered events in windows, counts the distinct numbers that each handler got, and
//! prints the peak of resident memory: held against a run with `--events 100000` it shows that
//! memory does not grow with the number of events. What is published and not yet handled is held
//! to 8 MiB: then `publish` waits, and nothing is dropped.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::{Bus, Context, Event, Services};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "load.number.counted", key = lane)]
struct Counted {
    number: u64,
    lane: u64,
}

/// A million events through the memory bus.
#[derive(Parser)]
struct Args {
    /// How many groups handle every event
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    handlers: u64,
    /// How many events are published
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
}

/// How many events are published at a time.
const WINDOW: u64 = 2_000;

/// The numbers that came: one bit each, so that distinct ones can be counted.
struct Seen {
    bits: Mutex<Vec<u64>>,
    calls: AtomicU64,
}

impl Seen {
    fn new(events: u64) -> Self {
        let words = usize::try_from(events / 64 + 1).unwrap_or(usize::MAX);
        Self { bits: Mutex::new(vec![0; words]), calls: AtomicU64::new(0) }
    }

    fn insert(&self, number: u64) {
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        self.bits.lock().unwrap_or_else(PoisonError::into_inner)[word] |= 1 << (number % 64);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn distinct(&self) -> u64 {
        let bits = self.bits.lock().unwrap_or_else(PoisonError::into_inner);
        bits.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Args { handlers, events } = Args::parse();
    let options = MemoryOptions { unsettled_bytes_max: 8 << 20, ..MemoryOptions::default() };
    let driver = MemoryDriver::new(options);
    let bus = Bus::builder().driver(driver).services(Services::none()).build().await?;
    let mut seen = Vec::new();
    for handler in 0..handlers {
        let own = Arc::new(Seen::new(events));
        seen.push(Arc::clone(&own));
        let handle = move |event: Counted, _: Context| {
            own.insert(event.number);
            std::future::ready(Ok(()))
        };
        bus.subscribe(&format!("handler{handler}"), handle).await?;
    }
    for start in (0..events).step_by(WINDOW as usize) {
        let numbers = start..(start + WINDOW).min(events);
        let window: Vec<_> = numbers.map(|number| Counted { number, lane: number % 64 }).collect();
        for answer in bus.publish_many(&window).await {
            answer?;
        }
    }
    bus.settled().await?;
    let report = bus.drain(rumormill::DRAIN_DEADLINE).await;
    println!("{:<10}{:>12}{:>12}{:>8}", "handler", "calls", "distinct", "lost");
    let mut lost = 0;
    for (handler, seen) in seen.iter().enumerate() {
        let (calls, distinct) = (seen.calls.load(Ordering::Relaxed), seen.distinct());
        lost += events - distinct;
        println!("{handler:<10}{calls:>12}{distinct:>12}{:>8}", events - distinct);
    }
    if let Some(peak) = peak_resident_kib() {
        println!("peak resident memory: {peak} KiB");
    }
    if lost > 0 || !report.is_clean() {
        return Err(format!("{lost} events lost, {} handlers cancelled", report.forced).into());
    }
    Ok(())
}

/// The most memory that this process ever held, where the system tells.
fn peak_resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
