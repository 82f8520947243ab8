//! Worlds on virtual time: services, publishers and a store that fails, each by a seed; every fact
//! is noted and judged. `SIMULATION_SEEDS` says how many seeds are run, `SIMULATION_SEED` runs one
//! and prints its history.

#![allow(unreachable_pub, reason = "a program of its own, in several files")]

mod audit;
mod handlers;
mod history;
mod plan;
mod publisher;
mod recorder;
mod runner;
mod world;

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use runner::{Course, run};

/// So many seeds are run where nobody says how many.
const SEEDS: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")))
}

#[test]
fn every_seed_keeps_the_promise() {
    if let Some(seed) = number("SIMULATION_SEED") {
        let course = run(seed);
        println!("{}", course.history.print());
        assert!(course.found.is_empty(), "{}", complaint(seed, &course));
        return;
    }
    let (seeds, begun) = (number("SIMULATION_SEEDS").unwrap_or(SEEDS), Instant::now());
    let (next, facts) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = std::sync::Mutex::new(None);
    let work = || {
        while let seed @ 0.. = next.fetch_add(1, Ordering::Relaxed)
            && seed < seeds
            && failed.lock().expect("no panic under it").is_none()
        {
            let course = run(seed);
            facts.fetch_add(course.history.facts().len() as u64, Ordering::Relaxed);
            if !course.found.is_empty() {
                *failed.lock().expect("no panic under it") = Some((seed, course));
            }
        }
    };
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    if let Some((seed, course)) = failed.into_inner().expect("no panic under it") {
        println!("{}", course.history.print());
        panic!("{}", complaint(seed, &course));
    }
    println!("{seeds} seeds, {} facts, {:?}", facts.into_inner(), begun.elapsed());
}

fn complaint(seed: u64, course: &Course) -> String {
    format!(
        "seed {seed}:\n  {}\nreplay it with `SIMULATION_SEED={seed} cargo test --test simulation \
         every_seed -- --nocapture`",
        course.found.join("\n  ")
    )
}

#[test]
fn a_seed_takes_the_same_course_each_time() {
    for seed in 0..40 {
        let (first, second) = (run(seed), run(seed));
        let (first, second) = (first.history.print(), second.history.print());
        for (one, other) in first.lines().zip(second.lines()) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}
