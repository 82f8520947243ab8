//! `bus-cli record`: writes events to a file as they are stored, with the time between them, for
//! `bus-cli replay`. It reads the logs and joins no group, as `tail` does.

mod reader;
mod sink;

use std::io::{Write, stderr};
use std::sync::Arc;
use std::time::Duration;

use clap::ArgAction;
use clap::builder::BoolishValueParser;
use rumormill::{Bus, Pattern};
use tokio::time::Instant;

use self::reader::Reader;
use self::sink::{Sink, Taken};
use crate::address::Address;
use crate::args::{StartArgs, twin};
use crate::duration;
use crate::escape::escape;
use crate::failure::{Exit, Failure};
use crate::operate::{bytes, several};
use crate::progress::{Progress, State, human};
use crate::settings::{self, Rank, Start};
use crate::signals::interrupt;
use crate::size;
use crate::tail::cursor::Shown;
use crate::tail::matches;

/// While the store does not answer.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Write events to a file, with the time between them, for `replay`; joins no group
///
/// The file has one JSON object a line, as `tail` writes it, and in `offset_ms` the milliseconds
/// since the first event, by the store's clock. A kill cuts the last line at most.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("RECORD", arg)), after_help = "\
Examples:
  bus-cli record 'orders.>' --out orders.ndjson               from now on, until ctrl-c
  bus-cli record '>' --since 1h --until-end --out hour.ndjson
  bus-cli record '*.user.*' --for 10m --out - | gzip > users.ndjson.gz")]
pub(crate) struct RecordArgs {
    /// Which events: `*` is one segment, `>` one or more at the end
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<String>,
    /// Where to; - for stdout
    #[arg(long, value_name = "FILE|-", required = true)]
    out: String,
    /// Replace the file where there is one
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    force: bool,
    #[command(flatten)]
    start: StartArgs,
    /// End after N events
    #[arg(short = 'n', value_name = "N", env = "BUS_RECORD_N",
          value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// End with the last event that is there at the start
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    until_end: bool,
    /// End after so long: 500ms, 10s, 5m, 2h, 7d
    #[arg(long = "for", value_name = "DUR")]
    time_max: Option<String>,
    /// End before the recording has more bytes: 64KiB, 256MiB, 1GiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    max_bytes: String,
}

/// What `record` was asked for.
pub(crate) struct Record {
    patterns: Vec<Pattern>,
    out: String,
    force: bool,
    start: Start,
    limit: Option<u64>,
    until_end: bool,
    time_max: Option<Duration>,
    bytes_max: u64,
}

impl Record {
    pub(crate) fn new(args: RecordArgs, rank: &dyn Fn(&str) -> Rank) -> Result<Self, Failure> {
        let time_max = args.time_max.as_deref().map(|text| duration::parse("--for", text));
        Ok(Self {
            patterns: settings::patterns("PATTERN", &args.patterns)?,
            start: settings::start(&args.start, rank)?,
            time_max: time_max.transpose()?,
            bytes_max: size::parse("--max-bytes", &args.max_bytes)?,
            out: args.out,
            force: args.force,
            limit: args.limit,
            until_end: args.until_end,
        })
    }

    /// Records until a limit, the end, or an interrupt, each of which is success.
    pub(crate) async fn run(self, bus: &Bus, address: &Address) -> Result<Exit, Failure> {
        let driver = Arc::clone(bus.driver());
        let tools = driver.tools().ok_or_else(|| {
            Failure::failed(format!("cannot record {address}: it cannot be read without a group"))
        })?;
        let sink = Sink::open(&self.out, self.force, self.bytes_max)?;
        let attempt = |error| Failure::library("cannot record", &error);
        let begun = Reader::begin(tools, &self.patterns, &self.start, self.until_end).await;
        let (reader, first) = begun.map_err(attempt)?;
        let progress = Progress::new("recorded");
        let mut recording = Recording {
            task: &self,
            address,
            reader,
            sink,
            progress,
            first_ms: None,
            last_ms: 0,
            strange: 0,
        };
        let deadline = self.time_max.map(|time| Instant::now() + time);
        let ended = tokio::select! {
            // First, so that signals are listened to before `recording` is said.
            biased;
            _ = interrupt() => Ok(End::Interrupted),
            () = until(deadline) => Ok(End::Enough),
            ended = recording.run(&first) => ended,
        };
        recording.close(ended)
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Why a recording is over.
enum End {
    /// What was asked for is there.
    Enough,
    Interrupted,
    /// The next line would have been too much.
    Full,
    /// Nobody reads it any more.
    Closed,
}

struct Recording<'a> {
    task: &'a Record,
    address: &'a Address,
    reader: Reader<'a>,
    sink: Sink,
    progress: Progress,
    /// When the first recorded event was stored, by the store's clock.
    first_ms: Option<u64>,
    last_ms: u64,
    /// Entries that are no events.
    strange: u64,
}

impl Recording<'_> {
    async fn run(&mut self, first: &[Shown]) -> Result<End, Failure> {
        if self.task.start == Start::New {
            // Where stderr is gone, nobody waits for it.
            let _ = writeln!(stderr(), "recording");
        }
        if let Some(end) = self.take(first)? {
            return Ok(end);
        }
        let mut lost = false;
        loop {
            match self.reader.next().await {
                Ok(None) => return Ok(End::Enough),
                Ok(Some(events)) => {
                    if std::mem::take(&mut lost) {
                        self.say(&format!("{} answers again", self.address));
                    }
                    if let Some(end) = self.take(&events)? {
                        return Ok(end);
                    }
                }
                Err(error) if error.is_transient() && !self.task.until_end => {
                    if !std::mem::replace(&mut lost, true) {
                        self.progress.clear();
                        Failure::library("cannot record", &error)
                            .print(self.address, &mut stderr());
                        let _ = writeln!(stderr(), "waiting for it to come back");
                    }
                    self.reader.doubt();
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Err(error) => return Err(Failure::library("cannot record", &error)),
            }
        }
    }

    /// Writes what matches, whole lines only.
    fn take(&mut self, events: &[Shown]) -> Result<Option<End>, Failure> {
        for note in self.reader.notes() {
            self.say(&note);
        }
        let mut end = None;
        for (position, record) in events {
            let envelope = match record {
                Ok(envelope) if self.task.start.excludes(position) => continue,
                Ok(envelope) if matches(&self.task.patterns, envelope) => envelope,
                Ok(_) => continue,
                Err(malformed) => {
                    self.strange += 1;
                    self.say(&format!("{position} is no event: {}", malformed.reason));
                    continue;
                }
            };
            let stored = position.entry.millis;
            let offset = stored.saturating_sub(*self.first_ms.get_or_insert(stored));
            match self.sink.take(position, envelope, offset)? {
                Taken::Yes => self.last_ms = self.last_ms.max(stored),
                Taken::Full => end = Some(End::Full),
                Taken::Closed => end = Some(End::Closed),
            }
            if end.is_none() && self.task.limit.is_some_and(|limit| self.sink.events >= limit) {
                end = Some(End::Enough);
            }
            if end.is_some() {
                break;
            }
        }
        if let Taken::Closed = self.sink.flush()? {
            end = Some(End::Closed);
        }
        let (done, size) = (self.sink.events, Some(self.sink.bytes));
        self.progress.show(State { done, size, ..State::default() });
        Ok(end)
    }

    fn say(&self, text: &str) {
        self.progress.clear();
        let _ = writeln!(stderr(), "note: {}", escape(text));
    }

    /// Says how much there is, and what is missing.
    fn close(mut self, ended: Result<End, Failure>) -> Result<Exit, Failure> {
        self.progress.clear();
        let closed = self.sink.close();
        let span =
            Duration::from_millis(self.last_ms.saturating_sub(self.first_ms.unwrap_or(u64::MAX)));
        let (events, size) = (several(self.sink.events, "event"), bytes(self.sink.bytes));
        let to = self.sink.name();
        let _ = writeln!(stderr(), "recorded {events} of {} to {to}, {size}", human(span));
        closed?;
        let full = matches!(ended?, End::Full);
        if full {
            let text = format!(
                "the recording ends early: with the next event it would have more \
                                than {}",
                bytes(self.task.bytes_max)
            );
            Failure::failed(text)
                .with_help("--max-bytes allows more; --from-id goes on with another file")
                .print(self.address, &mut stderr());
        }
        let missed = self.reader.missed();
        if missed > 0 {
            self.say(&format!("up to {} were gone before they were read", several_entries(missed)));
        }
        if self.strange > 0 {
            self.say(&format!("{} are no events and were left out", several_entries(self.strange)));
        }
        let whole = !full && missed == 0 && self.strange == 0;
        Ok(if whole { Exit::Done } else { Exit::Partly })
    }
}

fn several_entries(count: u64) -> String {
    format!("{count} entr{}", if count == 1 { "y" } else { "ies" })
}
