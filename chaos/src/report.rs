//! What a round, or many, came to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::args::Mode;
use crate::check::{self, Book, GroupStory, Story, Violation, growth};
use crate::kinds;

/// Rounds of one mode, added up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) mode: Mode,
    pub(crate) seeds: Vec<u64>,
    pub(crate) plant: Option<String>,
    pub(crate) server: String,
    pub(crate) seconds: u64,
    pub(crate) published: u64,
    pub(crate) acknowledged: u64,
    pub(crate) not_stored: u64,
    pub(crate) unknown: u64,
    /// Publishers that ended before they had their answer.
    pub(crate) unanswered: u64,
    pub(crate) delivered: u64,
    /// Deliveries beyond the first of an attempt.
    pub(crate) redelivered: u64,
    pub(crate) effects: u64,
    pub(crate) duplicate_effects: u64,
    /// Of the idempotent group: what its handler published.
    pub(crate) outputs: u64,
    pub(crate) dead: u64,
    /// Acknowledged, and gone as a loss of the server's.
    pub(crate) lost_by_server: u64,
    pub(crate) kinds: BTreeMap<String, KindReport>,
    /// Kinds that could not be injected, and why.
    pub(crate) unavailable: BTreeMap<String, String>,
    pub(crate) violations: Vec<Violation>,
    /// How much each process grew, at most, in KiB per minute.
    pub(crate) growth_kib: f64,
}

/// What came of one kind of fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct KindReport {
    pub(crate) injected: u64,
    /// Those with an effect.
    pub(crate) counted: u64,
    /// Milliseconds from the heal to the first success, one each.
    pub(crate) publish_ms: Vec<u64>,
    pub(crate) delivery_ms: Vec<u64>,
}

impl Report {
    /// Of the histories of a round.
    pub(crate) fn new(
        book: &Book,
        mode: Mode,
        seed: u64,
        plant: Option<String>,
        server: String,
        unavailable: BTreeMap<String, String>,
    ) -> Self {
        let count = |holds: &dyn Fn(&Story) -> bool| {
            book.events.values().filter(|story| holds(story)).count() as u64
        };
        let groups = || book.events.values().flat_map(|story| &story.groups);
        Self {
            mode,
            seeds: vec![seed],
            plant,
            server,
            seconds: (book.to.saturating_sub(book.from)) / 1_000_000_000,
            published: count(&|story| story.invoked.is_some()),
            acknowledged: count(&|story| story.acknowledged.is_some()),
            not_stored: count(&|story| story.not_stored.is_some()),
            unknown: count(&|story| story.unknown),
            unanswered: count(&|story| {
                let answered = story.acknowledged.is_some() || story.not_stored.is_some();
                story.invoked.is_some() && !answered && !story.unknown
            }),
            delivered: groups().map(|own| own.deliveries.len() as u64).sum(),
            redelivered: groups().map(repeats).sum(),
            effects: groups().map(|own| u64::from(own.effects)).sum(),
            duplicate_effects: groups().map(|own| u64::from(own.effects.saturating_sub(1))).sum(),
            outputs: book.events.values().map(|story| story.outputs.len() as u64).sum(),
            dead: groups().map(|own| own.dead.len() as u64).sum(),
            lost_by_server: count(&|story| story.acknowledged.is_some() && story.stored.is_empty()),
            kinds: by_kind(book),
            unavailable,
            violations: check::all(book),
            growth_kib: growth(book),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("read {}: {error}", path.display()))?;
        Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        Ok(std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// Adds another one of the same mode.
    pub(crate) fn add(&mut self, other: Self) {
        self.seeds.extend(other.seeds);
        for (own, its) in [
            (&mut self.seconds, other.seconds),
            (&mut self.published, other.published),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.not_stored, other.not_stored),
            (&mut self.unknown, other.unknown),
            (&mut self.unanswered, other.unanswered),
            (&mut self.delivered, other.delivered),
            (&mut self.redelivered, other.redelivered),
            (&mut self.effects, other.effects),
            (&mut self.duplicate_effects, other.duplicate_effects),
            (&mut self.outputs, other.outputs),
            (&mut self.dead, other.dead),
            (&mut self.lost_by_server, other.lost_by_server),
        ] {
            *own += its;
        }
        for (name, kind) in other.kinds {
            let own = self.kinds.entry(name).or_default();
            own.injected += kind.injected;
            own.counted += kind.counted;
            own.publish_ms.extend(kind.publish_ms);
            own.delivery_ms.extend(kind.delivery_ms);
        }
        self.unavailable.extend(other.unavailable);
        self.violations.extend(other.violations);
        self.growth_kib = self.growth_kib.max(other.growth_kib);
    }

    pub(crate) fn counted(&self) -> u64 {
        self.kinds.values().map(|kind| kind.counted).sum()
    }

    /// How many kinds had an effect.
    pub(crate) fn kinds_counted(&self) -> usize {
        self.kinds.values().filter(|kind| kind.counted > 0).count()
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.violations.is_empty()
    }

    /// How often a checker found something.
    pub(crate) fn broken(&self, checker: &str) -> u64 {
        let of = |violation: &&Violation| violation.checker == checker;
        self.violations.iter().filter(of).map(|violation| violation.count).sum()
    }

    /// One line.
    pub(crate) fn verdict(&self) -> String {
        let word = if self.is_kept() { "kept" } else { "BROKEN" };
        format!(
            "{word}: mode {}, {} faults of {} kinds, {} acknowledged, {} lost, {} twice in the \
             log, {} not stored and there, {} effects twice, {} unknown, {} run again, {} left",
            self.mode.name(),
            self.counted(),
            self.kinds_counted(),
            self.acknowledged,
            self.broken("C1"),
            self.broken("C2"),
            self.broken("C15"),
            self.broken("C5"),
            self.unknown,
            self.redelivered,
            self.broken("C12"),
        )
    }
}

fn repeats(own: &GroupStory) -> u64 {
    let pairs = own.deliveries.windows(2);
    pairs.filter(|pair| pair[1].attempt == pair[0].attempt).count() as u64
}

fn by_kind(book: &Book) -> BTreeMap<String, KindReport> {
    let mut kinds: BTreeMap<String, KindReport> = BTreeMap::new();
    for fault in &book.faults {
        let kind = kinds.entry(fault.name.clone()).or_default();
        kind.injected += 1;
        if !book.counts(fault) {
            continue;
        }
        kind.counted += 1;
        if let Some(back) = check::recovery(book, fault) {
            kind.publish_ms.push(back.publish / 1_000_000);
            kind.delivery_ms.push(back.delivery / 1_000_000);
        }
    }
    kinds
}

/// The steepest slope of a process' memory, of those that ran long enough.
fn growth(book: &Book) -> f64 {
    let trends = book.processes.iter().filter_map(|process| growth::growth(&process.rss_kib));
    trends.map(|trend| trend.slope).fold(0.0, f64::max)
}

/// Median, 99th percentile and longest of milliseconds, in seconds.
pub(crate) fn ranks(times: &[u64]) -> String {
    if times.is_empty() {
        return "-".to_owned();
    }
    let mut times = times.to_vec();
    times.sort_unstable();
    // By nearest rank.
    let of = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1] as f64 / 1e3;
    format!("{:.2} / {:.2} / {:.2}", of(50), of(99), of(100))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:26} {:>4} {:>8} {:>7}  {:20}  {:20}",
            "fault", "row", "injected", "counted", "publish recovers (s)", "deliver recovers (s)"
        )?;
        for (name, kind) in &self.kinds {
            let row = kinds::named(name).map_or(0, |kind| kind.about().row);
            let (publish, delivery) = (ranks(&kind.publish_ms), ranks(&kind.delivery_ms));
            let KindReport { injected, counted, .. } = kind;
            writeln!(
                f,
                "{name:26} {row:>4} {injected:>8} {counted:>7}  {publish:20}  {delivery:20}"
            )?;
        }
        for (name, why) in &self.unavailable {
            writeln!(f, "{name:26} not available: {why}")?;
        }
        let Self { published, not_stored, unknown, unanswered, delivered, effects, .. } = self;
        writeln!(f)?;
        writeln!(
            f,
            "{published} published: {} acknowledged, {not_stored} not stored, {unknown} unknown, \
             {unanswered} unanswered",
            self.acknowledged
        )?;
        writeln!(
            f,
            "{delivered} deliveries, {} of them again, {effects} effects, {} of them again, {} \
             dead letters; {} outputs of the idempotent group, {} of them again",
            self.redelivered,
            self.duplicate_effects,
            self.dead,
            self.outputs,
            self.broken("C5")
        )?;
        if self.lost_by_server > 0 {
            let lost = self.lost_by_server;
            writeln!(f, "{lost} acknowledged events are gone from the log")?;
        }
        if self.growth_kib > 0.0 {
            writeln!(f, "memory grew by at most {:.0} KiB a minute", self.growth_kib)?;
        }
        for Violation { checker, says, count, examples } in &self.violations {
            writeln!(f, "{checker}: {says}: {count}")?;
            for example in examples {
                writeln!(f, "    {example}")?;
            }
        }
        writeln!(f)?;
        f.write_str(&self.verdict())
    }
}
