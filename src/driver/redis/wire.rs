//! Fields of stream entries, and what they hold: this file and those below it are the only ones
//! that know them. `docs/wire.md` is the specification.

mod dead;
mod foreign;
mod retry;

use std::sync::Arc;

use bytes::Bytes;

pub(super) use self::dead::{decode_dead, encode_dead, encode_letter};
pub(super) use self::retry::{Again, encode_retry};
use super::reply::Fields;
use crate::delivery::{EntryId, Malformed, Partition, Position, Record};
use crate::envelope::Envelope;

/// The envelopes, one after another.
pub(super) const BATCH: &str = "b";
/// Of the rest of a batch that makes no sense, the last good envelope before it: what comes behind
/// may say only how it differs.
const BEFORE: &str = "before";
/// Who appended the entry, and which of its appends it was.
pub(super) const PUBLISHER: &str = "p";
/// A retry record.
pub(super) const RETRY: &str = "r";
/// A dead letter's description.
pub(super) const DEATH: &str = "d";
/// What a dead letter parks: the hash of its key, and its origin.
pub(super) const PARKED: &str = "k";
/// The raw fields of a dead letter that is no event.
pub(super) const RAW: &str = "raw";
/// The field of the routes that counts their changes; no pattern, since `~` is in none.
pub(super) const EPOCH: &str = "~epoch";

/// What an entry's fields hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) records: Arc<[Record]>,
    pub(super) attempt: u32,
    pub(super) origin: Option<Position>,
    pub(super) suspect: bool,
}

impl Content {
    fn first(records: impl Into<Arc<[Record]>>) -> Self {
        Self { records: records.into(), attempt: 1, origin: None, suspect: false }
    }
}

/// The bytes of a batch.
pub(super) fn encode_batch<'a>(
    envelopes: impl IntoIterator<Item = &'a Envelope, IntoIter: Clone>,
) -> Vec<u8> {
    let envelopes = envelopes.into_iter();
    let length = envelopes.clone().map(Envelope::encoded_guess).sum();
    let mut bytes = Vec::with_capacity(length);
    let mut before: Option<&Envelope> = None;
    for envelope in envelopes {
        match before.replace(envelope) {
            Some(before) => envelope.encode_after(before, &mut bytes),
            None => envelope.encode(&mut bytes),
        }
    }
    bytes
}

/// Reads an entry of a log: a native one, or one that any Redis client may write.
pub(super) fn decode_log(partition: &Partition, id: EntryId, fields: Fields) -> Content {
    let batches = fields.iter().filter(|(name, _)| name == BATCH).count();
    if batches == 1 {
        return Content::first(decode_native(fields));
    }
    let record = if batches > 1 {
        Err(Malformed { reason: format!("field {BATCH:?} is there {batches} times"), fields })
    } else {
        foreign::decode(partition, id, fields)
    };
    Content::first(vec![record])
}

/// Reads an entry of a group's retry stream.
pub(super) fn decode_retry(fields: Fields) -> Content {
    match &fields[..] {
        [(name, record)] if name == RETRY => match retry::decode(record) {
            Ok(content) => content,
            Err(reason) => Content::first(vec![Err(Malformed { reason, fields })]),
        },
        _ => {
            let reason = format!("a retry entry has one field {RETRY:?}, this one has others");
            Content::first(vec![Err(Malformed { reason, fields })])
        }
    }
}

/// Most events of an entry; a batch has a few dozen. The rest of a larger one is malformed.
const EVENTS_MAX: usize = 50_000;

/// The good envelopes, then what is left as one malformed record.
fn decode_native(fields: Fields) -> Arc<[Record]> {
    let batch = fields.iter().find(|(name, _)| name == BATCH).map(|(_, value)| value.clone());
    let mut rest = batch.unwrap_or_default();
    let (batch, flaw) = Envelope::decode_batch(&mut rest, EVENTS_MAX);
    if rest.is_empty() && batch.len() > 0 {
        return batch.map(Ok).collect();
    }
    let reason = flaw.unwrap_or_else(|| "the batch is empty".to_owned());
    let mut records: Vec<Record> = batch.map(Ok).collect();
    let fields = match records.last() {
        Some(Ok(last)) => [(BATCH, rest), (BEFORE, encode_batch([last]).into())]
            .map(|(name, value)| (Bytes::from_static(name.as_bytes()), value))
            .into(),
        _ => fields,
    };
    records.push(Err(Malformed { reason, fields }));
    records.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ContentType;
    use crate::event_type::EventType;
    use crate::time::Timestamp;

    fn envelope(payload: &'static str) -> Envelope {
        let event_type = EventType::from_static("a.b");
        Envelope::builder(event_type, ContentType::JSON, payload, Timestamp::from_millis(1))
            .build()
            .expect("within limits")
    }

    fn decode(fields: &[(&'static str, Bytes)]) -> Arc<[Record]> {
        let partition = "a:0".parse().expect("valid");
        let fields =
            fields.iter().map(|(name, value)| (Bytes::from(*name), value.clone())).collect();
        decode_log(&partition, EntryId { millis: 5, seq: 0 }, fields).records
    }

    #[test]
    fn a_broken_tail_keeps_the_good_head() {
        let (first, second) = (envelope("1"), envelope("2"));
        let mut bytes = encode_batch([&first, &second]);
        let cut = bytes.len() - 3;
        bytes.truncate(cut);
        let records = decode(&[("b", bytes.into()), ("p", "x-1".into())]);
        assert_eq!(records.len(), 2);
        assert_eq!(records[0], Ok(first));
        let malformed = records[1].as_ref().expect_err("cut");
        let [(_, rest), (name, before)] = &malformed.fields[..] else { panic!("{malformed:?}") };
        // The rest is a delta; with what was before it, it can be mended.
        assert_eq!((rest[0], &name[..]), (0x97, &b"before"[..]));
        let before = Envelope::decode(&mut before.clone());
        assert_eq!(before.as_ref(), records[0].as_ref().map_err(|_| unreachable!()));
    }

    #[test]
    fn a_batch_without_an_envelope_keeps_all_fields() {
        for batch in ["", "no envelope"] {
            let records = decode(&[("b", batch.into()), ("p", "x-1".into())]);
            assert_eq!(records.len(), 1);
            let malformed = records[0].as_ref().expect_err("no envelope");
            assert_eq!(malformed.fields.len(), 2);
        }
    }

    #[test]
    fn a_doubled_batch_is_malformed_in_its_order() {
        let records = decode(&[("b", "1".into()), ("x", "2".into()), ("b", "3".into())]);
        let malformed = records[0].as_ref().expect_err("doubled");
        let values: Vec<&[u8]> = malformed.fields.iter().map(|(_, value)| &**value).collect();
        assert_eq!(values, [b"1", b"2", b"3"]);
    }
}
