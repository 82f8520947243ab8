//! Ids and lines of dead letters.

use rumormill::{ContentType, Envelope, EventType};

use super::*;
use crate::failure::Exit;

fn partition() -> Partition {
    "orders:0".parse().expect("valid")
}

/// A letter with everything in it.
fn full(content_type: ContentType, payload: &[u8], original: &'static [u8]) -> DeadLetter {
    let time = Timestamp::from_millis(1_767_323_045_006);
    let event_type = EventType::from_static("orders.order.placed");
    let builder = Envelope::builder(event_type, content_type, payload.to_vec(), time);
    let envelope = builder.key(Some("k")).header("z", "1").header("a", "\u{1b}").build();
    let site = Site { handler: "orders.>".into(), version: "1.2".into(), host: "h".into() };
    DeadLetter {
        id: EntryId { millis: 1_767_323_045_100, seq: 4 },
        first_id: EntryId { millis: 1_767_323_045_099, seq: 0 },
        origin: "orders:0/1767323045007-0/3".parse().expect("valid"),
        record: Ok(envelope.expect("within limits")),
        failure: Reason { cause: Cause::Rejected, errors: vec!["no".into(), "so".into()], site },
        attempts: 7,
        consumer: "email.h.1.2".to_owned(),
        given_up: Timestamp::from_millis(1_767_323_045_098),
        original: Some(original.into()),
    }
}

#[test]
fn an_id_is_no_position() {
    let id = LetterId::parse("orders:0/170-3").expect("valid");
    assert_eq!(id.to_string(), "orders:0/170-3");
    for bad in ["orders:0/170-3/0", "170-3", "orders/170-3", ""] {
        assert_eq!(LetterId::parse(bad).map_err(|error| error.exit), Err(Exit::Usage), "{bad}");
    }
}

#[test]
fn what_was_written_reads_back_equal() {
    let text = ContentType::new("text/plain").expect("valid");
    let fields = vec![("foo".into(), "bar".into()), (vec![0xff].into(), Vec::new().into())];
    let malformed = Malformed { reason: "no event".to_owned(), fields };
    let json = full(ContentType::JSON, b"{\"price\": 1.10, \"id\":99999999999999999999}", b"[1]");
    let letters = [
        DeadLetter { original: None, first_id: json.id, ..json.clone() },
        DeadLetter { record: Err(malformed), original: None, ..json.clone() },
        json,
        full(ContentType::JSON, b"{\n}", b"{\n}"),
        full(ContentType::MESSAGE_PACK, b"\x81\xa1a\x01", b"\x81\xa1a\xc0"),
        full(ContentType::MESSAGE_PACK, b"\x81\x01\x01", b"\xc4\x01\xff"),
        full(text, b"\xff", b"abc"),
    ];
    for letter in letters {
        let line = line(&partition(), &letter);
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(read(&line), Ok((partition(), letter)), "{line}");
    }
}

#[test]
fn what_is_no_letter_is_refused() {
    let good = line(&partition(), &full(ContentType::JSON, b"1", b"2"));
    let cases = [
        ("{}".to_owned(), "missing field `dead_letter`"),
        (good.replace("\"attempts\"", "\"attempt\""), "unknown field `attempt`"),
        (good.replace("orders:0/1767323045100-4", "x"), "dead_letter \"x\" is no id of one"),
        (good.replace("\"event\":", "\"malformed\":\"no\",\"event\":"), "there is one of `event`"),
        (good.replace("\"rejected\"", "\"whim\""), "unknown variant `whim`"),
        (good.replace("\"original\":2", "\"original_base64\":\"?\""), "original_base64 is not"),
    ];
    for (line, expected) in cases {
        let error = read(&line).expect_err(&line);
        assert!(error.contains(expected), "{line}: {error}");
    }
}
