//! Publishes one by one, with so many under way.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::{JoinSet, unconstrained};

use crate::Error;
use crate::job::Job;
use crate::measure::now_ns;

/// Calls `publish` for every event of a job, with its number and payload.
pub(super) async fn pump<F, Fut>(job: &Job, publish: F) -> Result<(), Error>
where
    F: FnMut(u64, Vec<u8>) -> Fut,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    match job.rate {
        // Else the runtime's budget lets 128 of those under way see their answer at a time, and
        // has the others polled in vain.
        0 => unconstrained(at_full_speed(job, publish)).await,
        _ => by_schedule(job, publish).await,
    }
}

async fn at_full_speed<F, Fut>(job: &Job, mut publish: F) -> Result<(), Error>
where
    F: FnMut(u64, Vec<u8>) -> Fut,
    Fut: Future<Output = Result<(), Error>>,
{
    let mut under_way = FuturesUnordered::new();
    for number in 0..job.events {
        while under_way.len() >= job.window {
            if let Some(done) = under_way.next().await {
                let () = done?;
            }
        }
        under_way.push(publish(number, job.payload(number, 0)));
    }
    while let Some(done) = under_way.next().await {
        let () = done?;
    }
    Ok(())
}

/// An event is stamped with the moment at which it was due, not with that at which its turn came:
/// what waits is late.
async fn by_schedule<F, Fut>(job: &Job, mut publish: F) -> Result<(), Error>
where
    F: FnMut(u64, Vec<u8>) -> Fut,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    let start = now_ns();
    for number in 0..job.events {
        let due = start + job.due_ns(number);
        let early = Duration::from_nanos(due.saturating_sub(now_ns()));
        if !early.is_zero() {
            // The runtime's timers are too coarse. This is no worker of it.
            std::thread::sleep(early);
        }
        under_way.spawn(publish(number, job.payload(number, due)));
        while let Some(done) = under_way.try_join_next() {
            done??;
        }
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}
