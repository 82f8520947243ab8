//! `bus-cli bench`: what this Redis, this network and this machine carry, measured with the library
//! itself, from the publisher to the acknowledged event.
//!
//! First as fast as a window of unconfirmed publishes allows, then at a rate: there events have a
//! schedule, and an event's latency begins at the moment it was due, whatever held it up. All of
//! it is under a namespace of its own, which is removed at the end, and expires by itself where
//! this program is killed.

mod clocks;
mod limit;
mod load;
mod report;
mod schedule;
mod screen;
mod site;
mod tally;

use std::io::{Write, stderr};
use std::time::Duration;

use clap::ArgAction;
use clap::builder::BoolishValueParser;
use tokio::time::Instant;

use self::load::Load;
use self::report::Report;
use self::site::Site;
use crate::args::{Format, twin};
use crate::failure::{Exit, Failure};
use crate::operate::bytes;
use crate::progress::{Progress, State, human};
use crate::settings::Connection;
use crate::signals::Signals;
use crate::table::{Screen, json_lines, write};
use crate::{duration, size};

/// Below it nothing settles down.
const DURATION_MIN: Duration = Duration::from_secs(1);
/// Further is a slip of the finger.
const DURATION_MAX: Duration = Duration::from_secs(60 * 60);
/// When it was due, and its number.
const PAYLOAD_MIN: u64 = 16;
/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(200);

/// Measure what a server carries: events a second, latencies, and what limits them
///
/// Publishes to, and consumes from, a namespace of its own beside yours, and removes it at the
/// end, on ctrl-c and on SIGTERM as well; where it is killed, the keys expire after ten minutes.
/// The server is busy meanwhile: others that use it will notice.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("BENCH", arg)), after_help = "\
Examples:
  bus-cli bench
  bus-cli bench --duration 10s --payload 1KiB --groups 3
  bus-cli bench --rate 1000 --output json | jq .latency.p99_us
  bus-cli bench --url memory:")]
pub(crate) struct BenchArgs {
    /// How long it takes in all: 10s, 5m
    #[arg(long, value_name = "DUR", default_value = "30s")]
    duration: String,
    /// The size of a payload: 100, 1KiB; 16 bytes at least
    #[arg(long, value_name = "SIZE", default_value = "100")]
    payload: String,
    /// Publishes that are unconfirmed at a time
    #[arg(long, value_name = "N", default_value_t = 512,
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    window: u32,
    /// Events a second while latencies are measured; where it is left out, half of what was
    /// reached before, 10000 at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Groups that read every event
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=16))]
    groups: u32,
    /// Lanes of each group: events that are handled at a time
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    lanes: u32,
    /// Say what would be written, and write nothing
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    dry_run: bool,
}

/// What `bench` was asked for.
pub(crate) struct Bench {
    duration: Duration,
    payload_bytes: usize,
    window: usize,
    rate: Option<u32>,
    groups: u32,
    lanes: usize,
    dry_run: bool,
    format: Format,
}

impl Bench {
    pub(crate) fn new(args: &BenchArgs, format: Format) -> Result<Self, Failure> {
        let &BenchArgs { window, rate, groups, lanes, dry_run, .. } = args;
        let duration = duration::parse("--duration", &args.duration)?;
        if !(DURATION_MIN..=DURATION_MAX).contains(&duration) {
            let text = format!("--duration: {} is not between 1s and 1h", args.duration);
            return Err(Failure::usage(text));
        }
        let payload = size::parse("--payload", &args.payload)?;
        let payload_bytes = usize::try_from(payload).unwrap_or(usize::MAX);
        if payload < PAYLOAD_MIN || payload_bytes > rumormill::envelope::PAYLOAD_BYTES_MAX {
            let text = format!("--payload: {} is not between 16 bytes and 1MiB", args.payload);
            return Err(Failure::usage(text));
        }
        let whole = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let (window, lanes) = (whole(window), whole(lanes));
        Ok(Self { duration, payload_bytes, window, rate, groups, lanes, dry_run, format })
    }

    pub(crate) async fn run(self, connection: &Connection) -> Result<Exit, Failure> {
        // Before the first key is written.
        let mut signals = Signals::listen()
            .map_err(|error| Failure::failed("cannot listen to signals").because(&error))?;
        let namespace = site::namespace(connection);
        self.announce(connection, &namespace);
        if self.dry_run {
            return Ok(Exit::Done);
        }
        let site = Site::open(connection, namespace, &self).await?;
        let measured = tokio::select! {
            biased;
            name = signals.next() => Err(Failure::interrupted(name)),
            measured = self.measure(&site) => measured,
        };
        let removed = site.close().await;
        match (measured, removed) {
            (Ok(report), Ok(())) => self.show(&report, connection),
            (Ok(report), Err(left)) => self.show(&report, connection).and(Err(left)),
            (Err(failure), Ok(())) => Err(failure),
            (Err(failure), Err(left)) => {
                left.print(&connection.address, &mut stderr());
                Err(failure)
            }
        }
    }

    /// Says what will be written, before it is.
    fn announce(&self, connection: &Connection, namespace: &str) {
        let (would, time) =
            (if self.dry_run { "would measure" } else { "measuring" }, self.duration);
        let (address, payload) = (&connection.address, bytes(self.payload_bytes as u64));
        let where_to = if site::is_memory(connection) {
            "in this process".to_owned()
        } else {
            format!("under keys {namespace}:*, and removed at the end")
        };
        let most = bytes(load::backlog_bytes_max(self.payload_bytes, self.window));
        let _ = writeln!(
            stderr(),
            "{would} {address} for {}: events of {payload} are written {where_to}; up to {most} \
             wait to be read",
            human(time)
        );
    }

    /// Warm-up, then as fast as it goes, then at a rate.
    async fn measure(&self, site: &Site) -> Result<Report, Failure> {
        let round_trip = site.round_trip().await?;
        let load = Load::start(site, self).await?;
        let begun = Instant::now();
        let work = async {
            let fast = load.at_full_speed(self.duration / 10, self.duration * 4 / 10).await?;
            let rate = self.rate.unwrap_or_else(|| fast.half_rate());
            let even = load.at_rate(rate, self.duration / 2).await?;
            Ok(Report::new(self, site.is_local(), &round_trip, &fast, &even))
        };
        tokio::select! {
            done = work => done,
            never = self.show_progress(&load, begun) => match never {},
            lost = site.keep() => Err(lost),
        }
    }

    async fn show_progress(&self, load: &Load<'_>, begun: Instant) -> std::convert::Infallible {
        let mut line = Line(Progress::new("handled"));
        loop {
            tokio::time::sleep(TICK).await;
            let share = begun.elapsed().as_secs_f64() / self.duration.as_secs_f64();
            let state = State { done: load.handled(), share: Some(share), ..State::default() };
            line.0.show(state);
        }
    }

    fn show(&self, report: &Report, connection: &Connection) -> Result<Exit, Failure> {
        match self.format {
            Format::Pretty => write(&screen::render(report, &connection.address, Screen::stdout())),
            Format::Json => write(&json_lines(&[report])?),
            Format::Raw => write(&format!("{}\n", report.events_per_second)),
        }
    }
}

/// Goes when nobody keeps it up any more, before something else is written.
struct Line(Progress);

impl Drop for Line {
    fn drop(&mut self) {
        self.0.clear();
    }
}
