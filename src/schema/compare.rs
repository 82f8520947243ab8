//! What a change of event types does to their readers. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::EventSchema;
use super::shape::{
    Shape, alternatives, integers, properties, property, reference, required, shown, type_name,
};
use crate::event_type::EventType;

/// One change of one event type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The event type.
    pub event_type: EventType,
    /// Whether somebody can no longer read something.
    pub breaking: bool,
    /// The field, such as `address.street` or `items[]`; empty for the event as a whole.
    pub path: String,
    /// What happens to whom.
    pub text: String,
    /// What to do; empty where nothing breaks.
    pub help: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "{}: {}", self.event_type, self.text),
            path => write!(f, "{}: `{path}`: {}", self.event_type, self.text),
        }
    }
}

/// What changed from `before` to `after`, by event type. Empty where nothing did.
pub fn compare(before: &[EventSchema], after: &[EventSchema]) -> Vec<Change> {
    let by_name = |schemas: &[EventSchema]| -> BTreeMap<EventType, EventSchema> {
        schemas.iter().map(|schema| (schema.event_type.clone(), schema.clone())).collect()
    };
    let (old, new) = (by_name(before), by_name(after));
    let mut changes = Vec::new();
    for pair in after.windows(2).filter(|pair| pair[0].event_type == pair[1].event_type) {
        let (text, help) = ("is registered by two structs", "register one struct per type");
        changes.push(breaking(&pair[0], "", text, help));
    }
    for (name, before) in &old {
        match new.get(name) {
            Some(after) => changes.extend(event(before, after)),
            None => {
                let help = "keep its struct while anybody publishes it, or its events are kept";
                changes.push(breaking(before, "", "is gone: its events cannot be read", help));
            }
        }
    }
    for (_, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        changes.push(compatible(after, "is new"));
    }
    changes
}

fn breaking(event: &EventSchema, path: &str, text: impl Into<String>, help: &str) -> Change {
    Change {
        event_type: event.event_type.clone(),
        breaking: true,
        path: path.to_owned(),
        text: text.into(),
        help: help.to_owned(),
    }
}

fn compatible(event: &EventSchema, text: impl Into<String>) -> Change {
    Change { breaking: false, ..breaking(event, "", text, "") }
}

/// The changes of one event type.
fn event(before: &EventSchema, after: &EventSchema) -> Vec<Change> {
    let (old, new) = (before.version, after.version);
    if before == after {
        return Vec::new();
    }
    if new < old {
        let text = format!("goes back from version {old} to {new}");
        let help = format!("versions only rise; write version = {}", old + 1);
        return vec![breaking(after, "", text, &help)];
    }
    if after.oldest > before.oldest {
        let (gone, oldest) = (after.oldest - 1, after.oldest);
        let text = format!("version {gone} is not read any more: the oldest is {oldest}");
        let help = format!("add the upcasts from version {} on", before.oldest);
        return vec![breaking(after, "", text, &help)];
    }
    let flaws = match (new > old, after.upcasts) {
        // The compiler holds the chain of upcasts together.
        (true, true) => Vec::new(),
        (true, false) => unread(&after.reads, &before.writes, &NEW_READERS),
        (false, _) => {
            let mut flaws = unread(&after.reads, &before.writes, &NEW_READERS);
            flaws.extend(unread(&before.reads, &after.writes, &OLD_READERS));
            flaws
        }
    };
    let help = if new > old {
        format!("add the upcasts from version {old} on, or give what is new a default")
    } else {
        let next = old + 1;
        format!(
            "give what is new a default and keep what is old, or write version = {next} \
             with an upcast from {old}"
        )
    };
    if flaws.is_empty() {
        let how = if new > old { format!("is now version {new}") } else { "has changed".into() };
        return vec![compatible(after, format!("{how}, and breaks no reader"))];
    }
    flaws.into_iter().map(|flaw| breaking(after, &flaw.path, flaw.text, &help)).collect()
}

/// Who reads what, in words.
struct Sides {
    readers: &'static str,
    events: &'static str,
}

const NEW_READERS: Sides = Sides { readers: "new programs", events: "events published before" };
const OLD_READERS: Sides = Sides { readers: "programs that run already", events: "new events" };

/// Something that the writer may write and the reader does not read.
#[derive(Debug, PartialEq)]
struct Flaw {
    path: String,
    text: String,
}

fn unread(reader: &Value, writer: &Value, sides: &Sides) -> Vec<Flaw> {
    let mut comparison = Comparison { reader, writer, sides, path: Vec::new(), within: Vec::new() };
    comparison.schemas(reader, writer)
}

struct Comparison<'a> {
    /// The roots, which references start from.
    reader: &'a Value,
    writer: &'a Value,
    sides: &'a Sides,
    path: Vec<String>,
    /// The pairs of references that are being compared: a type may hold itself.
    within: Vec<(String, String)>,
}

impl Comparison<'_> {
    fn schemas(&mut self, reader: &Value, writer: &Value) -> Vec<Flaw> {
        let pair = reference(reader).zip(reference(writer));
        let Some((own, other)) = pair else { return self.unions(reader, writer) };
        let pair = (own.to_owned(), other.to_owned());
        if self.within.contains(&pair) {
            return Vec::new();
        }
        self.within.push(pair);
        let flaws = self.unions(reader, writer);
        self.within.pop();
        flaws
    }

    /// Each alternative of the writer needs one of the reader.
    fn unions(&mut self, reader: &Value, writer: &Value) -> Vec<Flaw> {
        let readers = alternatives(self.reader, reader);
        let writers = alternatives(self.writer, writer);
        let alone = readers.len() == 1 && writers.len() == 1;
        let mut flaws = Vec::new();
        for writer in &writers {
            let mut closest = None;
            let mut is_read = false;
            for reader in &readers {
                let found = self.shapes(reader, writer);
                if found.is_empty() {
                    is_read = true;
                    break;
                }
                if alone || is_kin(reader, writer) {
                    closest = Some(found);
                }
            }
            if !is_read {
                flaws.extend(closest.unwrap_or_else(|| vec![self.unknown(&readers, writer)]));
            }
        }
        flaws
    }

    fn shapes(&mut self, reader: &Shape, writer: &Shape) -> Vec<Flaw> {
        if let Some(fixed) = reader.get("const") {
            let same = writer.get("const") == Some(fixed);
            return if same { vec![] } else { vec![self.mismatch(reader, writer)] };
        }
        let (read, written) = (type_name(reader), type_name(writer));
        let Some(read) = read else { return Vec::new() };
        if Some(read) != written && (read, written) != ("number", Some("integer")) {
            return vec![self.mismatch(reader, writer)];
        }
        match read {
            "object" => self.objects(reader, writer),
            "array" => self.arrays(reader, writer),
            "integer" => self.integers(reader, writer),
            "string" if !is_text_read(reader, writer) => vec![self.mismatch(reader, writer)],
            _ => Vec::new(),
        }
    }

    fn objects(&mut self, reader: &Shape, writer: &Shape) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        for name in required(reader).filter(|name| !required(writer).any(|own| own == *name)) {
            flaws.push(self.missing(name));
        }
        let others = writer.get("additionalProperties");
        for (name, schema) in properties(reader) {
            // A map may hold any name.
            if let Some(written) = property(writer, name).or(others.filter(|own| own.is_object())) {
                flaws.extend(self.below(name, |own| own.schemas(schema, written)));
            }
        }
        let rest = reader.get("additionalProperties");
        let Some(rest) = rest.filter(|rest| **rest != Value::Bool(true)) else { return flaws };
        for (name, schema) in properties(writer).filter(|(n, _)| property(reader, n).is_none()) {
            flaws.extend(self.below(name, |own| match rest {
                Value::Bool(_) => vec![own.denied()],
                rest => own.schemas(rest, schema),
            }));
        }
        if let (Value::Object(_), Some(others)) = (rest, others.filter(|own| own.is_object())) {
            flaws.extend(self.below("*", |own| own.schemas(rest, others)));
        }
        flaws
    }

    fn arrays(&mut self, reader: &Shape, writer: &Shape) -> Vec<Flaw> {
        let length = |shape: &Shape, word: &str| shape.get(word).and_then(Value::as_u64);
        let low = (length(reader, "minItems"), length(writer, "minItems"));
        let high = (length(reader, "maxItems"), length(writer, "maxItems"));
        let short = low.0.is_some_and(|low_read| low.1.is_none_or(|own| own < low_read));
        let long = high.0.is_some_and(|high_read| high.1.is_none_or(|own| own > high_read));
        if short || long {
            let own = (at_least(low.0, high.0), at_least(low.1, high.1));
            return vec![self.flaw(|sides| {
                format!("{} read {}, {} have {}", sides.readers, own.0, sides.events, own.1)
            })];
        }
        let any = Value::Bool(true);
        let item = |shape: &Shape| shape.get("items").cloned().unwrap_or(any.clone());
        let place = |shape: &Shape, index: usize| {
            shape.get("prefixItems").and_then(|items| items.get(index)).cloned()
        };
        let mut flaws = Vec::new();
        let mut index = 0;
        while let (read, written) = (place(reader, index), place(writer, index))
            && (read.is_some() || written.is_some())
        {
            let read = read.unwrap_or_else(|| item(reader));
            let written = written.unwrap_or_else(|| item(writer));
            flaws.extend(self.below(&index.to_string(), |own| own.schemas(&read, &written)));
            index += 1;
        }
        if index == 0 {
            flaws.extend(self.below("[]", |own| own.schemas(&item(reader), &item(writer))));
        }
        flaws
    }

    fn integers(&self, reader: &Shape, writer: &Shape) -> Vec<Flaw> {
        let read = integers(reader);
        let written = match writer.get("const").and_then(Value::as_i64) {
            Some(value) => value.into()..=value.into(),
            None => integers(writer),
        };
        if read.contains(written.start()) && read.contains(written.end()) {
            return Vec::new();
        }
        vec![self.mismatch(reader, writer)]
    }

    fn below(&mut self, name: &str, compare: impl FnOnce(&mut Self) -> Vec<Flaw>) -> Vec<Flaw> {
        self.path.push(name.to_owned());
        let flaws = compare(self);
        self.path.pop();
        flaws
    }

    fn flaw(&self, text: impl FnOnce(&Sides) -> String) -> Flaw {
        Flaw { path: self.path.join(".").replace(".[]", "[]"), text: text(self.sides) }
    }

    fn missing(&mut self, name: &str) -> Flaw {
        let missing = |own: &mut Self| {
            let text = |sides: &Sides| {
                format!("{} require it, {} may lack it", sides.readers, sides.events)
            };
            vec![own.flaw(text)]
        };
        self.below(name, missing).remove(0)
    }

    fn denied(&self) -> Flaw {
        self.flaw(|sides| {
            format!("{} deny unknown fields, {} have it", sides.readers, sides.events)
        })
    }

    fn mismatch(&self, reader: &Shape, writer: &Shape) -> Flaw {
        let (read, written) = (shown(reader), shown(writer));
        self.flaw(|sides| format!("{} read {read}, {} have {written}", sides.readers, sides.events))
    }

    /// No alternative of the reader is near.
    fn unknown(&self, readers: &[Shape], writer: &Shape) -> Flaw {
        if let [reader] = readers {
            return self.mismatch(reader, writer);
        }
        let written = shown(writer);
        self.flaw(|sides| {
            format!("{} do not know {written}, {} may have it", sides.readers, sides.events)
        })
    }
}

/// Objects of one variant: the same tag, or the same only field.
fn is_kin(reader: &Shape, writer: &Shape) -> bool {
    if type_name(reader) != Some("object") || type_name(writer) != Some("object") {
        return false;
    }
    let tags = |shape: &Shape| -> Vec<(String, Value)> {
        let fixed = properties(shape).filter_map(|(name, own)| Some((name, own.get("const")?)));
        fixed.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    };
    let (read, written) = (tags(reader), tags(writer));
    if !read.is_empty() || !written.is_empty() {
        return read == written;
    }
    let names = |shape: &Shape| properties(shape).map(|(name, _)| name.to_owned()).next();
    names(reader) == names(writer)
}

/// A reader that asks for a format, a pattern or a length gets nothing else.
fn is_text_read(reader: &Shape, writer: &Shape) -> bool {
    let words = ["format", "pattern", "minLength", "maxLength"];
    words.iter().all(|word| reader.get(*word).is_none_or(|own| writer.get(*word) == Some(own)))
}

fn at_least(low: Option<u64>, high: Option<u64>) -> String {
    match (low, high) {
        (Some(low), Some(high)) if low == high => format!("{low} items"),
        (low, Some(high)) => format!("{} to {high} items", low.unwrap_or_default()),
        (Some(low), None) => format!("{low} items or more"),
        (None, None) => "any number of items".to_owned(),
    }
}

#[cfg(test)]
mod tests;
