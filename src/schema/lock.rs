//! The lock file: what the event types looked like when it was written.

use std::env;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind as IoErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use super::compare::{Change, compare};
use super::{EventSchema, registered};
use crate::error::Error;
use crate::event_type::EventType;

/// The format of the file.
const FORMAT: u32 = 1;
/// The variable that lets [`check`] write.
const BLESS: &str = "RUMORMILL_BLESS";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    events: BTreeMap<EventType, Event>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    version: u32,
    #[serde(default = "first", skip_serializing_if = "is_first")]
    oldest: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    upcasts: bool,
    reads: Value,
    /// Only where it differs from `reads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writes: Option<Value>,
}

fn first() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_first(oldest: &u32) -> bool {
    *oldest == first()
}

/// The text of a lock file: JSON, by event type, the same for the same types.
pub fn render(events: &[EventSchema]) -> String {
    let entry = |event: &EventSchema| {
        let writes = (event.writes != event.reads).then(|| event.writes.clone());
        let EventSchema { version, oldest, upcasts, .. } = *event;
        (
            event.event_type.clone(),
            Event { version, oldest, upcasts, reads: event.reads.clone(), writes },
        )
    };
    let file = File { format: FORMAT, events: events.iter().map(entry).collect() };
    let mut value = serde_json::to_value(file).unwrap_or_default();
    value.sort_all_objects();
    format!("{value:#}\n")
}

/// Reads what [`render`] wrote.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) where the text is no lock file.
pub fn parse(text: &str) -> Result<Vec<EventSchema>, Error> {
    let refuse = |error: serde_json::Error| {
        Error::invalid(format!("this is no lock file of events: {error}"))
            .with_help(format!("write it anew with {BLESS}=1 cargo test"))
    };
    let file: File = serde_json::from_str(text).map_err(refuse)?;
    if file.format != FORMAT {
        let text = format!("lock file of format {}, this program knows {FORMAT}", file.format);
        return Err(Error::invalid(text));
    }
    let event = |(event_type, event): (EventType, Event)| {
        let Event { version, oldest, upcasts, reads, writes } = event;
        let writes = writes.unwrap_or_else(|| reads.clone());
        EventSchema { event_type, version, oldest, upcasts, reads, writes }
    };
    Ok(file.events.into_iter().map(event).collect())
}

/// Compares the registered event types with a committed lock file. For a test of yours, where a
/// relative path starts at the package.
///
/// With `RUMORMILL_BLESS=1` in the environment it writes the file and says what it accepted.
///
/// # Panics
/// Where a change breaks readers, naming the event, the field, the reason and the mend; where a
/// change breaks nobody but is not in the file yet; where the file is missing or cannot be read or
/// written; where no event type is registered.
#[track_caller]
pub fn check(path: impl AsRef<Path>) {
    let bless = env::var_os(BLESS).is_some_and(|value| value == "1");
    match compare_with(path.as_ref(), &registered(), bless) {
        Ok(accepted) => eprint!("{accepted}"),
        Err(refused) => panic!("{refused}"),
    }
}

/// What was accepted, or why not.
pub(super) fn compare_with(
    path: &Path,
    events: &[EventSchema],
    bless: bool,
) -> Result<String, String> {
    let file = path.display();
    if events.is_empty() {
        return Err("no event type is registered: write `rumormill::schema!(YourEvent);` beside \
             its struct, and name its crate in this test"
            .to_owned());
    }
    let locked = match fs::read_to_string(path) {
        Ok(text) => Some(parse(&text)),
        Err(error) if error.kind() == IoErrorKind::NotFound => None,
        Err(error) => return Err(format!("cannot read {file}: {error}")),
    };
    let changes = match locked {
        Some(Ok(locked)) => compare(&locked, events),
        Some(Err(error)) if !bless => return Err(format!("{file}: {error:?}")),
        None if !bless => {
            return Err(format!("there is no {file}: write it with {BLESS}=1 cargo test"));
        }
        Some(Err(_)) | None => compare(&[], events),
    };
    if changes.is_empty() {
        return Ok(String::new());
    }
    if !bless {
        return Err(refusal(path, &changes));
    }
    fs::write(path, render(events)).map_err(|error| format!("cannot write {file}: {error}"))?;
    let list: String = changes.iter().map(|change| format!("  {change}\n")).collect();
    Ok(format!("{file}: accepted\n{list}"))
}

fn refusal(path: &Path, changes: &[Change]) -> String {
    let file = path.display();
    let (breaking, compatible): (Vec<_>, Vec<_>) =
        changes.iter().partition(|change| change.breaking);
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        // A `String` takes every text.
        let _infallible = writeln!(text, "{args}");
    };
    if breaking.is_empty() {
        line(format_args!("{file} is not up to date; nothing breaks readers:"));
    } else {
        line(format_args!("{} since {file} was written break readers:", counted(breaking.len())));
    }
    let mut help = "";
    for change in &breaking {
        line(format_args!("  {change}"));
        if change.help != help {
            help = &change.help;
            line(format_args!("    help: {help}"));
        }
    }
    if !breaking.is_empty() && !compatible.is_empty() {
        line(format_args!("and these do not:"));
    }
    for change in &compatible {
        line(format_args!("  {change}"));
    }
    let accept = if breaking.is_empty() { "accept" } else { "or accept, where nobody reads them" };
    line(format_args!("{accept}: {BLESS}=1 cargo test"));
    text
}

fn counted(count: usize) -> String {
    if count == 1 { "1 change".to_owned() } else { format!("{count} changes") }
}
