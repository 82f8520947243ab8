//! What there is to say about what is kept, and what goes.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::Count;
use crate::delivery::EntryId;
use crate::error::Error;
use crate::time::Timestamp;

/// What is kept of a topic, as somebody set it; what is not set is as the store has it. All of it
/// counts per partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TopicLimits {
    /// How long entries are kept that all groups have settled; shown in milliseconds.
    #[serde(rename = "keep_ms", serialize_with = "in_millis")]
    pub keep: Option<Duration>,
    /// The size of a log beyond which settled entries go earlier than that.
    pub keep_bytes: Option<u64>,
    /// The size of a log beyond which the oldest entries go, settled or not.
    pub cap_bytes: Option<u64>,
}

impl TopicLimits {
    /// Checks that the limits go together.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a size of nothing, and for a cap
    /// below what is to be kept.
    pub fn check(&self) -> Result<(), Error> {
        if self.keep_bytes == Some(0) || self.cap_bytes == Some(0) {
            return Err(Error::invalid("a log of 0 bytes can keep nothing")
                .with_help("keep settled entries for 0s where none is to be kept"));
        }
        match (self.keep_bytes, self.cap_bytes) {
            (Some(keep), Some(cap)) if cap < keep => {
                let text = format!("a cap of {cap} bytes is below the {keep} that are to be kept");
                Err(Error::invalid(text).with_help("the cap drops what nobody has read: raise it"))
            }
            _ => Ok(()),
        }
    }
}

/// What is kept of a log: what is set for its topic, else the store's own limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Milliseconds for which entries are kept that all groups have settled.
    pub keep_ms: u64,
    /// The size of a log beyond which settled entries go earlier than that.
    pub keep_bytes: u64,
    /// The size of a log beyond which the oldest entries go, settled or not.
    pub cap_bytes: u64,
}

/// What is kept of each partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Retention {
    /// What was set for the topic.
    pub set: TopicLimits,
    /// What holds.
    #[serde(flatten)]
    pub kept: Kept,
}

/// What a group keeps from being trimmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holds {
    /// Entries from the first one that it needs on.
    pub entries: Count,
    /// Their part of the log's bytes; nothing where the store does not tell.
    pub bytes_estimate: Option<u64>,
    /// The first entry that it needs.
    pub oldest: Option<EntryId>,
    /// When that was stored.
    pub oldest_time: Option<Timestamp>,
    /// Why it is needed.
    #[serde(flatten)]
    pub why: Why,
    /// It has registered no routes: it is another program's.
    pub foreign: bool,
    /// When a member was last heard of, by the store's clock.
    pub last_seen: Option<Timestamp>,
    /// When it stops holding anything unless a member comes back; nothing while one lives.
    pub until: Option<Timestamp>,
}

/// Why a group holds what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// It has settled everything, and holds nothing.
    Settled,
    /// It has not read it yet.
    Unread,
    /// It was handed out and is not settled.
    Pending {
        /// To whom.
        consumer: String,
    },
    /// It was gone for too long, and no longer holds anything.
    Gone,
}

fn in_millis<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_is_not_below_what_is_to_be_kept() {
        let limits = |keep_bytes, cap_bytes| TopicLimits { keep: None, keep_bytes, cap_bytes };
        assert!(limits(Some(5), Some(5)).check().is_ok());
        assert!(limits(None, Some(5)).check().is_ok());
        assert!(limits(Some(5), Some(4)).check().is_err());
        assert!(limits(Some(0), None).check().is_err());
        assert!(limits(None, Some(0)).check().is_err());
    }

    #[test]
    fn limits_are_shown_by_their_names_on_the_wire() {
        let keep = Some(Duration::from_secs(3));
        let limits = TopicLimits { keep, keep_bytes: None, cap_bytes: Some(7) };
        let shown = serde_json::to_string(&limits).expect("JSON");
        assert_eq!(shown, r#"{"keep_ms":3000,"keep_bytes":null,"cap_bytes":7}"#);
    }
}
