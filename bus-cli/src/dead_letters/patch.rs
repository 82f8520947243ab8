//! Changing JSON text by a patch, with the order of its fields kept.

use serde_json::{Map, Value};

use crate::{json_text, msgpack};

/// Digits that a float keeps on its way through 64 bits.
const FLOAT_DIGITS_MAX: usize = 15;

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
            json_patch::patch(&mut value, &patch).map_err(|error| error.to_string())?;
        }
        _ => return Err("the patch is neither an object nor a list of operations".to_owned()),
    }
    let ordered = in_order(value, Some(&like));
    serde_json::to_string(&ordered).map_err(|error| error.to_string())
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
