//! Taking answers apart. RESP2 arrays and RESP3 maps are both accepted.

use bytes::Bytes;
use redis::Value;

use super::fault::Fault;
use crate::delivery::EntryId;

/// Fields and values in their order, doubled ones included.
pub(super) type Fields = Vec<(Bytes, Bytes)>;

/// An entry of a stream; no fields where the entry was deleted.
pub(super) type RawEntry = (EntryId, Option<Fields>);

fn odd(what: &str) -> Fault {
    Fault::Odd(format!("an answer that is no {what}"))
}

/// The elements of an array; none where there is nothing.
pub(super) fn items(value: Value) -> Result<Vec<Value>, Fault> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::Nil => Ok(Vec::new()),
        Value::ServerError(error) => Err(error.into()),
        _ => Err(odd("array")),
    }
}

/// The pairs of a map, or of an array that stands for one.
pub(super) fn pairs(value: Value) -> Result<Vec<(Value, Value)>, Fault> {
    if let Value::Map(pairs) = value {
        return Ok(pairs);
    }
    let mut items = items(value)?.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// A string's bytes; `None` where there is nothing.
pub(super) fn bytes(value: Value) -> Result<Option<Bytes>, Fault> {
    match value {
        Value::BulkString(bytes) => Ok(Some(Bytes::from(bytes))),
        Value::SimpleString(text) => Ok(Some(Bytes::from(text))),
        Value::VerbatimString { text, .. } => Ok(Some(Bytes::from(text))),
        Value::Okay => Ok(Some(Bytes::from_static(b"OK"))),
        Value::Int(number) => Ok(Some(Bytes::from(number.to_string()))),
        Value::Nil => Ok(None),
        Value::ServerError(error) => Err(error.into()),
        _ => Err(odd("string")),
    }
}

/// A text; empty where there is nothing.
pub(super) fn text(value: Value) -> Result<String, Fault> {
    let bytes = bytes(value)?.unwrap_or_default();
    String::from_utf8(bytes.to_vec()).map_err(|_| odd("text"))
}

/// A number; `None` where there is nothing.
pub(super) fn int(value: Value) -> Result<Option<i64>, Fault> {
    match value {
        Value::Int(number) => Ok(Some(number)),
        Value::Nil => Ok(None),
        Value::ServerError(error) => Err(error.into()),
        other => text(other)?.parse().map(Some).map_err(|_| odd("number")),
    }
}

/// A count: a number that is not negative, 0 where there is nothing.
pub(super) fn count(value: Value) -> Result<u64, Fault> {
    Ok(u64::try_from(int(value)?.unwrap_or(0)).unwrap_or(0))
}

/// An entry's id.
pub(super) fn id(value: Value) -> Result<EntryId, Fault> {
    let parsed = match &value {
        // As all come that are read in numbers.
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok().map(str::parse),
        _ => Some(text(value)?.parse()),
    };
    parsed.and_then(Result::ok).ok_or_else(|| odd("entry id"))
}

/// Milliseconds of the server's clock, from `TIME`.
pub(super) fn time(value: Value) -> Result<u64, Fault> {
    let mut parts = items(value)?.into_iter();
    let (Some(seconds), Some(micros)) = (parts.next(), parts.next()) else {
        return Err(odd("time"));
    };
    Ok(count(seconds)?.saturating_mul(1000).saturating_add(count(micros)? / 1000))
}

/// A score that counts milliseconds; `None` where there is none.
pub(super) fn score(value: Value) -> Result<Option<u64>, Fault> {
    let number = match value {
        Value::Double(number) => Some(number),
        other => match bytes(other)? {
            None => None,
            Some(text) => std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()),
        },
    };
    // What is negative or no number ends at 0.
    Ok(number.map(|number: f64| number as u64))
}

/// The entries of one stream, as XRANGE, XCLAIM and XAUTOCLAIM give them.
pub(super) fn entries(value: Value) -> Result<Vec<RawEntry>, Fault> {
    items(value)?.into_iter().filter(|item| !matches!(item, Value::Nil)).map(entry).collect()
}

fn entry(value: Value) -> Result<RawEntry, Fault> {
    let mut parts = items(value)?.into_iter();
    let Some(first) = parts.next() else { return Err(odd("entry")) };
    let fields = match parts.next() {
        None | Some(Value::Nil) => None,
        Some(fields) => Some(self::fields(fields)?),
    };
    Ok((id(first)?, fields))
}

fn fields(value: Value) -> Result<Fields, Fault> {
    let field =
        |name, value| Ok((bytes(name)?.unwrap_or_default(), bytes(value)?.unwrap_or_default()));
    if let Value::Map(pairs) = value {
        return pairs.into_iter().map(|(name, value)| field(name, value)).collect();
    }
    let mut items = items(value)?.into_iter();
    let mut fields = Vec::with_capacity(items.len() / 2);
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        fields.push(field(name, value)?);
    }
    Ok(fields)
}

/// The entries of several streams by key, as XREAD and XREADGROUP give them.
pub(super) fn streams(value: Value) -> Result<Vec<(String, Vec<RawEntry>)>, Fault> {
    if let Value::Map(streams) = value {
        let stream = |(key, list)| Ok((text(key)?, entries(list)?));
        return streams.into_iter().map(stream).collect();
    }
    let stream = |item| {
        let mut parts = items(item)?.into_iter();
        match (parts.next(), parts.next()) {
            (Some(key), Some(list)) => Ok((text(key)?, entries(list)?)),
            _ => Err(odd("stream")),
        }
    };
    items(value)?.into_iter().map(stream).collect()
}

/// A log, as the scripts that look at it say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogFacts {
    /// The id of the last entry that there ever was.
    pub(super) last: EntryId,
    /// How many entries there ever were.
    pub(super) added: u64,
    pub(super) length: u64,
    /// The first that is there.
    pub(super) first: Option<EntryId>,
}

/// Four parts of a script's answer.
pub(super) fn log_facts(parts: &mut impl Iterator<Item = Value>) -> Result<LogFacts, Fault> {
    let mut next = || parts.next().unwrap_or_default();
    let (last, added, length) = (id(next())?, count(next())?, count(next())?);
    Ok(LogFacts { last, added, length, first: maybe_id(next())? })
}

/// An entry's id, or nothing where the text is empty.
pub(super) fn maybe_id(value: Value) -> Result<Option<EntryId>, Fault> {
    let text = text(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| odd("entry id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_of_all_range_is_the_last_there_is() {
        let answer = |seconds| Value::Array(vec![Value::Int(seconds), Value::Int(i64::MAX)]);
        assert_eq!(time(answer(i64::MAX)).ok(), Some(u64::MAX));
        assert_eq!(time(answer(-1)).ok(), Some(u64::MAX / 2 / 1000));
    }

    fn text_value(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn array(texts: &[&str]) -> Value {
        Value::Array(texts.iter().map(|text| text_value(text)).collect())
    }

    fn refusal() -> Value {
        redis::parse_redis_value(b"-BUSY wait\r\n").expect("an answer")
    }

    #[test]
    fn every_kind_of_text_is_one() {
        let verbatim =
            Value::VerbatimString { format: redis::VerbatimFormat::Text, text: "a".to_owned() };
        let a = Some(Bytes::from_static(b"a"));
        for value in [text_value("a"), Value::SimpleString("a".to_owned()), verbatim] {
            assert_eq!(bytes(value).expect("a text"), a);
        }
        assert_eq!(text(Value::Okay).expect("a text"), "OK");
        assert_eq!(text(Value::Int(7)).expect("a text"), "7");
        assert_eq!(bytes(Value::Nil).expect("nothing"), None);
        assert_eq!(bytes(refusal()).expect_err("refused").code(), "BUSY");
        assert!(bytes(array(&[])).is_err());
        assert!(text(Value::BulkString(vec![0xff])).is_err());
    }

    #[test]
    fn every_kind_of_number_is_one() {
        assert_eq!(int(Value::Int(-3)).expect("a number"), Some(-3));
        assert_eq!(int(text_value("12")).expect("a number"), Some(12));
        assert_eq!(int(Value::Nil).expect("nothing"), None);
        assert_eq!(int(refusal()).expect_err("refused").code(), "BUSY");
        assert!(int(text_value("x")).is_err());
        let counts = [Value::Int(-3), Value::Nil, Value::Int(5)].map(|value| count(value).ok());
        assert_eq!(counts, [Some(0), Some(0), Some(5)]);
        assert_eq!(score(Value::Double(2.7)).expect("a score"), Some(2));
        assert_eq!(score(text_value("3.5")).expect("a score"), Some(3));
        assert_eq!(score(Value::Nil).expect("nothing"), None);
        let moment = Value::Array(vec![text_value("2"), text_value("3999")]);
        assert_eq!(time(moment).expect("a time"), 2_003);
    }

    #[test]
    fn lists_and_maps_are_both_accepted() {
        let set = Value::Set(vec![Value::Int(1)]);
        assert_eq!(items(set).expect("a set"), [Value::Int(1)]);
        assert_eq!(items(Value::Nil).expect("nothing"), []);
        assert_eq!(items(refusal()).expect_err("refused").code(), "BUSY");
        assert!(items(Value::Okay).is_err());
        let pair = (text_value("a"), text_value("b"));
        assert_eq!(pairs(array(&["a", "b", "c"])).expect("pairs"), std::slice::from_ref(&pair));
        assert_eq!(pairs(Value::Map(vec![pair.clone()])).expect("pairs"), [pair]);
    }

    #[test]
    fn entries_come_with_their_fields_or_deleted() {
        let one = Value::Array(vec![text_value("5-1"), array(&["f", "v"])]);
        let gone = Value::Array(vec![text_value("6-0"), Value::Nil]);
        let bare = array(&["7-0"]);
        let list = Value::Array(vec![one, Value::Nil, gone, bare]);
        let at = |millis, seq| EntryId { millis, seq };
        let fields = vec![(Bytes::from_static(b"f"), Bytes::from_static(b"v"))];
        let right = vec![(at(5, 1), Some(fields)), (at(6, 0), None), (at(7, 0), None)];
        assert_eq!(entries(list.clone()).expect("entries"), right);
        let named = vec![("k".to_owned(), right)];
        let pair = Value::Array(vec![text_value("k"), list.clone()]);
        assert_eq!(streams(Value::Array(vec![pair])).expect("streams"), named);
        assert_eq!(streams(Value::Map(vec![(text_value("k"), list)])).expect("streams"), named);
        assert!(streams(Value::Array(vec![array(&["k"])])).is_err());
        assert!(entries(Value::Array(vec![array(&[])])).is_err());
    }

    #[test]
    fn a_log_says_four_things_of_itself() {
        let parts = ["5-1", "9", "3", "4-0"].map(text_value);
        let first = Some(EntryId { millis: 4, seq: 0 });
        let last = EntryId { millis: 5, seq: 1 };
        let facts = log_facts(&mut parts.into_iter()).expect("facts");
        assert_eq!(facts, LogFacts { last, added: 9, length: 3, first });
        assert_eq!(maybe_id(text_value("")).expect("nothing"), None);
        assert!(maybe_id(text_value("x")).is_err() && id(text_value("")).is_err());
    }
}
