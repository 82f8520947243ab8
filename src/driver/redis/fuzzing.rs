//! What must hold for any bytes that a server, another program or a user gives to this driver.

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use super::address::Address;
use super::facts::Facts;
use super::reply::{self, Fields};
use super::resp::Parser;
use super::wire::{self, Again, Content};
use super::{admin, claim, groups, losses, retention, schedule, topics};
use crate::delivery::{Cause, DeadLetter, EntryId, Failure, Partition, Position, Record};
use crate::envelope::Envelope;
use crate::error::ErrorKind;
use crate::event_type::Topic;
use crate::time::Timestamp;

/// Marks what must not be shown.
pub const SECRET: &str = "s3cr3t";

const HERE: EntryId = EntryId { millis: 1_700_000_000_000, seq: 3 };
/// Marks the end of a name and of a value in the bytes that stand for an entry.
const SEPARATOR: u8 = 0xfe;
const CHECKSUM: u8 = 0xfd;
const AS_IT_IS: u8 = 0xff;

fn partition() -> Partition {
    Partition { topic: Topic::new("a").expect("a topic"), index: 0 }
}

/// Fields from bytes: names and values by turns, each up to a byte `0xfe`. In a part, `0xff` takes
/// the byte after it as it is, and `0xfd` stands for the checksum of what is before it.
fn fields(data: &[u8]) -> Fields {
    let (mut parts, mut part) = (Vec::new(), Vec::new());
    let mut bytes = data.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            SEPARATOR => parts.push(Bytes::from(std::mem::take(&mut part))),
            CHECKSUM => {
                let checksum = xxh3_64(&part);
                part.push(0xcf);
                part.extend_from_slice(&checksum.to_be_bytes());
            }
            AS_IT_IS => part.extend(bytes.next()),
            byte => part.push(byte),
        }
    }
    parts.push(part.into());
    let pair = |pair: &[Bytes]| (pair[0].clone(), pair.get(1).cloned().unwrap_or_default());
    parts.chunks(2).map(pair).collect()
}

/// An entry's fields are events or malformed records, which lose nothing, on every way that they
/// may take: log, retry stream, dead letters.
pub(crate) fn entries(data: &[u8]) {
    let fields = fields(data);
    let content = wire::decode_log(&partition(), HERE, fields.clone());
    assert_eq!((content.attempt, content.suspect), (1, false));
    assert!(!content.records.is_empty(), "an entry of nothing");
    let malformed = content.records.iter().filter(|record| record.is_err()).count();
    assert!(malformed <= 1, "one entry, {malformed} malformed records");
    if let [Err(malformed)] = &content.records[..] {
        assert_eq!(malformed.fields, fields, "a field was lost");
    }
    for malformed in content.records.iter().filter_map(|record| record.as_ref().err()) {
        assert!(!malformed.reason.contains('\n'), "{:?}", malformed.reason);
    }
    content.records.iter().for_each(comes_back_later);
    let Content { records, attempt, .. } = wire::decode_retry(fields.clone());
    assert!(records.len() == 1 && attempt >= 1);
    records.iter().for_each(comes_back_later);
    let here = Position { partition: partition(), entry: HERE, index: 0 };
    let letter = wire::decode_dead(here.clone(), &fields);
    assert_eq!(letter.id, HERE);
    is_kept(&here, &letter);
}

/// A record is the same after it was put aside, and after it was given up.
fn comes_back_later(record: &Record) {
    if let Ok(envelope) = record {
        comes_back(envelope);
    }
    let origin = Position { partition: partition(), entry: HERE, index: 7 };
    let failure = Failure::new(Cause::Failed, "no");
    let again = Again { attempt: 2, failure: Some(&failure), suspect: true };
    let bytes = Bytes::from(wire::encode_retry(record, &origin, again));
    let content = wire::decode_retry(vec![(wire::RETRY.into(), bytes)]);
    assert_eq!(&*content.records, std::slice::from_ref(record));
    assert_eq!((content.attempt, content.suspect), (2, true));
    let (name, value, death) =
        wire::encode_dead(record, &failure, 2, origin.clone(), "c", Timestamp::from_millis(9));
    let fields = vec![(name.into(), value.into()), (wire::DEATH.into(), death.into())];
    let letter = wire::decode_dead(origin, &fields);
    assert_eq!(&letter.record, record);
}

fn comes_back(envelope: &Envelope) {
    let bytes = Bytes::from(wire::encode_batch([envelope]));
    assert_eq!(Envelope::decode(&mut bytes.clone()).as_ref(), Ok(envelope));
}

/// A letter that is written again is itself.
fn is_kept(here: &Position, letter: &DeadLetter) {
    let (name, value, death) = wire::encode_letter(letter);
    let fields = vec![(name.into(), value.into()), (wire::DEATH.into(), death.into())];
    let again = wire::decode_dead(here.clone(), &fields);
    assert_eq!(&again, letter);
}

/// Answers are the same however their bytes come, and the first is what the `redis` crate reads.
fn come_in_parts(data: &[u8]) {
    let read = |part: usize| {
        let (mut parser, mut bytes) = (Parser::default(), BytesMut::new());
        let mut values = Vec::new();
        for part in data.chunks(part) {
            bytes.extend_from_slice(part);
            loop {
                match parser.next(&mut bytes) {
                    Ok(Some(value)) => values.push(value),
                    Ok(None) => break,
                    Err(_) => return (values, true),
                }
            }
        }
        (values, false)
    };
    let whole = read(data.len().max(1));
    for part in [1, 3, 64] {
        assert_eq!(read(part), whole, "in parts of {part}");
    }
    if let Some(first) = whole.0.first() {
        assert_eq!(redis::parse_redis_value(data).as_ref(), Ok(first));
    }
}

/// Any answer, in the protocol's own bytes, is read or refused by all who read answers.
pub(crate) fn replies(data: &[u8]) {
    come_in_parts(data);
    let Ok(value) = redis::parse_redis_value(data) else { return };
    let answers = || value.clone();
    drop(reply::entries(answers()));
    drop(reply::streams(answers()));
    drop(reply::time(answers()));
    drop(reply::int(answers()));
    drop(reply::count(answers()));
    drop(reply::maybe_id(answers()));
    drop(reply::pairs(answers()));
    admin::read_any(&value);
    drop(claim::read_claim(answers()));
    drop(claim::rows(answers()));
    drop(groups::read(answers()));
    drop(losses::read(answers()));
    drop(retention::read_step(answers()));
    drop(schedule::read(answers()));
    let parts = || reply::items(answers()).unwrap_or_default();
    drop(Facts::read(parts().into_iter()));
    drop(Facts::read(std::iter::repeat_n(answers(), 16)));
    drop(reply::log_facts(&mut parts().into_iter()));
    if let Ok(text) = reply::text(answers()) {
        drop(topics::read(&partition().topic, &text));
        drop(topics::limits(&partition().topic, &text));
    }
}

/// An address is read or refused, and in neither case its secret is shown.
pub(crate) fn urls(data: &[u8]) {
    let url = String::from_utf8_lossy(data);
    let in_scheme = url.split(':').next().unwrap_or_default().contains(SECRET);
    match Address::parse(&url) {
        Ok(address) => {
            let shown = address.shown();
            // Of a path, a part may be written in numbers.
            let in_place = place(&url).contains(SECRET) || place(&url).contains('%');
            assert!(in_place || !shown.contains(SECRET), "{shown}");
            assert!(!shown.contains(char::is_control), "{shown:?}");
        }
        Err(error) => {
            let kinds = [ErrorKind::Invalid, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            assert!(error.help().is_some(), "{error:?}");
            assert!(in_scheme || !format!("{error:?}").contains(SECRET), "{error:?}");
        }
    }
}

/// What of a url may be shown: the part after the login and before the parameters.
fn place(url: &str) -> &str {
    let rest = url.split_once(':').map_or("", |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    if url.starts_with("unix:") || url.starts_with("redis+unix:") {
        return rest;
    }
    rest.rsplit_once('@').map_or(rest, |(_, place)| place)
}
