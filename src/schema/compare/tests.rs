//! Plain schemas, a reader's and a writer's, and what the one does not read of the other.

use serde_json::json;

use super::*;

/// The paths of what is not read, and what is said of the first.
#[expect(clippy::needless_pass_by_value, reason = "they are written where it is called")]
fn flaws(reader: Value, writer: Value) -> (Vec<String>, String) {
    let flaws = unread(&reader, &writer, &NEW_READERS);
    let text = flaws.first().map_or(String::new(), |flaw| flaw.text.clone());
    (flaws.into_iter().map(|flaw| flaw.path).collect(), text)
}

#[track_caller]
fn reads(reader: Value, writer: Value) {
    assert_eq!(flaws(reader, writer), (Vec::new(), String::new()));
}

#[track_caller]
fn refuses(reader: Value, writer: Value, path: &str, text: &str) {
    let (read, written) = text.split_once(" | ").expect("what is read, and what is written");
    let text = format!("new programs {read}, events published before {written}");
    assert_eq!(flaws(reader, writer), (vec![path.to_owned()], text));
}

#[test]
fn integers_are_read_within_their_bounds() {
    let of = |format: &str| json!({ "type": "integer", "format": format });
    let ranges = [
        ("int8", i8::MIN.into(), i64::from(i8::MAX)),
        ("int16", i16::MIN.into(), i16::MAX.into()),
        ("int32", i32::MIN.into(), i32::MAX.into()),
        ("int64", i64::MIN, i64::MAX),
        ("uint8", 0, u8::MAX.into()),
        ("uint16", 0, u16::MAX.into()),
        ("uint32", 0, u32::MAX.into()),
        ("uint64", 0, i64::MAX),
        ("uint128", 0, i64::MAX),
    ];
    for (format, low, high) in ranges {
        reads(of(format), json!({ "type": "integer", "minimum": low, "maximum": high }));
        reads(json!({ "type": "integer" }), of(format));
        for beyond in [low.checked_sub(1), high.checked_add(1)].into_iter().flatten() {
            let one = json!({ "type": "integer", "minimum": beyond, "maximum": beyond });
            assert_eq!(flaws(of(format), one).0, [""], "{format} {beyond}");
        }
    }
    let small = json!({ "type": "integer", "minimum": 1, "maximum": 3 });
    reads(small.clone(), json!({ "const": 3 }));
    refuses(small, json!({ "const": 4 }), "", "read integer | have the value 4");
    reads(json!({ "type": "number" }), of("int8"));
    refuses(of("int8"), json!({ "type": "number" }), "", "read integer (int8) | have number");
}

#[test]
fn a_list_of_a_length_reads_no_other() {
    let list = |low: Option<u64>, high: Option<u64>| {
        let mut list = json!({ "type": "array", "items": { "type": "string" } });
        for (word, bound) in [("minItems", low), ("maxItems", high)] {
            if let Some(bound) = bound {
                list[word] = bound.into();
            }
        }
        list
    };
    reads(list(Some(2), Some(4)), list(Some(2), Some(4)));
    reads(list(Some(2), Some(4)), list(Some(3), Some(3)));
    reads(list(None, None), list(Some(1), None));
    let no = |reader, writer, text| refuses(reader, writer, "", text);
    no(list(Some(2), None), list(Some(1), None), "read 2 items or more | have 1 items or more");
    no(list(None, Some(4)), list(None, Some(5)), "read 0 to 4 items | have 0 to 5 items");
    no(list(Some(2), Some(2)), list(None, None), "read 2 items | have any number of items");
    no(list(Some(1), Some(2)), list(Some(2), Some(3)), "read 1 to 2 items | have 2 to 3 items");
}

#[test]
fn each_place_of_a_tuple_is_compared() {
    let tuple = |names: &[&str]| {
        let places: Vec<Value> = names.iter().map(|name| json!({ "type": name })).collect();
        json!({ "type": "array", "prefixItems": places, "items": { "type": "boolean" } })
    };
    reads(tuple(&["string", "null"]), tuple(&["string", "null"]));
    reads(tuple(&["string"]), tuple(&["string", "boolean"]));
    let other = tuple(&["null", "string"]);
    assert_eq!(flaws(tuple(&["string", "null"]), other).0, ["0", "1"]);
    let longer = tuple(&["string", "boolean", "null"]);
    refuses(tuple(&["string"]), longer.clone(), "2", "read boolean | have null");
    refuses(longer, tuple(&["string"]), "2", "read null | have boolean");
    reads(json!({ "type": "array" }), json!({ "type": "array", "items": { "type": "null" } }));
}

#[test]
fn a_text_that_is_asked_for_in_a_form_is_read_in_no_other() {
    let plain = json!({ "type": "string" });
    for word in ["format", "pattern", "minLength", "maxLength"] {
        let form = json!({ "type": "string", (word): "x" });
        reads(plain.clone(), form.clone());
        reads(form.clone(), form.clone());
        assert_eq!(flaws(form, plain.clone()).0, [""], "{word}");
    }
    let time = json!({ "type": "string", "format": "date-time" });
    refuses(time, plain, "", "read string (date-time) | have string");
}

#[test]
fn fixed_values_are_read_as_they_are() {
    reads(json!({ "const": 1 }), json!({ "const": 1 }));
    refuses(
        json!({ "const": 1 }),
        json!({ "const": 2 }),
        "",
        "read the value 1 | have the value 2",
    );
    for (name, value) in [
        ("null", Value::Null),
        ("boolean", true.into()),
        ("number", 1.5.into()),
        ("integer", 1.into()),
        ("string", "a".into()),
        ("array", json!([])),
        ("object", json!({})),
    ] {
        reads(json!({ "type": name }), json!({ "const": value }));
        reads(json!({ "enum": [value, "other"] }), json!({ "const": value }));
        let number = json!({ "type": if name == "null" { "string" } else { "null" } });
        assert_eq!(flaws(number, json!({ "const": value })).0, [""], "{name}");
    }
}

#[test]
fn a_map_and_a_struct_read_each_others_fields() {
    let map = |kind: &str| json!({ "type": "object", "additionalProperties": { "type": kind } });
    let fields = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
    reads(map("string"), fields.clone());
    refuses(map("null"), fields.clone(), "a", "read null | have string");
    refuses(fields.clone(), map("null"), "a", "read string | have null");
    refuses(map("string"), map("null"), "*", "read string | have null");
    let mut closed = json!({ "type": "object", "properties": { "b": {} } });
    closed["additionalProperties"] = false.into();
    refuses(closed.clone(), fields.clone(), "a", "deny unknown fields | have it");
    closed["additionalProperties"] = true.into();
    reads(closed, fields.clone());
    let needs = |name: &str| json!({ "type": "object", "required": [name] });
    refuses(needs("a"), fields, "a", "require it | may lack it");
    reads(needs("a"), needs("a"));
    let two = json!({ "type": "object", "required": ["a", "b"] });
    refuses(two, needs("a"), "b", "require it | may lack it");
}

#[test]
fn each_alternative_of_a_writer_needs_one_of_the_reader() {
    let tagged = |tag: &str, kind: &str| {
        let fields = json!({ "tag": { "const": tag }, "own": { "type": kind } });
        json!({ "type": "object", "properties": fields, "required": ["tag"] })
    };
    let named = |name: &str, kind: &str| {
        json!({
            "type": "object", "properties": { (name): { "type": kind } }, "required": [name],
        })
    };
    let any = |of: Vec<Value>| json!({ "anyOf": of });
    let both = any(vec![tagged("a", "null"), tagged("b", "null")]);
    reads(both.clone(), tagged("b", "null"));
    refuses(both.clone(), tagged("b", "string"), "own", "read null | have string");
    let third = "do not know the variant \"c\" | may have it";
    refuses(both, tagged("c", "null"), "", third);
    let named_both = any(vec![named("a", "null"), named("b", "null")]);
    refuses(named_both.clone(), named("b", "string"), "b", "read null | have string");
    refuses(named_both.clone(), named("c", "null"), "", third);
    refuses(named_both, json!({ "type": "string" }), "", "do not know string | may have it");
    let types = json!({ "type": ["string", "null"] });
    reads(types.clone(), json!({ "type": "null" }));
    refuses(json!({ "type": "null" }), types, "", "read null | have string");
    refuses(
        any(vec![tagged("a", "null"), named("a", "null")]),
        tagged("b", "null"),
        "",
        "do not know the variant \"b\" | may have it",
    );
}

#[test]
fn parts_add_up_and_references_are_followed() {
    let all = |parts: Value| json!({ "allOf": parts });
    let field = |name: &str, kind: &str| {
        json!({
            "type": "object", "properties": { (name): { "type": kind } }, "required": [name],
        })
    };
    let both = all(json!([field("a", "null"), field("b", "null")]));
    refuses(both.clone(), field("a", "null"), "b", "require it | may lack it");
    let other = all(json!([field("a", "null"), field("b", "string")]));
    refuses(both, other, "b", "read null | have string");
    let referring = json!({ "$ref": "#/$defs/own", "$defs": { "own": { "type": "null" } } });
    refuses(referring, json!({ "type": "string" }), "", "read null | have string");
    reads(json!({ "type": "null" }), json!(false));
    reads(json!(true), json!({ "type": "null" }));
    assert_eq!(flaws(json!(false), json!({ "type": "null" })).0, [""]);
    refuses(json!({ "type": "null" }), json!(true), "", "read null | have any value");
    let endless = json!({ "$ref": "#" });
    reads(endless.clone(), endless);
}
