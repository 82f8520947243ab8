use rumormill::{ContentType, Timestamp};

use super::*;

fn event(content_type: ContentType, payload: &[u8]) -> Envelope {
    let now = Timestamp::from_millis(1_767_323_045_006);
    Envelope::builder(EventType::from_static("users.created"), content_type, payload.to_vec(), now)
        .key(Some("carol@example.com"))
        .source("signup")
        .header("tenant", "acme")
        .correlation_id(Some("flow-7"))
        .build()
        .expect("valid")
}

fn json(payload: &str) -> Envelope {
    event(ContentType::JSON, payload.as_bytes())
}

fn rules(masks: &[&str], rewrites: &[&str]) -> Rules {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let made = Rules::new(&owned(masks), &owned(rewrites), Pseudonyms::random());
    made.unwrap_or_else(|failure| panic!("{}", failure.text()))
}

fn payload(draft: &Draft) -> Value {
    serde_json::from_slice(&draft.payload().expect("a payload")).expect("JSON")
}

#[test]
fn a_masked_value_is_the_same_token_in_every_place() {
    let mut rules = rules(&["data.email", "key"], &[]);
    let draft = rules.apply(&json(r#"{"email":"carol@example.com","n":1}"#)).expect("applies");
    let token = payload(&draft)["email"].as_str().expect("text").to_owned();
    assert!(token.starts_with("masked-"), "{token}");
    assert_eq!(draft.key.as_deref(), Some(token.as_str()), "joins still work");
    assert!(rules.met.leaks.is_empty() && rules.idle().is_empty());
}

#[test]
fn a_value_that_stands_elsewhere_is_told_with_the_place() {
    let mut rules = rules(&["data.email"], &[]);
    let text = r#"{"email":"carol@example.com","note":"wrote to carol@example.com"}"#;
    rules.apply(&json(text)).expect("applies");
    let leaks: Vec<_> = rules.met.leaks.iter().map(|(at, count)| (at.as_str(), *count)).collect();
    assert_eq!(leaks, [("data", 1), ("key", 1)]);
}

#[test]
fn a_whole_payload_and_nested_values_are_masked() {
    let mut rules = rules(&["data"], &[]);
    let text = r#"{"a":["secret",{"b":"secret"}],"n":4711,"t":true,"z":null}"#;
    let draft = rules.apply(&json(text)).expect("applies");
    let value = payload(&draft);
    assert_eq!(value["a"][0], value["a"][1]["b"]);
    assert!(!value.to_string().contains("secret"), "{value}");
    assert!(value["n"].is_u64() && value["n"] != 4711, "{value}");
    assert_eq!((&value["t"], &value["z"]), (&Value::Bool(false), &Value::Null));
}

#[test]
fn what_cannot_be_looked_into_is_refused_and_not_passed() {
    let mut rules = rules(&["data.email"], &[]);
    let opaque = [
        event(ContentType::new("application/protobuf").expect("valid"), b"carol@example.com"),
        event(ContentType::MESSAGE_PACK, &[0x81, 0xa1, b'b', 0xc4, 1, 0]),
        event(ContentType::JSON, b"no JSON: carol@example.com"),
    ];
    for envelope in opaque {
        let Err(why) = rules.apply(&envelope) else { panic!("passed: {envelope:?}") };
        assert!(why.contains("--mask data.email") && why.contains("cannot be looked"), "{why}");
        assert!(why.contains(&envelope.id().to_string()), "{why}");
    }
    let packed = payload_of_json(&ContentType::MESSAGE_PACK, r#"{"email":"carol","n":1}"#);
    let packed = event(ContentType::MESSAGE_PACK, &packed.expect("packs"));
    let draft = rules.apply(&packed).expect("applies");
    let bytes = draft.payload().expect("packs");
    assert!(!String::from_utf8_lossy(&bytes).contains("carol"));
    assert_eq!(bytes[0], 0x82, "still MessagePack");
}

#[test]
fn values_are_rewritten_with_the_old_one_in_them() {
    let rewrites = [
        "key=test-{}",
        "type=staging.{}",
        "source=replay",
        "header.tenant=",
        "header.stage=test",
        "header.absent={}!",
        "data.name=\"Mr {}\"",
        "data.items.*.price=0",
        "data.n=\"no. {}\"",
    ];
    let mut rules = rules(&[], &rewrites);
    let text = r#"{"name":"Bob","items":[{"price":7},{"price":8}],"n":5}"#;
    let draft = rules.apply(&json(text)).expect("applies");
    assert_eq!(draft.key.as_deref(), Some("test-carol@example.com"));
    assert_eq!(draft.event_type.as_str(), "staging.users.created");
    assert_eq!(draft.source, "replay");
    assert_eq!(draft.headers, [("stage".to_owned(), "test".to_owned())]);
    let expected = r#"{"name":"Mr Bob","items":[{"price":0},{"price":0}],"n":"no. 5"}"#;
    assert_eq!(draft.payload().expect("a payload"), expected.as_bytes());
    assert_eq!(rules.idle(), ["--rewrite header.absent={}!"]);
}

#[test]
fn a_mask_comes_first_so_that_a_rewrite_shows_no_secret() {
    let mut rules = rules(&["data.email"], &["data.email=\"{}@example.invalid\""]);
    let draft = rules.apply(&json(r#"{"email":"carol@example.com"}"#)).expect("applies");
    let email = payload(&draft)["email"].as_str().expect("text").to_owned();
    assert!(email.starts_with("masked-") && email.ends_with("@example.invalid"), "{email}");
}

#[test]
fn what_no_rule_touches_stays_byte_for_byte() {
    let text = " {\"a\" : 1.0e2}\n";
    let draft = rules(&["data.x"], &["data.y=1"]).apply(&json(text)).expect("applies");
    assert_eq!(draft.payload().expect("a payload"), text.as_bytes());
}

#[test]
fn a_wrong_rule_names_the_fields_there_are() {
    let failures = [
        Rules::new(&["id".to_owned()], &[], Pseudonyms::random()),
        Rules::new(&["type".to_owned()], &[], Pseudonyms::random()),
        Rules::new(&[], &["email=1".to_owned()], Pseudonyms::random()),
        Rules::new(&[], &["header=1".to_owned()], Pseudonyms::random()),
        Rules::new(&[], &["key".to_owned()], Pseudonyms::random()),
        Rules::new(&[], &["data.a..b=1".to_owned()], Pseudonyms::random()),
        Rules::new(&[], &["data.a=text".to_owned()], Pseudonyms::random()),
        Rules::new(&[], &["type=a b".to_owned()], Pseudonyms::random()),
    ];
    for failure in failures {
        let Err(failure) = failure else { panic!("a rule that cannot be") };
        let mut printed = Vec::new();
        failure.print(&crate::address::Address::none(), &mut printed);
        let text = String::from_utf8_lossy(&printed).into_owned();
        assert!(text.contains("header.NAME") || text.contains("with quotes"), "{text}");
        assert_eq!(failure.exit, crate::failure::Exit::Usage);
    }
}
