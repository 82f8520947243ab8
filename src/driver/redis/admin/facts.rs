//! Taking apart what the server tells about streams, groups and sorted sets.

use std::collections::HashMap;

use redis::Value;

use crate::delivery::EntryId;
use crate::driver::redis::fault::Fault;
use crate::driver::redis::reply;

/// A stream; one that is not there is empty.
#[derive(Default)]
pub(super) struct StreamFacts {
    pub(super) length: u64,
    /// The id of the last entry that there ever was.
    pub(super) end: EntryId,
    pub(super) first: Option<EntryId>,
    pub(super) last: Option<EntryId>,
}

/// A group on a stream.
#[derive(Default)]
pub(super) struct GroupFacts {
    pub(super) name: String,
    pub(super) position: EntryId,
    pub(super) pending: u64,
    /// What the server says is unread, where it knows.
    pub(super) lag: Option<u64>,
}

/// A group's pending entries of a stream.
#[derive(Default)]
pub(super) struct PendingFacts {
    pub(super) count: u64,
    pub(super) first: Option<EntryId>,
    pub(super) last: Option<EntryId>,
}

/// A consumer on a stream.
pub(super) struct ConsumerFacts {
    pub(super) name: String,
    pub(super) pending: u64,
    pub(super) idle_ms: u64,
}

fn named(value: Value) -> Result<HashMap<String, Value>, Fault> {
    let pairs = reply::pairs(value)?.into_iter();
    pairs.map(|(name, value)| Ok((reply::text(name)?, value))).collect()
}

pub(super) fn stream(value: Value) -> Result<StreamFacts, Fault> {
    let mut facts = named(value)?;
    let mut take = |name: &str| facts.remove(name).unwrap_or_default();
    let end = take("last-generated-id");
    Ok(StreamFacts {
        length: reply::count(take("length"))?,
        end: if end == Value::Nil { EntryId::ZERO } else { reply::id(end)? },
        first: entry_id(take("first-entry"))?,
        last: entry_id(take("last-entry"))?,
    })
}

fn entry_id(entry: Value) -> Result<Option<EntryId>, Fault> {
    reply::items(entry)?.into_iter().next().map(reply::id).transpose()
}

pub(super) fn groups(value: Value) -> Result<Vec<GroupFacts>, Fault> {
    let group = |row| {
        let mut facts = named(row)?;
        let mut take = |name: &str| facts.remove(name).unwrap_or_default();
        let lag = reply::int(take("lag"))?;
        Ok(GroupFacts {
            name: reply::text(take("name"))?,
            position: reply::id(take("last-delivered-id"))?,
            pending: reply::count(take("pending"))?,
            lag: lag.and_then(|lag| u64::try_from(lag).ok()),
        })
    };
    reply::items(value)?.into_iter().map(group).collect()
}

/// The short form of XPENDING.
pub(super) fn pending(value: Value) -> Result<PendingFacts, Fault> {
    let mut parts = reply::items(value)?.into_iter();
    let mut next = || parts.next().unwrap_or_default();
    let count = reply::count(next())?;
    let id = |value| if value == Value::Nil { Ok(None) } else { reply::id(value).map(Some) };
    Ok(PendingFacts { count, first: id(next())?, last: id(next())? })
}

pub(super) fn consumers(value: Value) -> Result<Vec<ConsumerFacts>, Fault> {
    let consumer = |row| {
        let mut facts = named(row)?;
        let mut take = |name: &str| facts.remove(name).unwrap_or_default();
        Ok(ConsumerFacts {
            name: reply::text(take("name"))?,
            pending: reply::count(take("pending"))?,
            idle_ms: reply::count(take("idle"))?,
        })
    };
    reply::items(value)?.into_iter().map(consumer).collect()
}

/// A hash of numbers.
pub(in crate::driver::redis) fn numbers(value: Value) -> Result<HashMap<String, u64>, Fault> {
    let number = |(name, value)| {
        let name = reply::bytes(name)?.unwrap_or_default();
        Ok((String::from_utf8_lossy(&name).into_owned(), reply::count(value)?))
    };
    reply::pairs(value)?.into_iter().map(number).collect()
}

/// Members and whole scores of a sorted set, in either protocol. What is no text is shown as far
/// as it is one.
pub(in crate::driver::redis) fn scores(value: Value) -> Result<Vec<(String, u64)>, Fault> {
    let items = reply::items(value)?;
    let nested = matches!(items.first(), Some(Value::Array(_)));
    let flat: Vec<Value> = if nested {
        items.into_iter().map(reply::items).collect::<Result<Vec<_>, _>>()?.concat()
    } else {
        items
    };
    let mut flat = flat.into_iter();
    let mut scores = Vec::new();
    while let (Some(member), Some(score)) = (flat.next(), flat.next()) {
        let member = reply::bytes(member)?.unwrap_or_default();
        scores.push((String::from_utf8_lossy(&member).into_owned(), whole(score)?));
    }
    Ok(scores)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds")]
fn whole(score: Value) -> Result<u64, Fault> {
    let number = match score {
        Value::Double(number) => number,
        text => reply::text(text)?
            .parse()
            .map_err(|_| Fault::Odd("an answer that is no score".to_owned()))?,
    };
    Ok(number.max(0.0) as u64)
}

/// Hands any answer to all who read one.
#[cfg(feature = "fuzzing")]
pub(in super::super) fn read_any(answer: &Value) {
    let answer = || answer.clone();
    drop((stream(answer()), groups(answer()), pending(answer())));
    drop((consumers(answer()), numbers(answer()), scores(answer())));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn scores_of_both_protocols_are_read() {
        let flat = Value::Array(vec![text("a b"), text("1700000000000"), text("c"), text("2.5")]);
        let pair = |name, score| Value::Array(vec![text(name), Value::Double(score)]);
        let nested = Value::Array(vec![pair("a b", 1_700_000_000_000.0), pair("c", 2.5)]);
        let expected = [("a b".to_owned(), 1_700_000_000_000), ("c".to_owned(), 2)];
        assert_eq!(scores(flat).expect("scores"), expected);
        assert_eq!(scores(nested).expect("scores"), expected);
        assert!(scores(Value::Nil).expect("none").is_empty());
    }

    #[test]
    fn what_is_not_there_is_empty() {
        let facts = stream(Value::Nil).expect("empty");
        assert_eq!((facts.length, facts.end, facts.first), (0, EntryId::ZERO, None));
        assert!(groups(Value::Nil).expect("empty").is_empty());
        assert_eq!(pending(Value::Nil).expect("empty").count, 0);
    }
}
