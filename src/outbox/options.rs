//! The settings of an outbox and of its relay.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;

use super::Most;
use crate::codec::Codec;
use crate::envelope::{PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX};
use crate::error::{Error, ErrorKind};
use crate::publisher::Encoder;
use crate::service::RetryPolicy;
use crate::time::{Clock, SystemClock};

/// The longest name of a table: its index has a longer one, and PostgreSQL cuts at 63.
const TABLE_BYTES_MAX: usize = 48;

/// How events are written into an outbox.
#[derive(Clone)]
pub struct OutboxOptions {
    /// The table. Default `outbox`. A letter or `_`, then letters, digits and `_`, 48 bytes at
    /// most; the relay's lease is in a second one, with `_relay` at the end, and an index has
    /// `_waiting` there, so that a table may end with neither.
    pub table: String,
    /// How payloads are encoded. Default: `MessagePack`, as on a bus; JSON can be read in the
    /// table.
    pub codec: Codec,
    /// Who publishes, as the envelopes say. Default: empty.
    pub source: ByteString,
    /// Most bytes of a payload. Default 1 MiB. The relay's bus sets aside what is larger than its
    /// own limit.
    pub payload_bytes_max: usize,
    /// Where the times of events come from.
    pub clock: Arc<dyn Clock>,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            table: "outbox".to_owned(),
            codec: Codec::default(),
            source: ByteString::new(),
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            clock: Arc::new(SystemClock),
        }
    }
}

impl OutboxOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] or [`ErrorKind::TooLarge`], naming the value.
    pub fn check(&self) -> Result<(), Error> {
        let table = &self.table;
        let is_word = |sign: u8| sign.is_ascii_alphanumeric() || sign == b'_';
        let begins = table.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        if !begins || table.len() > TABLE_BYTES_MAX || !table.bytes().all(is_word) {
            let text = format!("outbox table {table:?} is no name for a table");
            return Err(Error::invalid(text).with_help(format!(
                "write a letter or _, then letters, digits and _, {TABLE_BYTES_MAX} bytes at \
                 most; another schema is chosen with the connection's search_path"
            )));
        }
        if let Some(helper) = ["_relay", "_waiting"].iter().find(|end| table.ends_with(**end)) {
            let text = format!("outbox table {table:?} ends with {helper:?}");
            let help = "another outbox would take it for its own: choose another name";
            return Err(Error::invalid(text).with_help(help));
        }
        if self.source.len() > TEXT_BYTES_MAX {
            let text = format!("source has {} bytes, {TEXT_BYTES_MAX} at most", self.source.len());
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        Ok(())
    }

    pub(super) fn encoder(&self) -> Encoder {
        Encoder {
            codec: self.codec,
            source: self.source.clone(),
            payload_bytes_max: self.payload_bytes_max,
            clock: Arc::clone(&self.clock),
        }
    }
}

impl fmt::Debug for OutboxOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxOptions")
            .field("table", &self.table)
            .field("codec", &self.codec)
            .field("source", &self.source)
            .field("payload_bytes_max", &self.payload_bytes_max)
            .finish_non_exhaustive()
    }
}

/// How a [`Relay`](super::Relay) works.
#[derive(Clone, Debug, PartialEq)]
pub struct RelayOptions {
    /// How often the store is asked whether there is something, while there is nothing; a
    /// [`wake`](super::RelayHandle::wake) asks at once. Default 200 ms.
    pub poll: Duration,
    /// How long a relay may work without saying so: when it dies, another one takes over after
    /// that. Also how long one call of the store may take. Default 10 s, at least 1 s.
    pub lease: Duration,
    /// Most rows that are taken at a time. Default 500.
    pub round_events_max: usize,
    /// Most bytes of payloads that are taken at a time. Default 16 MiB.
    pub round_bytes_max: usize,
    /// Most events that are stored as one batch. Default 50.
    pub batch_events_max: usize,
    /// Most bytes of a batch; a larger event goes alone. Default 64 KiB.
    pub batch_bytes_max: usize,
    /// When an event is tried again that fails by itself, and when it is set aside. Default: 16
    /// attempts, from 250 ms, doubled, 1 min at most; at least half of each wait is kept.
    ///
    /// An attempt counts where other events of its partition are stored, and where it is refused
    /// for its own sake: a bus that takes nothing, does not answer, is full or forbids sets nothing
    /// aside.
    pub retry: RetryPolicy,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(200),
            lease: Duration::from_secs(10),
            round_events_max: 500,
            round_bytes_max: 16 << 20,
            batch_events_max: 50,
            batch_bytes_max: 64 << 10,
            retry: RetryPolicy { cap: Duration::from_secs(60), ..RetryPolicy::default() },
        }
    }
}

impl RelayOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming the value.
    pub fn check(&self) -> Result<(), Error> {
        let counts = [
            ("round_events_max", self.round_events_max),
            ("round_bytes_max", self.round_bytes_max),
            ("batch_events_max", self.batch_events_max),
            ("batch_bytes_max", self.batch_bytes_max),
        ];
        // A database counts in signed numbers.
        let most = usize::try_from(i32::MAX).unwrap_or(usize::MAX);
        for (name, value) in counts {
            if value == 0 || value > most {
                return Err(Error::invalid(format!("{name} is {value}, 1 to {most} are possible")));
            }
        }
        let day = Duration::from_secs(24 * 60 * 60);
        if self.lease < Duration::from_secs(1) || self.lease > day {
            let text = format!("lease is {:?}, 1 s to a day are possible", self.lease);
            return Err(Error::invalid(text));
        }
        if self.poll.is_zero() || self.poll > day {
            return Err(Error::invalid(format!("poll is {:?}, a day at most", self.poll))
                .with_help("1 ms at least: a relay without a pause would keep a core busy"));
        }
        self.retry.check()
    }

    pub(super) fn most(&self) -> Most {
        Most { events: self.round_events_max, bytes: self.round_bytes_max }
    }
}
