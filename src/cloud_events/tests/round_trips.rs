//! Any envelope and any CloudEvent, there and back.

use proptest::prelude::*;

use super::*;

fn any_envelope() -> impl Strategy<Value = Envelope> {
    let text = || proptest::option::of(prop_oneof!["[ -~\u{e4}]{0,20}", ".{0,10}"]);
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        Just(b"{\"a\": 1.0}".to_vec()),
        Just(b" null".to_vec()),
        "[ -~\u{e4}\n]{0,30}".prop_map(String::into_bytes),
    ];
    let name = prop_oneof!["[a-z]{1,3}", ".{0,6}", Just("id".to_owned()), Just(KEPT.to_owned())];
    let odd = proptest::collection::vec((name, ".{0,20}"), 0..6);
    let headers = prop_oneof![odd, proptest::collection::vec(("[a-z]{1,3}", "[a-z]{0,3}"), 0..4)];
    let kind = prop_oneof![
        Just("application/json"),
        Just("text/plain; a=b"),
        Just("application/msgpack"),
        Just(" x")
    ];
    let source = prop_oneof![Just(String::new()), "[a-z:/ %]{0,9}", Just("rumormill:".into())];
    let numbers = (any::<u32>(), 0..10_000_000_000_000_u64, any::<[u8; 16]>());
    let expires = proptest::option::of(0..10_000_000_000_000_u64);
    let fields = (payload, headers, numbers, kind, source, expires);
    (fields, (text(), text(), text(), text())).prop_map(|(fields, (key, trace, left, right))| {
        let (payload, headers, (version, time, id), kind, source, expires) = fields;
        let content_type = ContentType::new(kind).expect("valid");
        let now = Timestamp::from_millis(time);
        let event_type = EventType::from_static("a.b.c");
        let mut builder = Envelope::builder(event_type, content_type, payload, now)
            .id(id.into())
            .version(version)
            .key(key)
            .traceparent(trace)
            .correlation_id(left)
            .causation_id(right)
            .expires(expires.map(Timestamp::from_millis))
            .source(source);
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        builder.build().expect("within limits")
    })
}

fn any_event() -> impl Strategy<Value = CloudEvent> {
    let text = || "[ -~\u{e4}\u{20ac}]{0,12}";
    let value = prop_oneof![
        text().prop_map(AttributeValue::Text),
        any::<i32>().prop_map(AttributeValue::Integer),
        any::<bool>().prop_map(AttributeValue::Boolean),
    ];
    let named = proptest::sample::select(vec![
        "partitionkey",
        "traceparent",
        "correlationid",
        "subject",
        "dataschema",
        "datacontenttype",
        "rumormillheaders",
        "rumormillfields",
        "rumormillversion",
        "expirytime",
        "time",
    ]);
    let name = prop_oneof![named.prop_map(str::to_owned), "[a-z0-9]{1,5}"];
    let attributes = proptest::collection::vec((name, value), 0..6);
    let moments = prop_oneof![
        Just("2018-04-05T17:31:00Z"),
        Just("2018-04-05T17:31:00.123456+02:00"),
        Just("1969-01-01T00:00:00Z")
    ];
    let id = prop_oneof!["[!-~]{1,9}", any::<u128>().prop_map(|id| uuid(id).to_string())];
    let head = (id, "[a-z:/]{1,9}", "[a-z]{1,3}(\\.[a-z]{1,3}){0,2}");
    let data = proptest::collection::vec(any::<u8>(), 0..20);
    (head, attributes, moments, data).prop_map(|((id, source, name), attributes, time, data)| {
        let mut event = CloudEvent::new(&id, &source, &name).expect("valid");
        event = event.with_attribute("time", time).expect("valid");
        for (name, value) in attributes {
            // What is not allowed is left out.
            event = event.clone().with_attribute(&name, value).unwrap_or(event);
        }
        event.data = data.into();
        event
    })
}

fn uuid(id: u128) -> EventId {
    id.to_be_bytes().into()
}

proptest! {
    #[test]
    fn any_envelope_survives_every_mode(envelope in any_envelope()) {
        let event = CloudEvent::from(&envelope);
        for (name, value) in event.attributes() {
            prop_assert!(check(name, value).is_ok(), "{name} {value:?}");
        }
        let json = CloudEvent::from_json(event.to_json().as_bytes()).expect("its own");
        let binary = CloudEvent::from_binary(event.to_binary_headers(), event.data().clone());
        for back in [event, json, binary.expect("its own")] {
            // The clock of the receiver plays no part.
            let back = back.to_envelope(Timestamp::from_millis(7)).expect("within limits");
            prop_assert_eq!(&back, &envelope);
        }
    }

    #[test]
    fn any_event_survives_an_envelope(event in any_event()) {
        if let Ok(envelope) = event.to_envelope(NOW) {
            prop_assert_eq!(CloudEvent::from(&envelope), event.clone());
        }
        prop_assert_eq!(CloudEvent::from_json(event.to_json().as_bytes()).expect("its own"), event);
    }

    #[test]
    fn nothing_that_is_read_panics(text in ".{0,60}", name in "ce-[a-z]{1,3}", value in ".{0,20}") {
        let _ = CloudEvent::from_json(text.as_bytes());
        let json = format!(r#"{{"specversion":"1.0","id":{value:?},"source":"a","type":"b"}}"#);
        let _ = CloudEvent::from_json(json.as_bytes());
        let _ = CloudEvent::from_binary([(name.as_str(), value.as_str())], text);
    }
}
