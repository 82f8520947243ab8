//! Which dead letters of a group are meant, and going through them page by page.

use std::collections::VecDeque;

use rumormill::delivery::{DeadLetter, EntryId, Partition};
use rumormill::driver::GroupName;
use rumormill::driver::admin::{GroupReport, STEP_MAX};
use rumormill::{Error, Pattern};

use super::letter::LetterId;
use crate::failure::Failure;
use crate::operate::Store;

/// Which dead letters are meant.
#[derive(Debug, PartialEq)]
pub(super) enum Choice {
    /// Those whose events have such a type, where one is given.
    All(Option<Pattern>),
    Ids(Vec<LetterId>),
}

impl Choice {
    /// What the flags of a command that changes them say.
    pub(super) fn new(ids: &[String], all: bool, of_type: Option<String>) -> Result<Self, Failure> {
        let mut ids = ids.iter().map(|id| LetterId::parse(id)).collect::<Result<Vec<_>, _>>()?;
        match (ids.is_empty(), all || of_type.is_some()) {
            (true, true) => pattern(of_type).map(Self::All),
            (true, false) => Err(Failure::usage("nothing says which dead letters")
                .with_help("name them with --id, or take --all, or those of one --type")),
            (false, true) => Err(Failure::usage("--id cannot be used with --all or --type")),
            (false, false) => {
                ids.sort();
                ids.dedup();
                Ok(Self::Ids(ids))
            }
        }
    }

    /// Every letter, whatever it holds.
    pub(super) fn is_everything(&self) -> bool {
        matches!(self, Self::All(None))
    }

    fn takes(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::All(Some(pattern)) => {
                let event = letter.record.as_ref().ok();
                event.is_some_and(|event| pattern.matches(event.event_type()))
            }
            Self::All(None) | Self::Ids(_) => true,
        }
    }
}

pub(super) fn pattern(text: Option<String>) -> Result<Option<Pattern>, Failure> {
    let pattern = text.map(Pattern::new).transpose();
    pattern.map_err(|error| Failure::refused("--type", &error))
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
        Self { store, group, choice, left: ranges.into() }
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
    let ranges = match choice {
        Choice::All(_) => {
            let range = |partition: &Partition, last| Range {
                partition: partition.clone(),
                after: EntryId::ZERO,
                last,
            };
            let parts = report.partitions.iter();
            parts.filter_map(|part| Some(range(&part.partition, part.dead.last?))).collect()
        }
        Choice::Ids(ids) => ids.iter().map(one).collect(),
    };
    Ok((ranges, report))
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
