//! Answers from bytes, as they come: RESP2, of which every value is read once.
//!
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>. The parser of the `redis` crate
//! begins anew with each part of a long answer, and took a sixth of the connections' thread where
//! events come in batches, a third where each is an entry (`docs/benchmarks.md`).

use bytes::{Buf, BytesMut};
use redis::Value;

/// Longest line: a status, an error, or the head of a value.
const LINE_MAX: usize = 1 << 16;
/// Longest text; a server takes none of more than half of it.
const TEXT_MAX: usize = 1 << 30;
/// Most values within values.
const DEPTH_MAX: usize = 64;
/// For how many elements room is made before they are there.
const RESERVED_MAX: usize = 1024;

/// Reads values out of bytes that come in parts.
#[derive(Default)]
pub(super) struct Parser {
    /// The arrays that are not whole yet, the outermost first.
    open: Vec<Open>,
}

struct Open {
    items: Vec<Value>,
    left: usize,
}

/// What a head says.
enum Head {
    Whole(Value),
    Array(usize),
}

impl Parser {
    /// The next value, whose bytes are taken away; `None` where the rest of it is yet to come.
    ///
    /// # Errors
    /// Where the bytes are none of this protocol; no byte after them can be understood either.
    pub(super) fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Value>, &'static str> {
        let mut at = 0;
        let value = self.value(bytes, &mut at);
        bytes.advance(at);
        value
    }

    fn value(&mut self, bytes: &[u8], at: &mut usize) -> Result<Option<Value>, &'static str> {
        loop {
            let Some((head, taken)) = head(&bytes[*at..])? else { return Ok(None) };
            *at += taken;
            let mut value = match head {
                Head::Array(0) => Value::Array(Vec::new()),
                Head::Array(left) => {
                    if self.open.len() == DEPTH_MAX {
                        return Err("arrays within arrays without end");
                    }
                    let items = Vec::with_capacity(left.min(RESERVED_MAX));
                    self.open.push(Open { items, left });
                    continue;
                }
                Head::Whole(value) => value,
            };
            // The last element of an array makes that whole.
            loop {
                let Some(open) = self.open.last_mut() else { return Ok(Some(value)) };
                open.items.push(value);
                open.left -= 1;
                if open.left > 0 {
                    break;
                }
                value = Value::Array(self.open.pop().map(|open| open.items).unwrap_or_default());
            }
        }
    }
}

/// What stands first, with its length; `None` where it is not all there.
fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, &'static str> {
    let Some(kind) = bytes.first() else { return Ok(None) };
    if !b"$*:+-".contains(kind) {
        return Err("a value of no known kind");
    }
    let within = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if within.len() < LINE_MAX { Ok(None) } else { Err("a line without end") };
    };
    let Some(line) = bytes[1..end].strip_suffix(b"\r") else { return Err("half an end of line") };
    let after = end + 1;
    let whole = |value| Ok(Some((Head::Whole(value), after)));
    match kind {
        b'$' => match count(line)? {
            None => whole(Value::Nil),
            Some(length) if length > TEXT_MAX => Err("a text that is too long"),
            Some(length) => text(bytes, after, length),
        },
        b'*' => match count(line)? {
            None => whole(Value::Nil),
            Some(length) => Ok(Some((Head::Array(length), after))),
        },
        b':' => whole(Value::Int(number(line)?)),
        b'+' if line == b"OK" => whole(Value::Okay),
        b'+' => {
            let text = std::str::from_utf8(line).map_err(|_| "a status that is no text")?;
            whole(Value::SimpleString(text.to_owned()))
        }
        // An error can be made but from the wire.
        _ => whole(redis::parse_redis_value(&bytes[..after]).map_err(|_| "an error of no text")?),
    }
}

fn text(bytes: &[u8], at: usize, length: usize) -> Result<Option<(Head, usize)>, &'static str> {
    let end = at + length;
    match bytes.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => {
            Ok(Some((Head::Whole(Value::BulkString(bytes[at..end].to_vec())), end + 2)))
        }
        Some(_) => Err("a text that is longer than it says"),
    }
}

/// A length; `None` for -1, which stands for nothing.
fn count(line: &[u8]) -> Result<Option<usize>, &'static str> {
    match number(line)? {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| "a length below nothing"),
    }
}

fn number(line: &[u8]) -> Result<i64, &'static str> {
    let text = std::str::from_utf8(line).ok();
    text.and_then(|text| text.parse().ok()).ok_or("a number that is none")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[u8] =
        b"*6\r\n$3\r\na\nb\r\n:-7\r\n+OK\r\n*2\r\n$-1\r\n*0\r\n-BUSY wait\r\n*-1\r\n\
                         $0\r\n\r\n+PONG\r\n";

    fn all() -> Vec<Value> {
        let refusal = redis::parse_redis_value(b"-BUSY wait\r\n").expect("an answer");
        let inner = Value::Array(vec![Value::Nil, Value::Array(Vec::new())]);
        let text = Value::BulkString(b"a\nb".to_vec());
        let array = vec![text, Value::Int(-7), Value::Okay, inner, refusal, Value::Nil];
        let pong = Value::SimpleString("PONG".to_owned());
        vec![Value::Array(array), Value::BulkString(Vec::new()), pong]
    }

    #[test]
    fn values_come_whole_however_their_bytes_come() {
        for part in 1..=ALL.len() {
            let (mut parser, mut bytes) = (Parser::default(), BytesMut::new());
            let mut values = Vec::new();
            for part in ALL.chunks(part) {
                bytes.extend_from_slice(part);
                while let Some(value) = parser.next(&mut bytes).expect("RESP") {
                    values.push(value);
                }
            }
            assert_eq!(values, all(), "in parts of {part}");
            assert!(bytes.is_empty() && parser.open.is_empty());
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let long = [b"+".as_slice(), &[b'a'; LINE_MAX]].concat();
        let deep = b"*1\r\n".repeat(DEPTH_MAX + 1);
        for bytes in [
            b"HTTP/1.1 400 Bad Request\r\n".as_slice(),
            b"%1\r\n",
            b"$2\r\nabc\r\n",
            b"$-2\r\n",
            b"$1073741825\r\n",
            b":x\r\n",
            b"*1\n",
            b"+\xff\r\n",
            &long,
            &deep,
        ] {
            let refused = Parser::default().next(&mut BytesMut::from(bytes));
            assert!(refused.is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_length_alone_takes_no_room() {
        let mut bytes = BytesMut::from(&b"*9000000000\r\n"[..]);
        let mut parser = Parser::default();
        assert_eq!(parser.next(&mut bytes), Ok(None));
        assert_eq!(parser.open[0].items.capacity(), RESERVED_MAX);
    }
}
