//! The name of an event: dot-separated segments, validated once.

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Most bytes of an event type or a pattern.
pub const EVENT_TYPE_BYTES_MAX: usize = 255;
/// Most segments of an event type or a pattern.
pub const SEGMENTS_MAX: usize = 16;
/// Most bytes of one segment.
pub const SEGMENT_BYTES_MAX: usize = 64;

/// The type of an event, such as `user_service.user.created`.
///
/// 1 to 16 segments of `[A-Za-z0-9_-]{1,64}`, joined by dots, 255 bytes at most. The first segment
/// is the [`Topic`]. Cloning is a reference count.
///
/// A constant is checked when the program is compiled:
///
/// ```
/// use rumormill::EventType;
/// const CREATED: EventType = EventType::from_static("user_service.user.created");
/// assert_eq!(CREATED.topic().as_str(), "user_service");
/// assert!("user service".parse::<EventType>().is_err());
/// ```
/// ```compile_fail
/// # use rumormill::EventType;
/// const BROKEN: EventType = EventType::from_static("user..created");
/// # let _ = BROKEN;
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventType(ByteString);

impl EventType {
    /// An event type from a constant. In a `const`, a bad name fails the build.
    ///
    /// # Panics
    /// When the name is no event type.
    pub const fn from_static(name: &'static str) -> Self {
        match check(name.as_bytes()) {
            Ok(()) => Self(ByteString::from_static(name)),
            Err(flaw) => panic!("{}", flaw.text()),
        }
    }

    /// Checks a name that came from outside.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the value and the rule it breaks.
    pub fn new(name: impl Into<ByteString>) -> Result<Self, Error> {
        let name = name.into();
        match check(name.as_bytes()) {
            Ok(()) => Ok(Self(name)),
            Err(flaw) => Err(refuse("event type", &name, flaw)),
        }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first segment, which names the streams that carry the event.
    pub fn topic(&self) -> Topic {
        let end = self.0.find('.').unwrap_or(self.0.len());
        Topic(self.0.slice_ref(&self.0[..end]))
    }

    /// The name of the topic.
    pub(crate) fn topic_name(&self) -> &str {
        self.0.split_once('.').map_or(&*self.0, |(topic, _)| topic)
    }

    /// The segments, in order.
    pub fn segments(&self) -> std::str::Split<'_, char> {
        self.0.split('.')
    }

    /// Shares the bytes of a received entry.
    pub(crate) fn from_bytes(bytes: Bytes) -> Result<Self, Error> {
        match ByteString::try_from(bytes) {
            Ok(name) => Self::new(name),
            Err(_) => Err(Error::invalid("event type is not UTF-8")),
        }
    }
}

/// The first segment of an event type: what is stored and read together.
///
/// Topics are few and known, event types are many.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Topic(ByteString);

impl Topic {
    /// Checks a topic's name: one segment of an event type.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the value and the rule it breaks.
    pub fn new(name: impl Into<ByteString>) -> Result<Self, Error> {
        let name = name.into();
        match check_segment(name.as_bytes()) {
            Ok(()) => Ok(Self(name)),
            Err(flaw) => Err(refuse("topic", &name, flaw)),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a name is refused. A value of its own so that `const` code can carry it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flaw {
    Empty,
    EmptySegment,
    LongSegment,
    ManySegments,
    Long,
    Character,
}

impl Flaw {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Empty => "it is empty",
            Self::EmptySegment => "it has an empty segment; write `topic.thing.happened`",
            Self::LongSegment => "a segment has more than 64 bytes",
            Self::ManySegments => "it has more than 16 segments",
            Self::Long => "it has more than 255 bytes",
            Self::Character => "a segment may hold only A-Z a-z 0-9 _ and -",
        }
    }
}

pub(crate) fn refuse(what: &str, value: &str, flaw: Flaw) -> Error {
    let shown: String = value.chars().take(80).collect();
    Error::invalid(format!("{what} {shown:?} is not valid: {}", flaw.text()))
}

/// Checks a whole name. `const` has no iterators, hence the index.
pub(crate) const fn check(name: &[u8]) -> Result<(), Flaw> {
    if name.is_empty() {
        return Err(Flaw::Empty);
    }
    if name.len() > EVENT_TYPE_BYTES_MAX {
        return Err(Flaw::Long);
    }
    let (mut index, mut length, mut segments) = (0, 0, 1);
    while index < name.len() {
        if name[index] == b'.' {
            if length == 0 {
                return Err(Flaw::EmptySegment);
            }
            (length, segments) = (0, segments + 1);
        } else if !is_segment_byte(name[index]) {
            return Err(Flaw::Character);
        } else {
            length += 1;
            if length > SEGMENT_BYTES_MAX {
                return Err(Flaw::LongSegment);
            }
        }
        index += 1;
    }
    if length == 0 {
        return Err(Flaw::EmptySegment);
    }
    if segments > SEGMENTS_MAX { Err(Flaw::ManySegments) } else { Ok(()) }
}

pub(crate) fn check_segment(segment: &[u8]) -> Result<(), Flaw> {
    if segment.is_empty() {
        return Err(Flaw::EmptySegment);
    }
    if segment.len() > SEGMENT_BYTES_MAX {
        return Err(Flaw::LongSegment);
    }
    if segment.iter().all(|&byte| is_segment_byte(byte)) { Ok(()) } else { Err(Flaw::Character) }
}

const fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self, Error> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(name: String) -> Result<Self, Error> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
    };
}
pub(crate) use text_newtype;

text_newtype!(EventType);
text_newtype!(Topic);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        let segment = "s".repeat(SEGMENT_BYTES_MAX);
        assert!(EventType::new(segment.clone()).is_ok());
        assert!(EventType::new(format!("{segment}s")).is_err());
        let many = vec!["a"; SEGMENTS_MAX].join(".");
        assert!(EventType::new(many.clone()).is_ok());
        assert!(EventType::new(format!("{many}.a")).is_err());
        let long = format!("{segment}.{segment}.{segment}.{}", "s".repeat(60));
        assert_eq!(long.len(), EVENT_TYPE_BYTES_MAX);
        assert!(EventType::new(long.clone()).is_ok());
        assert!(EventType::new(format!("{long}s")).is_err());
    }

    #[test]
    fn each_flaw_names_the_value() {
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "ä", "a\n", "a:b", "{a}"] {
            let error = EventType::new(bad).expect_err(bad);
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn the_topic_is_the_first_segment() {
        assert_eq!(EventType::from_static("a.b.c").topic().as_str(), "a");
        assert_eq!(EventType::from_static("single").topic().as_str(), "single");
    }
}
