//! Text of others, made harmless for a terminal: control characters and with them every ANSI
//! sequence, and the marks that turn the direction of writing around.

use std::borrow::Cow;
use std::fmt::Write;

/// Escapes in the manner of JSON, `\u001b`: inside a JSON string it means the same as before.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    escape_all_but(text, &[])
}

/// Escapes all but `kept`, for text that has lines or tabs of its own.
pub(crate) fn escape_all_but<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let harmful = |sign: char| is_harmful(sign) && !kept.contains(&sign);
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for sign in text.chars() {
        if harmful(sign) {
            // All of them are below U+10000. Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(sign));
        } else {
            escaped.push(sign);
        }
    }
    Cow::Owned(escaped)
}

/// As [`escape_all_but`], for bytes that may not be text: what is none becomes `\xff`.
pub(crate) fn escape_bytes(bytes: &[u8], kept: &[char]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        escaped += &escape_all_but(chunk.valid(), kept);
        for byte in chunk.invalid() {
            let _ = write!(escaped, "\\x{byte:02x}");
        }
    }
    escaped
}

fn is_harmful(sign: char) -> bool {
    let turns_direction = matches!(
        sign,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    let breaks_line = matches!(sign, '\u{2028}' | '\u{2029}');
    sign.is_control() || turns_direction || breaks_line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_harmful_is_left() {
        let text = "a\x1b[31m\u{9b}2J\x7f\r\n\t\u{202e}\u{2066}\u{200f}\u{2028}ä😀";
        let expected =
            "a\\u001b[31m\\u009b2J\\u007f\\u000d\\u000a\\u0009\\u202e\\u2066\\u200f\\u2028ä😀";
        assert_eq!(escape(text), expected);
        assert_eq!(escape_all_but("a\tb\n\x1b", &['\n', '\t']), "a\tb\n\\u001b");
        assert!(matches!(escape("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn what_is_no_text_is_shown_in_numbers() {
        assert_eq!(escape_bytes(b"a\xff\x1b\nb\xc3", &['\n']), "a\\xff\\u001b\nb\\xc3");
    }

    #[test]
    fn an_escaped_json_string_means_the_same() {
        let json = "\"\u{9b}\u{202e}\u{7f}\"";
        let before: String = serde_json::from_str(json).expect("JSON");
        let after: String = serde_json::from_str(&escape(json)).expect("still JSON");
        assert_eq!(before, after);
    }
}
