//! Rounds of every peer, interleaved.

use std::io::{BufRead, BufReader, Write, stderr};
use std::process::{Child, Command, Stdio};

use crate::Error;
use crate::job::Job;
use crate::measure::End;
use crate::peers::{Entry, PEERS};
use crate::report;
use crate::server::{self, Server};

/// Rounds of every job with every peer
#[derive(clap::Args)]
pub(crate) struct Compare {
    /// How often each is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these peers
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Bytes of a payload
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1024])]
    payload: Vec<usize>,
    /// How many groups get every event
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3])]
    groups: Vec<usize>,
    /// At most so many publishes without an answer
    #[arg(long, value_delimiter = ',', default_values_t = [512])]
    window: Vec<usize>,
    /// Events a second by schedule; 0: as fast as it goes
    #[arg(long, value_delimiter = ',', default_values_t = [0])]
    rate: Vec<u64>,
    /// Seconds that a round should take
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// More for the command line of a Redis, such as `--appendonly yes`
    #[arg(long, value_delimiter = ' ', allow_hyphen_values = true)]
    redis: Vec<String>,
}

/// A job with a peer, and what each round gave.
pub(crate) struct Series {
    pub(crate) peer: &'static Entry,
    pub(crate) job: Job,
    pub(crate) rounds: Vec<Round>,
}

/// What a round gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) events_per_second: f64,
    /// Microseconds of CPU for each event.
    pub(crate) server_us: f64,
    pub(crate) publisher_us: f64,
    pub(crate) consumer_us: f64,
    pub(crate) latency_us: [u64; 5],
}

impl Compare {
    pub(crate) fn run(self) -> Result<(), Error> {
        let mut series = self.series();
        for round in 1..=self.rounds {
            for one in &mut series {
                let _ = write!(stderr(), "\rround {round} of {}: {:<40}", self.rounds, one.title());
                match self.round(one) {
                    Ok(result) => {
                        one.job.events = self.events(&one.job, Some(&result));
                        one.rounds.push(result);
                    }
                    Err(error) => {
                        let _ = writeln!(stderr(), "\n{} failed: {error}", one.title());
                    }
                }
            }
        }
        let _ = writeln!(stderr(), "\r{:<60}", "");
        print!("{}", report::table(&series));
        Ok(())
    }

    fn series(&self) -> Vec<Series> {
        let mut series = Vec::new();
        let chosen = |entry: &&Entry| {
            self.peers.is_empty() || self.peers.iter().any(|name| name == entry.name)
        };
        for peer in PEERS.iter().filter(chosen) {
            if server::program(peer.needs).is_none() {
                let _ = writeln!(stderr(), "skipped: {}: its server is not found", peer.name);
                continue;
            }
            for (&payload, &groups) in self
                .payload
                .iter()
                .flat_map(|payload| self.groups.iter().map(move |g| (payload, g)))
            {
                for (&window, &rate) in
                    self.window.iter().flat_map(|window| self.rate.iter().map(move |r| (window, r)))
                {
                    let mut job = Job { payload, groups, events: 0, window, rate };
                    job.events = self.events(&job, None);
                    series.push(Series { peer, job, rounds: Vec::new() });
                }
            }
        }
        series
    }

    /// So many that a round takes as long as it should, by the one before.
    fn events(&self, job: &Job, before: Option<&Round>) -> u64 {
        let per_second = match (job.rate, before) {
            (0, Some(before)) => before.events_per_second,
            (0, None) => 50_000.0,
            (rate, _) => rate as f64,
        };
        ((per_second * self.seconds as f64) as u64).clamp(1_000, 20_000_000)
    }

    fn round(&self, series: &Series) -> Result<Round, Error> {
        let settings =
            if series.peer.needs == crate::peers::Needs::Redis { &self.redis[..] } else { &[] };
        let server = Server::start(series.peer.needs, settings)?;
        let (mut consumer, mut said) = role("consume", series, &server)?;
        let mut line = String::new();
        said.read_line(&mut line)?;
        if line.trim() != "ready" {
            return Err(format!("its consumer ended: {:?}", consumer.wait()?).into());
        }
        let before = server.cpu_ns();
        let (mut publisher, mut published) = role("publish", series, &server)?;
        let publish = end(&mut publisher, &mut published)?;
        let consume = end(&mut consumer, &mut said)?;
        let events = series.job.events as f64;
        let us = |ns: u64| ns as f64 / 1000.0 / events;
        let took = consume.last_ns.saturating_sub(publish.first_ns).max(1);
        Ok(Round {
            events_per_second: events * 1e9 / took as f64,
            server_us: us(server.cpu_ns() - before),
            publisher_us: us(publish.cpu_ns),
            consumer_us: us(consume.cpu_ns),
            latency_us: consume.latency_us,
        })
    }
}

impl Series {
    pub(crate) fn title(&self) -> String {
        let Job { payload, groups, window, rate, .. } = self.job;
        let speed = if rate == 0 { format!("window {window}") } else { format!("{rate}/s") };
        format!("{}, {payload} B, {groups} groups, {speed}", self.peer.name)
    }
}

type Said = BufReader<std::process::ChildStdout>;

fn role(which: &str, series: &Series, server: &Server) -> Result<(Child, Said), Error> {
    let job = serde_json::to_string(&series.job)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["role", which, series.peer.name, &server.url(), &job]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let said = child.stdout.take().ok_or("no stdout")?;
    Ok((child, BufReader::new(said)))
}

fn end(child: &mut Child, said: &mut Said) -> Result<End, Error> {
    let mut line = String::new();
    said.read_line(&mut line)?;
    let status = child.wait()?;
    serde_json::from_str(&line).map_err(|_| format!("it ended with {status}: {line:?}").into())
}
