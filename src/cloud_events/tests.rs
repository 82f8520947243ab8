//! The specification's examples, what is refused, and (below) round trips of anything.

mod round_trips;

use super::*;
use crate::codec::ContentType;
use crate::envelope::Envelope;
use crate::error::ErrorKind;
use crate::event_id::EventId;
use crate::event_type::EventType;
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_millis(1_767_323_045_006);

fn read(json: &str) -> CloudEvent {
    CloudEvent::from_json(json.as_bytes()).expect(json)
}

/// There and back through an envelope and both modes, nothing lost.
fn survives(event: &CloudEvent) -> Envelope {
    let envelope = event.to_envelope(NOW).expect("within limits");
    let mut expected = event.clone();
    if event.attribute("time").is_none() {
        expected = expected.with_attribute("time", NOW.to_string()).expect("a time");
    }
    assert_eq!(CloudEvent::from(&envelope), expected);
    let later = NOW.plus(std::time::Duration::from_secs(1));
    assert_eq!(expected.to_envelope(later).expect("within limits"), envelope);
    assert_eq!(read(&event.to_json()), *event);
    let binary = CloudEvent::from_binary(event.to_binary_headers(), event.data().clone());
    assert_eq!(binary.expect("its own"), in_binary(event));
    envelope
}

/// Binary mode has texts only.
fn in_binary(event: &CloudEvent) -> CloudEvent {
    let text = |(name, value): (&str, &AttributeValue)| match name {
        "rumormillversion" => (name.to_owned(), value.clone()),
        _ => (name.to_owned(), AttributeValue::Text(value.to_string())),
    };
    let mut attributes: BTreeMap<_, _> = event.attributes().map(text).collect();
    if !event.data().is_empty() {
        attributes.entry("datacontenttype".into()).or_insert_with(|| "application/json".into());
    }
    CloudEvent { attributes, data: event.data().clone() }
}

#[test]
fn the_specifications_example_with_xml() {
    let event = read(
        r#"{
            "specversion" : "1.0",
            "type" : "com.github.pull_request.opened",
            "source" : "https://github.com/cloudevents/spec/pull",
            "subject" : "123",
            "id" : "A234-1234-1234",
            "time" : "2018-04-05T17:31:00Z",
            "comexampleextension1" : "value",
            "comexampleothervalue" : 5,
            "datacontenttype" : "text/xml",
            "data" : "<much wow=\"xml\"/>"
        }"#,
    );
    assert_eq!(event.attribute("comexampleothervalue"), Some(&AttributeValue::Integer(5)));
    let envelope = survives(&event);
    assert_eq!(envelope.event_type().as_str(), "com.github.pull_request.opened");
    assert_eq!(envelope.source(), "https://github.com/cloudevents/spec/pull");
    assert_eq!(envelope.time().to_string(), "2018-04-05T17:31:00Z");
    assert_eq!(envelope.payload(), r#"<much wow="xml"/>"#);
    assert_eq!(envelope.content_type().as_str(), "text/xml");
    assert_eq!(envelope.header("subject"), Some("123"));
    assert_eq!(envelope.header("comexampleothervalue"), Some("5"));
    let again = event.to_envelope(NOW).expect("within limits");
    assert_eq!(again.id(), envelope.id(), "an id that is no UUID gives the same one always");
}

/// Section 3.2 of the JSON format: each example and the same in binary mode.
#[test]
fn the_specifications_examples_of_both_modes() {
    let object = r#"{
        "appinfoA" : "abc",
        "appinfoB" : 123,
        "appinfoC" : true
    }"#;
    let thrift = "application/vnd.apache.thrift.binary";
    let bytes = format!(r#""datacontenttype" : "{thrift}", "data_base64" : "AAECgP8=""#);
    let xml = r#""unsetextension": null, "datacontenttype" : "application/xml",
        "data" : "<much wow=\"xml\"/>""#;
    let json =
        format!(r#""subject": null, "datacontenttype" : "application/json", "data" : {object}"#);
    let text = r#""subject": null, "data" : "I'm just a string""#;
    let table: [(&str, &str, &str, &[u8]); 4] = [
        ("A234-1234-1234", &bytes, thrift, &[0, 1, 2, 0x80, 0xff]),
        ("B234-1234-1234", xml, "application/xml", br#"<much wow="xml"/>"#),
        ("C234-1234-1234", &json, "application/json", object.as_bytes()),
        ("D234-1234-1234", text, "application/json", br#""I'm just a string""#),
    ];
    for (id, rest, content_type, body) in table {
        let event = read(&format!(
            r#"{{
                "specversion" : "1.0",
                "type" : "com.example.someevent",
                "source" : "/mycontext",
                "id" : "{id}",
                "time" : "2018-04-05T17:31:00Z",
                "comexampleextension1" : "value",
                "comexampleothervalue" : 5,
                {rest}
            }}"#
        ));
        assert_eq!(survives(&event).payload(), body, "{id}");
        let expected = [
            ("ce-comexampleextension1", "value"),
            ("ce-comexampleothervalue", "5"),
            ("ce-id", id),
            ("ce-source", "/mycontext"),
            ("ce-specversion", "1.0"),
            ("ce-time", "2018-04-05T17:31:00Z"),
            ("ce-type", "com.example.someevent"),
            ("content-type", content_type),
        ];
        let mut headers = event.to_binary_headers();
        headers.sort();
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(headers, expected);
        assert_eq!(event.data(), body);
    }
}

#[test]
fn json_data_may_be_any_value() {
    for data in ["1.50", "\"I'm just a string\"", "null", "[1,{\"a\":2}]", "true", "1e400"] {
        let head = r#"{"specversion":"1.0","type":"a.b","source":"/c","id":"D234-1234-1234""#;
        let event = read(&format!(r#"{head},"data":{data}}}"#));
        let envelope = survives(&event);
        assert_eq!(envelope.payload(), data);
        assert_eq!(*envelope.content_type(), ContentType::JSON, "absent means JSON");
        let named = read(&format!(
            r#"{head},"datacontenttype":"application/vnd.x+json; charset=utf-8","data":{data}}}"#
        ));
        assert_eq!(survives(&named).payload(), data);
    }
}

#[test]
fn the_specifications_example_in_binary_mode() {
    let headers = [
        ("Host", "webhook.example.com"),
        ("ce-specversion", "1.0"),
        ("ce-type", "com.example.someevent"),
        ("CE-Time", "2018-04-05T03:56:24Z"),
        ("ce-id", "1234-1234-1234"),
        ("ce-source", "/mycontext/subcontext"),
        ("Content-Type", "application/json; charset=utf-8"),
        ("Content-Length", "2"),
    ];
    let event = CloudEvent::from_binary(headers, "{}").expect("valid");
    let envelope = survives(&event);
    assert_eq!(envelope.source(), "/mycontext/subcontext");
    assert_eq!(envelope.payload_as::<serde_json::Value>().expect("JSON"), serde_json::json!({}));
    let mut expected: Vec<(String, String)> = headers
        .into_iter()
        .filter(|(name, _)| !matches!(*name, "Host" | "Content-Length"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut written = event.to_binary_headers();
    expected.sort();
    written.sort();
    assert_eq!(written, expected);
}

#[test]
fn the_specifications_example_of_a_header_value() {
    let event = CloudEvent::new("1", "/a", "a.b").and_then(|event| {
        event.with_attribute("subject", "Euro \u{20ac} \u{1f600}")?.with_attribute("q", "\"%\"")
    });
    let headers = event.expect("valid").to_binary_headers();
    let value = |name: &str| headers.iter().find(|(own, _)| own == name).map(|(_, v)| v.as_str());
    assert_eq!(value("ce-subject"), Some("Euro%20%E2%82%AC%20%F0%9F%98%80"));
    assert_eq!(value("ce-q"), Some("%22%25%22"));
}

#[test]
fn header_values_of_others_are_read_leniently() {
    let read = |subject: &str| {
        let head =
            [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/"), ("ce-type", "a")];
        let event = CloudEvent::from_binary(head.into_iter().chain([("ce-subject", subject)]), "")?;
        Ok::<_, Error>(event.attribute("subject").map(ToString::to_string).unwrap_or_default())
    };
    assert_eq!(read("\"a \\\"b\\\" %C3%A4\"").expect("quoted"), "a \"b\" \u{e4}");
    assert_eq!(read("100% of %2x").expect("no encoding"), "100% of %2x");
    assert_eq!(read("  a b\t").expect("blanks around"), "a b");
    assert!(read("%ff").expect_err("no UTF-8").to_string().contains("ce-subject"));
    assert!(read("%00").expect_err("a control character").to_string().contains("control"));
}

#[test]
fn the_specifications_sources_are_sources() {
    for source in [
        "https://github.com/cloudevents",
        "mailto:cncf-wg-serverless@lists.cncf.io",
        "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
        "cloudevents/spec/pull/123",
        "/cloudevents/spec/pull/123",
        "/sensors/tn-1234567/alerts",
        "1-555-123-4567",
        "rumormill:",
        "rumormill:a%20b",
        "rumormill:not%zzours",
    ] {
        survives(&CloudEvent::new("1", source, "a.b").expect(source));
    }
}

#[test]
fn an_envelope_speaks_through_the_documented_extensions() {
    let id = EventId::new(NOW);
    let envelope = Envelope::builder(EventType::from_static("a.b"), ContentType::JSON, "{}", NOW)
        .id(id)
        .version(3)
        .key(Some("order-7"))
        .source("shop")
        .expires_after(std::time::Duration::from_secs(60))
        .traceparent(Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
        .correlation_id(Some("c"))
        .causation_id(Some("d"))
        .header("tenant", "acme")
        .build()
        .expect("within limits");
    let event = CloudEvent::from(&envelope);
    let expected = [
        ("causationid", "d"),
        ("correlationid", "c"),
        ("datacontenttype", "application/json"),
        ("expirytime", "2026-01-02T03:05:05.006Z"),
        ("id", &id.to_string()),
        ("partitionkey", "order-7"),
        ("rumormillversion", "3"),
        ("source", "shop"),
        ("tenant", "acme"),
        ("time", "2026-01-02T03:04:05.006Z"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("type", "a.b"),
    ];
    let found: Vec<_> = event.attributes().map(|(name, value)| (name, value.to_string())).collect();
    let found: Vec<_> = found.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(event.to_envelope(NOW).expect("back"), envelope);
}

#[test]
fn odd_headers_and_fields_survive() {
    let builder = || Envelope::builder(EventType::from_static("a"), ContentType::JSON, "", NOW);
    let odd = builder()
        .header("X-Request-Id", "a b&c=d%")
        .header("tenant", "acme")
        .header("", "")
        .header("id", "not the id")
        .header("control", "a\n\u{7f}")
        .header("subject", "")
        .key(Some(""))
        .correlation_id(Some("\t"))
        .version(u32::MAX)
        .source("rumormill:a b\u{e4}")
        .build()
        .expect("within limits");
    let event = CloudEvent::from(&odd);
    assert_eq!(event.attribute("tenant"), Some(&"acme".into()), "what can be said plainly is");
    assert_eq!(event.to_envelope(NOW).expect("back"), odd);
    // A header of ours that somebody else wrote is a header like any.
    for kept in ["", "junk", "id=t:other", "id", "id=x:1", "subject=t:", "a%=%", "%ff"] {
        let odd = builder().header(KEPT, kept).build().expect("within limits");
        assert_eq!(CloudEvent::from(&odd).to_envelope(NOW).expect(kept), odd, "{kept}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let json = |members: &str| {
        let json = format!(r#"{{"specversion":"1.0","id":"1","source":"/a"{members}}}"#);
        CloudEvent::from_json(json.as_bytes()).expect_err(members)
    };
    let typed = |members: &str| json(&format!(r#","type":"a.b",{members}"#));
    let table = [
        (json(""), "has no type"),
        (json(r#","type":null"#), "has no type"),
        (json(r#","type":"""#), "type \"\" is empty"),
        (json(r#","type":5"#), "type \"5\" is no text"),
        (json(r#","type":"a","id":"2""#), "\"id\" comes twice"),
        (typed(r#""Upper":"x""#), "\"Upper\" is no name"),
        (typed(r#""a_b":"x""#), "\"a_b\" is no name"),
        (typed(r#""count":1.5"#), "count 1.5 is no whole number"),
        (typed(r#""count":2147483648"#), "count 2147483648 is no whole number"),
        (typed(r#""tags":["x"]"#), "tags is a list"),
        (typed(r#""tags":{}"#), "tags is an object"),
        (typed(r#""x":"a\u0007""#), "x \"a\\u{7}\" holds a control character"),
        (typed(r#""x":"\uffff""#), "holds a control character"),
        (typed(r#""time":"yesterday""#), "time \"yesterday\" is no time"),
        (typed(r#""data":1,"data_base64":"""#), "both data and data_base64"),
        (typed(r#""data_base64":"*""#), "data_base64 is not base64"),
        (typed(r#""data_base64":5"#), "data_base64 is not base64"),
        (typed(r#""datacontenttype":"text/xml","data":{}"#), "\"text/xml\" is no string"),
        (CloudEvent::from_json(b"[]").expect_err("a list"), "not valid JSON"),
        (CloudEvent::from_json(b"{").expect_err("cut"), "not valid JSON"),
        (CloudEvent::from_json(b"{}").expect_err("empty"), "has no specversion"),
        (
            CloudEvent::from_json(br#"{"specversion":"0.3"}"#).expect_err("old"),
            "specversion \"0.3\", this program knows 1.0",
        ),
        (CloudEvent::new("1", "a b", "c").expect_err("a blank"), "is no URI reference"),
        (CloudEvent::new("", "/a", "c").expect_err("empty"), "id \"\" is empty"),
    ];
    for (error, text) in table {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(text), "{text}: {error}");
    }
}

#[test]
fn what_binary_mode_refuses_is_named() {
    let head = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/"), ("ce-type", "a")];
    let with = |name: &'static str| {
        let error = CloudEvent::from_binary(head.into_iter().chain([(name, "x")]), "");
        error.expect_err(name).to_string()
    };
    assert!(with("ce-Id").contains("ce-id comes twice"));
    assert!(with("ce-specversion").contains("comes twice"));
    assert!(with("ce-datacontenttype").contains("not allowed"));
    assert!(with("ce-data").contains("no name"));
    assert!(with("ce-a_b").contains("no name"));
    let missing = CloudEvent::from_binary(head.into_iter().take(3), "").expect_err("no type");
    assert!(missing.to_string().contains("has no type"));
    let none = CloudEvent::from_binary([("content-type", "a/b")], "").expect_err("no event");
    assert!(none.help().is_some_and(|help| help.contains("from_json")));
}

#[test]
fn what_no_envelope_can_be_is_named() {
    let event = |name: &str, value: &str| {
        let event = CloudEvent::new("1", "/a", "a.b").expect("valid");
        event.with_attribute(name, value).expect("valid").to_envelope(NOW).expect_err(name)
    };
    assert!(event("type", "com.example/thing").to_string().contains("com.example/thing"));
    assert!(event("datacontenttype", "\u{e4}").to_string().contains("media type"));
    assert!(event("rumormillversion", "x").to_string().contains("rumormillversion"));
    assert!(event("rumormillheaders", "%ff").to_string().contains("rumormillheaders"));
    let long = event("partitionkey", &"k".repeat(1025));
    assert_eq!(long.kind(), ErrorKind::TooLarge);
    let large =
        CloudEvent::new("1", "/a", "a").and_then(|event| event.with_data("a/b", vec![0; 9]));
    let large = large.expect("valid").to_envelope_within(NOW, 8).expect_err("nine bytes");
    assert!(large.to_string().contains("9 bytes, 8 at most"), "{large}");
}

#[test]
fn a_time_before_1970_is_kept() {
    let event = CloudEvent::new("1", "/a", "a")
        .and_then(|event| event.with_attribute("time", "1969-07-20T20:17:40.123456789-04:00"));
    assert_eq!(survives(&event.expect("valid")).time(), Timestamp::from_millis(0));
}
