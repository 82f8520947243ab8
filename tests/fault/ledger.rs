//! What happened to each event, as the publisher and the group saw it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rumormill::{EventId, PublishError, Receipt};
use tokio::time::Instant;

/// What a publish said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Stored,
    NotStored,
    Unknown,
}

impl From<&Result<Receipt, PublishError>> for Outcome {
    fn from(answer: &Result<Receipt, PublishError>) -> Self {
        match answer {
            Ok(_) => Self::Stored,
            Err(PublishError::NotStored(_)) => Self::NotStored,
            Err(PublishError::Unknown(_)) => Self::Unknown,
        }
    }
}

/// One event's story.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    pub number: u64,
    pub begun: Instant,
    pub ended: Option<(Instant, Outcome)>,
    /// When the group's handler first got it.
    pub delivered: Option<Instant>,
    /// How often the group's handler got it.
    pub runs: u32,
}

impl Story {
    pub fn outcome(&self) -> Option<Outcome> {
        self.ended.map(|(_, outcome)| outcome)
    }

    pub fn is_acknowledged(&self) -> bool {
        self.outcome() == Some(Outcome::Stored)
    }

    /// When its publish succeeded.
    pub fn stored(&self) -> Option<Instant> {
        self.ended.filter(|_| self.is_acknowledged()).map(|(at, _)| at)
    }
}

/// The book of all events.
#[derive(Default)]
pub struct Ledger(Mutex<Book>);

#[derive(Default)]
struct Book {
    stories: HashMap<EventId, Story>,
    mark: Option<Mark>,
}

/// What became of events that were begun since a moment.
#[derive(Clone, Copy)]
struct Mark {
    since: Instant,
    stored: Option<Instant>,
    delivered: Option<Instant>,
}

/// How long after a mark an event was first stored, and first delivered.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    pub publish: Duration,
    pub delivery: Duration,
}

impl Mark {
    fn take(&mut self, story: &Story) {
        if story.begun >= self.since {
            self.stored = earlier(self.stored, story.stored());
            self.delivered = earlier(self.delivered, story.delivered);
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(&self, id: EventId, number: u64) {
        let begun = Instant::now();
        let story = Story { number, begun, ended: None, delivered: None, runs: 0 };
        self.book().stories.insert(id, story);
    }

    pub fn end(&self, id: EventId, outcome: Outcome) {
        self.write(id, |story| story.ended = Some((Instant::now(), outcome)));
    }

    pub fn deliver(&self, id: EventId) {
        self.write(id, |story| {
            story.delivered.get_or_insert_with(Instant::now);
            story.runs += 1;
        });
    }

    fn write(&self, id: EventId, change: impl FnOnce(&mut Story)) {
        let book = &mut *self.book();
        let Some(story) = book.stories.get_mut(&id) else { return };
        change(story);
        if let Some(mark) = &mut book.mark {
            mark.take(story);
        }
    }

    /// From now on [`Ledger::recovery`] is about events that were begun at `since` or later.
    pub fn mark(&self, since: Instant) {
        let book = &mut *self.book();
        let mut mark = Mark { since, stored: None, delivered: None };
        book.stories.values().for_each(|story| mark.take(story));
        book.mark = Some(mark);
    }

    /// Once both happened since the mark.
    pub fn recovery(&self) -> Option<Recovery> {
        let Mark { since, stored, delivered } = self.book().mark?;
        Some(Recovery { publish: stored? - since, delivery: delivered? - since })
    }

    /// The events that a condition holds for.
    pub fn find(&self, holds: impl Fn(&Story) -> bool) -> Vec<(EventId, Story)> {
        let book = self.book();
        let found = book.stories.iter().filter(|(_, story)| holds(story));
        found.map(|(id, story)| (*id, *story)).collect()
    }

    /// How many events a condition holds for.
    pub fn count(&self, holds: impl Fn(&Story) -> bool) -> usize {
        self.book().stories.values().filter(|story| holds(story)).count()
    }
}
