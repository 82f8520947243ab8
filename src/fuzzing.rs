//! What must hold for any bytes, as plain functions of bytes: for property tests and for fuzzers.
//!
//! Each panics where something does not hold. Hidden, behind the feature `fuzzing`, and no part
//! of the interface.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{Codec, ContentType};
use crate::delivery::{EntryId, Partition, Position};
#[cfg(feature = "redis")]
use crate::driver::redis::fuzzing as store;
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind};
use crate::event_id::EventId;
use crate::event_type::{EventType, Topic};
use crate::pattern::{Matcher, Pattern};
use crate::time::Timestamp;

/// Takes any bytes, and panics where something does not hold.
pub type Target = fn(&[u8]);

/// All targets of the library by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("deltas", deltas),
    ("envelope", envelope),
    ("names", names),
    ("patterns", patterns),
    ("payload", payload),
    ("positions", positions),
    #[cfg(feature = "redis")]
    ("entries", store::entries),
    #[cfg(feature = "redis")]
    ("replies", store::replies),
    #[cfg(feature = "redis")]
    ("urls", store::urls),
];

#[cfg(feature = "redis")]
pub use crate::driver::redis::fuzzing::SECRET;

/// Most patterns that one input compares.
const PATTERNS_MAX: usize = 64;

/// An envelope, as it is and with a checksum that fits: what was read is written and read again
/// as the same, and what is refused takes nothing.
pub fn envelope(data: &[u8]) {
    let mut sealed = data.to_vec();
    sealed.push(0xcf);
    sealed.extend_from_slice(&xxh3_64(data).to_be_bytes());
    for bytes in [Bytes::copy_from_slice(data), sealed.into()] {
        let mut rest = bytes.clone();
        match Envelope::decode(&mut rest) {
            Ok(envelope) => {
                assert!(rest.len() < bytes.len(), "an envelope of nothing");
                comes_back(&envelope);
            }
            Err(reason) => {
                assert_eq!(rest, bytes, "a refused envelope was taken");
                is_a_line(&reason);
            }
        }
    }
}

/// What comes behind an envelope in a batch, as it is and with a checksum that fits: what was read
/// is written and read again as the same.
pub fn deltas(data: &[u8]) {
    let event_type = EventType::from_static("a.b");
    let first = Envelope::builder(event_type, ContentType::JSON, "1", Timestamp::from_millis(9));
    let mut head = Vec::new();
    first.build().expect("within limits").encode(&mut head);
    for is_sealed in [false, true] {
        let mut bytes = head.clone();
        bytes.extend_from_slice(data);
        if is_sealed {
            bytes.push(0xcf);
            bytes.extend_from_slice(&xxh3_64(data).to_be_bytes());
        }
        let (read, flaw) = Envelope::decode_batch(&mut bytes.into(), 100);
        flaw.as_deref().into_iter().for_each(is_a_line);
        let read: Vec<Envelope> = read.collect();
        read.iter().for_each(comes_back);
        let mut again = Vec::new();
        for (place, envelope) in read.iter().enumerate() {
            match place.checked_sub(1) {
                Some(before) => envelope.encode_after(&read[before], &mut again),
                None => envelope.encode(&mut again),
            }
        }
        let (same, flaw) = Envelope::decode_batch(&mut again.into(), 100);
        assert!(flaw.is_none() && same.eq(read));
    }
}

/// An envelope is the same after it was written and read.
fn comes_back(envelope: &Envelope) {
    let mut out = Vec::new();
    envelope.encode(&mut out);
    let mut rest = Bytes::from(out);
    assert_eq!(Envelope::decode(&mut rest).as_ref(), Ok(envelope));
    assert!(rest.is_empty() && envelope.weight() >= envelope.payload().len());
    for (name, value) in envelope.headers() {
        assert_eq!(envelope.header(name), Some(value), "a header is there twice");
    }
}

/// Text of an error: one line, not empty.
fn is_a_line(text: &str) {
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
    assert!(text.len() < 2000, "an error of {} bytes", text.len());
}

/// A payload of either codec is a value or an error, however deep and whatever length it claims.
pub fn payload(data: &[u8]) {
    for codec in [Codec::MessagePack, Codec::Json] {
        match codec.decode::<serde_json::Value>(data) {
            Ok(value) => {
                let encoded = codec.encode(&value).expect("what was read can be written");
                drop(codec.decode::<serde_json::Value>(&encoded).expect("and read again"));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Codec),
        }
    }
    drop(Codec::MessagePack.decode::<Vec<Option<(u64, String)>>>(data));
}

/// Names of things: what is taken is shown as it was written, what is not is named.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    reads_back::<EventType>(&text);
    reads_back::<Pattern>(&text);
    reads_back::<Topic>(&text);
    let _id = parse::<EventId>(&text);
    if let Ok(kind) = ContentType::new(text.as_ref()) {
        assert_eq!(kind.as_str(), text);
        let _codec = kind.codec();
    }
}

/// Places and times: what is taken is shown in its one form, which reads back as the same.
pub fn positions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let stable = |shown: &str| assert!(shown.len() <= text.len() + "-0/0".len(), "{shown}");
    parse::<Partition>(&text).inspect(|own| stable(&own.to_string()));
    parse::<Position>(&text).inspect(|own| stable(&own.to_string()));
    let _time = parse::<Timestamp>(&text);
    if let Some(id) = parse::<EntryId>(&text) {
        stable(&id.to_string());
        let previous = id.previous();
        assert!(previous < id || id == EntryId::ZERO);
        assert!(text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'), "{text}");
    }
}

/// Reads a text; what is read is shown in a form that reads back.
fn parse<T: FromStr<Err = Error> + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    match text.parse::<T>() {
        Ok(value) => {
            assert_eq!(value.to_string().parse::<T>().expect("its own form"), value);
            Some(value)
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            None
        }
    }
}

fn reads_back<T: FromStr<Err = Error> + Display + PartialEq + Debug>(text: &str) {
    if let Some(value) = parse::<T>(text) {
        assert_eq!(value.to_string(), text);
    }
}

/// The last line is an event type, those before it are patterns: the matcher finds what a plain
/// comparison finds, the most specific first.
pub fn patterns(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines().rev();
    let Some(Ok(event_type)) = lines.next().map(EventType::from_str) else { return };
    let patterns = lines.take(PATTERNS_MAX).filter_map(|line| Pattern::new(line).ok());
    let patterns: std::collections::BTreeSet<Pattern> = patterns.collect();
    let mut matcher = Matcher::new();
    for pattern in &patterns {
        let naive = is_match(pattern.as_str(), event_type.as_str());
        assert_eq!(pattern.matches(&event_type), naive, "{pattern} {event_type}");
        assert!(!naive || pattern.covers_topic(&event_type.topic()), "{pattern} {event_type}");
        assert!(matcher.insert(pattern, pattern.clone()).is_none());
    }
    let mut expected: Vec<&Pattern> =
        patterns.iter().filter(|own| is_match(own.as_str(), event_type.as_str())).collect();
    expected.sort_by_key(|pattern| pattern.segments().map(vagueness).collect::<Vec<_>>());
    assert_eq!(matcher.all(&event_type), expected, "{event_type}");
    assert_eq!(matcher.first(&event_type), expected.first().copied(), "{event_type}");
}

/// The definition of a match, as plainly as it can be said.
fn is_match(pattern: &str, name: &str) -> bool {
    let (head, rest) = pattern.split_once('.').unwrap_or((pattern, ""));
    let (segment, tail) = name.split_once('.').unwrap_or((name, ""));
    match (head, name) {
        ("", "") => true,
        ("", _) | (_, "") => false,
        (">", _) => true,
        _ => (head == "*" || head == segment) && is_match(rest, tail),
    }
}

fn vagueness(segment: &str) -> u8 {
    match segment {
        ">" => 2,
        "*" => 1,
        _ => 0,
    }
}
