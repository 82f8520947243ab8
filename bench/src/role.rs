//! One end of a round, as a process of its own.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::Error;
use crate::job::Job;
use crate::measure::{End, now_ns, own_cpu_ns, own_memory_kib};
use crate::peers::{self, Peer};
use crate::tally::Tally;

/// How long a round may take; what did not come by then is missing.
fn deadline(job: &Job) -> Duration {
    const SLOWEST_PER_SECOND: u64 = 20_000;
    Duration::from_secs(60 + job.events / SLOWEST_PER_SECOND)
}

/// Which end.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Which {
    /// Makes the groups, and ends.
    Prepare,
    Publish,
    Consume,
    /// Both in one process.
    Both,
}

impl Which {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Publish => "publish",
            Self::Consume => "consume",
            Self::Both => "both",
        }
    }
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
    /// Does its part, and writes what it saw as a line of JSON, or why it saw nothing.
    pub(crate) fn run(self) -> Result<(), Error> {
        if let Err(error) = self.part() {
            say(&format!("error: {error}"))?;
            std::process::exit(1);
        }
        // What a peer leaves running ends with the process.
        std::process::exit(0);
    }

    fn part(self) -> Result<(), Error> {
        let job: Job = serde_json::from_str(&self.job)?;
        let peer: Arc<dyn Peer> = peers::find(&self.peer, &self.url)?.into();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        // Who keeps to a schedule sleeps in its thread, which is no worker then.
        let in_thread = job.rate > 0;
        let work = work(self.which, peer, job);
        let end = if in_thread {
            runtime.block_on(work)?
        } else {
            runtime.block_on(runtime.spawn(work))??
        };
        // What a peer leaves running must not keep it.
        runtime.shutdown_background();
        say(&serde_json::to_string(&end)?)
    }
}

async fn work(which: Which, peer: Arc<dyn Peer>, job: Job) -> Result<End, Error> {
    match which {
        Which::Prepare => peer.prepare(&job).await.map(|()| End::default()),
        Which::Publish => publish(&*peer, &job).await,
        Which::Consume => consume(&*peer, &job).await,
        Which::Both => both(&*peer, &job).await,
    }
}

fn say(line: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

async fn publish(peer: &dyn Peer, job: &Job) -> Result<End, Error> {
    let (first_ns, before) = (now_ns(), own_cpu_ns());
    timeout(deadline(job), peer.publish(job)).await.map_err(|_| "it did not publish in time")??;
    let cpu_ns = own_cpu_ns() - before;
    let memory_kib = own_memory_kib("VmHWM");
    Ok(End { first_ns, last_ns: now_ns(), cpu_ns, memory_kib, ..End::default() })
}

async fn consume(peer: &dyn Peer, job: &Job) -> Result<End, Error> {
    let tally = Arc::new(Tally::new(job));
    let (first_ns, before) = (now_ns(), own_cpu_ns());
    let consumers = peer.consume(job, Arc::clone(&tally)).await?;
    // Joining is part of taking a backlog, and of nothing else.
    let (first_ns, before) =
        if job.backlog { (first_ns, before) } else { (now_ns(), own_cpu_ns()) };
    say("ready")?;
    tokio::select! {
        () = tally.done() => {}
        ended = consumers => ended?,
        () = tokio::time::sleep(deadline(job)) => {}
    }
    Ok(ended(&tally, first_ns, before))
}

async fn both(peer: &dyn Peer, job: &Job) -> Result<End, Error> {
    let tally = Arc::new(Tally::new(job));
    let consumers = peer.consume(job, Arc::clone(&tally)).await?;
    let before = own_cpu_ns();
    let first_ns = now_ns();
    let all = async {
        peer.publish(job).await?;
        tally.done().await;
        Ok::<_, Error>(())
    };
    tokio::select! {
        done = all => done?,
        ended = consumers => ended?,
        () = tokio::time::sleep(deadline(job)) => {}
    }
    Ok(ended(&tally, first_ns, before))
}

fn ended(tally: &Tally, first_ns: u64, cpu_before: u64) -> End {
    End {
        first_ns,
        last_ns: now_ns(),
        cpu_ns: own_cpu_ns() - cpu_before,
        memory_kib: own_memory_kib("VmHWM"),
        latency_us: tally.latency_us(),
        missing: tally.missing(),
        again: tally.again(),
        disorder: tally.disorder(),
    }
}
