//! Redriving and purging dead letters: in steps, at a rate, stopped by ctrl-c between two of them.

use std::io::{Write, stderr};
use std::num::NonZeroU32;
use std::time::Duration;

use rumormill::Error;
use rumormill::delivery::{EntryId, Partition};
use rumormill::driver::GroupName;
use rumormill::driver::admin::{GroupReport, Redriven, STEP_MAX};
use serde::Serialize;
use tokio::time::Instant;

use super::choice::{Choice, Letters, Range, Selection, missing, one, ranges};
use super::into::Trial;
use super::letter::LetterId;
use super::list;
use crate::args::{Format, twin};
use crate::failure::{Exit, Failure};
use crate::operate::{Store, several};
use crate::progress::{Progress, State};
use crate::prompt::{Consent, Go};
use crate::signals::Signals;
use crate::table::{Column, Table};

/// A rate is kept by steps of at most so much time.
const STEPS_PER_SECOND: u32 = 10;

/// Give dead letters to their group again, as first attempts
///
/// They are handled with what is published meanwhile. What dies again is a dead letter again.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("DEAD_LETTERS_REDRIVE", arg)), after_help = "\
Examples:
  bus-cli dead-letters redrive --group email --id orders:0/1700000000000-0
  bus-cli dead-letters redrive --group email --fingerprint 3f0a92c41b7d --rate 500
  bus-cli dead-letters redrive --group email --older-than 1h --dry-run
  bus-cli dead-letters redrive --group email --type 'orders.>' --into './try-fix.sh'")]
pub(super) struct RedriveArgs {
    /// The group: the name of the service or subscription
    #[arg(long, required = true)]
    pub(super) group: String,
    #[command(flatten)]
    selection: Selection,
    /// All that are there at the beginning
    #[arg(long, action = clap::ArgAction::SetTrue,
          value_parser = clap::builder::BoolishValueParser::new())]
    all: bool,
    /// At most N a second
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Run CMD for each of them instead, the event as a line of JSON on its stdin, and tell how
    /// each ended; the letters stay where they are
    #[arg(long, value_name = "CMD")]
    into: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

/// Delete dead letters for good
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("DEAD_LETTERS_PURGE", arg)), after_help = "\
Examples:
  bus-cli dead-letters purge --group email --type 'orders.order.cancelled' --dry-run
  bus-cli dead-letters purge --group email --all --yes")]
pub(super) struct PurgeArgs {
    /// The group: the name of the service or subscription
    #[arg(long, required = true)]
    pub(super) group: String,
    #[command(flatten)]
    selection: Selection,
    /// All that are there at the beginning
    #[arg(long, action = clap::ArgAction::SetTrue,
          value_parser = clap::builder::BoolishValueParser::new())]
    all: bool,
    #[command(flatten)]
    consent: Consent,
}

/// What is to be done with which dead letters.
pub(super) struct Change {
    verb: Verb,
    choice: Choice,
    rate: Option<NonZeroU32>,
    /// Run this in place of a change.
    into: Option<String>,
    consent: Consent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Redrive,
    Purge,
}

impl Verb {
    const fn infinitive(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Purge => "delete",
        }
    }

    const fn past(self) -> &'static str {
        match self {
            Self::Redrive => "redriven",
            Self::Purge => "deleted",
        }
    }
}

impl Change {
    pub(super) fn redrive(args: RedriveArgs) -> Result<Self, Failure> {
        let RedriveArgs { group: _, selection, all, rate, into, consent } = args;
        let choice = Choice::said(selection, all)?;
        Ok(Self { verb: Verb::Redrive, choice, rate, into, consent })
    }

    pub(super) fn purge(args: PurgeArgs) -> Result<Self, Failure> {
        let PurgeArgs { group: _, selection, all, consent } = args;
        let choice = Choice::said(selection, all)?;
        Ok(Self { verb: Verb::Purge, choice, rate: None, into: None, consent })
    }

    pub(super) async fn run(
        self,
        store: &Store<'_>,
        group: &GroupName,
        format: Format,
    ) -> Result<Exit, Failure> {
        let (ranges, report) = ranges(store, group, &self.choice).await?;
        let all = self.count(store, group, &ranges, &report).await?;
        let what = several(all, "dead letter");
        if self.consent.dry_run && all > 0 {
            list::show(store, group, &self.choice, ranges.clone(), format).await?;
        }
        if let Some(command) = self.into.as_deref().filter(|_| all > 0) {
            if self.consent.dry_run {
                let _ = writeln!(stderr(), "would run {command:?} for {what} (--dry-run)");
                return Ok(Exit::Done);
            }
            return self.try_with(store, group, format, command).await;
        }
        let verb = self.verb.infinitive();
        let question = format!("{verb} {what} of group {group} on {}", store.address);
        if all > 0 && self.consent.ask(&question)? == Go::Stop {
            return Ok(Exit::Done);
        }
        if all == 0 && self.consent.dry_run {
            let _ = writeln!(stderr(), "would {verb} nothing: there is no such dead letter");
            return Ok(Exit::Done);
        }
        let mut work = Work::new(&self, store, group, all)?;
        let ended = work.run(ranges).await;
        work.progress.clear();
        match ended {
            Ok(Ended::Done) => work.report(format),
            Ok(Ended::Interrupted(signal)) => {
                work.report(format)?;
                work.stopped(&format!("interrupted by {signal}"));
                Ok(work.partly(Exit::Failed))
            }
            Err(error) => {
                let failure = Failure::library(format!("cannot {verb} dead letters"), &error);
                work.report(format)?;
                work.stopped("stopped");
                let exit = work.partly(failure.exit);
                failure.print(store.address, &mut stderr());
                Ok(exit)
            }
        }
    }

    /// Changes nothing, so it does not ask.
    async fn try_with(
        &self,
        store: &Store<'_>,
        group: &GroupName,
        format: Format,
        command: &str,
    ) -> Result<Exit, Failure> {
        let (rate, started) = (self.rate, Instant::now());
        let wait = |tried| tokio::time::sleep_until(due(rate, started, tried));
        Trial { command, store, group, format }.run(&self.choice, wait).await
    }

    /// How many are chosen; each id that is named has to be there.
    async fn count(
        &self,
        store: &Store<'_>,
        group: &GroupName,
        ranges: &[Range],
        report: &GroupReport,
    ) -> Result<u64, Failure> {
        if self.choice.is_everything() {
            return Ok(report.partitions.iter().map(|part| part.dead.count).sum());
        }
        if let Some(ids) = self.choice.ids() {
            for id in ids {
                let mut letters = Letters::within(store, group, &self.choice, vec![one(id)]);
                let found = letters.next().await?.is_some_and(|page| !page.letters.is_empty());
                if !found {
                    return Err(missing(group, id));
                }
            }
            return Ok(ids.len() as u64);
        }
        let mut letters = Letters::within(store, group, &self.choice, ranges.to_vec());
        let mut count = 0;
        while let Some(page) = letters.next().await? {
            count += page.letters.len() as u64;
        }
        Ok(count)
    }
}

/// What was done, as a program reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    done: u64,
    missing: u64,
    malformed: u64,
}

/// When the next is due after so many.
fn due(rate: Option<NonZeroU32>, started: Instant, tried: u64) -> Instant {
    let nanos = rate.map_or(0, |rate| u128::from(tried) * 1_000_000_000 / u128::from(rate.get()));
    started + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

enum Ended {
    Done,
    Interrupted(&'static str),
}

/// A change at work.
struct Work<'a> {
    change: &'a Change,
    store: &'a Store<'a>,
    group: &'a GroupName,
    /// How many there are to do.
    all: u64,
    sum: Sum,
    /// Where it is, as the end of a sentence; nothing before the first step.
    place: String,
    progress: Progress,
    signals: Signals,
    started: Instant,
}

impl<'a> Work<'a> {
    fn new(
        change: &'a Change,
        store: &'a Store<'a>,
        group: &'a GroupName,
        all: u64,
    ) -> Result<Self, Failure> {
        let signals = Signals::listen()
            .map_err(|error| Failure::failed("cannot listen to signals").because(&error))?;
        Ok(Self {
            change,
            store,
            group,
            all,
            sum: Sum::default(),
            place: String::new(),
            progress: Progress::new(change.verb.past()),
            signals,
            started: Instant::now(),
        })
    }

    async fn run(&mut self, ranges: Vec<Range>) -> Result<Ended, Error> {
        if self.change.verb == Verb::Purge && self.change.choice.is_everything() {
            return self.purge_all(ranges).await;
        }
        let mut letters = Letters::within(self.store, self.group, &self.change.choice, ranges);
        while let Some(page) = letters.next_page().await? {
            let ids: Vec<EntryId> = page.letters.iter().map(|letter| letter.id).collect();
            for step in ids.chunks(self.step_max()) {
                if let Some(signal) = self.wait().await {
                    return Ok(Ended::Interrupted(signal));
                }
                self.step(&page.partition, step).await?;
            }
        }
        Ok(Ended::Done)
    }

    /// Needs no look at what goes.
    async fn purge_all(&mut self, ranges: Vec<Range>) -> Result<Ended, Error> {
        for Range { partition, last, .. } in ranges {
            loop {
                if let Some(signal) = self.wait().await {
                    return Ok(Ended::Interrupted(signal));
                }
                let deleted =
                    self.store.letters()?.purge_until(self.group, &partition, last).await?;
                self.sum.done += deleted;
                self.place = format!(", oldest first, up to somewhere in {partition}");
                self.show();
                if deleted == 0 {
                    break;
                }
            }
        }
        Ok(Ended::Done)
    }

    async fn step(&mut self, partition: &Partition, ids: &[EntryId]) -> Result<(), Error> {
        let admin = self.store.letters()?;
        match self.change.verb {
            Verb::Redrive => {
                let answer = admin.redrive(self.group, partition, ids).await?;
                let Redriven { moved, missing, malformed } = answer;
                self.sum.done += moved;
                self.sum.missing += missing;
                self.sum.malformed += malformed;
            }
            Verb::Purge => {
                let deleted = admin.purge(self.group, partition, ids).await?;
                self.sum.done += deleted;
                self.sum.missing += (ids.len() as u64).saturating_sub(deleted);
            }
        }
        if let Some(id) = ids.last() {
            let last = LetterId { partition: partition.clone(), id: *id };
            self.place = format!(", the last of them {last}");
        }
        self.show();
        Ok(())
    }

    fn show(&mut self) {
        let Sum { done, missing, malformed } = self.sum;
        self.progress.show(State::of(done, missing + malformed, self.all));
    }

    fn step_max(&self) -> usize {
        let per_step = self.change.rate.map(|rate| (rate.get() / STEPS_PER_SECOND).max(1) as usize);
        per_step.unwrap_or(STEP_MAX).min(STEP_MAX)
    }

    /// Waits until the next step is due; the signal that came before.
    async fn wait(&mut self) -> Option<&'static str> {
        let tried = self.sum.done + self.sum.missing + self.sum.malformed;
        let due = due(self.change.rate, self.started, tried);
        tokio::select! {
            biased;
            signal = self.signals.next() => Some(signal),
            () = tokio::time::sleep_until(due) => None,
        }
    }

    /// The exit code of what ended too early.
    fn partly(&self, otherwise: Exit) -> Exit {
        if self.sum.done > 0 { Exit::Partly } else { otherwise }
    }

    /// Says where it was stopped.
    fn stopped(&self, how: &str) {
        let (past, group, Sum { done, .. }) = (self.change.verb.past(), self.group, self.sum);
        let all = several(self.all, "dead letter");
        let text = format!("{how}: {done} of {all} of group {group} {past}{}", self.place);
        Failure::failed(text)
            .with_help("the others are still there: the same command goes on with them")
            .print(self.store.address, &mut stderr());
    }

    fn report(&self, format: Format) -> Result<Exit, Failure> {
        let Sum { done, missing, malformed } = self.sum;
        if format == Format::Pretty {
            let mut text = format!("{} {}", several(done, "dead letter"), self.change.verb.past());
            if missing > 0 {
                text += &format!(", {missing} gone meanwhile");
            }
            if malformed > 0 {
                text += &format!(", {malformed} kept: they hold no event");
            }
            crate::table::write(&(text + "\n"))?;
        } else {
            self.print(format)?;
        }
        Ok(match malformed {
            0 => Exit::Done,
            _ => self.partly(Exit::Failed),
        })
    }

    fn print(&self, format: Format) -> Result<Exit, Failure> {
        let Sum { done, missing, malformed } = self.sum;
        let mut table = Table::new([Column::right("DONE")]);
        table.row([done.to_string()]);
        let group = self.group.as_str();
        match self.change.verb {
            Verb::Redrive => {
                let result = Redriven { moved: done, missing, malformed };
                table.print(format, &[Redrive { group, result }])
            }
            Verb::Purge => table.print(format, &[Purge { group, deleted: done, missing }]),
        }
    }
}

#[derive(Serialize)]
struct Redrive<'a> {
    group: &'a str,
    #[serde(flatten)]
    result: Redriven,
}

#[derive(Serialize)]
struct Purge<'a> {
    group: &'a str,
    deleted: u64,
    missing: u64,
}
