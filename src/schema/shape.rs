//! JSON Schemas made plain: references followed, unions spread out.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// The keywords of one alternative, without references and unions.
pub(super) type Shape = Map<String, Value>;

/// The keywords that say "one of these".
const UNIONS: [&str; 2] = ["anyOf", "oneOf"];

/// Deepest chain of references that are nothing but references.
const REFERENCES_MAX: usize = 64;

/// The alternatives that `schema` allows, each plain at its top; none where it allows nothing.
pub(super) fn alternatives(root: &Value, schema: &Value) -> Vec<Shape> {
    let Some(shape) = resolved(root, schema, 0) else { return Vec::new() };
    spread(root, shape)
}

/// The reference that `schema` is, so that recursion can be seen.
pub(super) fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref").and_then(Value::as_str)
}

/// Follows `$ref` and joins `allOf`; `None` for `false`.
fn resolved(root: &Value, schema: &Value, depth: usize) -> Option<Shape> {
    let mut shape = match schema {
        Value::Bool(false) => return None,
        Value::Object(map) => map.clone(),
        _ => return Some(Shape::new()),
    };
    if depth > REFERENCES_MAX {
        return Some(Shape::new());
    }
    let mut parts = Vec::new();
    if let Some(Value::String(reference)) = shape.remove("$ref") {
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        parts.extend(target.cloned());
    }
    if let Some(Value::Array(all)) = shape.remove("allOf") {
        parts.extend(all);
    }
    for part in parts {
        shape = joined(shape, resolved(root, &part, depth + 1)?);
    }
    Some(shape)
}

/// One alternative per branch of a union, per type, and per value of an enum.
fn spread(root: &Value, mut shape: Shape) -> Vec<Shape> {
    for union in UNIONS {
        if let Some(Value::Array(branches)) = shape.remove(union) {
            let branches = branches.iter().filter_map(|branch| resolved(root, branch, 0));
            return branches.flat_map(|own| spread(root, joined(shape.clone(), own))).collect();
        }
    }
    let split = |word: &str, own: &str, values: Vec<Value>| {
        let with = |value| {
            let mut one = shape.clone();
            one.remove(word);
            one.insert(own.to_owned(), value);
            one
        };
        values.into_iter().map(with).collect::<Vec<_>>()
    };
    if let Some(Value::Array(values)) = shape.get("enum").cloned() {
        return split("enum", "const", values);
    }
    match shape.get("type").cloned() {
        Some(Value::Array(types)) => split("type", "type", types),
        _ => vec![shape],
    }
}

/// What satisfies both: fields and requirements add up, other keywords are the second's.
fn joined(mut first: Shape, second: Shape) -> Shape {
    for (word, value) in second {
        match (first.get_mut(&word), value) {
            (Some(Value::Object(own)), Value::Object(other)) if word == "properties" => {
                own.extend(other);
            }
            (Some(Value::Array(own)), Value::Array(other)) if word == "required" => {
                own.extend(other);
            }
            (_, value) => {
                first.insert(word, value);
            }
        }
    }
    first
}

/// The name of the JSON type, from `type` or from the fixed value.
pub(super) fn type_name(shape: &Shape) -> Option<&str> {
    match (shape.get("type"), shape.get("const")) {
        (Some(Value::String(name)), _) => Some(name),
        (_, Some(value)) => Some(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }),
        _ => None,
    }
}

/// The names that must be there.
pub(super) fn required(shape: &Shape) -> impl Iterator<Item = &str> {
    shape.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The fields that are named.
pub(super) fn properties(shape: &Shape) -> impl Iterator<Item = (&str, &Value)> {
    let named = shape.get("properties").and_then(Value::as_object);
    named.into_iter().flatten().map(|(name, schema)| (name.as_str(), schema))
}

pub(super) fn property<'a>(shape: &'a Shape, name: &str) -> Option<&'a Value> {
    shape.get("properties").and_then(|named| named.get(name))
}

/// The integers that are allowed, by bounds and by format; `u64` and less are told exactly.
pub(super) fn integers(shape: &Shape) -> RangeInclusive<i128> {
    let format = shape.get("format").and_then(Value::as_str).unwrap_or_default();
    let (mut low, mut high) = match format {
        "int8" => (i8::MIN.into(), i8::MAX.into()),
        "int16" => (i16::MIN.into(), i16::MAX.into()),
        "int32" => (i32::MIN.into(), i32::MAX.into()),
        "int64" | "int" => (i64::MIN.into(), i64::MAX.into()),
        "uint8" => (0, u8::MAX.into()),
        "uint16" => (0, u16::MAX.into()),
        "uint32" => (0, u32::MAX.into()),
        "uint64" | "uint" => (0, u64::MAX.into()),
        "uint128" => (0, i128::MAX),
        _ => (i128::MIN, i128::MAX),
    };
    let bound = |word: &str| {
        let number = shape.get(word)?;
        let whole = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
        whole.or_else(|| number.as_f64().map(|float| float as i128))
    };
    low = bound("minimum").map_or(low, |bound| bound.max(low));
    high = bound("maximum").map_or(high, |bound| bound.min(high));
    low..=high
}

/// How a person would name the alternative.
pub(super) fn shown(shape: &Shape) -> String {
    if let Some(value) = shape.get("const") {
        return format!("the value {value}");
    }
    let tag = properties(shape).find_map(|(_, schema)| schema.get("const"));
    let only: Vec<&str> = required(shape).collect();
    match (type_name(shape), tag, &only[..]) {
        (Some("object"), Some(tag), _) => format!("the variant {tag}"),
        (Some("object"), None, [only]) if properties(shape).count() == 1 => {
            format!("the variant {only:?}")
        }
        (Some("null"), _, _) => "null".to_owned(),
        (Some(name), _, _) => match shape.get("format").and_then(Value::as_str) {
            Some(format) => format!("{name} ({format})"),
            None => name.to_owned(),
        },
        (None, _, _) => "any value".to_owned(),
    }
}
