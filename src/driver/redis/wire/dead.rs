//! Dead letters: the event or the raw fields, and a map that says why.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::retry::{Reader, write_fields};
use super::{BATCH, DEATH, RAW};
use crate::delivery::{Cause, DeadLetter, EntryId, Failure, Malformed, Position, Record, Site};
use crate::driver::redis::reply::Fields;
use crate::envelope::Envelope;
use crate::time::Timestamp;

/// What field `d` holds, as a map with field names, so that more may be added.
#[derive(Serialize, Deserialize)]
struct Death {
    cause: Cause,
    errors: Vec<String>,
    attempts: u32,
    origin: Position,
    consumer: String,
    time_ms: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    handler: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    host: String,
    /// What is wrong with an entry that is no event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The id that the letter had first, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_id: Option<EntryId>,
    /// The payload as it was published, where it was edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original: Option<Bytes>,
}

/// The fields of a dead letter: the name and value of what died, and the value of `d`.
type Letter = (&'static str, Vec<u8>, Vec<u8>);

/// The fields of a new dead letter.
pub(in super::super) fn encode_dead(
    record: &Record,
    failure: &Failure,
    attempts: u32,
    origin: Position,
    consumer: &str,
    now: Timestamp,
) -> Letter {
    let death = describe(record, failure, attempts, origin, consumer, now);
    encode(record, &death)
}

/// The fields of a letter that was one before.
pub(in super::super) fn encode_letter(letter: &DeadLetter) -> Letter {
    let DeadLetter { id: _, first_id, origin, record, failure, .. } = letter;
    let DeadLetter { attempts, consumer, given_up, original, .. } = letter;
    let death = describe(record, failure, *attempts, origin.clone(), consumer, *given_up);
    encode(record, &Death { first_id: Some(*first_id), original: original.clone(), ..death })
}

fn describe(
    record: &Record,
    failure: &Failure,
    attempts: u32,
    origin: Position,
    consumer: &str,
    given_up: Timestamp,
) -> Death {
    let Failure { cause, errors, site: Site { handler, version, host } } = failure;
    Death {
        cause: *cause,
        errors: errors.clone(),
        attempts,
        origin,
        consumer: consumer.to_owned(),
        time_ms: given_up.as_millis(),
        handler: handler.clone(),
        version: version.clone(),
        host: host.clone(),
        reason: record.as_ref().err().map(|malformed| malformed.reason.clone()),
        first_id: None,
        original: None,
    }
}

fn encode(record: &Record, death: &Death) -> Letter {
    let death = rmp_serde::to_vec_named(death).expect("plain fields always encode");
    match record {
        Ok(envelope) => (BATCH, super::encode_batch([envelope]), death),
        Err(malformed) => {
            let mut raw = Vec::new();
            let infallible = write_fields(&mut raw, &malformed.fields);
            debug_assert!(infallible.is_ok());
            (RAW, raw, death)
        }
    }
}

/// Reads an entry of a group's dead letters. What cannot be read is shown as it is.
pub(in super::super) fn decode_dead(here: Position, fields: &Fields) -> DeadLetter {
    let field = |name: &str| fields.iter().find(|(own, _)| own == name).map(|(_, value)| value);
    let death = field(DEATH).and_then(|death| rmp_serde::from_slice::<Death>(death).ok());
    let reason = death.as_ref().and_then(|death| death.reason.clone());
    let record = match (field(BATCH), field(RAW)) {
        (Some(batch), _) => decode_one(batch, fields),
        (None, Some(raw)) => Err(Malformed {
            reason: reason.unwrap_or_default(),
            fields: Reader::new(raw).fields().unwrap_or_else(|_| fields.clone()),
        }),
        (None, None) => Err(unreadable(fields)),
    };
    let id = here.entry;
    let Some(death) = death else { return nameless(id, here, record) };
    let Death { cause, errors, handler, version, host, .. } = death;
    DeadLetter {
        id,
        first_id: death.first_id.unwrap_or(id),
        origin: death.origin,
        record,
        failure: Failure { cause, errors, site: Site { handler, version, host } },
        attempts: death.attempts,
        consumer: death.consumer,
        given_up: Timestamp::from_millis(death.time_ms),
        original: death.original,
    }
}

fn decode_one(batch: &Bytes, fields: &Fields) -> Record {
    Envelope::decode(&mut batch.clone())
        .map_err(|reason| Malformed { reason, fields: fields.clone() })
}

fn unreadable(fields: &Fields) -> Malformed {
    let reason = "a dead letter without an event or raw fields".to_owned();
    Malformed { reason, fields: fields.clone() }
}

/// A dead letter whose description is missing or of a later kind.
fn nameless(id: EntryId, origin: Position, record: Record) -> DeadLetter {
    DeadLetter {
        id,
        first_id: id,
        origin,
        record,
        failure: Failure::new(Cause::Malformed, "its description cannot be read"),
        attempts: 0,
        consumer: String::new(),
        given_up: Timestamp::from_millis(id.millis),
        original: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_fields_read_back() {
        let fields: Fields =
            vec![("foo".into(), "bar".into()), ("foo".into(), Bytes::from_static(&[0, 255]))];
        let record = Err(Malformed { reason: "no event".to_owned(), fields });
        let site = Site { handler: "a.>".into(), version: "1".into(), host: "h".into() };
        let errors = vec!["no".into(), "event".into()];
        let failure = Failure { cause: Cause::Malformed, errors, site };
        let origin: Position = "a:0/1-0/0".parse().expect("valid");
        let now = Timestamp::from_millis(3);
        let (name, raw, death) = encode_dead(&record, &failure, 2, origin.clone(), "c", now);
        let fields = vec![(name.into(), raw.into()), (DEATH.into(), death.into())];
        let here: Position = "a:0/9-0/0".parse().expect("valid");
        let letter = decode_dead(here, &fields);
        assert_eq!((letter.record, letter.failure), (record, failure));
        assert_eq!((letter.origin, letter.attempts, letter.consumer), (origin, 2, "c".to_owned()));
    }

    #[test]
    fn a_letter_of_an_earlier_kind_reads_and_one_written_again_is_itself() {
        let description = serde_json::json!({
            "cause": "rejected", "errors": ["no"], "attempts": 3, "origin": "a:0/1-0/0",
            "consumer": "c", "time_ms": 9, "of_a_later_kind": [1],
        });
        let death = rmp_serde::to_vec_named(&description).expect("encodes");
        let mut raw = Vec::new();
        write_fields(&mut raw, &vec![("x".into(), "y".into())]).expect("a vector takes all");
        let fields = vec![(RAW.into(), raw.into()), (DEATH.into(), Bytes::from(death))];
        let here: Position = "a:0/9-0/0".parse().expect("valid");
        let old = decode_dead(here, &fields);
        assert_eq!((old.failure.site.clone(), old.first_id), (Site::default(), old.id));
        assert_eq!((old.given_up, old.attempts), (Timestamp::from_millis(9), 3));
        let edited = DeadLetter { original: Some(Bytes::from_static(b"\x80")), ..old.clone() };
        let (name, raw, death) = encode_letter(&edited);
        let fields = vec![(name.into(), raw.into()), (DEATH.into(), death.into())];
        let there: Position = "a:0/12-0/0".parse().expect("valid");
        let again = decode_dead(there.clone(), &fields);
        assert_eq!(again, DeadLetter { id: there.entry, ..edited });
    }

    #[test]
    fn a_letter_without_a_description_is_still_shown() {
        let here: Position = "a:0/9-0/0".parse().expect("valid");
        let letter = decode_dead(here.clone(), &vec![("x".into(), "y".into())]);
        assert_eq!((letter.id, letter.origin), (here.entry, here));
        assert!(letter.record.is_err());
    }
}
