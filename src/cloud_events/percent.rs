//! Percent-encoding, and lists of names and values in one text.

/// Encodes every byte that `keep` does not name.
pub(super) fn encode(text: &str, keep: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii() && keep(byte) {
            encoded.push(byte.into());
        } else {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                let digit = char::from_digit(digit.into(), 16).unwrap_or_default();
                encoded.push(digit.to_ascii_uppercase());
            }
        }
    }
    encoded
}

/// The bytes of what [`encode`] wrote. A `%` that begins no byte stands for itself.
pub(super) fn decode_bytes(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let digit = |at: usize| {
        let digit = bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        digit.and_then(|digit| u8::try_from(digit).ok())
    };
    while let Some(byte) = bytes.get(at) {
        match (*byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            (byte, _, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// The text of what [`encode`] wrote; `None` where it is no UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    String::from_utf8(decode_bytes(text)).ok()
}

/// What RFC 3986 never encodes.
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// `name=value&name`: a value may be absent.
pub(super) fn encode_list<'a>(list: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let part = |(name, value): (&str, Option<&str>)| {
        let name = encode(name, is_unreserved);
        let keep = |byte| is_unreserved(byte) || b"/:@".contains(&byte);
        value.map_or(name.clone(), |value| format!("{name}={}", encode(value, keep)))
    };
    list.map(part).collect::<Vec<_>>().join("&")
}

/// What [`encode_list`] wrote; `None` where a part is no UTF-8.
pub(super) fn decode_list(text: &str) -> Option<Vec<(String, Option<String>)>> {
    let part = |part: &str| match part.split_once('=') {
        Some((name, value)) => Some((decode(name)?, Some(decode(value)?))),
        None => Some((decode(part)?, None)),
    };
    text.split('&').map(part).collect()
}
