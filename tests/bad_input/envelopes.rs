//! Makes the bytes of an envelope with something wrong in it, its checksum right unless that is
//! what is wrong.

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::cases::{Input, hex};

/// The elements in their order, each with what a good envelope has there.
fn elements() -> [(&'static str, Value); 14] {
    let id = format!("c410{}", "0189".repeat(8));
    [
        ("format", json!(1)),
        ("id", json!({ "hex": id })),
        ("type", json!("a.thing")),
        ("version", json!(1)),
        ("time", json!(1_767_323_045_000_u64)),
        ("content_type", json!(2)),
        ("payload", json!({ "hex": "c4077b226e223a317d" })),
        ("key", json!("k")),
        ("source", json!("tests")),
        ("expires", Value::Null),
        ("traceparent", Value::Null),
        ("correlation_id", Value::Null),
        ("causation_id", Value::Null),
        ("headers", json!({})),
    ]
}

/// What is wrong: elements by name, the array's own head, the checksum's bytes, a cut.
pub(crate) fn envelope(with: &Map<String, Value>, case: &Value) -> Vec<u8> {
    let text = |name: &str| case.get(name).and_then(Value::as_str);
    let mut out = text("array").map_or_else(|| vec![0x9f], hex);
    for (name, value) in elements() {
        if text("cut_before") == Some(name) {
            return out;
        }
        write(with.get(name).unwrap_or(&value), &mut out);
    }
    let unknown = with.keys().find(|name| elements().iter().all(|(own, _)| own != name));
    assert_eq!(unknown, None, "no element has this name");
    if text("cut_before") == Some("checksum") {
        return out;
    }
    match text("checksum") {
        Some(checksum) => out.extend(hex(checksum)),
        None => {
            let checksum = xxh3_64(&out);
            out.push(0xcf);
            out.extend_from_slice(&checksum.to_be_bytes());
        }
    }
    out
}

/// `{"hex": ...}` stands for bytes as they are, `{"repeat": ...}` for a text; else it is the
/// value itself.
fn write(value: &Value, out: &mut Vec<u8>) {
    if let Some(bytes) = value.get("hex") {
        out.extend(hex(bytes.as_str().expect("a text")));
    } else if value.get("repeat").is_some() {
        let text = Input(value.clone()).text();
        out.extend(rmp_serde::to_vec(&text).expect("a text encodes"));
    } else {
        out.extend(rmp_serde::to_vec(value).expect("a value encodes"));
    }
}
