//! The checkers: linear scans over the histories, the log, the dead letters and the effects.

mod book;
mod groups;
pub(crate) mod growth;
mod isolation;
mod log;
mod running;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub(crate) use self::book::{Book, Fault, GroupStory, Moment, Story};
pub(crate) use self::running::recovery;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Violation {
    /// C1 to C15.
    pub(crate) checker: String,
    /// What it says.
    pub(crate) says: String,
    /// How often.
    pub(crate) count: u64,
    /// The first of them.
    pub(crate) examples: Vec<String>,
}

/// What a checker found, as long as it is looking.
pub(crate) struct Found {
    checker: &'static str,
    says: &'static str,
    count: u64,
    examples: Vec<String>,
}

/// Most examples of a violation.
const EXAMPLES_MAX: usize = 5;

impl Found {
    fn new(checker: &'static str, says: &'static str) -> Self {
        Self { checker, says, count: 0, examples: Vec::new() }
    }

    fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }

    fn end(self) -> Option<Violation> {
        let Self { checker, says, count, examples } = self;
        let (checker, says) = (checker.to_owned(), says.to_owned());
        (count > 0).then_some(Violation { checker, says, count, examples })
    }
}

type Checker = fn(&Book) -> Found;

const CHECKERS: &[Checker] = &[
    log::lost,
    log::lost_in_silence,
    log::twice,
    log::phantom,
    log::out_of_order,
    log::divergent,
    log::refused_and_stored,
    isolation::seen_by_others,
    isolation::seen_by_nobody,
    groups::without_effect,
    groups::without_output,
    groups::outputs_twice,
    groups::twice_without_reason,
    groups::out_of_order,
    groups::not_dead,
    groups::dead_without_reason,
    groups::without_bound,
    groups::strange_letters,
    running::not_recovered,
    running::not_settled,
    growth::greedy,
    running::miscounted,
];

/// Runs every checker.
pub(crate) fn all(book: &Book) -> Vec<Violation> {
    CHECKERS.iter().filter_map(|checker| checker(book).end()).collect()
}
