//! What is written is read, and what is not whole is refused.

use super::*;
use crate::envelope::HEADERS_MAX;
use crate::event_id::EventId;
use crate::event_type::EventType;
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

/// A batch, and where each of its envelopes ends.
fn written(envelopes: &[Envelope]) -> (Bytes, Vec<usize>) {
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    for (place, envelope) in envelopes.iter().enumerate() {
        match place.checked_sub(1) {
            Some(before) => envelope.encode_after(&envelopes[before], &mut out),
            None => envelope.encode(&mut out),
        }
        ends.push(out.len());
    }
    (out.into(), ends)
}

fn is_delta(batch: &[u8], start: usize) -> bool {
    batch[start..].starts_with(&DELTA_HEAD)
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
    fn a_batch_with_deltas_is_what_was_written(
        envelopes in proptest::collection::vec(any_envelope(), 1..5),
        times in proptest::collection::vec(0..10_000_000_000_000_u64, 1..9),
    ) {
        // Each several times: then they say the same of themselves.
        let like = |envelope: &Envelope, time: u64| {
            let mut fields = envelope.fields().clone();
            fields.id = EventId::derived(&time.to_be_bytes());
            fields.time = Timestamp::from_millis(time);
            Envelope::alone(fields)
        };
        let of = |envelope| times.iter().map(move |time| like(envelope, *time));
        let envelopes: Vec<Envelope> = envelopes.iter().flat_map(of).collect();
        let (mut bytes, ends) = written(&envelopes);
        prop_assert!(ends.windows(2).filter(|pair| is_delta(&bytes, pair[0])).count() > 0
            || times.len() == 1);
        let (read, flaw) = Envelope::decode_batch(&mut bytes, envelopes.len());
        prop_assert_eq!(flaw, None);
        prop_assert!(read.eq(envelopes) && bytes.is_empty());
    }

    #[test]
    fn a_flipped_byte_of_a_delta_is_noticed(
        envelope in any_envelope(),
        at: prop::sample::Index,
        bit in 0..8_u8,
    ) {
        let (bytes, ends) = written(&[envelope.clone(), envelope.clone()]);
        let mut bytes = bytes.to_vec();
        let at = ends[0] + at.index(bytes.len() - ends[0]);
        bytes[at] ^= 1_u8 << bit;
        let (read, flaw) = Envelope::decode_batch(&mut bytes.into(), 2);
        prop_assert!(flaw.is_some() && read.eq([envelope]), "byte {at} bit {bit}");
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
fn a_delta_says_what_differs_and_no_more() {
    let one = of(ContentType::JSON);
    let fields = one.fields();
    let with = |change: fn(&mut Fields)| {
        let mut fields = fields.clone();
        change(&mut fields);
        let other = Envelope::alone(fields);
        let (mut bytes, ends) = written(&[one.clone(), other.clone()]);
        let is_short = is_delta(&bytes, ends[0]);
        let (read, flaw) = Envelope::decode_batch(&mut bytes, 2);
        assert_eq!(flaw, None);
        assert!(read.eq([one.clone(), other]));
        is_short
    };
    assert!(with(|_| {}));
    assert!(with(|fields| fields.id = EventId::derived(b"other")));
    assert!(with(|fields| fields.time = Timestamp::from_millis(0)));
    assert!(with(|fields| fields.time = Timestamp::from_millis(1_000_000_000_000)));
    assert!(with(|fields| fields.key = Some("k".into())));
    assert!(with(|fields| fields.expires = Some(Timestamp::from_millis(5))));
    assert!(!with(|fields| fields.event_type = EventType::from_static("a.c")));
    assert!(!with(|fields| fields.version = 2));
    assert!(!with(|fields| fields.content_type = ContentType::MESSAGE_PACK));
    assert!(!with(|fields| fields.source = "other".into()));
    assert!(!with(|fields| fields.rare.set().traceparent = Some("t".into())));
    assert_eq!(DELTA_HEAD[0], 0x90 | u8::try_from(DELTA_ELEMENTS).expect("few"));
    assert_eq!(u64::from(DELTA_HEAD[1]), FORMAT);
}

#[test]
fn a_delta_needs_an_envelope_before_it_and_a_time_there_is() {
    let one = of(ContentType::JSON);
    let (batch, ends) = written(&[one.clone(), one.clone()]);
    let error = Envelope::decode(&mut batch.slice(ends[0]..)).expect_err("alone");
    assert!(error.contains("before it"), "{error}");
    for end in ends[0] + 1..batch.len() {
        let (read, flaw) = Envelope::decode_batch(&mut batch.slice(..end), 9);
        assert!(flaw.is_some() && read.eq([one.clone()]), "cut at {end}");
    }
    // Two milliseconds before the first one of all.
    let mut bytes = batch.to_vec();
    bytes.truncate(ends[0]);
    sealed(&mut bytes, |out| {
        out.extend_from_slice(&DELTA_HEAD);
        out.extend_from_slice(one.id().as_bytes());
        encode::write_sint(out, -2)?;
        out.extend_from_slice(&[0xc4, 0, 0xc0, 0xc0]);
        Ok(())
    });
    let (_, flaw) = Envelope::decode_batch(&mut bytes.into(), 9);
    assert!(flaw.is_some_and(|flaw| flaw.contains("time")));
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
