//! What makes two letters of one cause.

use proptest::prelude::*;

use super::*;
use crate::codec::ContentType;
use crate::delivery::{Cause, Malformed};
use crate::event_type::EventType;

fn normalised(text: &str) -> String {
    let mut out = String::new();
    normalise(text, &mut out);
    out
}

fn letter(event_type: &'static str, cause: Cause, error: &str, handler: &str) -> DeadLetter {
    let time = Timestamp::from_millis(7);
    let event_type = EventType::from_static(event_type);
    let builder = Envelope::builder(event_type, ContentType::JSON, "1", time);
    let id = EntryId { millis: 5, seq: 1 };
    let mut failure = Failure::new(cause, error);
    failure.site.handler = handler.to_owned();
    DeadLetter {
        id,
        first_id: id,
        origin: "a:0/3-0/0".parse().expect("valid"),
        record: Ok(builder.build().expect("within limits")),
        failure,
        attempts: 1,
        consumer: "c".to_owned(),
        given_up: time,
        original: None,
    }
}

#[test]
fn what_differs_from_event_to_event_is_left_out() {
    let cases = [
        ("timeout after 350 ms", "timeout after # ms"),
        ("timeout after 1.5s at 10:20:30.5", "timeout after # at #"),
        ("no user 'bob o''x' here", "no user # here"),
        ("no user \"bob\", say", "no user #, say"),
        ("can't find `a b`", "can't find #"),
        ("it's the user's", "it's the user's"),
        ("order 07070707-0707-0707-0707-070707070707 is gone", "order # is gone"),
        ("hash deadbeef of cafe", "hash # of cafe"),
        ("cust_9x and ORD-17 at 10.0.0.1:6379", "# and # at #"),
        ("mail to bob@example failed", "mail to # failed"),
        ("a  b\n c", "a b c"),
        ("ünïcode ' open", "ünïcode ' open"),
        ("", ""),
    ];
    for (text, expected) in cases {
        assert_eq!(normalised(text), expected, "{text:?}");
    }
}

#[test]
fn letters_of_one_cause_have_one_fingerprint() {
    let one = letter("a.b", Cause::Rejected, "no user 17", "a.b").fingerprint();
    assert_eq!(letter("a.b", Cause::Rejected, "no user 4711", "a.b").fingerprint(), one);
    // Known for ever: a change of it would part the letters of yesterday from those of today.
    assert_eq!(one.to_string(), "de9d81c0e560");
    assert_eq!(one.to_string().parse::<Fingerprint>().expect("reads back"), one);
    let others = [
        letter("a.c", Cause::Rejected, "no user 17", "a.b"),
        letter("a.b", Cause::AttemptsSpent, "no user 17", "a.b"),
        letter("a.b", Cause::Rejected, "no account 17", "a.b"),
        letter("a.b", Cause::Rejected, "no user 17", "a.>"),
    ];
    assert!(others.iter().all(|other| other.fingerprint() != one));
    for bad in ["", "12", "zzzzzzzzzzzz", "+12345678901", "1234567890123"] {
        assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
    }
}

#[test]
fn an_edit_keeps_what_was_published() {
    let first = letter("a.b", Cause::Rejected, "no", "a.b");
    let once = first.clone().edited(Bytes::from_static(b"2")).expect("an event");
    let twice = once.clone().edited(Bytes::from_static(b"3")).expect("an event");
    assert_eq!(twice.original.as_deref(), Some(&b"1"[..]), "not what was edited in between");
    assert_eq!(twice.record.as_ref().expect("an event").payload(), "3");
    assert!(first.is_same(&twice));
    let raw = Malformed { reason: "what".to_owned(), fields: Vec::new() };
    let none = DeadLetter { record: Err(raw), ..first };
    assert!(none.edited(Bytes::new()).is_err());
}

proptest! {
    #[test]
    fn no_text_is_too_odd(text in "[a-z0-9 '\"`#.,:ü@-]{0,40}") {
        let once = normalised(&text);
        prop_assert!(!once.contains(char::is_numeric), "{}", once);
    }
}
