//! How a payload becomes bytes and back.

use std::cell::Cell;
use std::fmt;

use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind};

/// The encoding that a publisher writes. Readers go by the [`ContentType`] of each event, so
/// publishers may differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// `MessagePack` maps with field names: unknown fields are skipped, absent ones default.
    #[default]
    MessagePack,
    /// JSON, for events that people or other languages read.
    Json,
}

impl Codec {
    /// What the envelope says of such a payload.
    pub const fn content_type(self) -> ContentType {
        match self {
            Self::MessagePack => ContentType::MESSAGE_PACK,
            Self::Json => ContentType::JSON,
        }
    }

    /// Encodes `value`.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] when the value's own `Serialize` fails, or JSON cannot show it.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, Error> {
        in_scratch(|out| self.encode_into(value, out))
    }

    /// Appends what [`Codec::encode`] gives to `out`; where that fails, a part of it.
    pub(crate) fn encode_into<T: Serialize + ?Sized>(
        self,
        value: &T,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let encoded = match self {
            Self::MessagePack => {
                rmp_serde::encode::write_named(out, value).map_err(|error| error.to_string())
            }
            Self::Json => serde_json::to_writer(out, value).map_err(|error| error.to_string()),
        };
        encoded.map_err(|cause| {
            let name = std::any::type_name::<T>();
            Error::new(ErrorKind::Codec, format!("cannot encode {name} as {self}: {cause}"))
        })
    }

    /// Decodes what [`Codec::encode`] wrote.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`], with the decoder's words; also where the payload is nested deeper
    /// than [`PAYLOAD_DEPTH_MAX`].
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, Error> {
        let decoded = match self {
            Self::MessagePack => message_pack(bytes).map_err(|error| error.to_string()),
            Self::Json => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
        };
        decoded.map_err(|cause| {
            let name = std::any::type_name::<T>();
            Error::new(ErrorKind::Codec, format!("payload is no {name} in {self}: {cause}"))
        })
    }
}

thread_local! {
    /// Where payloads grow: one that grew where it stays would be moved with each doubling.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Most bytes that a thread keeps for its next payload.
const SCRATCH_MAX: usize = 16 << 10;

/// What `write` writes, in an allocation of its size.
fn in_scratch<E>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Vec<u8>, E> {
    // Taken: a value may encode another one while it is encoded, or panic.
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    scratch.clear();
    write(&mut scratch)?;
    if scratch.capacity() > SCRATCH_MAX {
        return Ok(scratch);
    }
    let written = scratch.as_slice().to_vec();
    // Without the thread's own storage, at its end, it is not kept.
    let _kept = SCRATCH.try_with(|own| own.set(scratch));
    Ok(written)
}

fn message_pack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(PAYLOAD_DEPTH_MAX);
    T::deserialize(&mut reader)
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MessagePack => "MessagePack",
            Self::Json => "JSON",
        })
    }
}

/// Deepest nesting of a payload that is decoded, in either codec: what the JSON reader takes. The
/// thousand levels of the `MessagePack` reader would end the stack of a worker's thread, and with
/// it the process.
pub const PAYLOAD_DEPTH_MAX: usize = 128;

/// Most bytes of a content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// The media type of a payload.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentType(ByteString);

impl ContentType {
    /// `application/msgpack`.
    pub const MESSAGE_PACK: Self = Self(ByteString::from_static("application/msgpack"));
    /// `application/json`.
    pub const JSON: Self = Self(ByteString::from_static("application/json"));

    /// Any media type: 1 to 255 visible ASCII characters and blanks.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming the value.
    pub fn new(text: impl Into<ByteString>) -> Result<Self, Error> {
        let text = text.into();
        let visible = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if text.is_empty() || text.len() > CONTENT_TYPE_BYTES_MAX || !visible {
            let shown: String = text.chars().take(80).collect();
            return Err(Error::invalid(format!("content type {shown:?} is not a media type")));
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The codec that reads such a payload; parameters such as `; charset=utf-8` do not count.
    pub fn codec(&self) -> Option<Codec> {
        if *self == Self::MESSAGE_PACK {
            return Some(Codec::MessagePack);
        }
        let essence = self.0.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/msgpack") {
            Some(Codec::MessagePack)
        } else if essence.eq_ignore_ascii_case("application/json") || essence.ends_with("+json") {
            Some(Codec::Json)
        } else {
            None
        }
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        id: u64,
        #[serde(with = "serde_bytes")]
        blob: Vec<u8>,
        note: Option<String>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        id: u64,
        #[serde(with = "serde_bytes")]
        blob: Vec<u8>,
        note: Option<String>,
        added: Option<u32>,
    }

    #[test]
    fn large_integers_bytes_and_unknown_fields_survive() {
        for codec in [Codec::MessagePack, Codec::Json] {
            let new = New { id: u64::MAX, blob: (0..=255).collect(), note: None, added: Some(7) };
            let old: Old = codec.decode(&codec.encode(&new).expect("encodes")).expect("decodes");
            assert_eq!((old.id, old.blob.len(), &old.note), (u64::MAX, 256, &None), "{codec}");
            let back: New = codec.decode(&codec.encode(&old).expect("encodes")).expect("decodes");
            assert_eq!(back.added, None, "{codec}");
        }
    }

    #[test]
    fn the_reader_goes_by_the_content_type() {
        let with_parameter = ContentType::new("Application/JSON; charset=utf-8").expect("valid");
        assert_eq!(with_parameter.codec(), Some(Codec::Json));
        assert_eq!(ContentType::MESSAGE_PACK.codec(), Some(Codec::MessagePack));
        assert_eq!(ContentType::new("text/plain").expect("valid").codec(), None);
        assert!(ContentType::new("a\nb").is_err());
    }

    /// Encodes another value while it is encoded.
    struct Outer(String);

    impl Serialize for Outer {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let inner = Codec::Json.encode(&self.0).map_err(serde::ser::Error::custom)?;
            serializer.serialize_bytes(&inner)
        }
    }

    #[test]
    fn a_value_may_encode_another_and_size_does_not_matter() {
        for size in [0, 5, SCRATCH_MAX - 3, SCRATCH_MAX, SCRATCH_MAX * 3, 7] {
            let text = "x".repeat(size);
            let payload = Codec::MessagePack.encode(&Outer(text.clone())).expect("encodes");
            let inner: serde_bytes::ByteBuf = Codec::MessagePack.decode(&payload).expect("decodes");
            assert_eq!(Codec::Json.decode::<String>(&inner).expect("decodes"), text);
        }
    }

    /// What may be as deep as it likes.
    #[derive(Debug, PartialEq, Deserialize)]
    struct Tree(Vec<Tree>);

    #[test]
    fn a_payload_that_is_nested_too_deep_is_refused_and_spares_the_stack() {
        let deep = |levels: usize| {
            let mut message_pack = vec![0x91; levels];
            message_pack.push(0x90);
            let json = "[".repeat(levels) + &"]".repeat(levels);
            [(Codec::MessagePack, message_pack), (Codec::Json, json.into_bytes())]
        };
        for (codec, payload) in deep(50) {
            assert!(codec.decode::<Tree>(&payload).is_ok(), "{codec}");
        }
        for (codec, payload) in deep(PAYLOAD_DEPTH_MAX + 1).into_iter().chain(deep(100_000)) {
            let error = codec.decode::<Tree>(&payload).expect_err("too deep");
            assert_eq!(error.kind(), ErrorKind::Codec, "{error}");
            assert!(error.to_string().contains("limit"), "{error}");
        }
    }

    #[test]
    fn a_content_type_has_a_limit_and_may_reach_it() {
        let of = |length: usize| ContentType::new("x".repeat(length));
        assert!(of(0).is_err() && of(CONTENT_TYPE_BYTES_MAX + 1).is_err());
        assert_eq!(of(CONTENT_TYPE_BYTES_MAX).expect("as long as it may be").as_str().len(), 255);
        assert!(ContentType::new("ä").is_err());
    }

    #[test]
    fn the_suffix_of_a_json_dialect_counts() {
        let dialect = ContentType::new("application/cloudevents+json").expect("valid");
        assert_eq!(dialect.codec(), Some(Codec::Json));
        assert_eq!(dialect.to_string(), "application/cloudevents+json");
        let names = [Codec::MessagePack, Codec::Json].map(|codec| codec.to_string());
        assert_eq!(names, ["MessagePack", "JSON"]);
    }
}
