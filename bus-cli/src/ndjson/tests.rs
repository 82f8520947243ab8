use std::time::Duration;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_767_323_045_006);

fn envelope(content_type: &str, payload: impl Into<Vec<u8>>) -> Envelope {
    let content_type = ContentType::new(content_type.to_owned()).expect("valid");
    let event_type = EventType::from_static("user_service.user.created");
    Envelope::builder(event_type, content_type, payload.into(), NOW).build().expect("valid")
}

fn full() -> Envelope {
    let event_type = EventType::from_static("user_service.user.created");
    Envelope::builder(event_type, ContentType::JSON, "{ \"a\": 18446744073709551616 }", NOW)
        .version(7)
        .key(Some("user_alice"))
        .source("shop \"one\"")
        .expires_after(Duration::from_secs(60))
        .traceparent(Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
        .correlation_id(Some("c"))
        .causation_id(Some(""))
        .header("z", "1")
        .header("a", "\u{1b}\n\u{202e}")
        .build()
        .expect("valid")
}

fn position() -> Position {
    "user_service:3/1700000000000-1/2".parse().expect("valid")
}

fn written(envelope: &Envelope) -> String {
    write(&position(), envelope)
}

fn read_back(envelope: &Envelope) -> Envelope {
    let line = written(envelope);
    read(&line, Timestamp::from_millis(9)).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn every_field_is_written_in_its_place() {
    let envelope = full();
    let id = envelope.id();
    let expected = format!(
        "{{\"id\":\"{id}\",\"type\":\"user_service.user.created\",\"version\":7,\
         \"source\":\"shop \\\"one\\\"\",\"time\":\"2026-01-02T03:04:05.006Z\",\
         \"expires\":\"2026-01-02T03:05:05.006Z\",\"key\":\"user_alice\",\
         \"headers\":{{\"z\":\"1\",\"a\":\"\\u001b\\n\u{202e}\"}},\
         \"content_type\":\"application/json\",\
         \"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\",\
         \"correlation_id\":\"c\",\"causation_id\":\"\",\"topic\":\"user_service\",\
         \"partition\":3,\"position\":\"user_service:3/1700000000000-1/2\",\
         \"data\":{{ \"a\": 18446744073709551616 }}}}"
    );
    assert_eq!(written(&envelope), expected);
    assert_eq!(read_back(&envelope), envelope);
}

#[test]
fn every_payload_reads_back_equal() {
    let packed = rmp_serde::to_vec_named(&("text", u64::MAX, -1, None::<u8>)).expect("encodes");
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("application/json", b"null".to_vec(), true),
        ("application/json; charset=utf-8", b"[1,  2]".to_vec(), true),
        ("application/vnd.api+json", b"\"\\ud800\"".to_vec(), true),
        ("application/json", b"{\n\"a\":1}".to_vec(), false),
        ("application/json", b" 1".to_vec(), false),
        ("application/json", b"{".to_vec(), false),
        ("application/json", b"\xff".to_vec(), false),
        ("application/json", Vec::new(), false),
        ("application/msgpack", packed, true),
        ("application/msgpack", vec![0xc4, 1, 0], false),
        ("text/plain", b"null".to_vec(), false),
        ("application/octet-stream", (0..=255).collect(), false),
    ];
    for (content_type, payload, as_json) in cases {
        let envelope = envelope(content_type, payload);
        assert_eq!(written(&envelope).contains("\"data\":"), as_json, "{envelope:?}");
        assert_eq!(written(&envelope).contains("\"data_base64\":"), !as_json, "{envelope:?}");
        assert_eq!(read_back(&envelope), envelope);
        assert_eq!(written(&envelope).lines().count(), 1);
    }
}

#[test]
fn a_short_line_gets_the_defaults() {
    let envelope = read("{\"type\":\"a.b\",\"data\":{\"n\":1e2}}", NOW).expect("valid");
    assert_eq!(&envelope.payload()[..], b"{\"n\":1e2}");
    assert_eq!((envelope.version(), envelope.time(), envelope.source()), (1, NOW, "bus-cli"));
    assert_eq!(envelope.content_type(), &ContentType::JSON);
    assert_eq!(envelope.id().as_uuid().get_version_num(), 7);
    let bare = read("{\"type\":\"a.b\"}", NOW).expect("valid");
    assert_eq!(&bare.payload()[..], b"null");
    let null = read("{\"type\":\"a.b\",\"data\":null,\"topic\":1,\"position\":[]}", NOW);
    assert_eq!(&null.expect("valid").payload()[..], b"null");
}

#[test]
fn what_would_be_lost_is_refused() {
    let cases = [
        ("{\"type\":\"a.b\",\"dta\":1}", "unknown field `dta`"),
        ("{\"data\":1}", "missing field `type`"),
        ("{\"type\":\"a b\"}", "a segment may hold only"),
        ("{\"type\":\"a.b\",\"version\":0}", "version is 0"),
        ("{\"type\":\"a.b\",\"data\":1,\"data_base64\":\"AA==\"}", "both `data`"),
        ("{\"type\":\"a.b\",\"data_base64\":\"A\"}", "data_base64 is not valid"),
        ("{\"type\":\"a.b\",\"data\":1,\"data\":2}", "duplicate field `data`"),
        ("{\"type\":\"a.b\",\"headers\":{\"k\":\"1\",\"k\":\"2\"}}", "header \"k\" is given twice"),
        ("{\"type\":\"a.b\",\"content_type\":\"text/plain\",\"data\":1}", "use `data_base64`"),
        ("{\"type\":\"a.b\",\"id\":\"7\"}", "(column 22)"),
        ("{\"type\":\"a.b\"} {}", "trailing characters (column 16)"),
        ("[1]", "(column"),
    ];
    for (line, expected) in cases {
        let error = read(line, NOW).expect_err(line);
        assert!(error.contains(expected), "{line}: {error}");
        assert!(!error.contains(" at line "), "{error}");
    }
    let large = format!("{{\"type\":\"a.b\",\"data\":\"{}\"}}", "x".repeat(1 << 20));
    assert!(read(&large, NOW).expect_err("too large").contains("1048576 at most"));
}
