//! Retry records: an event on its way to its next attempt, or to another consumer, with all it
//! needs to be known again when the log no longer has it.

use bytes::Bytes;
use rmp::{decode, encode};

use super::Content;
use crate::delivery::{Cause, Failure, Malformed, Position, Record};
use crate::driver::redis::reply::Fields;
use crate::envelope::Envelope;

/// The format version that this code writes and reads.
const FORMAT: u32 = 1;
/// Elements of the array; a suspect has one more. Readers skip what follows those they know.
const ELEMENTS: u32 = 6;

type Written = Result<(), encode::ValueWriteError>;

/// How an event comes back.
#[derive(Clone, Copy)]
pub(in super::super) struct Again<'a> {
    /// What the next delivery is.
    pub(in super::super) attempt: u32,
    /// Why it comes back, where it failed.
    pub(in super::super) failure: Option<&'a Failure>,
    /// It may be what kills its process.
    pub(in super::super) suspect: bool,
}

/// The bytes of a retry record.
pub(in super::super) fn encode_retry(
    record: &Record,
    origin: &Position,
    again: Again<'_>,
) -> Vec<u8> {
    let mut out = Vec::new();
    // A `Vec` takes every byte: the result is `Ok` by the type of its error.
    let infallible = write(&mut out, record, origin, again);
    debug_assert!(infallible.is_ok());
    out
}

fn write(out: &mut Vec<u8>, record: &Record, origin: &Position, again: Again<'_>) -> Written {
    let Again { attempt, failure, suspect } = again;
    encode::write_array_len(out, ELEMENTS + u32::from(suspect))?;
    encode::write_uint(out, u64::from(FORMAT))?;
    encode::write_uint(out, u64::from(attempt))?;
    encode::write_str(out, &origin.to_string())?;
    write_text(out, failure.map(|failure| class(failure.cause)))?;
    write_text(out, failure.map(|failure| failure.errors.join(": ")).as_deref())?;
    match record {
        Ok(envelope) => encode::write_bin(out, &super::encode_batch([envelope]))?,
        Err(malformed) => {
            encode::write_array_len(out, 2)?;
            encode::write_str(out, &malformed.reason)?;
            write_fields(out, &malformed.fields)?;
        }
    }
    if suspect {
        encode::write_bool(out, true).map_err(encode::ValueWriteError::InvalidMarkerWrite)?;
    }
    Ok(())
}

fn class(cause: Cause) -> String {
    cause.to_string()
}

fn write_text(out: &mut Vec<u8>, text: Option<impl AsRef<str>>) -> Written {
    match text {
        Some(text) => encode::write_str(out, text.as_ref()),
        None => encode::write_nil(out).map_err(encode::ValueWriteError::InvalidMarkerWrite),
    }
}

/// Raw fields: an array of pairs of byte strings.
pub(super) fn write_fields(out: &mut Vec<u8>, fields: &Fields) -> Written {
    encode::write_array_len(out, u32::try_from(fields.len()).unwrap_or(u32::MAX))?;
    for (name, value) in fields {
        encode::write_array_len(out, 2)?;
        encode::write_bin(out, name)?;
        encode::write_bin(out, value)?;
    }
    Ok(())
}

/// Reads a retry record, sharing its bytes.
pub(super) fn decode(bytes: &Bytes) -> Result<Content, String> {
    let mut reader = Reader::new(bytes);
    let elements = reader.array()?;
    let format = reader.uint("format version")?;
    if elements < ELEMENTS || format != FORMAT {
        let due = format!("{ELEMENTS} or more of version {FORMAT} are due");
        return Err(format!("retry record has {elements} elements of version {format}, {due}"));
    }
    let attempt = reader.uint("attempt")?;
    let origin = reader.text()?.ok_or("retry record has no origin")?;
    let origin = origin.parse().map_err(|error: crate::Error| error.to_string())?;
    let (_class, _error) = (reader.text()?, reader.text()?);
    let records = [reader.record()?].into();
    let suspect = elements > ELEMENTS && reader.flag()?;
    Ok(Content { records, attempt: attempt.max(1), origin: Some(origin), suspect })
}

/// A cursor over shared bytes.
pub(super) struct Reader {
    all: Bytes,
    at: usize,
}

impl Reader {
    pub(super) fn new(bytes: &Bytes) -> Self {
        Self { all: bytes.clone(), at: 0 }
    }

    fn read<T, E>(&mut self, read: impl FnOnce(&mut &[u8]) -> Result<T, E>) -> Option<T> {
        let mut rest = &self.all[self.at..];
        let value = read(&mut rest).ok()?;
        self.at = self.all.len() - rest.len();
        Some(value)
    }

    fn array(&mut self) -> Result<u32, String> {
        self.read(|rest| decode::read_array_len(rest)).ok_or_else(|| "no array".to_owned())
    }

    fn uint(&mut self, what: &str) -> Result<u32, String> {
        self.read(|rest| decode::read_int(rest)).ok_or_else(|| format!("no valid {what}"))
    }

    fn flag(&mut self) -> Result<bool, String> {
        self.read(|rest| decode::read_bool(rest)).ok_or_else(|| "no valid flag".to_owned())
    }

    fn take(&mut self, length: u32) -> Result<Bytes, String> {
        let end = self.at.checked_add(length as usize).filter(|end| *end <= self.all.len());
        let end = end.ok_or("record is cut short")?;
        let taken = self.all.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }

    fn text(&mut self) -> Result<Option<String>, String> {
        if self.read(|rest| decode::read_nil(rest)).is_some() {
            return Ok(None);
        }
        let length = self.read(|rest| decode::read_str_len(rest)).ok_or("no text")?;
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map(Some).map_err(|_| "text is not UTF-8".to_owned())
    }

    fn bin(&mut self) -> Result<Bytes, String> {
        let length = self.read(|rest| decode::read_bin_len(rest)).ok_or("no bytes")?;
        self.take(length)
    }

    pub(super) fn fields(&mut self) -> Result<Fields, String> {
        let count = self.array()?;
        let mut fields = Vec::new();
        for _ in 0..count {
            if self.array()? != 2 {
                return Err("a field is a pair".to_owned());
            }
            fields.push((self.bin()?, self.bin()?));
        }
        Ok(fields)
    }

    /// An envelope's bytes, or why there is none and the raw fields. Where those bytes were
    /// spoiled, the rest of the record still says which event it was.
    fn record(&mut self) -> Result<Record, String> {
        if let Ok(bytes) = self.bin() {
            let mut rest = bytes.clone();
            let reason = match Envelope::decode(&mut rest) {
                Ok(envelope) if rest.is_empty() => return Ok(Ok(envelope)),
                Ok(_) => "retry record holds more than one envelope".to_owned(),
                Err(flaw) => flaw,
            };
            let fields = vec![(Bytes::from_static(super::BATCH.as_bytes()), bytes)];
            return Ok(Err(Malformed { reason, fields }));
        }
        if self.array()? != 2 {
            return Err("retry record holds neither an event nor raw fields".to_owned());
        }
        let reason = self.text()?.unwrap_or_default();
        Ok(Err(Malformed { reason, fields: self.fields()? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ContentType;
    use crate::event_type::EventType;
    use crate::time::Timestamp;

    #[test]
    fn records_read_back() {
        let now = Timestamp::from_millis(1);
        let envelope =
            Envelope::builder(EventType::from_static("a.b"), ContentType::JSON, "1", now)
                .key(Some("k"))
                .build()
                .expect("within limits");
        let fields = vec![("foo".into(), "bar".into()), ("foo".into(), Bytes::new())];
        let malformed = Malformed { reason: "no event".to_owned(), fields };
        let origin: Position = "a:3/9-1/4".parse().expect("valid");
        let failure = Failure::new(Cause::Failed, "try later");
        for record in [Ok(envelope), Err(malformed)] {
            for (failure, suspect) in [(None, false), (Some(&failure), false), (None, true)] {
                let again = Again { attempt: 7, failure, suspect };
                let bytes = Bytes::from(encode_retry(&record, &origin, again));
                let content = decode(&bytes).expect("decodes");
                assert_eq!(&*content.records, std::slice::from_ref(&record));
                assert_eq!(content.suspect, suspect);
                assert_eq!((content.attempt, content.origin.as_ref()), (7, Some(&origin)));
                for end in 0..bytes.len() {
                    assert!(decode(&bytes.slice(..end)).is_err(), "cut at {end}");
                }
            }
        }
    }

    #[test]
    fn a_spoiled_envelope_is_still_known_by_its_record() {
        let now = Timestamp::from_millis(1);
        let envelope =
            Envelope::builder(EventType::from_static("a.b"), ContentType::JSON, "12345", now)
                .build()
                .expect("within limits");
        let origin: Position = "a:3/9-1/4".parse().expect("valid");
        let again = Again { attempt: 7, failure: None, suspect: false };
        let mut bytes = encode_retry(&Ok(envelope), &origin, again);
        let at = bytes.windows(5).position(|part| part == b"12345").expect("the payload");
        bytes[at] ^= 1;
        let content = decode(&Bytes::from(bytes)).expect("decodes");
        let malformed = content.records[0].as_ref().expect_err("spoiled");
        assert!(malformed.reason.contains("checksum"), "{}", malformed.reason);
        assert_eq!(malformed.fields[0].0, "b");
        assert_eq!((content.attempt, content.origin), (7, Some(origin)));
    }
}
