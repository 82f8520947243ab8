//! One end of a round, as a process of its own.

use std::io::Write;
use std::sync::Arc;

use tokio::runtime::Builder;

use crate::Error;
use crate::job::Job;
use crate::measure::{End, Tally, now_ns, own_cpu_ns};
use crate::peers::{self, Peer};

/// Which end.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Which {
    Publish,
    Consume,
}

#[derive(clap::Args)]
pub(crate) struct RoleArgs {
    which: Which,
    peer: String,
    url: String,
    /// As JSON.
    job: String,
}

impl RoleArgs {
    /// Does its part, and writes what it saw as a line of JSON.
    pub(crate) fn run(self) -> Result<(), Error> {
        let job: Job = serde_json::from_str(&self.job)?;
        let peer = peers::find(&self.peer, &self.url)?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let end = runtime.block_on(async {
            match self.which {
                Which::Publish => publish(&*peer, &job).await,
                Which::Consume => consume(&*peer, &job).await,
            }
        })?;
        say(&serde_json::to_string(&end)?)?;
        // What a peer leaves running ends with the process.
        std::process::exit(0);
    }
}

fn say(line: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

async fn publish(peer: &dyn Peer, job: &Job) -> Result<End, Error> {
    let (first_ns, before) = (now_ns(), own_cpu_ns());
    peer.publish(job).await?;
    let cpu_ns = own_cpu_ns() - before;
    Ok(End { first_ns, last_ns: now_ns(), cpu_ns, ..End::default() })
}

async fn consume(peer: &dyn Peer, job: &Job) -> Result<End, Error> {
    let tally = Arc::new(Tally::new(job));
    let consumers = peer.consume(job, Arc::clone(&tally)).await?;
    let before = own_cpu_ns();
    let first_ns = now_ns();
    say("ready")?;
    tokio::select! {
        () = tally.done() => {}
        ended = consumers => ended?,
    }
    let cpu_ns = own_cpu_ns() - before;
    Ok(End { first_ns, last_ns: now_ns(), cpu_ns, latency_us: tally.latency_us() })
}
