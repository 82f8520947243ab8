//! The rules, each a function from a file to its offences.

use std::fmt;

use crate::source::{File, Source, Token};

const COLUMNS_MAX: usize = 100;
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Values only: no runtime, no files, no network, no clock.
const PURE: &[&str] = &[
    "src/event.rs",
    "src/event_id.rs",
    "src/event_type.rs",
    "src/pattern.rs",
    "src/envelope.rs",
    "src/envelope/",
    "src/codec.rs",
    "src/delivery.rs",
    "src/delivery/",
    "src/error.rs",
    "src/time.rs",
    "src/cloud_events.rs",
    "src/cloud_events/",
    "src/schema/compare.rs",
    "src/schema/shape.rs",
    "src/outbox/row.rs",
    "src/worker/verdict.rs",
    "src/service/backoff.rs",
];

/// The words of the bus, which everything may use.
const VOCABULARY: &[&str] = &[
    "event",
    "event_id",
    "event_type",
    "pattern",
    "envelope",
    "codec",
    "delivery",
    "error",
    "time",
    "alarm",
    "trouble",
    // Known bugs for the harness; nothing without the feature.
    "plant",
];

/// Which top module may use which, beside itself and the vocabulary. `lib.rs` only re-exports.
const ARROWS: &[(&str, &[&str])] = &[
    ("driver", &[]),
    ("publisher", &["driver"]),
    ("schema", &[]),
    ("cloud_events", &[]),
    // A middleware never sees a driver.
    ("middleware", &["service"]),
    // A service names the options that its worker will have, and nothing else of it.
    ("service", &["driver", "publisher", "middleware"]),
    ("worker", &["driver", "publisher", "middleware", "service"]),
    ("bus", &["driver", "publisher", "middleware", "service", "worker"]),
    ("outbox", &["driver", "publisher", "service", "bus"]),
    ("doc_tests", &[]),
    ("fuzzing", &["driver"]),
    ("testing", &["driver", "publisher", "middleware", "service", "worker", "bus"]),
    ("conformance", &["driver", "publisher", "middleware", "service", "worker", "bus"]),
    ("lib", &["driver", "publisher", "middleware", "service", "worker", "bus"]),
];

/// What the library is compared with is the `redis` crate itself.
const CRATE_AS_A_PEER: &str = "bench/src/peers/plain.rs";

/// What the names of keys hold, beside the namespace at their head.
const KEY_PARTS: &[&str] = &[
    ":log",
    ":delayed",
    ":retry:",
    ":due:",
    ":dead:",
    ":progress:",
    ":outbox:",
    ":running:",
    ":checkpoint:",
    ":trim",
    ":seen:",
    ":dropped",
    ":parking:",
    ":parked:",
    ":handled:",
    ":confirm",
];

#[derive(Debug, PartialEq)]
pub(crate) struct Offence {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

fn offence(path: &str, line: usize, what: impl Into<String>) -> Offence {
    Offence { path: path.to_owned(), line, what: what.into() }
}

pub(crate) fn long_lines(file: &File) -> Vec<Offence> {
    let lines = (1..).zip(file.text.lines());
    lines
        // A row of a table in the documentation is one line.
        .filter(|(_, text)| !text.trim_start().starts_with("//! |"))
        .map(|(line, text)| (line, text.chars().count()))
        .filter(|(_, columns)| *columns > COLUMNS_MAX)
        .map(|(line, columns)| offence(&file.path, line, format!("{columns} columns")))
        .collect()
}

pub(crate) fn long_file(file: &File) -> Vec<Offence> {
    let lines = file.text.lines().count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![offence(&file.path, lines, format!("{lines} lines"))]
}

pub(crate) fn long_functions(source: &Source) -> Vec<Offence> {
    let long = source.functions.iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
    long.map(|function| {
        let what = format!("`{}` has {} lines", function.name, function.lines);
        offence(&source.path, function.line, what)
    })
    .collect()
}

pub(crate) fn impure(source: &Source) -> Vec<Offence> {
    if !PURE.iter().any(|path| source.path == *path || source.path.starts_with(path)) {
        return Vec::new();
    }
    // The clock itself lives in `time.rs`, which says so in an `expect`.
    let clock = source.path == "src/time.rs";
    let words = ["tokio", "fs", "net", "SystemTime", "Instant", "SystemClock"];
    let known = if clock { &words[..3] } else { &words[..] };
    let tokens = source.tokens.iter().filter(|token| !token.test);
    tokens
        .filter(|token| known.contains(&token.text.as_str()))
        .map(|token| offence(&source.path, token.line, token.text.clone()))
        .collect()
}

pub(crate) fn redis_crate(source: &Source) -> Vec<Offence> {
    let may = source.path.starts_with("src/driver/redis/") || source.path == CRATE_AS_A_PEER;
    if source.is_test() || may {
        return Vec::new();
    }
    let tokens = &source.tokens;
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    let is_crate = |at: &usize| {
        let path = is(at + 1, ":") && is(at + 2, ":");
        // `driver::redis::` is our module, `::redis::` and `redis::` are the crate.
        let within = *at >= 3 && is(at - 1, ":") && is(at - 2, ":") && is_word(&tokens[at - 3]);
        is(*at, "redis") && path && !within
    };
    (0..tokens.len())
        .filter(is_crate)
        .map(|at| offence(&source.path, tokens[at].line, "redis::"))
        .collect()
}

fn is_word(token: &Token) -> bool {
    token.text.chars().all(|sign| sign.is_alphanumeric() || sign == '_')
}

/// String literals of the library that look like a key.
pub(crate) fn key_names(source: &Source) -> Vec<Offence> {
    if !source.path.starts_with("src/") || source.path == "src/driver/redis/keys.rs" {
        return Vec::new();
    }
    let literals = source.tokens.iter().filter(|token| !token.test && token.text.contains('"'));
    literals
        .filter(|token| is_key(&token.text))
        .map(|token| offence(&source.path, token.line, token.text.clone()))
        .collect()
}

fn is_key(text: &str) -> bool {
    text.contains("\"rm:") || KEY_PARTS.iter().any(|part| text.contains(part))
}

/// Scripts take their keys as KEYS; what a comment says is free.
pub(crate) fn key_names_in_lua(file: &File) -> Vec<Offence> {
    if !file.path.ends_with(".lua") {
        return Vec::new();
    }
    let code = |line: &str| line.split("--").next().unwrap_or_default().to_owned();
    let lines = (1..).zip(file.text.lines());
    lines
        .filter(|(_, line)| is_key(&code(line).replace('\'', "\"")))
        .map(|(line, text)| offence(&file.path, line, text.trim()))
        .collect()
}

/// Uses of `crate::` that go against the table. `exports` says where `crate::Name` comes from.
pub(crate) fn arrows(source: &Source, exports: &[Use]) -> Vec<Offence> {
    let Some(own) = top_module(&source.path) else { return Vec::new() };
    let Some(allowed) = allowed(own) else {
        return vec![offence(&source.path, 1, format!("module `{own}` is not in the table"))];
    };
    let mut offences = Vec::new();
    for mut used in crate_uses(source) {
        let head = used.path.split("::").next().unwrap_or_default();
        if let Some(export) = exports.iter().find(|export| export.name() == head) {
            used.path = export.path.clone();
        }
        let module = used.path.split("::").next().unwrap_or_default();
        let known = module == own || VOCABULARY.contains(&module);
        if !known && !allowed.iter().any(|path| *path == module || *path == used.path) {
            let what = format!("`{own}` must not use `{}`", used.path);
            offences.push(offence(&source.path, used.line, what));
        }
    }
    offences
}

/// `driver` of `src/driver/redis/mod.rs`.
fn top_module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    // The suite is a test that ships: it drives a driver through the whole bus.
    if inside.starts_with("driver/conformance") {
        return Some("conformance");
    }
    inside.split('/').next().map(|top| top.strip_suffix(".rs").unwrap_or(top))
}

fn allowed(module: &str) -> Option<&'static [&'static str]> {
    if VOCABULARY.contains(&module) {
        return Some(&[]);
    }
    ARROWS.iter().find(|(own, _)| *own == module).map(|(_, allowed)| *allowed)
}

/// A path below `crate::`.
pub(crate) struct Use {
    path: String,
    line: usize,
}

impl Use {
    fn name(&self) -> &str {
        self.path.rsplit("::").next().unwrap_or_default()
    }
}

/// What stands after `crate::` outside tests, each leaf of `crate::{a, b::{c}}` on its own.
pub(crate) fn crate_uses(source: &Source) -> Vec<Use> {
    let tokens = &source.tokens;
    let mut uses = Vec::new();
    for at in 0..tokens.len().saturating_sub(3) {
        let begins = ["crate", ":", ":"].iter().zip(&tokens[at..]).all(|(a, b)| *a == b.text);
        let is_macro = tokens.get(at + 4).is_some_and(|token| token.text == "!");
        // `$crate` stands in a macro: it is the user's code.
        let exported = at > 0 && tokens[at - 1].text == "$";
        if begins && !is_macro && !exported && !tokens[at].test {
            leaves(&tokens[at + 3..], "", &mut uses);
        }
    }
    uses
}

/// Reads one branch of a use tree, or a path in an expression; gives the number of its tokens.
fn leaves(tokens: &[Token], parent: &str, uses: &mut Vec<Use>) -> usize {
    let mut path = parent.to_owned();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "{" => return at + 1 + branches(&tokens[at + 1..], &path, uses),
            ":" => at += 1,
            _ if is_word(token) || token.text == "*" => {
                path = if path.is_empty() { token.text.clone() } else { path + "::" + &token.text };
                at += 1;
                if tokens.get(at).is_none_or(|next| next.text != ":") {
                    break;
                }
            }
            _ => break,
        }
    }
    uses.push(Use { path, line: tokens.first().map_or(0, |token| token.line) });
    at
}

/// The branches up to the closing brace; gives the number of tokens, the brace included.
fn branches(tokens: &[Token], parent: &str, uses: &mut Vec<Use>) -> usize {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "}" => return at + 1,
            // `a as b`: the leaf was read before.
            "," => at += 1,
            "as" => at += 2,
            _ => at += leaves(&tokens[at..], parent, uses).max(1),
        }
    }
    at
}

pub(crate) fn unwraps(source: &Source) -> Vec<Offence> {
    found(source, &[".", "unwrap", "(", ")"], false)
}

pub(crate) fn limitless_channels(source: &Source) -> Vec<Offence> {
    // `Bound::Unbounded` is the end of a range.
    let limitless = |text: &str| {
        text != "Unbounded" && (text.starts_with("unbounded") || text.starts_with("Unbounded"))
    };
    let tokens = source.tokens.iter().filter(|token| limitless(&token.text));
    tokens.map(|token| offence(&source.path, token.line, token.text.clone())).collect()
}

pub(crate) fn ignored(source: &Source) -> Vec<Offence> {
    let mut offences = found(source, &["#", "[", "ignore"], true);
    let docs = source.docs.iter().filter(|(_, text)| text.contains("```ignore"));
    offences.extend(docs.map(|(line, _)| offence(&source.path, *line, "an ignored example")));
    offences
}

pub(crate) fn stubs(source: &Source) -> Vec<Offence> {
    let stubs = ["todo", "unimplemented"].map(|name| found(source, &[name, "!"], true));
    stubs.into_iter().flatten().collect()
}

fn found(source: &Source, texts: &[&str], in_tests: bool) -> Vec<Offence> {
    let places = source.find(texts).filter(|token| in_tests || !token.test);
    places.map(|token| offence(&source.path, token.line, texts.concat())).collect()
}

/// A test waits for a condition. Where time itself is the condition, a comment says which.
pub(crate) fn sleeps(source: &Source, text: &str) -> Vec<Offence> {
    let lines: Vec<&str> = text.lines().collect();
    let said = |line: usize| {
        let above = lines[..line].iter().rev().take(4);
        above.into_iter().any(|line| line.contains("// waits:"))
    };
    let places = source.find(&["sleep", "("]).filter(|token| token.test);
    places
        .filter(|token| !said(token.line))
        .map(|token| offence(&source.path, token.line, "sleep("))
        .collect()
}

pub(crate) fn lints(file: &File) -> Vec<Offence> {
    let package = file.path.ends_with("Cargo.toml") && file.text.contains("[package]");
    if !package || file.text.contains("[lints]\nworkspace = true") {
        return Vec::new();
    }
    vec![offence(&file.path, 1, "has lints of its own")]
}
