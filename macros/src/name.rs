//! The rules of an event type's name: the same, in the same words, as `src/event_type.rs` of the
//! library, on which a macro of its own cannot depend. A test holds the two together.

const EVENT_TYPE_BYTES_MAX: usize = 255;
const SEGMENTS_MAX: usize = 16;
const SEGMENT_BYTES_MAX: usize = 64;

/// What is wrong with `name`, `None` where nothing is.
pub(crate) fn flaw(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > EVENT_TYPE_BYTES_MAX {
        return Some("it has more than 255 bytes");
    }
    if let Some(flaw) = name.split('.').find_map(segment_flaw) {
        return Some(flaw);
    }
    (name.split('.').count() > SEGMENTS_MAX).then_some("it has more than 16 segments")
}

/// The first flaw from the left, as a reader of one byte after the other finds it.
fn segment_flaw(segment: &str) -> Option<&'static str> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if segment.is_empty() {
        return Some("it has an empty segment; write `topic.thing.happened`");
    }
    if segment.bytes().take(SEGMENT_BYTES_MAX).any(|byte| !allowed(&byte)) {
        return Some("a segment may hold only A-Z a-z 0-9 _ and -");
    }
    match segment.as_bytes().get(SEGMENT_BYTES_MAX) {
        Some(byte) if allowed(byte) => Some("a segment has more than 64 bytes"),
        Some(_) => Some("a segment may hold only A-Z a-z 0-9 _ and -"),
        None => None,
    }
}
