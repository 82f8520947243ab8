//! What must hold for any line of a dead letter and for any patch.

use rumormill::envelope::PAYLOAD_BYTES_MAX;

use super::{letter, patch};

pub(crate) fn flaw_of_letter(line: &str) -> Option<String> {
    letter::read(line).err()
}

pub(crate) fn patched(payload: &str, patch: &str) -> Result<String, String> {
    patch::apply(payload, patch)
}

pub(crate) fn letter(line: &str) {
    if let Ok((partition, letter)) = letter::read(line) {
        let written = letter::line(&partition, &letter);
        assert!(!written.contains(['\n', '\r']), "{written:?}");
        assert_eq!(letter::read(&written), Ok((partition, letter)), "{written}");
    }
}

pub(crate) fn patch(payload: &str, patch: &str) {
    if let Ok(patched) = patch::apply(payload, patch) {
        let value: serde_json::Value = serde_json::from_str(&patched).expect("JSON");
        let most = 2 * PAYLOAD_BYTES_MAX + payload.len() + patch.len();
        assert!(patched.len() <= most, "{} bytes", patched.len());
        let again = patch::apply(&patched, "[]");
        assert!(again.is_err() || again == Ok(patched), "{value}");
    }
}
