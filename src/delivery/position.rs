//! The place of an event, each part with its text form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, shown};
use crate::event_type::Topic;

/// One stream of a topic. Displayed as `user_service:0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Partition {
    /// The topic.
    pub topic: Topic,
    /// From 0 to the topic's partition count, exclusive.
    pub index: u32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.topic, self.index)
    }
}

impl FromStr for Partition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || {
            let shown = shown(text);
            Error::invalid(format!("partition {shown:?} is not like `user_service:0`"))
        };
        let (topic, index) = text.rsplit_once(':').ok_or_else(refuse)?;
        Ok(Self { topic: topic.parse()?, index: number(index).ok_or_else(refuse)? })
    }
}

/// Digits alone: a sign is none.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// The id of a stream entry: milliseconds of the server's clock and a sequence number. Displayed
/// as `1700000000000-0`. Ascends within a partition.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct EntryId {
    /// Milliseconds since 1970 by the server's clock.
    pub millis: u64,
    /// Counts within a millisecond.
    pub seq: u64,
}

impl EntryId {
    /// Before every entry.
    pub const ZERO: Self = Self { millis: 0, seq: 0 };

    /// The id right before this one; [`EntryId::ZERO`] stays.
    #[must_use]
    pub fn previous(self) -> Self {
        match (self.millis, self.seq) {
            (0, 0) => Self::ZERO,
            (millis, 0) => Self { millis: millis - 1, seq: u64::MAX },
            (millis, seq) => Self { millis, seq: seq - 1 },
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = Error;

    /// Reads `1700000000000-0`; without the second part it is 0.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || {
            let shown = shown(text);
            Error::invalid(format!("entry id {shown:?} is not like `1700000000000-0`"))
        };
        let (millis, seq) = text.split_once('-').unwrap_or((text, "0"));
        let number = |part: &str| number(part).ok_or_else(refuse);
        Ok(Self { millis: number(millis)?, seq: number(seq)? })
    }
}

/// The place of one event: partition, entry and index within the entry's batch. Displayed as
/// `user_service:0/1700000000000-0/3`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position {
    /// The partition.
    pub partition: Partition,
    /// The entry.
    pub entry: EntryId,
    /// The event's place in the batch, from 0.
    pub index: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.partition, self.entry, self.index)
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || {
            let form = "user_service:0/1700000000000-0/0";
            Error::invalid(format!("position {:?} is not like `{form}`", shown(text)))
        };
        let mut parts = text.split('/');
        let (Some(partition), Some(entry)) = (parts.next(), parts.next()) else {
            return Err(refuse());
        };
        let index = number(parts.next().unwrap_or("0")).ok_or_else(refuse)?;
        if parts.next().is_some() {
            return Err(refuse());
        }
        Ok(Self { partition: partition.parse()?, entry: entry.parse()?, index })
    }
}

/// The text form is the form in data, too.
macro_rules! as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

as_text!(Partition);
as_text!(EntryId);
as_text!(Position);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back() {
        let text = "user_service:3/1700000000000-7/49";
        let position: Position = text.parse().expect("valid");
        assert_eq!(position.to_string(), text);
        assert_eq!((position.partition.index, position.index), (3, 49));
        let short: Position = "a:0/5-0".parse().expect("the index may be left out");
        assert_eq!(short.index, 0);
        for bad in ["", "a", "a/1-1/0", "a:0", "a:0/x/0", "a:0/1-1/0/0", "a:0/+1-1/0", "a:0/-1/0"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
        assert!(
            "a:+0/1-1/0".parse::<Position>().is_err() && "a:0/1-1/+0".parse::<Position>().is_err()
        );
    }

    #[test]
    fn entry_ids_order_by_number() {
        let ids: Vec<EntryId> =
            ["9-10", "10-2", "10-11"].map(|text| text.parse().expect("valid")).to_vec();
        assert!(ids.is_sorted());
        assert_eq!(ids[1].previous().to_string(), "10-1");
        assert_eq!(EntryId { millis: 3, seq: 0 }.previous().millis, 2);
    }
}
