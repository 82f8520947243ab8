//! The bytes of an envelope: a `MessagePack` array, headed by a format version and closed by a
//! checksum. `docs/wire.md` is the specification; this file is its one reader and writer.

use std::ops::Range;

use bytes::{Buf, Bytes};
use bytestring::ByteString;
use rmp::{Marker, decode, encode};
use xxhash_rust::xxh3::xxh3_64;

use super::{Envelope, Fields, HEADERS_MAX, Rare, Said};
use crate::codec::ContentType;
use crate::event_id::EventId;
use crate::event_type::EventType;
use crate::time::Timestamp;

/// The format version that this code writes and reads.
const FORMAT: u64 = 1;
/// Elements of the array.
const ELEMENTS: u32 = 15;
/// The short forms of the two content types that nearly every event has.
const MESSAGE_PACK: u64 = 1;
const JSON: u64 = 2;

impl Envelope {
    /// Appends the bytes to `out`. Envelopes written one after another are a batch.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.reserve(self.encoded_guess());
        // A `Vec` takes every byte: the results are `Ok` by the type of its error.
        let infallible = self.fields().encode_fields(out);
        debug_assert!(infallible.is_ok());
        let checksum = xxh3_64(&out[start..]);
        out.push(Marker::U64.to_u8());
        out.extend_from_slice(&checksum.to_be_bytes());
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
                Ok(fields) if batch.is_empty() => {
                    // Events of a batch are mostly of one size.
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
        let mut reader = Reader { all: bytes, at: 0, before };
        let fields = reader.fields()?;
        let taken = reader.at;
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

    fn rest(&self, out: &mut Vec<u8>) -> Result<(), encode::ValueWriteError> {
        encode::write_bin(out, &self.payload)?;
        write_text(out, self.key.as_ref())?;
        encode::write_str(out, &self.source)?;
        match self.expires {
            Some(expires) => encode::write_uint(out, expires.as_millis()).map(drop)?,
            None => out.push(Marker::Null.to_u8()),
        }
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

/// A cursor over shared bytes. Lengths are checked against what is there before anything is
/// taken, so a lying length costs nothing.
struct Reader<'a> {
    all: &'a Bytes,
    at: usize,
    before: Option<&'a Fields>,
}

impl Reader<'_> {
    fn fields(&mut self) -> Result<Fields, String> {
        let elements = self.read(|rest| decode::read_array_len(rest), "array")?;
        let format: u64 = self.uint("format version")?;
        if format != FORMAT {
            return Err(format!(
                "envelope has format version {format}, this reader knows {FORMAT}"
            ));
        }
        if elements != ELEMENTS {
            return Err(format!("envelope has {elements} elements, {ELEMENTS} are due"));
        }
        let fields = Fields {
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
        };
        let checksum = xxh3_64(&self.all[..self.at]);
        if self.uint("checksum")? != checksum && !planted!(ChecksumIgnored) {
            return Err(format!("checksum of {} {} does not fit", fields.event_type, fields.id));
        }
        Ok(fields)
    }

    fn rare(&mut self) -> Result<Rare, String> {
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
        let length = self.read(|rest| decode::read_bin_len(rest), "id")? as usize;
        let id = self.range(length, "id")?;
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

    fn peek(&self) -> Result<Marker, String> {
        let byte = self.all.get(self.at).ok_or("envelope is cut short")?;
        Ok(Marker::from_u8(*byte))
    }

    fn uint(&mut self, what: &str) -> Result<u64, String> {
        self.read(|rest| decode::read_int(rest), what)
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
        let length = self.read(|rest| decode::read_str_len(rest), what)?;
        self.range(length as usize, what)
    }

    fn bin(&mut self, what: &str) -> Result<Bytes, String> {
        let length = self.read(|rest| decode::read_bin_len(rest), what)?;
        self.range(length as usize, what).map(|range| self.all.slice(range))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_envelope() -> impl Strategy<Value = Envelope> {
        let text = || proptest::option::of("[ -~ä]{0,20}");
        let payload = proptest::collection::vec(any::<u8>(), 0..300);
        let headers = proptest::collection::btree_map("[a-z]{1,8}", ".{0,20}", 0..5);
        let numbers = (any::<u32>(), 0..10_000_000_000_000_u64);
        let kinds = prop_oneof![Just("application/json"), Just("text/plain; a=b")];
        ((payload, headers, numbers, kinds), (text(), text(), text(), text())).prop_map(
            |((payload, headers, (version, time), kind), (key, trace, correlation, causation))| {
                let event_type = EventType::from_static("a.b.c");
                let content_type = ContentType::new(kind).expect("valid");
                let now = Timestamp::from_millis(time);
                let mut builder = Envelope::builder(event_type, content_type, payload, now)
                    .version(version)
                    .key(key)
                    .traceparent(trace)
                    .correlation_id(correlation)
                    .causation_id(causation)
                    .source("tests");
                for (name, value) in headers {
                    builder = builder.header(name, value);
                }
                builder.build().expect("within limits")
            },
        )
    }

    fn encoded(envelope: &Envelope) -> Bytes {
        let mut out = Vec::new();
        envelope.encode(&mut out);
        out.into()
    }

    proptest! {
        #[test]
        fn a_batch_is_a_concatenation(
            envelopes in proptest::collection::vec(any_envelope(), 0..5),
        ) {
            let mut out = Vec::new();
            for envelope in &envelopes {
                envelope.encode(&mut out);
            }
            let mut bytes = Bytes::from(out);
            for envelope in &envelopes {
                prop_assert_eq!(&Envelope::decode(&mut bytes).expect("decodes"), envelope);
            }
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn a_flipped_byte_is_noticed(
            envelope in any_envelope(),
            at: prop::sample::Index,
            bit in 0..8_u8,
        ) {
            let mut bytes = encoded(&envelope).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let decoded = Envelope::decode(&mut Bytes::from(bytes));
            prop_assert!(decoded.is_err(), "byte {at} bit {bit}: {decoded:?}");
        }

        #[test]
        fn any_bytes_are_survivable(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = Bytes::from(bytes);
            let before = bytes.clone();
            prop_assert!(Envelope::decode(&mut bytes).is_err());
            prop_assert_eq!(bytes, before);
        }
    }

    #[test]
    fn every_cut_is_an_error() {
        let now = Timestamp::from_millis(1);
        let event_type = EventType::from_static("a.b");
        let envelope = Envelope::builder(event_type, ContentType::JSON, "null", now)
            .build()
            .expect("within limits");
        let bytes = encoded(&envelope);
        for end in 0..bytes.len() {
            assert!(Envelope::decode(&mut bytes.slice(..end)).is_err(), "cut at {end}");
        }
    }

    fn of(content_type: ContentType) -> Envelope {
        let now = Timestamp::from_millis(1);
        let event_type = EventType::from_static("a.b");
        Envelope::builder(event_type, content_type, "null", now).build().expect("within limits")
    }

    #[test]
    fn the_usual_content_types_take_a_byte() {
        let text = ContentType::new("application/jsonx").expect("valid");
        let [packed, json, other] = [ContentType::MESSAGE_PACK, ContentType::JSON, text]
            .map(|content_type| encoded(&of(content_type)).len());
        assert_eq!((packed, json), (other - 17, other - 17));
    }

    #[test]
    fn as_many_headers_are_read_as_there_may_be() {
        let header = |number: usize| (ByteString::from(number.to_string()), ByteString::new());
        let with = |count: usize| {
            let mut fields = of(ContentType::JSON).fields().clone();
            fields.rare.set().headers = (0..count).map(header).collect();
            Envelope::alone(fields)
        };
        let envelope = with(HEADERS_MAX);
        assert_eq!(Envelope::decode(&mut encoded(&envelope)).as_ref(), Ok(&envelope));
        let error = Envelope::decode(&mut encoded(&with(HEADERS_MAX + 1))).expect_err("too many");
        assert!(error.contains("65 headers"), "{error}");
    }

    #[test]
    fn a_batch_is_read_up_to_its_limit_or_its_flaw() {
        let (one, other) = (of(ContentType::JSON), of(ContentType::MESSAGE_PACK));
        let mut out = Vec::new();
        [&one, &other, &one].into_iter().for_each(|envelope| envelope.encode(&mut out));
        let mut bytes = Bytes::from(out);
        let decode = |bytes: &mut Bytes, most| {
            let (read, flaw) = Envelope::decode_batch(bytes, most);
            (read.collect::<Vec<_>>(), flaw)
        };
        let (read, flaw) = decode(&mut bytes.clone(), 3);
        assert_eq!((read, flaw), (vec![one.clone(), other.clone(), one.clone()], None));
        let (read, flaw) = decode(&mut bytes.clone(), 2);
        assert_eq!(read, [one.clone(), other.clone()]);
        assert!(flaw.is_some_and(|flaw| flaw.contains("more than 2")));
        bytes.truncate(bytes.len() - 1);
        let (read, flaw) = decode(&mut bytes, 9);
        assert_eq!(read, [one.clone(), other]);
        assert!(flaw.is_some() && bytes.len() == encoded(&one).len() - 1, "the rest is left");
    }
}
