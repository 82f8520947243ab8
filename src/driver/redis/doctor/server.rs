//! The server, and what this user may do on it.
//!
//! One file a theme. A check answers with what it found, or with what it was not told.

mod access;
mod clock;
mod evidence;
mod limits;
mod load;
mod memory;
mod persistence;
mod replication;
mod rights;
mod version;

use std::fmt::Display;

pub(super) use self::evidence::Evidence;
use super::Rule;
use crate::driver::admin::{Finding, Severity, Verdict};

/// The checks, in the order in which they are told.
pub(super) fn rules() -> impl Iterator<Item = &'static Rule<Evidence>> {
    let themes = [
        persistence::RULES,
        memory::RULES,
        replication::RULES,
        access::RULES,
        limits::RULES,
        load::RULES,
        clock::RULES,
        version::RULES,
    ];
    themes.into_iter().flatten()
}

/// What was not told, and how to have it told.
struct Untold(String);

/// What a check found, or why it cannot know.
type Looked = Result<Vec<Finding>, Untold>;

fn verdict(looked: Looked) -> Verdict {
    match looked {
        Ok(findings) => Verdict::of(findings),
        Err(Untold(why)) => Verdict::Unknown(why),
    }
}

/// All is well.
fn nothing() -> Looked {
    Ok(Vec::new())
}

/// One thing that is so: about what, what, and what mends it.
fn one(
    severity: Severity,
    subject: impl Into<String>,
    text: impl Into<String>,
    mend: impl Into<String>,
) -> Looked {
    Ok(vec![finding(severity, subject, text, mend)])
}

fn finding(
    severity: Severity,
    subject: impl Into<String>,
    text: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    let subject = Some(subject.into());
    Finding { severity, subject, text: text.into(), mend: mend.into() }
}

/// The command that changes a setting, and keeps it where the server has a file to keep it in.
fn set(name: &str, value: impl Display) -> String {
    format!("redis-cli CONFIG SET {name} {value} && redis-cli CONFIG REWRITE")
}

/// Bytes with the unit that keeps the number short.
fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let mut at = 0;
    let mut number = bytes;
    while number >= 10 << 10 && at + 1 < units.len() {
        number >>= 10;
        at += 1;
    }
    format!("{number} {}", units[at])
}

/// Most things that a finding names.
const NAMED_MAX: usize = 20;

/// `a, b and 3 more`.
fn named(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMED_MAX)].join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lists_stay_short() {
        let shown = [100, 20 << 10, 4 << 20, 64 << 30].map(bytes);
        assert_eq!(shown, ["100 B", "20 KiB", "4096 KiB", "64 GiB"]);
        let names: Vec<String> = (0..23).map(|number| format!("n{number}")).collect();
        assert!(named(&names).ends_with("n19 and 3 more"), "{}", named(&names));
        assert_eq!(named(&names[..2]), "n0, n1");
    }
}
