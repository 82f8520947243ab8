//! Any `MessagePack` as text for people: as JSON, and what that cannot say in a form of its own:
//! `h'00ff'` for bytes, `ext(1 h'00ff')` for an extension.

use std::fmt::{self, Display, Write};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::DEPTH_MAX;

/// The text, in one line; `None` where it is not `MessagePack` up to its end.
pub(super) fn text(payload: &[u8]) -> Option<String> {
    let mut rest = payload;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    reader.set_max_depth(DEPTH_MAX);
    let View(text) = View::deserialize(&mut reader).ok()?;
    drop(reader);
    rest.is_empty().then_some(text)
}

struct View(String);

impl<'de> Deserialize<'de> for View {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ViewVisitor)
    }
}

struct ViewVisitor;

fn shown<E>(value: impl Display) -> Result<View, E> {
    Ok(View(value.to_string()))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = "h'".to_owned();
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text + "'"
}

impl<'de> Visitor<'de> for ViewVisitor {
    type Value = View;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<View, E> {
        shown("null")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<View, E> {
        shown(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<View, E> {
        shown(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<View, E> {
        shown(value)
    }

    fn visit_f32<E: de::Error>(self, value: f32) -> Result<View, E> {
        shown(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<View, E> {
        shown(value)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<View, E> {
        serde_json::to_string(value).map(View).map_err(E::custom)
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<View, E> {
        shown(hex(value))
    }

    /// An extension: its kind and its bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<View, D::Error> {
        let (kind, bytes) = <(i8, Bytes)>::deserialize(inner)?;
        shown(format_args!("ext({kind} {})", hex(&bytes.0)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<View, A::Error> {
        let mut parts = Vec::new();
        while let Some(View(value)) = values.next_element()? {
            parts.push(value);
        }
        shown(format_args!("[{}]", parts.join(",")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<View, A::Error> {
        let mut parts = Vec::new();
        while let Some((View(key), View(value))) = entries.next_entry()? {
            parts.push(format!("{key}:{value}"));
        }
        shown(format_args!("{{{}}}", parts.join(",")))
    }
}

struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(value.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_shown() {
        let cases: [(&[u8], &str); 6] = [
            (&[0x82, 0xa1, b'b', 0xc4, 2, 0, 0xff, 1, 0xc0], "{\"b\":h'00ff',1:null}"),
            (&[0x92, 0xd4, 1, 7, 0xc3], "[ext(1 h'07'),true]"),
            (&[0xca, 0x3f, 0x80, 0, 0], "1"),
            (&[0xcd, 0, 1], "1"),
            (&[0xa2, b'"', b'\n'], "\"\\\"\\n\""),
            (&[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], "NaN"),
        ];
        for (payload, expected) in cases {
            assert_eq!(text(payload).as_deref(), Some(expected), "{payload:x?}");
        }
        for bad in [&[0x92, 1][..], &[1, 2], &[], &[0x91; 1000]] {
            assert_eq!(text(bad), None, "{bad:x?}");
        }
    }
}
