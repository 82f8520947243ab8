//! How a command ends: exit codes, and errors in three parts: what failed, causes, help.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use rumormill::{Error, ErrorKind};
use unicode_width::UnicodeWidthStr;

use crate::address::Address;
use crate::escape::escape;

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Partly = 3,
    Unreachable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that ended with an error.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What was attempted, on which address, why it failed.
    what: String,
    causes: Vec<String>,
    help: Option<String>,
}

impl Failure {
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, what: what.into(), causes: Vec::new(), help: None }
    }

    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, ..Self::usage(what) }
    }

    /// A signal came before there was a result.
    pub(crate) fn interrupted(signal: &str) -> Self {
        Self { exit: Exit::Partly, ..Self::usage(format!("interrupted by {signal}")) }
    }

    /// An error of the library, and what was attempted when it came.
    pub(crate) fn library(attempt: impl Display, error: &Error) -> Self {
        let help = error.help().map(str::to_owned).or_else(|| default_help(error.kind()));
        Self { exit: exit_of(error), help, ..Self::failed(format!("{attempt}: {error}")) }
            .causes_of(error)
    }

    /// An error of connecting, which names the attempt and the address by itself.
    pub(crate) fn connecting(error: &Error) -> Self {
        let failure = Self { what: error.to_string(), ..Self::library("", error) };
        match error.kind() {
            // The library does not know how this program is told an address.
            ErrorKind::Unreachable => Self { help: default_help(error.kind()), ..failure },
            _ => failure,
        }
    }

    /// A value that the library refused.
    pub(crate) fn refused(flag: &str, error: &Error) -> Self {
        Self { exit: Exit::Usage, ..Self::library(flag, error) }
    }

    #[must_use]
    pub(crate) fn because(mut self, cause: &dyn StdError) -> Self {
        self.causes.push(cause.to_string());
        self.causes_of(cause)
    }

    #[must_use]
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What failed, without causes and help.
    pub(crate) fn text(&self) -> &str {
        &self.what
    }

    #[must_use]
    pub(crate) fn with_cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    fn causes_of(mut self, error: &dyn StdError) -> Self {
        let mut cause = error.source();
        while let Some(error) = cause {
            self.causes.push(error.to_string());
            cause = error.source();
        }
        self
    }

    /// Prints it, without the secrets of `address`. Where stderr is gone, nobody reads it.
    pub(crate) fn print(&self, address: &Address, to: &mut impl Write) {
        let columns = terminal_columns();
        let mut text = String::new();
        let mut part = |head: &str, part: &str| {
            let clean = escape(&address.redact(part)).into_owned();
            text += &wrapped(head, &clean, columns);
        };
        part("error: ", &self.what);
        for cause in &self.causes {
            part("  cause: ", cause);
        }
        if let Some(help) = &self.help {
            part("  help: ", help);
        }
        let _ = to.write_all(text.as_bytes());
    }
}

/// Nothing where stderr is no terminal: then lines stay whole, for whoever searches them.
fn terminal_columns() -> Option<usize> {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    size.map(|(width, _)| usize::from(width.0))
}

/// `text` after `head`, broken between words; further lines stand below its first word.
pub(crate) fn wrapped(head: &str, text: &str, columns: Option<usize>) -> String {
    let (mut lines, mut line) = (String::new(), head.to_owned());
    for (at, word) in text.split(' ').enumerate() {
        let full = columns.is_some_and(|columns| line.width() + 1 + word.width() > columns);
        if at > 0 && full {
            lines += &line;
            lines.push('\n');
            line = " ".repeat(head.len());
        } else if at > 0 {
            line.push(' ');
        }
        line += word;
    }
    lines + &line + "\n"
}

fn exit_of(error: &Error) -> Exit {
    if error.is_transient() { Exit::Unreachable } else { Exit::Failed }
}

fn default_help(kind: ErrorKind) -> Option<String> {
    let help = match kind {
        ErrorKind::Unreachable | ErrorKind::Timeout => {
            "start the server, or name another one with --url or BUS_URL"
        }
        ErrorKind::Denied => "put user and password into the address, as in redis://user:pass@host",
        _ => return None,
    };
    Some(help.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_lines_that_fit() {
        let text = "redis://127.0.0.1 wants a password";
        assert_eq!(wrapped("help: ", text, None), format!("help: {text}\n"));
        let lines = "help: redis://127.0.0.1\n      wants a\n      password\n";
        assert_eq!(wrapped("help: ", text, Some(15)), lines);
    }

    #[test]
    fn errors_have_three_parts_and_no_secrets() {
        let address = Address::new("redis://:hunter22@host".to_owned());
        let cause = std::io::Error::other("refused hunter22 \x1b[31m");
        let error = Error::new(ErrorKind::Unreachable, "no answer").with_source(cause);
        let failure = Failure::library(format!("cannot connect to {address}"), &error);
        let mut printed = Vec::new();
        failure.print(&address, &mut printed);
        let expected = "error: cannot connect to redis://:***@host: no answer\n  \
            cause: refused *** \\u001b[31m\n  \
            help: start the server, or name another one with --url or BUS_URL\n";
        assert_eq!(String::from_utf8_lossy(&printed), expected);
        assert_eq!(failure.exit, Exit::Unreachable);
    }
}
