//! Pairs of before and after, one rule each, and the lock file's answers.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::lock::compare_with;
use super::*;

/// The schema of a struct that is declared on the spot.
macro_rules! event {
    ($version:literal, $(#[$attribute:meta])* { $($fields:tt)* }) => {{
        #[derive(Serialize, Deserialize, JsonSchema)]
        $(#[$attribute])*
        struct Sample { $($fields)* }

        impl Event for Sample {
            const TYPE: EventType = EventType::from_static("shop.sold");
            const VERSION: u32 = $version;
        }
        EventSchema::of::<Sample>()
    }};
}

#[derive(Serialize, Deserialize, JsonSchema)]
enum Colour {
    Red,
    Green,
}

#[derive(Serialize, Deserialize, JsonSchema)]
enum MoreColours {
    Red,
    Green,
    /// A prose that makes `schemars` write `oneOf` in place of `enum`.
    Blue,
}

#[derive(Serialize, Deserialize, JsonSchema)]
enum Payment {
    Cash,
    Card { number: String },
}

#[derive(Serialize, Deserialize, JsonSchema)]
enum OtherPayment {
    Cash,
    Card { number: u64 },
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
enum Tagged {
    Small { size: u8 },
    Large { size: u64 },
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
enum TaggedOther {
    Small { size: u8 },
    Large { size: u32 },
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Tree {
    name: String,
    children: Vec<Tree>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct OtherTree {
    name: bool,
    children: Vec<OtherTree>,
}

fn lines(before: EventSchema, after: EventSchema) -> Vec<String> {
    let changes = compare(&[before], &[after]);
    assert!(changes.iter().all(|change| change.breaking != change.help.is_empty()));
    changes.iter().map(Change::to_string).collect()
}

fn broken(before: EventSchema, after: EventSchema, expected: &[&str]) {
    let changes = compare(&[before], &[after]);
    assert!(changes.iter().all(|change| change.breaking), "{changes:?}");
    let lines: Vec<_> = changes.iter().map(Change::to_string).collect();
    assert_eq!(lines, expected);
}

fn kept(before: EventSchema, after: EventSchema) {
    assert_eq!(lines(before, after), ["shop.sold: has changed, and breaks no reader"]);
}

#[test]
fn a_newly_required_field_breaks_the_reading_of_old_events() {
    broken(
        event!(1, { item: String }),
        event!(1, { item: String, price: u32 }),
        &["shop.sold: `price`: new programs require it, events published before may lack it"],
    );
    kept(
        event!(1, { item: String }),
        event!(1, {
            item: String,
            #[serde(default)]
            price: u32,
        }),
    );
    kept(event!(1, { item: String }), event!(1, { item: String, price: Option<u32> }));
}

#[test]
fn a_removed_field_breaks_the_programs_that_require_it() {
    broken(
        event!(1, { item: String, price: u32 }),
        event!(1, { item: String }),
        &["shop.sold: `price`: programs that run already require it, new events may lack it"],
    );
    kept(event!(1, { item: String, price: Option<u32> }), event!(1, { item: String }));
}

#[test]
fn a_renamed_field_is_both_removed_and_required() {
    broken(
        event!(1, { price: u32 }),
        event!(1, { amount: u32 }),
        &[
            "shop.sold: `amount`: new programs require it, events published before may lack it",
            "shop.sold: `price`: programs that run already require it, new events may lack it",
        ],
    );
    // A name of the struct's alone is nobody's business.
    let renamed = event!(1, {
        #[serde(rename = "price")]
        amount: u32,
    });
    assert_eq!(lines(event!(1, { price: u32 }), renamed), [""; 0]);
}

#[test]
fn a_field_that_is_left_out_when_empty_breaks_who_requires_it() {
    broken(
        event!(1, { note: String }),
        event!(1, {
            #[serde(default, skip_serializing_if = "String::is_empty")]
            note: String,
        }),
        &["shop.sold: `note`: programs that run already require it, new events may lack it"],
    );
    // With a default alone it is always written.
    let default = event!(1, {
        #[serde(default)]
        note: String,
    });
    kept(event!(1, { note: String }), default);
}

#[test]
fn a_changed_type_breaks_both_ways() {
    broken(
        event!(1, { price: u32 }),
        event!(1, { price: String }),
        &[
            "shop.sold: `price`: new programs read string, \
             events published before have integer (uint32)",
            "shop.sold: `price`: programs that run already read integer (uint32), \
             new events have string",
        ],
    );
}

#[test]
fn a_wider_number_breaks_old_readers_and_a_narrower_one_new_readers() {
    broken(
        event!(1, { count: u32 }),
        event!(1, { count: u64 }),
        &["shop.sold: `count`: programs that run already read integer (uint32), \
           new events have integer (uint64)"],
    );
    broken(
        event!(1, { count: u64 }),
        event!(1, { count: u8 }),
        &["shop.sold: `count`: new programs read integer (uint8), \
           events published before have integer (uint64)"],
    );
    broken(
        event!(1, { count: u64 }),
        event!(1, { count: f64 }),
        &["shop.sold: `count`: programs that run already read integer (uint64), \
           new events have number (double)"],
    );
}

#[test]
fn a_field_that_may_be_null_breaks_who_reads_a_value() {
    let lines = lines(event!(1, { price: u32 }), event!(1, { price: Option<u32> }));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].ends_with("integer (uint32), new events have null"), "{lines:?}");
}

#[test]
fn a_narrowed_enum_breaks_new_readers_and_a_widened_one_old_readers() {
    broken(
        event!(1, { colour: MoreColours }),
        event!(1, { colour: Colour }),
        &["shop.sold: `colour`: new programs do not know the value \"Blue\", \
           events published before may have it"],
    );
    broken(
        event!(1, { colour: Colour }),
        event!(1, { colour: MoreColours }),
        &["shop.sold: `colour`: programs that run already do not know the value \"Blue\", \
           new events may have it"],
    );
}

#[test]
fn a_change_within_a_variant_names_its_field() {
    let lines = lines(event!(1, { by: Payment }), event!(1, { by: OtherPayment }));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("`by.Card.number`")), "{lines:?}");
    broken(
        event!(1, { size: Tagged }),
        event!(1, { size: TaggedOther }),
        &["shop.sold: `size.size`: new programs read integer (uint32), \
           events published before have integer (uint64)"],
    );
}

#[test]
fn lists_maps_and_types_that_hold_themselves_are_followed() {
    let path = |before, after| {
        let changes = compare(&[before], &[after]);
        changes.first().map(|change| change.path.clone())
    };
    let list = path(event!(1, { a: Vec<u8> }), event!(1, { a: Vec<bool> }));
    assert_eq!(list.as_deref(), Some("a[]"));
    let map = path(event!(1, { a: HashMap<String, u8> }), event!(1, { a: HashMap<String, bool> }));
    assert_eq!(map.as_deref(), Some("a.*"));
    let tuple = path(event!(1, { a: (u8, u8) }), event!(1, { a: (u8, bool) }));
    assert_eq!(tuple.as_deref(), Some("a.1"));
    let length = path(event!(1, { a: [u8; 2] }), event!(1, { a: [u8; 3] }));
    assert_eq!(length.as_deref(), Some("a"));
    let tree = path(event!(1, { a: Tree }), event!(1, { a: OtherTree }));
    assert_eq!(tree.as_deref(), Some("a.name"));
    assert_eq!(path(event!(1, { a: Tree }), event!(1, { a: Tree })), None);
}

#[test]
fn a_reader_that_denies_unknown_fields_is_broken_by_new_ones() {
    broken(
        event!(1, #[serde(deny_unknown_fields)] { item: String }),
        event!(1, #[serde(deny_unknown_fields)] { item: String, price: Option<u32> }),
        &["shop.sold: `price`: programs that run already deny unknown fields, \
           new events have it"],
    );
}

#[test]
fn anything_may_become_any_value_and_not_the_other_way() {
    let any = || event!(1, { note: serde_json::Value });
    let lines = lines(event!(1, { note: String }), any());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("programs that run already read string"), "{lines:?}");
}

#[test]
fn versions_only_rise() {
    broken(
        event!(2, { item: String }),
        event!(1, { item: String }),
        &["shop.sold: goes back from version 2 to 1"],
    );
}

#[test]
fn a_new_version_needs_upcasts_or_defaults() {
    let old = || event!(1, { item: String });
    broken(
        old(),
        event!(2, { item: String, price: u32 }),
        &["shop.sold: `price`: new programs require it, events published before may lack it"],
    );
    let version_2 = ["shop.sold: is now version 2, and breaks no reader"];
    // Programs that run already hand a new version on, so they need not read it.
    let defaults = event!(2, {
        #[serde(default)]
        article: String,
    });
    assert_eq!(lines(old(), defaults), version_2);
    let upcast = EventSchema { upcasts: true, ..event!(2, { article: u64 }) };
    assert_eq!(lines(old(), upcast), version_2);
    let late = EventSchema { upcasts: true, oldest: 2, ..event!(3, { article: u64 }) };
    let text = "shop.sold: version 1 is not read any more: the oldest is 2";
    broken(old(), late, &[text]);
}

#[test]
fn events_come_and_go() {
    let sold = event!(1, { item: String });
    let added = compare(&[], std::slice::from_ref(&sold));
    assert_eq!((added.len(), added[0].breaking), (1, false));
    let gone = compare(std::slice::from_ref(&sold), &[]);
    assert_eq!(gone[0].to_string(), "shop.sold: is gone: its events cannot be read");
    assert!(gone[0].breaking);
    let twice = compare(&[], &[sold, event!(1, { item: u8 })]);
    assert!(twice.iter().any(|change| change.text == "is registered by two structs"));
}

#[test]
fn prose_and_the_order_of_fields_are_no_change() {
    let plain = event!(1, { item: String });
    let told = event!(1, /** What was sold. */ {
        /// The item, by name.
        item: String,
    });
    assert_eq!(compare(&[plain], &[told]), []);
    let sorted = event!(1, { a: u8, b: u8 });
    assert_eq!(compare(&[sorted], &[event!(1, { b: u8, a: u8 })]), []);
}

#[test]
fn a_field_called_like_a_keyword_is_a_field() {
    let before = event!(1, { title: String });
    assert_eq!(before.reads["properties"]["title"], json!({"type": "string"}));
    let after = event!(1, { description: String });
    assert_eq!(lines(before, after).len(), 2);
}

#[test]
fn the_file_gives_back_what_was_written() {
    let narrow = event!(1, {
        #[serde(default)]
        item: String,
    });
    assert_ne!(narrow.reads, narrow.writes);
    let upcast = EventSchema { upcasts: true, oldest: 2, ..event!(3, { item: Tree }) };
    for event in [narrow, upcast, event!(1, { size: Tagged })] {
        let text = render(std::slice::from_ref(&event));
        let read = parse(&text).expect("reads its own");
        assert_eq!(read, [event]);
        assert_eq!(render(&read), text);
    }
    for bad in
        ["", "{}", "[]", r#"{"format":2,"events":{}}"#, r#"{"format":1,"events":{"a b":{}}}"#]
    {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_lock_file_says_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events.lock.json");
    let check =
        |event: &EventSchema, bless| compare_with(&path, std::slice::from_ref(event), bless);
    let old = event!(1, { item: String });
    let compatible = event!(1, { item: String, price: Option<u32> });
    let breaking = event!(1, { price: Option<u32> });

    let none = compare_with(&path, &[], true).expect_err("nothing registered");
    assert!(none.contains("rumormill::schema!"), "{none}");
    let missing = check(&old, false).expect_err("no file");
    assert!(missing.contains("RUMORMILL_BLESS=1"), "{missing}");
    assert!(!path.exists(), "only written when blessed");
    assert!(check(&old, true).expect("written").contains("shop.sold: is new"));
    assert_eq!(check(&old, false), Ok(String::new()));

    let behind = check(&compatible, false).expect_err("not up to date");
    assert!(behind.contains("nothing breaks readers"), "{behind}");
    assert!(behind.contains("accept: RUMORMILL_BLESS=1"), "{behind}");
    check(&compatible, true).expect("written");
    assert_eq!(check(&compatible, false), Ok(String::new()));

    let broken = check(&breaking, false).expect_err("breaks");
    for part in ["1 change since", "shop.sold: `item`", "version = 2", "or accept"] {
        assert!(broken.contains(part), "{part}: {broken}");
    }
    let accepted = check(&breaking, true).expect("accepted");
    assert!(accepted.contains("accepted") && accepted.contains("`item`"), "{accepted}");
    assert_eq!(check(&breaking, false), Ok(String::new()));

    std::fs::write(&path, "garbage").expect("writes");
    assert!(check(&breaking, false).expect_err("garbage").contains("no lock file"));
    check(&breaking, true).expect("written anew");
}
