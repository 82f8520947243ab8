//! `MessagePack` shown as JSON and read back, for payloads where that loses nothing.

mod view;

use std::fmt;

use rumormill::{Codec, ContentType};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::json_text;

/// Deepest nesting that is shown: what the JSON reader takes, and far from the end of the stack.
const DEPTH_MAX: usize = 128;

/// The JSON text of a payload; `None` where the text would not read back as the very same bytes:
/// byte strings, extensions, keys that are no strings, NaN, numbers in other than their shortest
/// form.
pub(crate) fn to_json(payload: &[u8]) -> Option<String> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(payload);
    reader.set_max_depth(DEPTH_MAX);
    let value = Value::deserialize(&mut reader).ok()?;
    let json = serde_json::to_string(&value).ok()?;
    let back = from_json(&json).ok()?;
    (back == payload).then_some(json)
}

/// Any payload that is `MessagePack` by its type as text for people, spread over lines.
pub(crate) fn view(content_type: &ContentType, payload: &[u8]) -> Option<String> {
    let is_own = content_type.codec() == Some(Codec::MessagePack);
    let text = is_own.then(|| view::text(payload)).flatten()?;
    Some(json_text::pretty(&text))
}

/// The payload that a JSON text stands for.
pub(crate) fn from_json(json: &str) -> Result<Vec<u8>, String> {
    let value: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    rmp_serde::to_vec_named(&value).map_err(|error| error.to_string())
}

/// What both formats can say. The order of a map is kept.
pub(crate) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    Array(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Array(values) => values.serialize(serializer),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// Whatever it has no method for is refused, byte strings and extensions among it.
struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can show")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Signed(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(value) = values.next_element()? {
            array.push(value);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(value: &impl Serialize) -> Vec<u8> {
        rmp_serde::to_vec_named(value).expect("encodes")
    }

    #[test]
    fn what_json_can_show_comes_back_as_it_was() {
        #[derive(serde::Serialize)]
        struct Event<'a> {
            user_id: &'a str,
            large: u64,
            small: i64,
            rate: f64,
            whole: f64,
            note: Option<()>,
            tags: Vec<bool>,
        }
        let event = Event {
            user_id: "user_alice \u{1f600} \"\n",
            large: u64::MAX,
            small: i64::MIN,
            rate: 0.1,
            whole: -0.0,
            note: None,
            tags: vec![true, false],
        };
        let payload = packed(&event);
        let json = to_json(&payload).expect("JSON can show it");
        assert!(json.starts_with("{\"user_id\":\"user_alice"), "order is kept: {json}");
        assert!(json.contains("\"large\":18446744073709551615"), "{json}");
        assert_eq!(from_json(&json).expect("reads back"), payload);
    }

    #[test]
    fn what_json_cannot_show_is_not_shown() {
        let cases: [(&str, Vec<u8>); 8] = [
            ("byte string", vec![0xc4, 1, 0]),
            ("extension", vec![0xd4, 1, 0]),
            ("key that is no string", vec![0x81, 1, 2]),
            ("NaN", packed(&f64::NAN)),
            ("32-bit float", packed(&0.1_f32)),
            ("long form of a number", vec![0xcd, 0, 1]),
            ("bytes after the end", vec![1, 2]),
            ("cut short", vec![0x92, 1]),
        ];
        for (name, payload) in cases {
            assert_eq!(to_json(&payload), None, "{name}");
        }
    }

    #[test]
    fn deep_nesting_is_survivable() {
        let mut payload = vec![0x91; 100_000];
        payload.push(0xc0);
        assert_eq!(to_json(&payload), None);
    }
}
