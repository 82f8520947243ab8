//! What is changed of each event on its way: `--mask` first, then `--rewrite`, each in the order
//! given.

use std::collections::{BTreeMap, BTreeSet};

use rumormill::{Codec, Envelope, EventType};
use serde_json::Value;

use super::path::{Change, Path, each_scalar};
use super::pseudonym::Pseudonyms;
use crate::failure::Failure;
use crate::ndjson::{payload_as_json, payload_of_json};

/// What stands for the old value in the new one.
const OLD: &str = "{}";
/// A masked text that is shorter turns up elsewhere by chance.
const SECRET_CHARS_MIN: usize = 4;

/// What can be changed of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Key,
    Type,
    Source,
    CorrelationId,
    Header(String),
    Data(Path),
}

impl Field {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('.').unwrap_or((text, ""));
        Ok(match (name, rest) {
            ("key", "") => Self::Key,
            ("type", "") => Self::Type,
            ("source", "") => Self::Source,
            ("correlation_id", "") => Self::CorrelationId,
            ("header", name) if !name.is_empty() => Self::Header(name.to_owned()),
            ("data", path) => Self::Data(Path::parse(path)?),
            _ => return Err("there is no such field".to_owned()),
        })
    }
}

/// `--rewrite FIELD=VALUE`.
#[derive(Clone, Debug)]
struct Rewrite {
    field: Field,
    new: Template,
}

/// A new value, in which [`OLD`] stands for the old one.
#[derive(Clone, Debug)]
enum Template {
    /// Text; of a payload, a JSON string.
    Text(String),
    /// Any other JSON.
    Json(String),
}

/// The rules of a replay, and what they met.
pub(super) struct Rules {
    masks: Vec<(String, Field)>,
    rewrites: Vec<(String, Rewrite)>,
    pseudonyms: Pseudonyms,
    met: Met,
}

/// What the rules met.
#[derive(Default)]
struct Met {
    /// Rules that changed something.
    hits: BTreeSet<String>,
    /// Events in which a masked value stands in another place as well, by that place.
    leaks: BTreeMap<String, u64>,
}

impl Rules {
    pub(super) fn new(
        masks: &[String],
        rewrites: &[String],
        pseudonyms: Pseudonyms,
    ) -> Result<Self, Failure> {
        let masks = masks.iter().map(|text| Ok((format!("--mask {text}"), mask(text)?)));
        let rewrites =
            rewrites.iter().map(|text| Ok((format!("--rewrite {text}"), rewrite(text)?)));
        Ok(Self {
            masks: masks.collect::<Result<_, Failure>>()?,
            rewrites: rewrites.collect::<Result<_, Failure>>()?,
            pseudonyms,
            met: Met::default(),
        })
    }

    /// Forgets what was met.
    pub(super) fn restart(&mut self) {
        self.met = Met::default();
    }

    pub(super) fn has_masks(&self) -> bool {
        !self.masks.is_empty()
    }

    /// The rules that changed nothing so far.
    fn idle(&self) -> Vec<&str> {
        let masks = self.masks.iter().map(|(text, _)| text);
        let all = masks.chain(self.rewrites.iter().map(|(text, _)| text));
        all.filter(|text| !self.met.hits.contains(*text)).map(String::as_str).collect()
    }

    /// What is to be said of what the rules met.
    pub(super) fn notes(&self) -> Vec<String> {
        let idle = self.idle();
        let idle =
            idle.iter().map(|rule| format!("{rule} changes nothing: see whether it is right"));
        let leaks = self.met.leaks.iter().map(|(place, count)| {
            let help = match place.as_str() {
                "data" => "mask the other place in the payload as well".to_owned(),
                "causation_id" => "leave such an event out".to_owned(),
                place => format!("--mask {place} hides it there, too"),
            };
            format!("of {count} events a masked value stands in {place} still: {help}")
        });
        idle.chain(leaks).collect()
    }

    /// The event as it goes out, id and times apart.
    ///
    /// # Errors
    /// Why it does not: a payload that a rule cannot look into, a value that the field cannot
    /// have.
    pub(super) fn apply(&mut self, envelope: &Envelope) -> Result<Draft, String> {
        let mut draft = Draft::of(envelope);
        let mut secrets = BTreeSet::new();
        for (text, field) in &self.masks {
            let names = &self.pseudonyms;
            if draft.mask(field, names, &mut secrets).map_err(|why| format!("{text}: {why}"))? {
                self.met.hits.insert(text.clone());
            }
        }
        for place in draft.holding(&secrets) {
            *self.met.leaks.entry(place).or_default() += 1;
        }
        for (text, rewrite) in &self.rewrites {
            if draft.rewrite(rewrite).map_err(|why| format!("{text}: {why}"))? {
                self.met.hits.insert(text.clone());
            }
        }
        Ok(draft)
    }
}

fn mask(text: &str) -> Result<Field, Failure> {
    let help = "masked can be key, source, correlation_id, header.NAME, data, and data.PATH such \
                as data.user.email or data.items.*.name";
    let refuse = |why: &str| Failure::usage(format!("--mask {text}: {why}")).with_help(help);
    match Field::parse(text) {
        Ok(Field::Type) => Err(refuse("the type says who gets the event")),
        Ok(field) => Ok(field),
        Err(why) => Err(refuse(&why)),
    }
}

fn rewrite(text: &str) -> Result<Rewrite, Failure> {
    let help = "rewritten can be key, type, source, correlation_id, header.NAME and data.PATH; \
                {} in the value is the old one: --rewrite type=staging.{}";
    let refuse = |why: &str| Failure::usage(format!("--rewrite {text}: {why}")).with_help(help);
    let (field, value) = text.split_once('=').ok_or_else(|| refuse("it is not FIELD=VALUE"))?;
    let field = Field::parse(field).map_err(|why| refuse(&why))?;
    let new = match &field {
        Field::Data(_) => template_of_json(value).map_err(|why| {
            refuse(&format!("the value is no JSON: {why}"))
                .with_help("write text with quotes: --rewrite 'data.name=\"test {}\"'")
        })?,
        _ => Template::Text(value.to_owned()),
    };
    if let (Field::Type, Template::Text(value)) = (&field, &new) {
        let example = value.replace(OLD, "a");
        EventType::new(example).map_err(|error| refuse(&error.to_string()))?;
    }
    Ok(Rewrite { field, new })
}

fn template_of_json(value: &str) -> Result<Template, serde_json::Error> {
    Ok(match serde_json::from_str(value)? {
        Value::String(text) => Template::Text(text),
        _ => Template::Json(value.trim().to_owned()),
    })
}

impl Template {
    /// The new text; nothing where it would hold an old one that there is not.
    fn text(&self, old: Option<&str>) -> Option<String> {
        let (Self::Text(new) | Self::Json(new)) = self;
        match old {
            Some(old) => Some(new.replace(OLD, old)),
            None => (!new.contains(OLD)).then(|| new.clone()),
        }
    }

    /// The new JSON in place of an old one.
    fn json(&self, old: &str) -> String {
        match self {
            Self::Json(json) => json.clone(),
            Self::Text(text) => {
                let old = serde_json::from_str::<String>(old).unwrap_or_else(|_| old.to_owned());
                Value::from(text.replace(OLD, &old)).to_string()
            }
        }
    }
}

/// An event that is being changed.
pub(super) struct Draft {
    pub(super) event_type: EventType,
    pub(super) key: Option<String>,
    pub(super) source: String,
    pub(super) correlation_id: Option<String>,
    pub(super) causation_id: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    /// The payload as JSON, once a rule asked for it.
    json: Option<String>,
    original: Envelope,
}

impl Draft {
    fn of(envelope: &Envelope) -> Self {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let headers = envelope.headers();
        Self {
            event_type: envelope.event_type().clone(),
            key: text(envelope.key()),
            source: envelope.source().to_owned(),
            correlation_id: text(envelope.correlation_id()),
            causation_id: text(envelope.causation_id()),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            json: None,
            original: envelope.clone(),
        }
    }

    /// The payload as it goes out.
    pub(super) fn payload(&self) -> Result<Vec<u8>, String> {
        match &self.json {
            Some(json) => payload_of_json(self.original.content_type(), json),
            None => Ok(self.original.payload().to_vec()),
        }
    }

    /// Whether there was something to mask; what it was goes to `secrets`.
    fn mask(
        &mut self,
        field: &Field,
        names: &Pseudonyms,
        secrets: &mut BTreeSet<String>,
    ) -> Result<bool, String> {
        if let Field::Data(path) = field {
            let mut scalar = |json: &str| {
                let value: Value = serde_json::from_str(json).map_err(|why| why.to_string())?;
                secrets.extend(match &value {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                });
                Ok(names.scalar(&value).to_string())
            };
            return self.edit(path, &mut |json| each_scalar(json, &mut scalar));
        }
        let old = self.text(field);
        if let Some(old) = &old {
            secrets.insert(old.clone());
            self.set(field, Some(names.text(old)))?;
        }
        Ok(old.is_some())
    }

    /// Whether there was something to rewrite, or something was added.
    fn rewrite(&mut self, rewrite: &Rewrite) -> Result<bool, String> {
        let Rewrite { field, new } = rewrite;
        if let Field::Data(path) = field {
            return self.edit(path, &mut |json| Ok(new.json(json)));
        }
        let Some(text) = new.text(self.text(field).as_deref()) else { return Ok(false) };
        self.set(field, Some(text).filter(|text| !text.is_empty()))?;
        Ok(true)
    }

    fn edit(&mut self, path: &Path, change: &mut Change<'_>) -> Result<bool, String> {
        let json = match &self.json {
            Some(json) => json.clone(),
            None => json_of(&self.original)?,
        };
        let edited = path.edit(&json, change)?;
        let changed = edited.is_some();
        self.json = edited.or_else(|| self.json.take());
        Ok(changed)
    }

    fn text(&self, field: &Field) -> Option<String> {
        match field {
            Field::Key => self.key.clone(),
            Field::Type => Some(self.event_type.as_str().to_owned()),
            Field::Source => Some(self.source.clone()).filter(|source| !source.is_empty()),
            Field::CorrelationId => self.correlation_id.clone(),
            Field::Header(name) => {
                let own = self.headers.iter().find(|(own, _)| own == name);
                own.map(|(_, value)| value.clone())
            }
            Field::Data(_) => None,
        }
    }

    /// Gives a field that is text another value, or none.
    fn set(&mut self, field: &Field, new: Option<String>) -> Result<(), String> {
        match field {
            Field::Key => self.key = new,
            Field::Type => {
                let new = EventType::new(new.unwrap_or_default());
                self.event_type = new.map_err(|error| error.to_string())?;
            }
            Field::Source => self.source = new.unwrap_or_default(),
            Field::CorrelationId => self.correlation_id = new,
            Field::Header(name) => {
                self.headers.retain(|(own, _)| own != name);
                self.headers.extend(new.map(|new| (name.clone(), new)));
            }
            Field::Data(_) => {}
        }
        Ok(())
    }

    /// The places in which one of these stands still.
    fn holding(&self, secrets: &BTreeSet<String>) -> Vec<String> {
        let secrets: Vec<&String> =
            secrets.iter().filter(|text| text.chars().count() >= SECRET_CHARS_MIN).collect();
        if secrets.is_empty() {
            return Vec::new();
        }
        let holds = |text: &str| secrets.iter().any(|secret| text.contains(secret.as_str()));
        let texts = [
            ("key", self.key.as_deref()),
            ("source", Some(self.source.as_str())),
            ("correlation_id", self.correlation_id.as_deref()),
            ("causation_id", self.causation_id.as_deref()),
        ];
        let texts = texts.into_iter().filter(|(_, text)| text.is_some_and(holds));
        let mut places: Vec<String> = texts.map(|(name, _)| name.to_owned()).collect();
        let headers = self.headers.iter().filter(|(_, value)| holds(value));
        places.extend(headers.map(|(name, _)| format!("header.{name}")));
        let escaped = |secret: &&String| Value::from(secret.as_str()).to_string();
        let json = self.json.as_deref().unwrap_or_default();
        let bytes = self.original.payload();
        let in_payload = match self.json {
            Some(_) => secrets.iter().map(escaped).any(|text| {
                // Within a longer text as well: without the quotes.
                json.contains(&text[1..text.len() - 1])
            }),
            None => holds(&String::from_utf8_lossy(bytes)),
        };
        places.extend(in_payload.then(|| "data".to_owned()));
        places
    }
}

/// The payload as JSON text, which can be changed and put back.
fn json_of(envelope: &Envelope) -> Result<String, String> {
    let (content_type, payload) = (envelope.content_type(), envelope.payload());
    let trimmed = match content_type.codec() {
        // Blanks around a value mean nothing.
        Some(Codec::Json) => payload.trim_ascii(),
        _ => payload,
    };
    let json = payload_as_json(content_type, trimmed);
    json.map(std::borrow::Cow::into_owned).ok_or_else(|| {
        format!(
            "the payload of event {}, {content_type}, cannot be looked into without loss",
            envelope.id()
        )
    })
}

#[cfg(test)]
mod tests;
