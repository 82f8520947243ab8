//! Dead letters: the event or the raw fields, and a map that says why.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::retry::{Reader, write_fields};
use super::{BATCH, DEATH, RAW};
use crate::delivery::{Cause, DeadLetter, EntryId, Failure, Malformed, Position, Record};
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
    /// What is wrong with an entry that is no event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The fields of a dead letter: the name and value of what died, and the value of `d`.
pub(in super::super) fn encode_dead(
    record: &Record,
    failure: &Failure,
    attempts: u32,
    origin: Position,
    consumer: &str,
    now: Timestamp,
) -> (&'static str, Vec<u8>, Vec<u8>) {
    let death = Death {
        cause: failure.cause,
        errors: failure.errors.clone(),
        attempts,
        origin,
        consumer: consumer.to_owned(),
        time_ms: now.as_millis(),
        reason: record.as_ref().err().map(|malformed| malformed.reason.clone()),
    };
    let death = rmp_serde::to_vec_named(&death).expect("plain fields always encode");
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
    match death {
        Some(death) => DeadLetter {
            id,
            origin: death.origin,
            record,
            failure: Failure { cause: death.cause, errors: death.errors },
            attempts: death.attempts,
            consumer: death.consumer,
        },
        None => nameless(id, here, record),
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
    let failure = Failure::new(Cause::Malformed, "its description cannot be read");
    DeadLetter { id, origin, record, failure, attempts: 0, consumer: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_fields_read_back() {
        let fields: Fields =
            vec![("foo".into(), "bar".into()), ("foo".into(), Bytes::from_static(&[0, 255]))];
        let record = Err(Malformed { reason: "no event".to_owned(), fields });
        let failure =
            Failure { cause: Cause::Malformed, errors: vec!["no".into(), "event".into()] };
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
    fn a_letter_without_a_description_is_still_shown() {
        let here: Position = "a:0/9-0/0".parse().expect("valid");
        let letter = decode_dead(here.clone(), &vec![("x".into(), "y".into())]);
        assert_eq!((letter.id, letter.origin), (here.entry, here));
        assert!(letter.record.is_err());
    }
}
