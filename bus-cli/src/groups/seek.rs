//! `bus-cli groups seek`: moves a group back to repeat events, or forward to skip them.

use std::io::{Write, stderr};

use clap::ArgAction;
use clap::builder::BoolishValueParser;
use rumormill::delivery::{EntryId, Partition};
use rumormill::driver::GroupName;
use rumormill::driver::admin::{Count, SeekDone, SeekPlan, SeekReport, SeekStep};
use rumormill::{Clock, Error, Start, SystemClock, Timestamp};

use crate::args::{Format, twin};
use crate::duration;
use crate::failure::{Exit, Failure};
use crate::operate::{Store, count, count_in_words, several};
use crate::prompt::{Consent, Go};
use crate::settings::{Rank, one_of};
use crate::table::{Column, Table};

/// Move a group: back, which repeats events, or forward, which skips them
///
/// Shows how many entries of the log that is, on each partition, and asks; `7+` is at least 7.
/// DROPS is what is pending and will not be. RETRYING is events that wait for a later attempt:
/// they stay, as dead letters do. Refused while the group has live consumers.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("GROUPS_SEEK", arg)), after_help = "\
Examples:
  bus-cli groups seek email --beginning --dry-run         what would be repeated
  bus-cli groups seek email --to-time 2h                  what was stored in the last two hours
  bus-cli groups seek email --end --partition orders:0    skips what is unread in one partition")]
pub(super) struct SeekArgs {
    /// The group: the name of the service or subscription
    group: String,
    /// Go on with the entry ID, such as 1700000000000-0, or the first one after it
    #[arg(long, value_name = "ID")]
    to_id: Option<String>,
    /// Go on with what was stored from then on: 2026-01-02T03:04:05Z, or so long ago: 5m, 2h, 7d
    #[arg(long, value_name = "TIME|DUR")]
    to_time: Option<String>,
    /// Go on with the earliest event that is kept
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    beginning: bool,
    /// Go on with what is published from now on
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    end: bool,
    /// On this partition only, such as orders:0; may be repeated
    #[arg(long, value_name = "TOPIC:N", value_delimiter = ',')]
    partition: Vec<String>,
    /// Even while consumers run: what they handle at that moment may be handled once or twice
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    force: bool,
    #[command(flatten)]
    consent: Consent,
}

/// What `groups seek` was asked for.
pub(super) struct Seek {
    group: GroupName,
    to: Start,
    /// All, where it is empty.
    partitions: Vec<Partition>,
    force: bool,
    consent: Consent,
}

impl Seek {
    pub(super) fn new(args: SeekArgs, rank: &dyn Fn(&str) -> Rank) -> Result<Self, Failure> {
        let to = to(&args, rank)?;
        let partitions: Result<Vec<Partition>, Error> =
            args.partition.iter().map(|text| text.parse()).collect();
        Ok(Self {
            group: super::parse("GROUP", args.group)?,
            to,
            partitions: partitions.map_err(|error| Failure::refused("--partition", &error))?,
            force: args.force,
            consent: args.consent,
        })
    }

    pub(super) async fn run(self, store: &Store<'_>, format: Format) -> Result<Exit, Failure> {
        let Self { group, to, partitions, force, consent } = self;
        let fail = |error| Failure::library("cannot move the group", &error);
        let partitions = (!partitions.is_empty()).then_some(partitions.as_slice());
        let plan = store.admin()?.plan_seek(&group, to, partitions).await.map_err(fail)?;
        // A program reads one answer: what was done, or what would be.
        if format == Format::Pretty || consent.dry_run {
            show(&plan, format)?;
        }
        if !force && !plan.live_consumers.is_empty() {
            return Err(alive(&plan));
        }
        if plan.partitions.iter().all(SeekStep::is_nothing) {
            let _ = writeln!(stderr(), "group {group} is there as it is: nothing to move");
            return if consent.dry_run { Ok(Exit::Done) } else { done(&nothing(plan), format) };
        }
        if consent.ask(&question(&plan, store))? == Go::Stop {
            return Ok(Exit::Done);
        }
        done(&store.admin()?.seek(&plan, force).await.map_err(fail)?, format)
    }
}

/// Exactly one of the four.
fn to(args: &SeekArgs, rank: &dyn Fn(&str) -> Rank) -> Result<Start, Failure> {
    let given = [
        ("to_id", "--to-id", args.to_id.is_some()),
        ("to_time", "--to-time", args.to_time.is_some()),
        ("beginning", "--beginning", args.beginning),
        ("end", "--end", args.end),
    ];
    let one = "choose one place: --to-id, --to-time, --beginning or --end";
    match one_of(given, rank).map_err(|failure| failure.with_help(one))? {
        Some("to_id") => {
            let id: Result<EntryId, Error> = args.to_id.as_deref().unwrap_or_default().parse();
            let id = id.map_err(|error| Failure::refused("--to-id", &error))?;
            // The library names the entry before.
            Ok(Start::After(id.previous()))
        }
        Some("to_time") => time(args.to_time.as_deref().unwrap_or_default()).map(Start::At),
        Some("beginning") => Ok(Start::Earliest),
        Some(_) => Ok(Start::New),
        None => Err(Failure::usage("nothing says where the group is to go").with_help(one)),
    }
}

/// A moment, or how long ago it was.
fn time(text: &str) -> Result<Timestamp, Failure> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = duration::parse("--to-time", text).map_err(|failure| {
        failure.with_help(
            "write a moment, 2026-01-02T03:04:05Z, or how long ago it was: 10s, 5m, 2h or 7d",
        )
    })?;
    let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    Ok(Timestamp::from_millis(SystemClock.now().as_millis().saturating_sub(ago)))
}

/// The steps as a table; as JSON the plan, which is one object.
fn show(plan: &SeekPlan, format: Format) -> Result<Exit, Failure> {
    let mut table = Table::new([
        Column::left("PARTITION"),
        Column::left("GOES ON"),
        Column::right("REPEATS"),
        Column::right("SKIPS"),
        Column::right("DROPS"),
        Column::right("RETRYING"),
    ]);
    for step in &plan.partitions {
        table.row([
            step.partition.to_string(),
            place(step.to),
            count(step.repeats),
            count(step.skips),
            count(step.pending_dropped),
            step.retrying.to_string(),
        ]);
    }
    table.print(format, &[plan])
}

/// Where a group goes on whose last entry was `id`.
fn place(id: EntryId) -> String {
    match (id.millis, id.seq) {
        (0, 0) => "from the beginning".to_owned(),
        (millis, u64::MAX) => format!("at {}-0", millis.saturating_add(1)),
        (millis, seq) => format!("after {millis}-{seq}"),
    }
}

fn question(plan: &SeekPlan, store: &Store<'_>) -> String {
    let sum = |of: fn(&SeekStep) -> Count| {
        plan.partitions.iter().fold(Count::ZERO, |sum, step| sum.plus(of(step)))
    };
    let (repeats, skips) = (sum(|step| step.repeats), sum(|step| step.skips));
    format!(
        "move group {} on {}, which repeats {} and skips {} entries",
        plan.group,
        store.address,
        count_in_words(repeats),
        count_in_words(skips)
    )
}

/// As the library would, before anybody is asked.
fn alive(plan: &SeekPlan) -> Failure {
    let live = plan.live_consumers.join(", ");
    Failure::failed(format!("cannot move group {}: it has live consumers: {live}", plan.group))
        .with_help(
            "stop them first, which takes 30 s to show where they were killed; or --force moves \
             it under their hands",
        )
}

/// The report of a move that nobody had to make.
fn nothing(plan: SeekPlan) -> SeekReport {
    let stays = |step: SeekStep| SeekDone {
        partition: step.partition,
        from: step.from,
        to: step.to,
        pending_dropped: 0,
    };
    SeekReport { group: plan.group, partitions: plan.partitions.into_iter().map(stays).collect() }
}

fn done(report: &SeekReport, format: Format) -> Result<Exit, Failure> {
    if format == Format::Pretty {
        let moved = report.partitions.iter().filter(|done| done.from != done.to).count();
        let dropped: u64 = report.partitions.iter().map(|done| done.pending_dropped).sum();
        let text = format!(
            "moved group {} on {}; {dropped} entries are no longer pending\n",
            report.group,
            several(moved as u64, "partition")
        );
        return crate::table::write(&text);
    }
    let mut table = Table::new([Column::left("PARTITION")]);
    for done in &report.partitions {
        table.row([done.partition.to_string()]);
    }
    table.print(format, &[report])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_by_what_comes_next() {
        let id: EntryId = "170-0".parse().expect("valid");
        assert_eq!(place(id.previous()), "at 170-0");
        assert_eq!(place(id), "after 170-0");
        assert_eq!(place(EntryId::ZERO), "from the beginning");
    }

    #[test]
    fn a_time_is_a_moment_or_how_long_ago_it_was() {
        let moment = time("2026-01-02T03:04:05Z").expect("a moment");
        assert_eq!(moment.to_string(), "2026-01-02T03:04:05Z");
        assert!(time("2h").expect("a duration") < SystemClock.now());
        assert_eq!(time("yesterday").map_err(|failure| failure.exit), Err(Exit::Usage));
    }
}
