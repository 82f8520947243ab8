//! Tokens that stand for masked values: the same for the same value, so that what belonged
//! together still does, and telling nothing of it to whoever has no key.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::failure::Failure;

/// Fewer bytes of a key could be guessed.
const KEY_BYTES_MIN: usize = 16;
/// More are a file that was meant for something else.
const KEY_BYTES_MAX: u64 = 4096;
/// Bytes of the hash that a token shows: two values share one by chance only among 2^48.
const TOKEN_BYTES: usize = 12;
/// Whole numbers stay within what 32 bits with a sign hold, or what a float holds exactly.
const SMALL: u64 = 1 << 31;
const LARGE: u64 = 1 << 53;

/// Makes tokens under a key.
pub(super) struct Pseudonyms(Hmac<Sha256>);

impl Pseudonyms {
    /// Under a key of this run alone, which nobody ever sees.
    pub(super) fn random() -> Self {
        let key = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        Self::keyed(key.map(uuid::Uuid::into_bytes).as_flattened())
    }

    /// Under the bytes of a file: the same tokens in every run.
    pub(super) fn of_file(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let mut key = Vec::new();
        let read = File::open(path).and_then(|f| f.take(KEY_BYTES_MAX + 1).read_to_end(&mut key));
        read.map_err(|error| Failure::failed(format!("cannot read {name}")).because(&error))?;
        if key.len() < KEY_BYTES_MIN || key.len() as u64 > KEY_BYTES_MAX {
            let text = format!("--mask-key: {name} has {} bytes", key.len());
            let help = format!("{KEY_BYTES_MIN} to {KEY_BYTES_MAX} random bytes make a key");
            return Err(Failure::usage(text).with_help(help));
        }
        Ok(Self::keyed(&key))
    }

    fn keyed(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// The token of a text.
    pub(super) fn text(&self, text: &str) -> String {
        let mut token = "masked-".to_owned();
        for byte in &self.hash(b's', text)[..TOKEN_BYTES] {
            // Writing to a string cannot fail.
            let _ = write!(token, "{byte:02x}");
        }
        token
    }

    /// The JSON that stands for a JSON scalar, of its kind so that it decodes as before: a token
    /// for text, a number for a number, `false` for both truths. `null` says nothing.
    pub(super) fn scalar(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::from(self.text(text)),
            Value::Number(number) => {
                let hash = self.hash(b'n', &number.to_string());
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&hash[..8]);
                let hash = u64::from_be_bytes(bytes);
                match (number.as_u64(), number.as_i64()) {
                    (Some(number), _) if number >= SMALL => Value::from(hash % LARGE),
                    (None, Some(number)) if number.unsigned_abs() >= SMALL => {
                        Value::from(hash % LARGE)
                    }
                    (None, None) => Value::from((hash % LARGE) as f64 / LARGE as f64),
                    _ => Value::from(hash % SMALL),
                }
            }
            Value::Bool(_) => Value::Bool(false),
            _ => Value::Null,
        }
    }

    fn hash(&self, kind: u8, text: &str) -> [u8; 32] {
        let keyed = self.0.clone().chain_update([kind]).chain_update(text);
        keyed.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_value_has_the_same_token_and_another_key_another() {
        let names = Pseudonyms::keyed(b"0123456789abcdef");
        let token = names.text("carol@example.com");
        assert_eq!(token, names.text("carol@example.com"));
        assert_eq!(token.len(), "masked-".len() + 2 * TOKEN_BYTES);
        assert_ne!(token, names.text("alice@example.com"));
        assert_ne!(token, Pseudonyms::random().text("carol@example.com"));
        assert_eq!(names.scalar(&json!("carol@example.com")), json!(token));
    }

    #[test]
    fn a_value_keeps_its_kind() {
        let names = Pseudonyms::random();
        for small in [json!(0), json!(7), json!(-7), json!(2_147_483_647_u64)] {
            assert!(names.scalar(&small).as_u64().expect("whole") < SMALL, "{small}");
        }
        for large in [json!(u64::MAX), json!(i64::MIN), json!(4_000_000_000_u64)] {
            assert!(names.scalar(&large).as_u64().expect("whole") < LARGE, "{large}");
        }
        assert!(names.scalar(&json!(0.5)).is_f64());
        assert_eq!(names.scalar(&json!(true)), json!(false));
        assert_eq!(names.scalar(&json!(null)), json!(null));
    }

    #[test]
    fn a_short_key_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        std::fs::write(&path, "short").expect("a file");
        assert!(Pseudonyms::of_file(&path).is_err());
        std::fs::write(&path, "0123456789abcdef").expect("a file");
        let token = Pseudonyms::of_file(&path).expect("a key").text("a");
        assert_eq!(token, Pseudonyms::keyed(b"0123456789abcdef").text("a"));
    }
}
