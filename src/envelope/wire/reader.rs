//! From the bytes to an envelope.
//!
//! What nearly every envelope has where nearly every envelope has it, a short string or a small
//! number, is read by a look at its first byte; `rmp` reads what is left.

use std::ops::Range;

use bytes::Bytes;
use bytestring::ByteString;
use rmp::{Marker, decode};
use xxhash_rust::xxh3::xxh3_64;

use super::{DELTA_ELEMENTS, ELEMENTS, FORMAT, JSON, MESSAGE_PACK};
use crate::codec::ContentType;
use crate::envelope::{Fields, HEADERS_MAX, Rare, Said};
use crate::event_id::EventId;
use crate::event_type::EventType;
use crate::time::Timestamp;

/// First bytes of `MessagePack` values.
const POSITIVE_MAX: u8 = 0x7f;
const UINT_64: u8 = 0xcf;
const BIN_8: u8 = 0xc4;
const STR_MIN: u8 = 0xa0;
const STR_MAX: u8 = 0xbf;
const NULL: u8 = 0xc0;
const NO_HEADERS: u8 = 0x80;
/// An envelope that says nothing rare.
const NOTHING_RARE: [u8; 4] = [NULL, NULL, NULL, NO_HEADERS];

/// A cursor over shared bytes. Lengths are checked against what is there before anything is
/// taken, so a lying length costs nothing.
pub(super) struct Reader<'a> {
    all: &'a Bytes,
    at: usize,
    before: Option<&'a Fields>,
}

impl<'a> Reader<'a> {
    /// Reads from the head of `all`, behind the envelope `before`.
    pub(super) fn new(all: &'a Bytes, before: Option<&'a Fields>) -> Self {
        Self { all, at: 0, before }
    }

    /// The envelope, and how many bytes it has.
    pub(super) fn fields(mut self) -> Result<(Fields, usize), String> {
        let elements = self.read(|rest| decode::read_array_len(rest), "array")?;
        let format: u64 = self.uint("format version")?;
        if format != FORMAT {
            return Err(format!(
                "envelope has format version {format}, this reader knows {FORMAT}"
            ));
        }
        let fields = match (elements, self.before) {
            (ELEMENTS, _) => self.whole()?,
            (DELTA_ELEMENTS, Some(before)) => self.delta(before)?,
            (DELTA_ELEMENTS, None) => return Err("a delta has no envelope before it".to_owned()),
            _ => return Err(format!("envelope has {elements} elements, {ELEMENTS} are due")),
        };
        let checksum = xxh3_64(&self.all[..self.at]);
        if self.uint("checksum")? != checksum && !planted!(ChecksumIgnored) {
            return Err(format!("checksum of {} {} does not fit", fields.event_type, fields.id));
        }
        Ok((fields, self.at))
    }

    fn delta(&mut self, before: &Fields) -> Result<Fields, String> {
        Ok(Fields {
            id: self.id()?,
            time: self.time_after(before.time)?,
            payload: self.bin("payload")?,
            key: self.text("key")?,
            expires: self.optional_uint("expires")?.map(Timestamp::from_millis),
            event_type: before.event_type.clone(),
            version: before.version,
            content_type: before.content_type.clone(),
            source: before.source.clone(),
            rare: before.rare.clone(),
        })
    }

    fn whole(&mut self) -> Result<Fields, String> {
        Ok(Fields {
            id: self.id()?,
            event_type: self.event_type()?,
            version: u32::try_from(self.uint("version")?).map_err(|error| error.to_string())?,
            time: Timestamp::from_millis(self.uint("time")?),
            content_type: self.content_type()?,
            payload: self.bin("payload")?,
            key: self.text("key")?,
            source: self.source()?,
            expires: self.optional_uint("expires")?.map(Timestamp::from_millis),
            rare: self.rare()?,
        })
    }

    fn time_after(&mut self, before: Timestamp) -> Result<Timestamp, String> {
        let later: i64 = match self.first() {
            Some(small) if small <= POSITIVE_MAX => {
                self.at += 1;
                small.into()
            }
            _ => self.read(|rest| decode::read_int(rest), "time")?,
        };
        let millis = before.as_millis().checked_add_signed(later);
        Ok(Timestamp::from_millis(millis.ok_or("envelope has no valid time")?))
    }

    fn rare(&mut self) -> Result<Rare, String> {
        if self.all[self.at..].starts_with(&NOTHING_RARE) {
            self.at += NOTHING_RARE.len();
            return Ok(Rare::default());
        }
        let traceparent = self.text("traceparent")?;
        let correlation_id = self.text("correlation id")?;
        let causation_id = self.text("causation id")?;
        Ok(Said { traceparent, correlation_id, causation_id, headers: self.headers()? }.into())
    }

    fn event_type(&mut self) -> Result<EventType, String> {
        let name = self.str_range("type")?;
        match self.before {
            Some(before) if self.all[name.clone()] == *before.event_type.as_str().as_bytes() => {
                Ok(before.event_type.clone())
            }
            _ => EventType::from_bytes(self.all.slice(name)).map_err(|error| error.to_string()),
        }
    }

    fn source(&mut self) -> Result<ByteString, String> {
        if self.peek()? == Marker::Null {
            self.at += 1;
            return Ok(ByteString::new());
        }
        let source = self.str_range("source")?;
        match self.before {
            Some(before) if self.all[source.clone()] == *before.source.as_bytes() => {
                Ok(before.source.clone())
            }
            _ => ByteString::try_from(self.all.slice(source))
                .map_err(|_| "source is not UTF-8".to_owned()),
        }
    }

    fn id(&mut self) -> Result<EventId, String> {
        let id = self.bin_range("id")?;
        let id: [u8; 16] = self.all[id].try_into().map_err(|_| "id is not 16 bytes long")?;
        Ok(EventId::from(id))
    }

    fn content_type(&mut self) -> Result<ContentType, String> {
        match self.peek()? {
            Marker::FixPos(_) => match self.uint("content type")? {
                MESSAGE_PACK => Ok(ContentType::MESSAGE_PACK),
                JSON => Ok(ContentType::JSON),
                other => Err(format!("content type {other} is not known")),
            },
            _ => {
                let text = self.text("content type")?.unwrap_or_default();
                ContentType::new(text).map_err(|error| error.to_string())
            }
        }
    }

    fn headers(&mut self) -> Result<Vec<(ByteString, ByteString)>, String> {
        let count = self.read(|rest| decode::read_map_len(rest), "headers")? as usize;
        if count > HEADERS_MAX {
            return Err(format!("envelope has {count} headers, {HEADERS_MAX} at most"));
        }
        let mut headers: Vec<(ByteString, ByteString)> = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.text("header name")?.unwrap_or_default();
            if headers.iter().any(|(own, _)| *own == name) {
                let shown: String = name.chars().take(80).collect();
                return Err(format!("header {shown:?} is doubled"));
            }
            headers.push((name, self.text("header value")?.unwrap_or_default()));
        }
        Ok(headers)
    }

    fn first(&self) -> Option<u8> {
        self.all.get(self.at).copied()
    }

    fn peek(&self) -> Result<Marker, String> {
        let byte = self.first().ok_or("envelope is cut short")?;
        Ok(Marker::from_u8(byte))
    }

    fn uint(&mut self, what: &str) -> Result<u64, String> {
        let (first, rest) = self.all[self.at..].split_first().unwrap_or((&NULL, &[]));
        match (*first, rest.first_chunk()) {
            (small @ ..=POSITIVE_MAX, _) => {
                self.at += 1;
                Ok(small.into())
            }
            (UINT_64, Some(number)) => {
                self.at += 1 + number.len();
                Ok(u64::from_be_bytes(*number))
            }
            _ => self.read(|rest| decode::read_int(rest), what),
        }
    }

    fn optional_uint(&mut self, what: &str) -> Result<Option<u64>, String> {
        if self.peek()? == Marker::Null {
            self.at += 1;
            return Ok(None);
        }
        self.uint(what).map(Some)
    }

    fn text(&mut self, what: &str) -> Result<Option<ByteString>, String> {
        if self.peek()? == Marker::Null {
            self.at += 1;
            return Ok(None);
        }
        let text = ByteString::try_from(self.str(what)?);
        text.map(Some).map_err(|_| format!("{what} is not UTF-8"))
    }

    fn str(&mut self, what: &str) -> Result<Bytes, String> {
        self.str_range(what).map(|range| self.all.slice(range))
    }

    fn str_range(&mut self, what: &str) -> Result<Range<usize>, String> {
        if let Some(first @ STR_MIN..=STR_MAX) = self.first() {
            self.at += 1;
            return self.range(usize::from(first - STR_MIN), what);
        }
        let length = self.read(|rest| decode::read_str_len(rest), what)?;
        self.range(length as usize, what)
    }

    fn bin(&mut self, what: &str) -> Result<Bytes, String> {
        self.bin_range(what).map(|range| self.all.slice(range))
    }

    fn bin_range(&mut self, what: &str) -> Result<Range<usize>, String> {
        if let [BIN_8, length, ..] = self.all[self.at..] {
            self.at += 2;
            return self.range(length.into(), what);
        }
        let length = self.read(|rest| decode::read_bin_len(rest), what)?;
        self.range(length as usize, what)
    }

    fn range(&mut self, length: usize, what: &str) -> Result<Range<usize>, String> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.all.len());
        let end = end.ok_or_else(|| format!("{what} is cut short"))?;
        Ok(std::mem::replace(&mut self.at, end)..end)
    }

    fn read<T, E>(
        &mut self,
        read: impl FnOnce(&mut &[u8]) -> Result<T, E>,
        what: &str,
    ) -> Result<T, String> {
        let mut rest = &self.all[self.at..];
        let value = read(&mut rest).map_err(|_| format!("envelope has no valid {what}"))?;
        self.at = self.all.len() - rest.len();
        Ok(value)
    }
}
