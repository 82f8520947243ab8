//! What must hold for any bytes, as plain functions of bytes: for property tests and for fuzzers.
//!
//! Each panics where something does not hold. Hidden, behind the feature `fuzzing`, and no part
//! of the interface.

use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use rumormill::fuzzing::{SECRET, Target};
use rumormill::{Clock, ContentType, Position, SystemClock};

use crate::address::Address;
use crate::args::Args;
use crate::config::File;
use crate::escape::{escape, escape_all_but, escape_bytes};
use crate::failure::Failure;
use crate::{dead_letters, duration, json_text, msgpack, ndjson, size};

/// All targets of the command line by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("addresses", addresses),
    ("amounts", amounts),
    ("config", config),
    ("escapes", escapes),
    ("letters", letters),
    ("lines", lines),
    ("patch", patch),
    ("payload_views", payload_views),
];

/// All targets there are, those of the library first.
pub fn targets() -> impl Iterator<Item = (&'static str, Target)> {
    rumormill::fuzzing::TARGETS.iter().chain(TARGETS).copied()
}

/// Why a line is no dead letter, as `dead-letters import` says it.
pub fn flaw_of_letter(line: &str) -> Option<String> {
    dead_letters::fuzzing::flaw_of_letter(line)
}

/// A payload after a patch, as `dead-letters edit` makes it.
///
/// # Errors
/// A line of text that says why it cannot be made.
pub fn patched(payload: &str, patch: &str) -> Result<String, String> {
    dead_letters::fuzzing::patched(payload, patch)
}

fn text(data: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(data)
}

/// What an error prints: one part a line, and nothing that a terminal would obey.
fn print(failure: &Failure, address: &Address) -> String {
    let mut out = Vec::new();
    failure.print(address, &mut out);
    let printed = String::from_utf8(out).expect("text");
    is_harmless(&printed, &['\n']);
    assert!(printed.starts_with("error: ") && printed.len() > "error: \n".len(), "{printed:?}");
    printed
}

/// Nothing that a terminal would obey, by another list than the one of the code.
fn is_harmless(text: &str, kept: &[char]) {
    let obeyed = |sign: char| {
        let code = u32::from(sign);
        let marks = [0x61c, 0x200e, 0x200f, 0x2028, 0x2029];
        let ranges = [0..=0x1f, 0x7f..=0x9f, 0x202a..=0x202e, 0x2066..=0x2069];
        marks.contains(&code) || ranges.iter().any(|range| range.contains(&code))
    };
    let found = text.chars().find(|sign| obeyed(*sign) && !kept.contains(sign));
    assert_eq!(found, None, "{text:?}");
}

/// Whatever is shown of an address, its password and its parameters are not.
fn addresses(data: &[u8]) {
    let url = text(data).into_owned();
    let address = Address::new(url.clone());
    let shown = address.to_string();
    if let Some((_, after)) = url.split_once("//") {
        let is_path = url.starts_with("unix:/") || url.starts_with("redis+unix:/");
        let hidden = after.matches(SECRET).count() > 0
            && after.match_indices(SECRET).all(|(at, _)| is_secret(after, at, is_path));
        let elsewhere = url.len() - after.len();
        if hidden && !url[..elsewhere].contains(SECRET) {
            assert!(!shown.contains(SECRET), "{url:?} is shown as {shown:?}");
            let said = format!("cannot connect to {url}");
            let printed = print(&Failure::failed(said), &address);
            assert!(!printed.contains(SECRET), "{url:?}: {printed:?}");
        }
    }
}

/// Whether what stands at `at` after the `//` of an address is a password or a parameter.
fn is_secret(after: &str, at: usize, is_path: bool) -> bool {
    let (before, behind) = after.split_at(at);
    let in_parameters = before.contains('?');
    let in_password = before.contains(':') && behind.contains('@');
    in_parameters || (in_password && !is_path)
}

/// Durations and sizes are what plain arithmetic says, or refused with a text that helps.
fn amounts(data: &[u8]) {
    let text = text(data);
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let number: Option<u128> = digits.parse().ok();
    let unit = |units: &[(&str, u128)]| {
        let found = units.iter().find(|(unit, _)| text[digits.len()..] == **unit);
        found.and_then(|(_, each)| number?.checked_mul(*each))
    };
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let millis = unit(&units).filter(|millis| *millis <= 10_000 * 86_400_000);
    let read = duration::parse("--after", &text);
    assert_eq!(read.as_ref().ok().map(Duration::as_millis), millis, "{text:?}");
    let units = [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let bytes = unit(&units).or_else(|| unit(&[("TiB", 1 << 40)]));
    let bytes = bytes.filter(|bytes| (1..=u128::from(u64::MAX)).contains(bytes));
    let size = size::parse("--keep-bytes", &text);
    assert_eq!(size.as_ref().ok().map(|bytes| u128::from(*bytes)), bytes, "{text:?}");
    for failure in [read.err(), size.err()].into_iter().flatten() {
        assert!(print(&failure, &Address::none()).contains("\n  help: "));
    }
}

/// A configuration is read, or refused with its line; what is read goes below the command line.
fn config(data: &[u8]) {
    thread_local! {
        static ROOT: clap::Command = Args::command();
    }
    let text = text(data);
    let file = ROOT.with(|root| File::parse(Path::new("bus.toml"), &text, root));
    match file {
        Ok(file) => {
            let line = ["bus-cli", "tail", "--until-end"];
            let root = file.apply(Args::command());
            if let Ok(matches) = root.try_get_matches_from(line) {
                let _settings = Args::from_arg_matches(&matches);
            }
        }
        Err(failure) => {
            let printed = print(&failure, &Address::none());
            let line =
                printed.strip_prefix("error: bus.toml:").and_then(|rest| rest.split(':').next());
            let line: usize = line.and_then(|line| line.parse().ok()).expect("a line");
            assert!((1..=text.lines().count() + 1).contains(&line), "{printed}");
        }
    }
}

/// What was escaped is harmless, stays so, and says what it said.
fn escapes(data: &[u8]) {
    let (text, kept) = (text(data), ['\n', '\t']);
    let escaped = escape(&text);
    is_harmless(&escaped, &[]);
    assert_eq!(escape(&escaped), escaped);
    is_harmless(&escape_all_but(&text, &kept), &kept);
    is_harmless(&escape_bytes(data, &kept), &kept);
    is_harmless(&escape_bytes(data, &[]), &[]);
    print(&Failure::usage(format!("x{text}")).with_help(text.as_ref()), &Address::none());
}

/// A line of NDJSON is an event that reads back from its own line, or no event for a reason.
fn lines(data: &[u8]) {
    let line = text(data);
    let now = SystemClock.now();
    match ndjson::read(&line, now) {
        Ok(event) => {
            let position: Position = "a:0/1-0/0".parse().expect("a position");
            let written = ndjson::write(&position, &event);
            assert!(!written.contains(['\n', '\r']), "{written:?}");
            assert_eq!(ndjson::read(&written, now).as_ref(), Ok(&event), "{written}");
        }
        Err(why) => assert!(!why.is_empty() && why.len() < 2000 + line.len(), "{why}"),
    }
}

/// So does the line of a dead letter.
fn letters(data: &[u8]) {
    dead_letters::fuzzing::letter(&text(data));
}

/// A payload and a patch, with a line end between them: what comes out is JSON within limits.
fn patch(data: &[u8]) {
    let text = text(data);
    let (payload, patch) = text.split_once('\n').unwrap_or((&text, "[]"));
    dead_letters::fuzzing::patch(payload, patch);
}

/// Payloads are shown within limits, and what is shown as JSON reads back as the very bytes.
fn payload_views(data: &[u8]) {
    if let Some(json) = msgpack::to_json(data) {
        assert_eq!(msgpack::from_json(&json).as_deref(), Ok(data));
    }
    let text = text(data);
    let pretty = json_text::pretty(&text);
    assert!(pretty.len() <= (text.len() + 1) * 200, "{} bytes", pretty.len());
    assert_eq!(json_text::compact(&pretty), json_text::compact(&text));
    if serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok() {
        assert!(json_text::numbers(&pretty).eq(json_text::numbers(&text)));
    }
    if let Some(view) = msgpack::view(&ContentType::MESSAGE_PACK, data) {
        assert!(view.len() <= (data.len() + 1) * 600, "{} bytes", view.len());
    }
}
