//! Saying what was found: short, at most so many things one by one, and with commands that can be
//! copied.

use std::time::Duration;

use super::evidence::Evidence;
use crate::driver::admin::{Finding, Severity, Verdict};

/// Things that one check names one by one.
pub(super) const NAMED_MAX: usize = 20;
/// The longest part of a stranger's text that is shown.
const SHOWN_MAX: usize = 200;

impl Evidence {
    /// How a check ends that found these: nothing is known where it found nothing and one of the
    /// commands that it needs was refused.
    pub(super) fn verdict(&self, needs: &[&str], found: Vec<Finding>) -> Verdict {
        let refused = needs.iter().find_map(|verb| Some((verb, self.refused.get(*verb)?)));
        match refused {
            Some((verb, words)) if found.is_empty() => {
                Verdict::Unknown(format!("{verb} is of no use here: {words}"))
            }
            _ => Verdict::of(named(found)),
        }
    }

    /// A command of the command line, for this namespace.
    pub(super) fn bus_cli(&self, words: &[&str]) -> String {
        let prefix = self.keys.prefix();
        let namespace = prefix.trim_end_matches(':');
        let mut command = "bus-cli".to_owned();
        if namespace != "rm" {
            command = format!("{command} --namespace {}", quoted(namespace));
        }
        append(command, words)
    }
}

/// A command for the server.
pub(super) fn redis_cli(words: &[&str]) -> String {
    append("redis-cli".to_owned(), words)
}

fn append(mut command: String, words: &[&str]) -> String {
    for word in words {
        command.push(' ');
        command.push_str(&quoted(word));
    }
    command
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/@=+,%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A finding about one thing.
pub(super) fn finding(
    severity: Severity,
    subject: impl Into<String>,
    text: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    let subject = Some(clipped(&subject.into()));
    Finding { severity, subject, text: text.into(), mend: mend.into() }
}

/// A stranger's text, short.
pub(super) fn clipped(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// The worst ones, and how many more there are.
fn named(mut found: Vec<Finding>) -> Vec<Finding> {
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    if found.len() > NAMED_MAX {
        let rest = found.split_off(NAMED_MAX);
        let severity = rest.iter().map(|finding| finding.severity).max();
        found.push(Finding {
            severity: severity.unwrap_or(Severity::Note),
            subject: None,
            text: format!("and {} more", rest.len()),
            mend: "mend these, then look again".to_owned(),
        });
    }
    found
}

/// So many of something.
pub(super) fn several(count: u64, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        _ => format!("{count} {what}s"),
    }
}

/// A time in its largest unit.
pub(super) fn ago(millis: u64) -> String {
    let seconds = Duration::from_millis(millis).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Bytes in their largest unit.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_copied() {
        let words = ["XGROUP", "DESTROY", "rm:{t:0}:log", "it's; rm -rf"];
        let command = r"redis-cli XGROUP DESTROY 'rm:{t:0}:log' 'it'\''s; rm -rf'";
        assert_eq!(redis_cli(&words), command);
        assert_eq!(redis_cli(&["GET", ""]), "redis-cli GET ''");
    }

    #[test]
    fn the_worst_are_named_and_the_rest_is_counted() {
        let one = |at: usize| {
            let severity = if at == 29 { Severity::Fault } else { Severity::Note };
            finding(severity, at.to_string(), "", "")
        };
        let found = named((0..30).map(one).collect());
        assert_eq!(found.len(), NAMED_MAX + 1);
        assert_eq!(found[0].severity, Severity::Fault);
        assert_eq!(found[NAMED_MAX].text, "and 10 more");
    }

    #[test]
    fn numbers_are_told_in_words() {
        assert_eq!(
            (several(1, "entry"), several(2, "entry")),
            ("1 entry".into(), "2 entries".into())
        );
        assert_eq!((ago(5_000), ago(3 * 3_600_000)), ("5 s".to_owned(), "3 h".to_owned()));
        assert_eq!((size(5), size(5 << 20)), ("5 bytes".to_owned(), "5120 KiB".to_owned()));
        assert_eq!(clipped(&"x".repeat(201)).len(), SHOWN_MAX + 3);
    }
}
