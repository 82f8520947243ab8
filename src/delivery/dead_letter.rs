//! What a group gave up, and what letters of one cause have in common.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{EntryId, Failure, Position, Record};
use crate::envelope::Envelope;
use crate::error::Error;
use crate::event_id::EventId;
use crate::time::Timestamp;

/// Who failed at an event. What is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Site {
    /// The handler: the route by which the event came to it.
    pub handler: String,
    /// The version of the program, as [`BusBuilder::version`](crate::BusBuilder::version) says.
    pub version: String,
    /// The machine.
    pub host: String,
}

/// An event that a group gave up, with everything known about why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its id in the group's dead letters.
    pub id: EntryId,
    /// The id it had first: an edited or restored letter gets a new one.
    pub first_id: EntryId,
    /// Where the event lay first.
    pub origin: Position,
    /// The event, or the raw fields of what is none.
    pub record: Record,
    /// Why.
    pub failure: Failure,
    /// How often it was tried.
    pub attempts: u32,
    /// The consumer that gave it up.
    pub consumer: String,
    /// When it was given up, by the consumer's clock.
    pub given_up: Timestamp,
    /// The payload as it was published, where it was edited since.
    pub original: Option<Bytes>,
}

impl DeadLetter {
    /// When the event was first seen: stored at its origin, by the store's clock.
    pub fn first_seen(&self) -> Timestamp {
        Timestamp::from_millis(self.origin.entry.millis)
    }

    /// What letters of the same cause have in common: the class of the failure, the text of the
    /// errors without what differs from event to event, the type of the event and the handler.
    pub fn fingerprint(&self) -> Fingerprint {
        let name = self.record.as_ref().map(|event| event.event_type().as_str());
        let Failure { cause, errors, site } = &self.failure;
        let mut text = format!("{cause}\n{}\n{}", name.unwrap_or_default(), site.handler);
        for error in errors {
            text.push('\n');
            normalise(error, &mut text);
        }
        Fingerprint(xxh3_64(text.as_bytes()) >> 16)
    }

    /// What it is known by, however often it was edited or restored.
    pub fn identity(&self) -> LetterIdentity {
        LetterIdentity {
            first_id: self.first_id,
            origin: self.origin.clone(),
            event: self.record.as_ref().ok().map(Envelope::id),
        }
    }

    /// Whether both are one letter.
    pub fn is_same(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// This letter with another payload; the first one is kept beside it.
    pub(crate) fn edited(mut self, payload: Bytes) -> Result<Self, Error> {
        let envelope = self.record.map_err(|malformed| {
            Error::invalid(format!("dead letter {} holds no event: {}", self.id, malformed.reason))
        })?;
        let before = envelope.payload().clone();
        self.record = Ok(envelope.with_payload(payload)?);
        self.original.get_or_insert(before);
        Ok(self)
    }
}

/// What a dead letter is known by: an edited or restored one is the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LetterIdentity {
    first_id: EntryId,
    origin: Position,
    event: Option<EventId>,
}

/// A short name of what letters died of, the same in every process and on every day: 12
/// hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hex = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| hex);
        number.map(Self).ok_or_else(|| {
            Error::invalid(format!("fingerprint {text:?} is not 12 hexadecimal digits"))
        })
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What stands for what differs.
const BLANK: char = '#';
/// What stands between the parts of a number, a time or an address.
const JOINTS: &str = ".,:;/+-";
/// Letters alone are taken for a hexadecimal number from so many on: "effaced" is a word.
const HEX_MIN: usize = 8;

/// Writes a text without what differs from event to event: words with a digit in them (numbers,
/// ids, times), hexadecimal ones, addresses, what stands in quotes. Neighbours become one.
fn normalise(text: &str, out: &mut String) {
    let (mut rest, mut before) = (text, ' ');
    // The end of the last blank, while nothing but joints came since.
    let mut blank: Option<usize> = None;
    while let Some(first) = rest.chars().next() {
        let (token, differs) = match quoted(rest, before) {
            Some(length) => (&rest[..length], true),
            None => word(rest),
        };
        before = token.chars().next_back().unwrap_or(' ');
        rest = &rest[token.len()..];
        match blank.filter(|_| differs) {
            Some(end) => out.truncate(end),
            None if differs => {
                out.push(BLANK);
                blank = Some(out.len());
            }
            None if first.is_whitespace() => {
                blank = None;
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            None => {
                blank = blank.filter(|_| JOINTS.contains(first));
                out.push_str(token);
            }
        }
    }
}

/// The bytes of a text in quotes at the beginning of `rest`. An apostrophe within a word opens
/// none.
fn quoted(rest: &str, before: char) -> Option<usize> {
    let quote = rest.chars().next().filter(|first| "\"'`".contains(*first))?;
    if before.is_alphanumeric() {
        return None;
    }
    let end = rest[1..].find(quote)? + 2;
    let closes = !rest[end..].starts_with(char::is_alphanumeric);
    closes.then_some(end)
}

/// The word at the beginning of `rest`, or its first character; and whether it differs from
/// event to event.
fn word(rest: &str) -> (&str, bool) {
    let is_part = |letter: char| letter.is_alphanumeric() || "_-@".contains(letter);
    let length = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
    let Some(first) = rest.chars().next().filter(|_| length == 0) else {
        let word = &rest[..length];
        let hex = word.len() >= HEX_MIN && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let telling = word.contains(|letter: char| letter.is_numeric() || letter == '@');
        return (word, hex || telling);
    };
    (&rest[..first.len_utf8()], false)
}

#[cfg(test)]
mod tests;
