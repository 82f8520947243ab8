//! One dead letter, whole.

use rumormill::delivery::{DeadLetter, Fingerprint, Malformed};
use rumormill::driver::GroupName;
use rumormill::{ContentType, Envelope};

use super::choice::{Choice, Letters, missing, ranges};
use super::letter::{LetterId, line};
use crate::args::Format;
use crate::escape::{escape, escape_all_but, escape_bytes};
use crate::failure::{Exit, Failure};
use crate::operate::{Store, several};
use crate::output::{Output, is_closed_pipe};
use crate::{json_text, msgpack, ndjson};

/// Which letter is shown.
pub(super) enum Which {
    One(LetterId),
    /// The last of those of a cause.
    LastOf(Fingerprint),
}

pub(super) async fn run(
    store: &Store<'_>,
    group: &GroupName,
    which: &Which,
    format: Format,
) -> Result<Exit, Failure> {
    let (id, letter, among) = match which {
        Which::One(id) => (id.clone(), one(store, group, id).await?, 0),
        Which::LastOf(fingerprint) => last_of(store, group, *fingerprint).await?,
    };
    let mut output = Output::stdout(Some(format));
    let written = match (format, &letter.record) {
        (Format::Json, _) => output.json(&line(&id.partition, &letter)),
        (Format::Raw, Ok(envelope)) => output.event(&letter.origin, envelope),
        (Format::Raw, Err(malformed)) => output.text_as_is(&fields(malformed)),
        (Format::Pretty, record) => {
            let body = match record {
                Ok(envelope) => event(envelope, &letter),
                Err(malformed) => fields(malformed),
            };
            output.text_as_is(&(head(&id, &letter, among) + &body))
        }
    };
    match written.and_then(|()| output.flush()) {
        Err(error) if !is_closed_pipe(&error) => {
            Err(Failure::failed("cannot write to stdout").because(&error))
        }
        Ok(()) | Err(_) => Ok(Exit::Done),
    }
}

/// The letter with an id.
pub(super) async fn one(
    store: &Store<'_>,
    group: &GroupName,
    id: &LetterId,
) -> Result<DeadLetter, Failure> {
    let choice = Choice::one(id.clone());
    // Tells a group that is not known from a letter that is not there.
    let (ranges, _) = ranges(store, group, &choice).await?;
    let page = Letters::within(store, group, &choice, ranges).next().await?;
    let letter = page.and_then(|page| page.letters.into_iter().next());
    letter.ok_or_else(|| missing(group, id))
}

/// The last letter of a cause, and how many there are.
async fn last_of(
    store: &Store<'_>,
    group: &GroupName,
    fingerprint: Fingerprint,
) -> Result<(LetterId, DeadLetter, u64), Failure> {
    let choice = Choice::cause(fingerprint);
    let (ranges, _) = ranges(store, group, &choice).await?;
    let mut letters = Letters::within(store, group, &choice, ranges);
    let (mut last, mut count): (Option<(LetterId, DeadLetter)>, u64) = (None, 0);
    while let Some(page) = letters.next().await? {
        count += page.letters.len() as u64;
        for letter in page.letters {
            if last.as_ref().is_none_or(|(_, known)| letter.given_up >= known.given_up) {
                let id = LetterId { partition: page.partition.clone(), id: letter.id };
                last = Some((id, letter));
            }
        }
    }
    let (id, letter) = last.ok_or_else(|| {
        Failure::failed(format!("group {group} has no dead letter of fingerprint {fingerprint}"))
            .with_help("they were redriven or purged meanwhile: list the dead letters")
    })?;
    Ok((id, letter, count))
}

/// Why it was given up, in lines before the event's own.
fn head(id: &LetterId, letter: &DeadLetter, among: u64) -> String {
    let site = &letter.failure.site;
    let known = |text: &str| if text.is_empty() { "?".into() } else { escape(text).into_owned() };
    let mut text = format!("dead letter  {id}\n");
    let mut add = |title: &str, value: String| text += &format!("{title:<12} {value}\n");
    let fingerprint = letter.fingerprint();
    match among {
        0 => add("fingerprint", fingerprint.to_string()),
        1 => add("fingerprint", format!("{fingerprint}, the only one")),
        _ => add("fingerprint", format!("{fingerprint}, the last of {among}")),
    }
    add("given up", format!("{} after {}", letter.given_up, attempts(letter)));
    add("first seen", letter.first_seen().to_string());
    add("handler", format!("{}, version {}", known(&site.handler), known(&site.version)));
    add("consumer", format!("{} on {}", escape(&letter.consumer), known(&site.host)));
    add("cause", letter.failure.cause.to_string());
    for (at, error) in letter.failure.errors.iter().enumerate() {
        let title = if at == 0 { "error" } else { "  because" };
        add(title, escape_all_but(error, &['\n']).replace('\n', "\n             "));
    }
    add("origin", letter.origin.to_string());
    text + "\n"
}

fn attempts(letter: &DeadLetter) -> String {
    several(letter.attempts.into(), "attempt")
}

/// The event's header in lines, and its payload spread out.
fn event(envelope: &Envelope, letter: &DeadLetter) -> String {
    let mut text = String::new();
    let mut add = |title: &str, value: &str| text += &format!("{title:<12} {}\n", escape(value));
    add("event", envelope.event_type().as_str());
    add("id", &envelope.id().to_string());
    add("time", &envelope.time().to_string());
    if envelope.version() != 1 {
        add("version", &envelope.version().to_string());
    }
    let expires = envelope.expires().map(|expires| expires.to_string());
    let fields = [
        ("key", envelope.key()),
        ("source", Some(envelope.source()).filter(|source| !source.is_empty())),
        ("correlation", envelope.correlation_id()),
        ("causation", envelope.causation_id()),
        ("expires", expires.as_deref()),
    ];
    for (title, value) in fields {
        if let Some(value) = value {
            add(title, value);
        }
    }
    for (name, value) in envelope.headers() {
        add("header", &format!("{name}: {value}"));
    }
    add("payload", &format!("{}, {} bytes", envelope.content_type(), envelope.payload().len()));
    text += &payload(envelope.content_type(), envelope.payload());
    if let Some(original) = &letter.original {
        text += &format!("original     {} bytes, before it was edited\n", original.len());
        text += &payload(envelope.content_type(), original);
    }
    text
}

/// A payload for people, spread over lines.
fn payload(content_type: &ContentType, bytes: &[u8]) -> String {
    let json = ndjson::payload_as_json(content_type, bytes).map(|json| json_text::pretty(&json));
    let view = json
        .or_else(|| msgpack::view(content_type, bytes))
        .unwrap_or_else(|| escape_bytes(bytes, &['\n', '\t']));
    format!("  {}\n", escape_all_but(&view, &['\n', '\t']).replace('\n', "\n  "))
}

/// The raw fields of what is no event.
fn fields(malformed: &Malformed) -> String {
    let mut text = format!("no event: {}\n", escape(&malformed.reason));
    for (name, value) in &malformed.fields {
        text += &format!("  {}: {}\n", escape_bytes(name, &[]), escape_bytes(value, &[]));
    }
    text
}
