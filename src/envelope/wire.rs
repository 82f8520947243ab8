//! The bytes of an envelope: a `MessagePack` array, headed by a format version and closed by a
//! checksum. `docs/wire.md` is the specification; this file and `reader` are its one writer and
//! its one reader.
//!
//! Events of a batch mostly say the same of themselves. One that differs from the one before it in
//! id, time, payload, key and expiry alone is written as a *delta*, which has nothing else: an
//! event of a hundred bytes takes a quarter less to carry, to store and to decode.

mod reader;

use bytes::{Buf, Bytes};
use bytestring::ByteString;
use rmp::{Marker, encode};
use xxhash_rust::xxh3::xxh3_64;

use self::reader::Reader;
use super::{Envelope, Fields};
use crate::codec::ContentType;
use crate::time::Timestamp;

/// The format version that this code writes and reads.
const FORMAT: u64 = 1;
/// Elements of the array.
const ELEMENTS: u32 = 15;
/// Elements of a delta.
const DELTA_ELEMENTS: u32 = 7;
/// A delta's first bytes: an array of so many elements, the format version, a bin of 16.
const DELTA_HEAD: [u8; 4] = [0x97, 1, 0xc4, 16];
/// The short forms of the two content types that nearly every event has.
const MESSAGE_PACK: u64 = 1;
const JSON: u64 = 2;

impl Envelope {
    /// Appends the bytes to `out`. Envelopes written one after another are a batch.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_guess());
        sealed(out, |out| self.fields().encode_fields(out));
    }

    /// Appends the bytes to `out`, where the last ones there are those of `before`.
    pub(crate) fn encode_after(&self, before: &Self, out: &mut Vec<u8>) {
        match self.fields().delta(before.fields()) {
            Some(later) => sealed(out, |out| self.fields().encode_delta(later, out)),
            None => self.encode(out),
        }
    }

    /// About how many bytes it takes: no fewer, where it says nothing rare.
    pub(crate) fn encoded_guess(&self) -> usize {
        /// Numbers, lengths, id and checksum.
        const FIXED: usize = 80;
        let Fields { event_type, payload, key, source, .. } = self.fields();
        let key = key.as_ref().map_or(0, |key| key.len());
        FIXED + event_type.as_str().len() + payload.len() + key + source.len()
    }

    /// Takes one envelope off the front of `bytes`, sharing them.
    ///
    /// A delta (`docs/wire.md`) is none that stands alone.
    ///
    /// # Errors
    /// A line that says what is wrong; `bytes` is then as it was.
    pub fn decode(bytes: &mut Bytes) -> Result<Self, String> {
        Fields::decode(bytes, None).map(Self::alone)
    }

    /// Takes the envelopes of a batch off the front of `bytes`, `most` at most. What both say, an
    /// envelope and the one before it, their type above all, is checked once.
    ///
    /// Stops where `bytes` end, or with a line that says what is wrong there.
    pub(crate) fn decode_batch(
        bytes: &mut Bytes,
        most: usize,
    ) -> (impl ExactSizeIterator<Item = Self> + use<>, Option<String>) {
        let (mut batch, mut flaw) = (Vec::new(), None);
        while !bytes.is_empty() && flaw.is_none() {
            if batch.len() >= most {
                flaw = Some(format!("more than {most} events in an entry"));
                break;
            }
            let length = bytes.len();
            match Fields::decode(bytes, batch.last()) {
                Ok(fields) if batch.len() == 1 => {
                    // Those behind the first are mostly of one size.
                    let taken = length - bytes.len();
                    batch.reserve_exact((bytes.len() / taken + 1).min(most).min(GUESS_MAX));
                    batch.push(fields);
                }
                Ok(fields) => batch.push(fields),
                Err(wrong) => flaw = Some(wrong),
            }
        }
        (Self::together(batch), flaw)
    }
}

/// Most events that there is room for before they were seen.
const GUESS_MAX: usize = 256;

impl Fields {
    fn decode(bytes: &mut Bytes, before: Option<&Self>) -> Result<Self, String> {
        let (fields, taken) = Reader::new(bytes, before).fields()?;
        bytes.advance(taken);
        Ok(fields)
    }

    fn encode_fields(&self, out: &mut Vec<u8>) -> Result<(), encode::ValueWriteError> {
        encode::write_array_len(out, ELEMENTS)?;
        encode::write_uint(out, FORMAT)?;
        encode::write_bin(out, self.id.as_bytes())?;
        encode::write_str(out, self.event_type.as_str())?;
        encode::write_uint(out, u64::from(self.version))?;
        encode::write_uint(out, self.time.as_millis())?;
        match &self.content_type {
            own if *own == ContentType::MESSAGE_PACK => encode::write_uint(out, MESSAGE_PACK)?,
            own if *own == ContentType::JSON => encode::write_uint(out, JSON)?,
            other => return encode::write_str(out, other.as_str()).and_then(|()| self.rest(out)),
        };
        self.rest(out)
    }

    /// How many milliseconds later it is, where a delta says all that differs.
    fn delta(&self, before: &Self) -> Option<i64> {
        let is_same = is_same(self.event_type.as_str(), before.event_type.as_str())
            && self.version == before.version
            && is_same(self.content_type.as_str(), before.content_type.as_str())
            && is_same(&self.source, &before.source)
            && self.rare == before.rare;
        let later = i128::from(self.time.as_millis()) - i128::from(before.time.as_millis());
        i64::try_from(later).ok().filter(|_| is_same)
    }

    fn encode_delta(&self, later: i64, out: &mut Vec<u8>) -> Result<(), encode::ValueWriteError> {
        out.extend_from_slice(&DELTA_HEAD);
        out.extend_from_slice(self.id.as_bytes());
        encode::write_sint(out, later)?;
        encode::write_bin(out, &self.payload)?;
        write_text(out, self.key.as_ref())?;
        write_time(out, self.expires)
    }

    fn rest(&self, out: &mut Vec<u8>) -> Result<(), encode::ValueWriteError> {
        encode::write_bin(out, &self.payload)?;
        write_text(out, self.key.as_ref())?;
        encode::write_str(out, &self.source)?;
        write_time(out, self.expires)?;
        let said = self.rare.get();
        write_text(out, said.traceparent.as_ref())?;
        write_text(out, said.correlation_id.as_ref())?;
        write_text(out, said.causation_id.as_ref())?;
        encode::write_map_len(out, u32::try_from(said.headers.len()).unwrap_or(u32::MAX))?;
        for (name, value) in &said.headers {
            encode::write_str(out, name)?;
            encode::write_str(out, value)?;
        }
        Ok(())
    }
}

fn write_text(out: &mut Vec<u8>, text: Option<&ByteString>) -> Result<(), encode::ValueWriteError> {
    match text {
        Some(text) => encode::write_str(out, text),
        None => {
            out.push(Marker::Null.to_u8());
            Ok(())
        }
    }
}

fn write_time(out: &mut Vec<u8>, time: Option<Timestamp>) -> Result<(), encode::ValueWriteError> {
    match time {
        Some(time) => encode::write_uint(out, time.as_millis()).map(drop),
        None => {
            out.push(Marker::Null.to_u8());
            Ok(())
        }
    }
}

/// What both say is mostly in one place: then its bytes need no look.
fn is_same(own: &str, before: &str) -> bool {
    std::ptr::eq(own, before) || own == before
}

/// Appends what `write` writes, and the checksum of it.
fn sealed(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), encode::ValueWriteError>,
) {
    let start = out.len();
    // A `Vec` takes every byte: the results are `Ok` by the type of its error.
    let infallible = write(out);
    debug_assert!(infallible.is_ok());
    let checksum = xxh3_64(&out[start..]);
    let mut seal = [Marker::U64.to_u8(); 9];
    seal[1..].copy_from_slice(&checksum.to_be_bytes());
    out.extend_from_slice(&seal);
}

#[cfg(test)]
mod tests;
