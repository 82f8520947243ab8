//! What `#[derive(Event)]` writes, and what it refuses.

use std::borrow::Cow;
use std::sync::Arc;

use rumormill::{Event, EventType};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The macro's copy of the rules: it cannot depend on the library.
#[path = "../macros/src/name.rs"]
mod name;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user_service.user.created", version = 3, key = user_id)]
struct UserCreated {
    user_id: String,
    email: String,
}

#[test]
fn the_attribute_becomes_the_constants() {
    assert_eq!(UserCreated::TYPE, EventType::from_static("user_service.user.created"));
    assert_eq!(UserCreated::VERSION, 3);
}

#[test]
fn a_text_key_is_borrowed() {
    let event = UserCreated { user_id: "user_alice".into(), email: "alice@example.com".into() };
    let key = event.key();
    assert!(matches!(key, Some(Cow::Borrowed(text)) if text.as_ptr() == event.user_id.as_ptr()));
    assert_eq!(key.as_deref(), Some("user_alice"));
    assert!(!event.email.is_empty());
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "a.b", key = key)]
struct BorrowedText {
    key: Cow<'static, str>,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "a.b", key = key)]
struct BoxedText {
    key: Box<str>,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "a.b", key = key)]
struct SharedText {
    #[serde(skip)]
    key: Option<Arc<str>>,
}

#[test]
fn every_text_type_is_borrowed() {
    let keys = [
        BorrowedText { key: Cow::Borrowed("k") }.key().map(is_borrowed_k),
        BoxedText { key: "k".into() }.key().map(is_borrowed_k),
        SharedText { key: Some("k".into()) }.key().map(is_borrowed_k),
    ];
    assert_eq!(keys, [Some(true); 3]);
}

#[expect(clippy::needless_pass_by_value, reason = "the question is what the value owns")]
fn is_borrowed_k(key: Cow<'_, str>) -> bool {
    matches!(key, Cow::Borrowed("k"))
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.order.placed", key = number)]
struct OrderPlaced {
    number: u64,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.order.shipped", key = order)]
struct OrderShipped {
    order: Uuid,
}

#[test]
fn other_keys_are_printed() {
    assert_eq!(OrderPlaced { number: u64::MAX }.key().as_deref(), Some("18446744073709551615"));
    let order = Uuid::from_u128(7);
    assert_eq!(OrderShipped { order }.key().as_deref(), Some(order.to_string().as_str()));
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.order.noted", key = customer)]
struct OrderNoted {
    customer: Option<String>,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.order.counted", key = r#type)]
struct OrderCounted {
    r#type: Option<i8>,
}

#[test]
fn an_optional_key_may_be_absent() {
    assert_eq!(OrderNoted { customer: None }.key(), None);
    let noted = OrderNoted { customer: Some("c".into()) };
    assert!(matches!(noted.key(), Some(Cow::Borrowed("c"))));
    assert_eq!(OrderCounted { r#type: None }.key(), None);
    assert_eq!(OrderCounted { r#type: Some(-1) }.key().as_deref(), Some("-1"));
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks")]
struct Tick;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "pairs.made", version = 2)]
#[event(key = 1)]
struct Pair(u8, String);

#[test]
fn unit_and_tuple_structs_are_events() {
    assert_eq!((Tick::VERSION, Tick.key()), (1, None));
    assert_eq!(Pair::VERSION, 2);
    assert_eq!(Pair(1, "two".into()).key().as_deref(), Some("two"));
    assert_eq!(Pair(1, "two".into()).0, 1);
}

macro_rules! event_named {
    ($name:ident, $key:ident: $ty:ty) => {
        #[derive(Serialize, Deserialize, Event)]
        #[event(type = "made.by_a_macro", key = $key)]
        struct $name {
            $key: $ty,
        }
    };
}
event_named!(ByMacro, id: Option<String>);

#[test]
fn a_macro_may_write_the_struct() {
    assert!(matches!(ByMacro { id: Some("x".into()) }.key(), Some(Cow::Borrowed("x"))));
}

#[test]
fn the_macro_and_the_library_agree_on_names() {
    let segment = "s".repeat(64);
    let mut names: Vec<String> =
        ["a", "a.b", "A-Z_09.x", "", ".", "a.", ".a", "a..b", "a b", "a.*"]
            .into_iter()
            .chain(["a.>", "ä", "a\n", "a:b", "{a}", "a b..c", "a..b c", "a.b ."])
            .map(str::to_owned)
            .collect();
    names.push(segment.clone());
    for end in ["s", " ", ".s", "s ", "s..", "s. "] {
        names.push(format!("{segment}{end}"));
    }
    for count in [15, 16, 17] {
        names.push(vec!["a"; count].join("."));
    }
    names.push(format!("{}. ", vec!["a"; 17].join(".")));
    let long = [segment.as_str(); 3].join(".");
    names.extend([60, 61].map(|length| format!("{long}.{}", "s".repeat(length))));
    names.push(format!("{long}.{} ", "s".repeat(60)));

    let mut valid = 0;
    for name in &names {
        match (EventType::new(name.clone()), name::flaw(name)) {
            (Ok(_), None) => valid += 1,
            (Err(error), Some(flaw)) => {
                let shown: String = name.chars().take(80).collect();
                let text = format!("event type {shown:?} is not valid: {flaw}");
                assert_eq!(error.to_string(), text);
            }
            (library, macros) => panic!("{name:?}: library {library:?}, macro {macros:?}"),
        }
    }
    assert_eq!((valid, names.len()), (8, 32), "the table covers both answers");
}

#[test]
fn refusals_say_what_to_do() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
