//! `bus-cli replay`: publishes a recording again, with the time between the events or faster,
//! changed on the way where that is asked for, and marked in the headers.

mod path;
mod plan;
mod pseudonym;
mod rules;
mod schedule;

use std::collections::VecDeque;
use std::io::{BufWriter, Stdout, Write, stderr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgAction;
use clap::builder::BoolishValueParser;
use rumormill::{Bus, Clock, Envelope, EventId, Pattern, SystemClock, Timestamp};
use tokio::time::Instant;

use self::plan::{Plan, Survey};
use self::pseudonym::Pseudonyms;
use self::rules::Rules;
use self::schedule::{Schedule, Speed};
use crate::address::Address;
use crate::args::{Format, twin};
use crate::failure::{Exit, Failure};
use crate::ndjson::Recorded;
use crate::output::Output;
use crate::progress::State;
use crate::prompt::{Consent, Go};
use crate::publish::answers::Answers;
use crate::publish::input::{self, Line, Lines, Upto};
use crate::publish::{self, EVENTS_AT_ONCE};
use crate::settings::{self, Input};
use crate::signals::interrupt;
use crate::tail::matches;

/// The header of every replayed event: which replay it belongs to.
const REPLAY: &str = "rumormill-replay";
/// The header of every replayed event: the id it had in the recording.
const REPLAY_OF: &str = "rumormill-replay-of";

/// Publish a recording again, with the time between the events or faster
///
/// Each event gets a new id and the headers `rumormill-replay` (the id of the run) and
/// `rumormill-replay-of` (the id it had); its time and its expiry move by as much as the event.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("REPLAY", arg)), after_help = "\
Examples:
  bus-cli replay orders.ndjson --dry-run
  bus-cli replay orders.ndjson --speed 10 --only 'orders.order.*'
  bus-cli replay users.ndjson --mask data.email --mask key --url redis://staging --yes
  bus-cli replay orders.ndjson --rewrite 'type=test.{}' --rewrite 'data.note=\"replay of {}\"'")]
pub(crate) struct ReplayArgs {
    /// What `record` wrote, or any lines as `tail` writes them; - for stdin
    #[arg(value_name = "FILE|-")]
    file: String,
    /// How many times as fast as it was recorded, or max
    #[arg(long, value_name = "N|max", default_value = "1")]
    speed: String,
    /// Only events whose recorded type matches; may be repeated
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Put a token in place of the values of key, source, correlation_id, header.NAME, data or
    /// data.PATH, the same for the same value; may be repeated. What cannot be looked into is
    /// not published
    #[arg(long, value_name = "FIELD")]
    mask: Vec<String>,
    /// Make the tokens from the bytes of FILE, so that another run has the same
    #[arg(long, value_name = "FILE")]
    mask_key: Option<PathBuf>,
    /// Give key, type, source, correlation_id, header.NAME or data.PATH another value, in which
    /// {} is the old one; JSON for data. Nothing after = removes. May be repeated; comes after
    /// --mask
    #[arg(long, value_name = "FIELD=VALUE")]
    rewrite: Vec<String>,
    /// Keep the ids, and publish no event whose id was published with deduplication in the last
    /// 15 minutes; consumers that handle an id once will not run what they have seen
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    keep_ids: bool,
    /// Begin with this line, the first is 1
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,
    /// The id of the run, a UUID, to go on with one; new ids follow from it and the recorded ones
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

/// What `replay` was asked for.
pub(crate) struct Replay {
    input: Input,
    speed: Speed,
    only: Vec<Pattern>,
    rules: Rules,
    ids: Ids,
    from_line: u64,
    consent: Consent,
    format: Option<Format>,
}

/// Which ids replayed events have.
#[derive(Clone, Copy)]
struct Ids {
    run: EventId,
    keep: bool,
}

impl Replay {
    pub(crate) fn new(args: ReplayArgs, format: Option<Format>) -> Result<Self, Failure> {
        let run: Option<Result<EventId, _>> = args.run.map(|text| text.parse());
        let run = run.transpose().map_err(|error| Failure::refused("--run", &error))?;
        let pseudonyms = match &args.mask_key {
            Some(_) if args.mask.is_empty() => {
                return Err(Failure::usage("--mask-key is of no use without --mask"));
            }
            Some(file) => Pseudonyms::of_file(file)?,
            None => Pseudonyms::random(),
        };
        let run = run.unwrap_or_else(|| EventId::new(SystemClock.now()));
        Ok(Self {
            input: Input::new(&args.file),
            speed: Speed::parse(&args.speed)?,
            only: settings::patterns("--only", &args.only)?,
            rules: Rules::new(&args.mask, &args.rewrite, pseudonyms)?,
            ids: Ids { run, keep: args.keep_ids },
            from_line: args.from_line,
            consent: args.consent,
            format,
        })
    }

    /// Reads a file once, to say what there is before anything is published; what comes over
    /// stdin is read once only, and so only for a dry run.
    pub(crate) async fn prepare(mut self) -> Result<Job, Failure> {
        let mut survey = None;
        if self.consent.dry_run || matches!(self.input, Input::File(_)) {
            survey = Some(self.survey().await?);
        }
        Ok(Job { replay: self, survey })
    }

    async fn survey(&mut self) -> Result<Survey, Failure> {
        let mut survey = Survey::default();
        let mut lines = input::lines(&self.input)?;
        while let Some(read) = lines.next_lines(EVENTS_AT_ONCE).await? {
            for line in read {
                let number = line.upto.line;
                let Some(event) = self.wanted(line) else { continue };
                match event.and_then(|event| self.change(&event, SystemClock.now())) {
                    Ok(envelope) => survey.count(envelope.event_type()),
                    Err(why) => survey.bad.push((number, why)),
                }
            }
        }
        survey.notes = self.rules.notes();
        self.rules.restart();
        Ok(survey)
    }

    /// What a line says, if it is to be replayed.
    fn wanted(&self, line: Line) -> Option<Result<Recorded, String>> {
        let asked_for = |envelope: &Envelope| self.only.is_empty() || matches(&self.only, envelope);
        match line.event {
            _ if line.upto.line < self.from_line => None,
            Ok(recorded) => asked_for(&recorded.envelope).then_some(Ok(recorded)),
            Err(why) => Some(Err(format!("it is no event: {why}"))),
        }
    }

    /// The event as it goes out `now`: changed, marked, and moved in time.
    fn change(&mut self, recorded: &Recorded, now: Timestamp) -> Result<Envelope, String> {
        let old = &recorded.envelope;
        let draft = self.rules.apply(old)?;
        let moved = now.since(recorded.stored.unwrap_or(old.time()));
        let payload = draft.payload()?;
        let (content_type, time) = (old.content_type().clone(), old.time().plus(moved));
        // The trace that it belonged to is over: a span of today would not be found in it.
        let builder = Envelope::builder(draft.event_type, content_type, payload, time)
            .id(self.ids.of(old.id()))
            .version(old.version())
            .source(draft.source)
            .expires(old.expires().map(|expires| expires.plus(moved)))
            .key(draft.key)
            .correlation_id(draft.correlation_id)
            .causation_id(draft.causation_id);
        let builder = draft
            .headers
            .into_iter()
            .fold(builder, |builder, (name, value)| builder.header(name, value));
        let builder = builder.header(REPLAY, self.ids.run.to_string());
        let envelope = builder.header(REPLAY_OF, old.id().to_string()).build();
        envelope.map_err(|error| error.to_string())
    }
}

impl Ids {
    /// The id of a replayed event: in one run always the same for the same event, so that a run
    /// that goes on repeats nothing that was handled.
    fn of(self, old: EventId) -> EventId {
        if self.keep {
            return old;
        }
        EventId::derived([*self.run.as_bytes(), *old.as_bytes()].as_flattened())
    }
}

/// A replay that was read as far as it can be without a connection.
pub(crate) struct Job {
    replay: Replay,
    survey: Option<Survey>,
}

/// An event and its moment.
struct Ready {
    due: Duration,
    upto: Upto,
    recorded: Recorded,
}

impl Job {
    /// Says what would go where, asks, and publishes.
    pub(crate) async fn run(self, bus: &Bus, address: &Address) -> Result<Exit, Failure> {
        let Self { mut replay, survey } = self;
        let what = match &survey {
            Some(survey) => format!("publish {} to {address}", survey.events()),
            None => format!("publish the events of stdin to {address}"),
        };
        if let Some(survey) = &survey {
            let plan = Plan::of(survey, bus).await?;
            if replay.consent.dry_run {
                plan.print(replay.format.unwrap_or(Format::Pretty))?;
            } else {
                plan.say();
            }
            survey.say(replay.consent.dry_run);
        }
        if replay.consent.ask(&what)? == Go::Stop {
            let whole = survey.is_none_or(|survey| survey.bad.is_empty());
            return Ok(if whole { Exit::Done } else { Exit::Partly });
        }
        let _ = writeln!(stderr(), "replay {}", replay.ids.run);
        let exit = replay.publish(bus, address).await;
        if survey.is_none() {
            replay.rules.notes().iter().for_each(|note| plan::say(note));
        }
        exit
    }
}

impl Replay {
    async fn publish(&mut self, bus: &Bus, address: &Address) -> Result<Exit, Failure> {
        let format = self.format.unwrap_or(Format::Json);
        let mut answers = Answers::new(Output::stdout(Some(format)), address);
        let mut lines = input::lines(&self.input)?;
        let mut schedule = Schedule::new(self.speed);
        let mut waiting = VecDeque::new();
        let mut started = None;
        let interrupted = interrupt();
        tokio::pin!(interrupted);
        let ended_by = loop {
            let Some(Ready { due, .. }) = waiting.front() else {
                let read = tokio::select! {
                    biased;
                    _ = &mut interrupted => break Some("interrupted"),
                    read = lines.next_lines(EVENTS_AT_ONCE) => read?,
                };
                let Some(read) = read else { break None };
                self.queue(read, &mut schedule, &mut waiting, &mut answers);
                continue;
            };
            let started = *started.get_or_insert_with(Instant::now);
            tokio::select! {
                biased;
                _ = &mut interrupted => break Some("interrupted"),
                () = tokio::time::sleep_until(started + *due) => {}
            }
            let envelopes = self.take_due(&mut waiting, started.elapsed(), &mut answers);
            // What was begun is finished, so that it can be said how far this went.
            let keep = self.ids.keep;
            let sent = publish::publish(bus.publisher(), envelopes, Duration::ZERO, keep).await;
            answers.take(sent)?;
            answers.progress.show(state(&lines, &answers));
            if answers.unreachable {
                break Some("stopped");
            }
        };
        Ok(match ended_by {
            Some(how) => self.stopped(how, &answers),
            None => answers.exit(),
        })
    }

    /// Gives the events of some lines their moments.
    fn queue(
        &self,
        lines: Vec<Line>,
        schedule: &mut Schedule,
        waiting: &mut VecDeque<Ready>,
        answers: &mut Answers<'_, BufWriter<Stdout>>,
    ) {
        for line in lines {
            let upto = line.upto;
            match self.wanted(line) {
                Some(Ok(recorded)) => {
                    let due = schedule.due(recorded.offset_ms);
                    waiting.push_back(Ready { due, upto, recorded });
                }
                Some(Err(why)) => answers.left_out(&plan::left_out(upto.line, &why)),
                None => {}
            }
        }
    }

    /// The events whose moment has come, in the order of their lines.
    fn take_due(
        &mut self,
        waiting: &mut VecDeque<Ready>,
        elapsed: Duration,
        answers: &mut Answers<'_, BufWriter<Stdout>>,
    ) -> Vec<Envelope> {
        let mut envelopes = Vec::new();
        while waiting.front().is_some_and(|ready| ready.due <= elapsed) {
            let Some(Ready { upto, recorded, .. }) = waiting.pop_front() else { break };
            answers.upto = upto;
            match self.change(&recorded, SystemClock.now()) {
                Ok(envelope) => envelopes.push(envelope),
                Err(why) => answers.left_out(&plan::left_out(upto.line, &why)),
            }
        }
        envelopes
    }

    fn stopped(&self, how: &str, answers: &Answers<'_, BufWriter<Stdout>>) -> Exit {
        let (line, run) = (answers.upto.line, self.ids.run);
        let left = match line {
            0 => "no line was published".to_owned(),
            line => format!("lines up to {line} are done, those after {line} were not published"),
        };
        let mut help = format!("go on with --from-line {} --run {run}", line + 1);
        if self.rules.has_masks() {
            help += "; only with --mask-key, of both runs, are the tokens the same";
        }
        answers.stopped(how, Some(left), Some(help))
    }
}

fn state(lines: &Lines, answers: &Answers<'_, BufWriter<Stdout>>) -> State {
    let share = lines.bytes().map(|all| answers.upto.byte as f64 / all as f64);
    let (done, failed) = (answers.stored, answers.failed + answers.bad);
    State { done, failed, share, size: None }
}
