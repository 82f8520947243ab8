//! Changing JSON text by a patch, with the order of its fields kept.

use std::fs::File;
use std::io::Read;

use json_patch::PatchOperation;
use rumormill::envelope::PAYLOAD_BYTES_MAX;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::{json_text, msgpack};

/// Digits that a float keeps on its way through 64 bits.
const FLOAT_DIGITS_MAX: usize = 15;
/// Most operations of a patch, most parts of a path in it, and what a payload may become by it:
/// `copy` and `move` make much of little.
const OPERATIONS_MAX: usize = 1000;
const PATH_PARTS_MAX: usize = 128;
const DEPTH_MAX: usize = 128;
const BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX;

/// The patch in a file.
pub(super) fn read(file: &str) -> Result<String, Failure> {
    let cannot = || Failure::failed(format!("cannot read the patch {file}"));
    let mut patch = String::new();
    File::open(file)
        .and_then(|file| file.take(BYTES_MAX as u64 + 1).read_to_string(&mut patch))
        .map_err(|error| cannot().because(&error))?;
    if patch.len() > BYTES_MAX {
        return Err(cannot().with_cause(format!("it has more than {BYTES_MAX} bytes")));
    }
    Ok(patch)
}

/// The text after `patch`: an array of operations is an RFC 6902 patch, an object an RFC 7396
/// merge patch.
///
/// # Errors
/// A line of text: what is wrong with the patch, or which number of the text it would change.
pub(super) fn apply(text: &str, patch: &str) -> Result<String, String> {
    if let Some(number) = json_text::numbers(text).find(|number| !is_kept(number)) {
        return Err(format!("it would change the number {number}, which is too long for it"));
    }
    let like: msgpack::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let patch: Value =
        serde_json::from_str(patch).map_err(|error| format!("the patch is no JSON: {error}"))?;
    match patch {
        Value::Object(_) => json_patch::merge(&mut value, &patch),
        Value::Array(_) => {
            let patch: json_patch::Patch = serde_json::from_value(patch)
                .map_err(|error| format!("the patch is no list of operations: {error}"))?;
            operate(&mut value, &patch)?;
        }
        _ => return Err("the patch is neither an object nor a list of operations".to_owned()),
    }
    let ordered = in_order(value, Some(&like));
    serde_json::to_string(&ordered).map_err(|error| error.to_string())
}

/// One operation after the other, so that none meets what is beyond the limits.
fn operate(value: &mut Value, patch: &[PatchOperation]) -> Result<(), String> {
    let count = patch.len();
    if count > OPERATIONS_MAX {
        return Err(format!("the patch has {count} operations, {OPERATIONS_MAX} at most"));
    }
    for operation in patch {
        if operation.path().count() > PATH_PARTS_MAX {
            return Err(format!("a path of the patch has more than {PATH_PARTS_MAX} parts"));
        }
        json_patch::patch(value, std::slice::from_ref(operation))
            .map_err(|error| error.to_string())?;
        if matches!(operation, PatchOperation::Copy(_) | PatchOperation::Move(_)) {
            let bytes = measure(value, 1)?;
            if bytes > BYTES_MAX {
                return Err(format!("the patch makes a payload of more than {BYTES_MAX} bytes"));
            }
        }
    }
    Ok(())
}

/// About how many bytes a value has as text, where it is no deeper than it may be.
fn measure(value: &Value, depth: usize) -> Result<usize, String> {
    if depth > DEPTH_MAX {
        return Err(format!("the patch makes a payload of more than {DEPTH_MAX} levels"));
    }
    let inner = |value| measure(value, depth + 1);
    Ok(2 + match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(inner).sum::<Result<usize, _>>()?,
        Value::Object(fields) => {
            let field =
                |(name, value): (&String, _)| inner(value).map(|size| size + name.len() + 4);
            fields.iter().map(field).sum::<Result<usize, _>>()?
        }
        _ => 6,
    })
}

/// Whether a number comes out of 64 bits as it went in.
fn is_kept(number: &str) -> bool {
    if number.contains(['.', 'e', 'E']) {
        return number.bytes().filter(u8::is_ascii_digit).count() <= FLOAT_DIGITS_MAX;
    }
    let read = serde_json::from_str::<Value>(number);
    let shown = read.map(|value| value.to_string());
    shown.is_ok_and(|shown| shown == number)
}

/// Fields in the order that they have in `like`, new ones after them.
fn in_order(value: Value, like: Option<&msgpack::Value>) -> msgpack::Value {
    use msgpack::Value as Ordered;
    match (value, like) {
        (Value::Object(fields), like) => {
            let like = match like {
                Some(Ordered::Map(entries)) => &entries[..],
                _ => &[],
            };
            Ordered::Map(fields_in_order(fields, like))
        }
        (Value::Array(values), like) => {
            let like = match like {
                Some(Ordered::Array(values)) => &values[..],
                _ => &[],
            };
            let values = values.into_iter().enumerate();
            Ordered::Array(values.map(|(at, value)| in_order(value, like.get(at))).collect())
        }
        (Value::Null, _) => Ordered::Null,
        (Value::Bool(value), _) => Ordered::Bool(value),
        (Value::String(text), _) => Ordered::Text(text),
        (Value::Number(number), _) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Ordered::Unsigned(number),
            (None, Some(number)) => Ordered::Signed(number),
            (None, None) => Ordered::Float(number.as_f64().unwrap_or_default()),
        },
    }
}

fn fields_in_order(
    mut fields: Map<String, Value>,
    like: &[(String, msgpack::Value)],
) -> Vec<(String, msgpack::Value)> {
    let mut entries = Vec::with_capacity(fields.len());
    for (name, like) in like {
        if let Some(value) = fields.remove(name) {
            entries.push((name.clone(), in_order(value, Some(like))));
        }
    }
    entries.extend(fields.into_iter().map(|(name, value)| (name, in_order(value, None))));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "{\"number\":7,\"note\":{\"z\":1.5,\"a\":[{\"y\":1,\"x\":-2}]},\"gone\":null}";

    #[test]
    fn both_kinds_of_patch_keep_the_order() {
        let merged =
            apply(TEXT, "{\"gone\":null,\"note\":{\"z\":2,\"new\":true}}").expect("merges");
        let expected = "{\"number\":7,\"note\":{\"z\":2,\"a\":[{\"y\":1,\"x\":-2}],\"new\":true}}";
        assert_eq!(merged, expected);
        let patch = "[{\"op\":\"test\",\"path\":\"/number\",\"value\":7},\
            {\"op\":\"replace\",\"path\":\"/note/a/0/x\",\"value\":\"ä\"}]";
        let expected = TEXT.replace("-2", "\"ä\"");
        assert_eq!(apply(TEXT, patch), Ok(expected));
    }

    #[test]
    fn a_patch_that_makes_much_of_little_is_refused() {
        let doubling = vec![r#"{"op":"copy","from":"/a","path":"/a/-"}"#; 60].join(",");
        let turn = r#"{"op":"add","path":"/b","value":{}},{"op":"move","from":"/a","path":"/b/a"},
            {"op":"move","from":"/b","path":"/a"}"#;
        let deepening = vec![turn; 300].join(",");
        let many = vec![r#"{"op":"add","path":"/a","value":1}"#; 1001].join(",");
        let path = format!(r#"{{"op":"test","path":"{}","value":1}}"#, "/a".repeat(129));
        for (patch, expected) in [
            (&doubling, "more than 2097152 bytes"),
            (&deepening, "more than 128 levels"),
            (&many, "1001 operations, 1000 at most"),
            (&path, "more than 128 parts"),
        ] {
            let error =
                apply(r#"{"a":["0123456789"]}"#, &format!("[{patch}]")).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_patch_that_does_not_fit_changes_nothing() {
        let cases = [
            (TEXT, "[{\"op\":\"test\",\"path\":\"/number\",\"value\":8}]", "did not match"),
            (TEXT, "[{\"op\":\"remove\",\"path\":\"/none\"}]", "path"),
            (TEXT, "[1]", "no list of operations"),
            (TEXT, "7", "neither an object nor"),
            (TEXT, "{", "the patch is no JSON"),
            ("[12345678901234567890123]", "[]", "the number 12345678901234567890123"),
            ("[0.1234567890123456789]", "[]", "the number 0.1234567890123456789"),
        ];
        for (text, patch, expected) in cases {
            let error = apply(text, patch).expect_err(patch);
            assert!(error.contains(expected), "{patch}: {error}");
        }
        assert_eq!(apply("[18446744073709551615]", "[]").as_deref(), Ok("[18446744073709551615]"));
    }
}
