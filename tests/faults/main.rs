//! Every fault under load on a real server: nothing acknowledged is lost, nothing stands twice in
//! the log, and both halves work again by themselves. One round each; `scripts/reliability` runs
//! many and makes the table of `docs/reliability.md`.
//!
//! Nothing here asserts how soon: a machine may be busy. That it happens at all has a generous
//! deadline.

#[path = "../fault/mod.rs"]
mod fault;
#[path = "../server/mod.rs"]
mod server;

mod connections;
mod data;
mod proxy;
mod refusals;
mod several;
mod workers;

use std::time::Duration;

use tokio::time::Instant;

use fault::drive::Stage;
use fault::hold;

/// Most reads in a second that the server refuses.
const ATTEMPTS_MAX: f64 = 20.0;

/// Lets a fault last and sees to it that the reader waits between its attempts.
async fn hold_calmly(stage: &mut Stage, time: Duration) {
    let (before, since) = (refused_reads(stage), Instant::now());
    hold(time).await;
    let refused = refused_reads(stage) - before;
    let limit = ATTEMPTS_MAX * since.elapsed().as_secs_f64();
    assert!((refused as f64) <= limit, "{refused} refused reads in {:?}", since.elapsed());
}

fn refused_reads(stage: &mut Stage) -> u64 {
    let stats = stage.block(|server| server.say("INFO commandstats").text());
    let line = stats.lines().find(|line| line.starts_with("cmdstat_xreadgroup:"));
    let count = |name: &str| -> u64 {
        let value = line.and_then(|line| line.split(name).nth(1)?.split(',').next());
        value.map_or(0, |number| number.trim().parse().expect("a number"))
    };
    count("rejected_calls=") + count("failed_calls=")
}

/// How requests are told apart: a word of a request stands between two line ends, in the text of a
/// script it does not.
const XADD: &str = "\r\nXADD\r\n";
const XREADGROUP: &str = "\r\nXREADGROUP\r\n";
/// The settle script alone is given the key of the dead letters.
const SETTLE: &str = ":dead:readers";
