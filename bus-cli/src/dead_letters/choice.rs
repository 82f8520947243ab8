//! Which dead letters of a group are meant, and going through them page by page.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use rumormill::delivery::{DeadLetter, EntryId, Fingerprint, Partition};
use rumormill::driver::GroupName;
use rumormill::driver::admin::{GroupReport, STEP_MAX};
use rumormill::{Clock, Error, Pattern, SystemClock, Timestamp};

use super::letter::LetterId;
use crate::duration;
use crate::failure::Failure;
use crate::operate::Store;

/// The flags that say which; flattened into those of a command.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Selection {
    /// One dead letter by its id; may be repeated
    #[arg(long, value_name = "POSITION", value_delimiter = ',')]
    id: Vec<String>,
    /// Those of one cause, as `list` names it; may be repeated
    #[arg(long, value_name = "HEX", value_delimiter = ',')]
    fingerprint: Vec<String>,
    /// Those whose events are of such a type: `*` is one segment, `>` one or more at the end
    #[arg(long = "type", value_name = "PATTERN")]
    of_type: Option<String>,
    /// Those that were given up longer ago: 10m, 2h, 7d
    #[arg(long, value_name = "DUR")]
    older_than: Option<String>,
    /// Those that were given up since: 10m, 2h, 7d
    #[arg(long, value_name = "DUR")]
    newer_than: Option<String>,
    /// At most N of those, the oldest of a partition first
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroU64>,
}

/// Which dead letters are meant. What several flags say must all be so.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Choice {
    /// These alone; empty: all that the rest takes.
    ids: Vec<LetterId>,
    /// Of one of these causes; empty: of any.
    fingerprints: Vec<Fingerprint>,
    pattern: Option<Pattern>,
    /// Given up then or earlier.
    until: Option<Timestamp>,
    /// Given up then or later.
    since: Option<Timestamp>,
    /// At most so many.
    limit: Option<NonZeroU64>,
}

impl Choice {
    /// What the flags of a command say that looks at letters.
    pub(super) fn any(selection: Selection) -> Result<Self, Failure> {
        let Selection { id, fingerprint, of_type, older_than, newer_than, limit } = selection;
        let mut ids = id.iter().map(|id| LetterId::parse(id)).collect::<Result<Vec<_>, _>>()?;
        ids.sort();
        ids.dedup();
        let fingerprints = fingerprint.iter().map(|text| parse_fingerprint(text));
        let pattern = of_type.map(Pattern::new).transpose();
        let now = SystemClock.now();
        let before = |flag: &str, text: Option<String>| {
            let ago = text.map(|text| duration::parse(flag, &text)).transpose()?;
            Ok(ago.map(|ago| earlier(now, ago)))
        };
        let choice = Self {
            ids,
            fingerprints: fingerprints.collect::<Result<_, _>>()?,
            pattern: pattern.map_err(|error| Failure::refused("--type", &error))?,
            until: before("--older-than", older_than)?,
            since: before("--newer-than", newer_than)?,
            limit,
        };
        if !choice.ids.is_empty() && choice.filters() {
            return Err(Failure::usage("--id cannot be used with what chooses among all"));
        }
        Ok(choice)
    }

    /// What the flags of a command say that changes letters.
    pub(super) fn said(selection: Selection, all: bool) -> Result<Self, Failure> {
        let choice = Self::any(selection)?;
        match (choice.ids.is_empty(), all || choice.filters()) {
            (true, false) => Err(Failure::usage("nothing says which dead letters").with_help(
                "name them with --id, or take --all, or those of one --fingerprint or --type, \
                 or choose by age with --older-than and --newer-than, or the oldest with --limit",
            )),
            (false, true) => Err(Failure::usage("--id cannot be used with --all")),
            _ => Ok(choice),
        }
    }

    /// These letters.
    pub(super) fn one(id: LetterId) -> Self {
        Self { ids: vec![id], ..Self::default() }
    }

    /// Those of one cause.
    pub(super) fn cause(fingerprint: Fingerprint) -> Self {
        Self { fingerprints: vec![fingerprint], ..Self::default() }
    }

    /// Every letter, whatever it holds.
    pub(super) fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// The letters that are named, where they are.
    pub(super) fn ids(&self) -> Option<&[LetterId]> {
        Some(&*self.ids).filter(|ids| !ids.is_empty())
    }

    fn filters(&self) -> bool {
        let Self { ids: _, fingerprints, pattern, until, since, limit } = self;
        let ages = until.is_some() || since.is_some();
        !fingerprints.is_empty() || pattern.is_some() || ages || limit.is_some()
    }

    fn takes(&self, letter: &DeadLetter) -> bool {
        let Self { ids: _, fingerprints, pattern, until, since, limit: _ } = self;
        let event = letter.record.as_ref().ok();
        let matches =
            |pattern: &Pattern| event.is_some_and(|event| pattern.matches(event.event_type()));
        pattern.as_ref().is_none_or(matches)
            && until.is_none_or(|until| letter.given_up <= until)
            && since.is_none_or(|since| letter.given_up >= since)
            && (fingerprints.is_empty() || fingerprints.contains(&letter.fingerprint()))
    }
}

pub(super) fn parse_fingerprint(text: &str) -> Result<Fingerprint, Failure> {
    text.parse().map_err(|error: Error| Failure::refused("--fingerprint", &error))
}

fn earlier(now: Timestamp, ago: std::time::Duration) -> Timestamp {
    let millis = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(millis))
}

/// Letters of one partition, at most [`STEP_MAX`].
pub(super) struct Page {
    pub(super) partition: Partition,
    pub(super) letters: Vec<DeadLetter>,
}

/// Goes through the chosen letters that are there at its beginning: what dies meanwhile is not
/// among them.
pub(super) struct Letters<'a> {
    store: &'a Store<'a>,
    group: &'a GroupName,
    choice: &'a Choice,
    /// What is still to be read, the last id included.
    left: VecDeque<Range>,
    /// How many more are wanted.
    room: usize,
}

/// Ids of a partition, both ends not read yet.
#[derive(Clone)]
pub(super) struct Range {
    pub(super) partition: Partition,
    pub(super) after: EntryId,
    pub(super) last: EntryId,
}

impl<'a> Letters<'a> {
    /// All within `ranges` that `choice` takes.
    pub(super) fn within(
        store: &'a Store<'a>,
        group: &'a GroupName,
        choice: &'a Choice,
        ranges: Vec<Range>,
    ) -> Self {
        let limit = choice.limit.map_or(u64::MAX, NonZeroU64::get);
        let room = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { store, group, choice, left: ranges.into(), room }
    }

    /// As [`Letters::next_page`], to show the letters.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, Failure> {
        let page = self.next_page().await;
        page.map_err(|error| Failure::library("cannot read dead letters", &error))
    }

    /// The next page, which may be empty; nothing at the end.
    pub(super) async fn next_page(&mut self) -> Result<Option<Page>, Error> {
        let Some(range) = self.left.front_mut() else { return Ok(None) };
        let Range { partition, after, last } = range.clone();
        let count = if after == last.previous() { 1 } else { STEP_MAX };
        let page = self.store.letters()?.page(self.group, &partition, after, count).await?;
        match page.next.filter(|next| *next < last) {
            Some(next) => range.after = next,
            None => drop(self.left.pop_front()),
        }
        let mut letters = page.letters;
        letters.retain(|letter| letter.id <= last && self.choice.takes(letter));
        letters.truncate(self.room);
        self.room -= letters.len();
        if self.room == 0 {
            self.left.clear();
        }
        Ok(Some(Page { partition, letters }))
    }
}

/// Where the letters lie that there are now.
///
/// # Errors
/// Also where the group is not known.
pub(super) async fn ranges(
    store: &Store<'_>,
    group: &GroupName,
    choice: &Choice,
) -> Result<(Vec<Range>, GroupReport), Failure> {
    let report = store.admin()?.group(group).await;
    let report = report.map_err(|error| Failure::library("cannot read dead letters", &error))?;
    if let Some(ids) = choice.ids() {
        return Ok((ids.iter().map(one).collect(), report));
    }
    let range = |partition: &Partition, last| Range {
        partition: partition.clone(),
        after: EntryId::ZERO,
        last,
    };
    let parts = report.partitions.iter();
    let ranges = parts.filter_map(|part| Some(range(&part.partition, part.dead.last?)));
    Ok((ranges.collect(), report))
}

/// The range of one letter.
pub(super) fn one(letter: &LetterId) -> Range {
    let LetterId { partition, id } = letter.clone();
    Range { partition, after: id.previous(), last: id }
}

/// The failure for an id that is not there.
pub(super) fn missing(group: &GroupName, id: &LetterId) -> Failure {
    Failure::failed(format!("group {group} has no dead letter {id}")).with_help(
        "it was redriven or purged meanwhile, or is another group's: list the dead letters",
    )
}
