//! Events on their way, as a test sees them.

use std::fmt::{self, Write};
use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

use crate::delivery::{DeadLetter, Failure, Record};
use crate::driver::GroupName;
use crate::driver::memory::Held;
use crate::envelope::Envelope;
use crate::event::Event;

/// An event that a handler has in hand.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pending {
    /// The group whose handler it is.
    pub group: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The event.
    pub record: Record,
}

/// An event that waits for its moment: a retry, or a delayed publish.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Due {
    /// The group that tries again; `None` for a delayed publish, which goes to all.
    pub group: Option<String>,
    /// Which attempt it will be, from 1.
    pub attempt: u32,
    /// How long until then, seen from the moment of the question.
    pub after: Duration,
    /// The event.
    pub record: Record,
    at: Option<Instant>,
}

/// An event that a group gave up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Dead {
    /// The group.
    pub group: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it was given up.
    pub failure: Failure,
    /// The event.
    pub record: Record,
}

macro_rules! record_views {
    ($($view:ty),*) => {$(
        impl $view {
            /// Whether it is an event of type `E`.
            pub fn is<E: Event>(&self) -> bool {
                is::<E>(&self.record)
            }

            /// The event itself.
            ///
            /// # Panics
            /// When it is of another type, or cannot be decoded.
            #[track_caller]
            pub fn event<E: Event>(&self) -> E {
                decode(&self.record, Location::caller())
            }
        }
    )*};
}

record_views!(Pending, Due, Dead);

impl Pending {
    pub(super) fn new(held: Held) -> Self {
        let Held { group, attempt, at: _, record } = held;
        Self { group: name(group), attempt, record }
    }
}

impl Due {
    pub(super) fn new(held: Held) -> Self {
        let Held { group, attempt, at, record } = held;
        let after = at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        Self { group: group.map(|group| group.to_string()), attempt, after, record, at }
    }

    /// The moment on tokio's clock.
    pub(super) fn moment(&self) -> Option<Instant> {
        self.at
    }

    /// Whether it is a delayed publish, not a retry.
    pub fn is_publish(&self) -> bool {
        self.group.is_none()
    }
}

impl Dead {
    pub(super) fn new((group, letter): (GroupName, DeadLetter)) -> Self {
        let DeadLetter { record, failure, attempts, .. } = letter;
        Self { group: group.to_string(), attempts, failure, record }
    }
}

fn name(group: Option<GroupName>) -> String {
    group.map(|group| group.to_string()).unwrap_or_default()
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, attempt, record } = self;
        write!(f, "{} in group {group}, attempt {attempt}", show(record))
    }
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, attempt, after, record, at: _ } = self;
        match group {
            Some(group) => {
                write!(f, "{} in {after:?} for group {group}, attempt {attempt}", show(record))
            }
            None => write!(f, "{} in {after:?}, a delayed publish", show(record)),
        }
    }
}

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, attempts, failure, record } = self;
        let (cause, errors) = (failure.cause, failure.errors.join(": "));
        write!(f, "{} of group {group}, tried {attempts}: {cause}: {errors}", show(record))
    }
}

fn is<E: Event>(record: &Record) -> bool {
    record.as_ref().is_ok_and(|envelope| *envelope.event_type() == E::TYPE)
}

pub(super) fn decode<E: Event>(record: &Record, at: &Location<'_>) -> E {
    assert!(is::<E>(record), "{} is no {}, at {at}", show(record), E::TYPE);
    let decoded = record.as_ref().map(Envelope::event::<E>);
    match decoded {
        Ok(Ok(event)) => event,
        Ok(Err(error)) => panic!("{} cannot be decoded, at {at}: {error}", show(record)),
        Err(malformed) => panic!("no event, at {at}: {}", malformed.reason),
    }
}

/// One line about an event, or about what is there in its place.
pub(super) fn show(record: &Record) -> String {
    match record {
        Ok(known) => envelope(known),
        Err(malformed) => format!("something malformed ({})", malformed.reason),
    }
}

pub(super) fn envelope(envelope: &Envelope) -> String {
    match envelope.key() {
        Some(key) => format!("{} (key {key})", envelope.event_type()),
        None => envelope.event_type().to_string(),
    }
}

/// Adds a list to a message, where there is anything to list.
pub(super) fn list<T: fmt::Display>(story: &mut String, title: &str, items: &[T]) {
    const SHOWN_MAX: usize = 20;
    if items.is_empty() {
        return;
    }
    let _infallible = writeln!(story, "  {title}:");
    for item in items.iter().take(SHOWN_MAX) {
        let _infallible = writeln!(story, "    {item}");
    }
    if items.len() > SHOWN_MAX {
        let _infallible = writeln!(story, "    and {} more", items.len() - SHOWN_MAX);
    }
}
