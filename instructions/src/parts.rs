//! Parts of that way, each alone.

use std::hint::black_box;

use bytes::Bytes;
use rumormill::pattern::Matcher;
use rumormill::{Codec, Envelope, EventId, EventType, Pattern, Timestamp};

use crate::flow::Placed;

/// As a large bus has them.
const PATTERNS: u64 = 1_000;

const NOW: Timestamp = Timestamp::from_millis(1_767_323_045_006);

/// An event type that was not asked for before, among many patterns.
pub(crate) fn route(times: u64) {
    let mut routes = Matcher::new();
    for number in 0..PATTERNS {
        let kind = if number % 2 == 0 { "*" } else { "placed" };
        let pattern = Pattern::new(format!("shop{}.order{number}.{kind}", number % 10));
        routes.insert(&pattern.expect("valid"), number);
    }
    for number in 0..times {
        let number = number % PATTERNS;
        let event_type = EventType::new(format!("shop{}.order{number}.placed", number % 10));
        let found = routes.first(black_box(&event_type.expect("valid"))).copied();
        assert_eq!(found, Some(number), "each type has one route");
    }
}

pub(crate) fn payload_encode(times: u64) {
    let event = Placed::new(7);
    for _ in 0..times {
        black_box(Codec::default().encode(black_box(&event)).expect("it can be encoded"));
    }
}

pub(crate) fn payload_decode(times: u64) {
    let bytes = Codec::default().encode(&Placed::new(7)).expect("it can be encoded");
    for _ in 0..times {
        let event = Codec::default().decode::<Placed>(black_box(&bytes));
        black_box(event.expect("it can be decoded"));
    }
}

fn envelope() -> Envelope {
    let payload = Codec::default().encode(&Placed::new(7)).expect("it can be encoded");
    let content_type = Codec::default().content_type();
    Envelope::builder(EventType::from_static("shop.order.placed"), content_type, payload, NOW)
        .id(EventId::from([7; 16]))
        .key(Some("7"))
        .source("shop")
        .build()
        .expect("within limits")
}

pub(crate) fn envelope_encode(times: u64) {
    let envelope = envelope();
    let mut out = Vec::new();
    for _ in 0..times {
        out.clear();
        black_box(&envelope).encode(&mut out);
        black_box(&out);
    }
}

pub(crate) fn envelope_decode(times: u64) {
    let mut out = Vec::new();
    envelope().encode(&mut out);
    let bytes = Bytes::from(out);
    for _ in 0..times {
        black_box(Envelope::decode(black_box(&mut bytes.clone())).expect("it can be decoded"));
    }
}
