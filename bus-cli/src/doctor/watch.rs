//! One look after another: what came, and what went.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use rumormill::driver::admin::Severity;
use rumormill::{Clock, SystemClock, Timestamp};
use serde::Serialize;

use super::report::{Report, word};
use super::screen::{self, colour};
use crate::args::Format;
use crate::escape::escape;
use crate::failure::{Exit, Failure};
use crate::output::is_closed_pipe;
use crate::progress::human;
use crate::table::Screen;

/// To the upper left corner, and away with what is there.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";
/// Changes that stay on the screen.
const SHOWN_MAX: usize = 10;

/// What was seen so far.
pub(super) struct Watch {
    format: Format,
    every: Duration,
    screen: Screen,
    /// Drawn anew for each look.
    in_place: bool,
    known: BTreeMap<Key, Known>,
    recent: Vec<Change>,
    /// Why the last look failed.
    lost: Option<String>,
    exit: Exit,
    unread: bool,
}

/// A check's id, and what the finding is about.
type Key = (String, String);

#[derive(Clone)]
struct Known {
    severity: Severity,
    text: String,
    mend: String,
}

/// What happened between two looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    time: Timestamp,
    /// `came`, `went`, `worse`, `better`, `lost` (it cannot be looked at) or `back`.
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<Severity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Watch {
    pub(super) fn new(format: Format, every: Duration) -> Self {
        Self {
            format,
            every,
            screen: Screen::stdout(),
            in_place: format == Format::Pretty && io::stdout().is_terminal(),
            known: BTreeMap::new(),
            recent: Vec::new(),
            lost: None,
            exit: Exit::Done,
            unread: false,
        }
    }

    /// The exit code of the last look.
    pub(super) fn exit(&self) -> Exit {
        self.exit
    }

    /// Nobody reads any more.
    pub(super) fn is_unread(&self) -> bool {
        self.unread
    }

    /// A look that came to an end.
    pub(super) fn show(&mut self, report: &Report<'_>) -> Result<(), Failure> {
        let changes = self.learn(report, SystemClock.now());
        self.exit = report.exit();
        if !self.in_place {
            return self.lines(&changes);
        }
        self.recent.extend(changes);
        self.recent.drain(..self.recent.len().saturating_sub(SHOWN_MAX));
        let page = screen::render_brief(report, self.screen);
        self.redraw(&page)
    }

    /// A look that failed.
    pub(super) fn lost(&mut self, why: &str) -> Result<(), Failure> {
        self.exit = Exit::Unreachable;
        let is_news = self.lost.is_none();
        self.lost = Some(why.to_owned());
        if self.in_place {
            let page = format!("{}\n", escape(why));
            return self.redraw(&page);
        }
        let change = Change::of_all(SystemClock.now(), "lost", why);
        if is_news { self.lines(&[change]) } else { Ok(()) }
    }

    /// What is new since the last look.
    fn learn(&mut self, report: &Report<'_>, time: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.lost.take().is_some() {
            changes.push(Change::of_all(time, "back", "the store answers again"));
        }
        let mut now: BTreeMap<Key, Known> = BTreeMap::new();
        for found in report.findings().into_iter().filter(|found| !found.ignored) {
            let finding = found.finding;
            let subject = finding.subject.clone().unwrap_or_default();
            let (text, mend) = (finding.text.clone(), finding.mend.clone());
            let known = Known { severity: finding.severity, text, mend };
            let key = (found.checked.check.id.to_owned(), subject);
            let change = match self.known.get(&key).map(|before| before.severity) {
                None => Some("came"),
                Some(before) if before < known.severity => Some("worse"),
                Some(before) if before > known.severity => Some("better"),
                Some(_) => None,
            };
            changes.extend(change.map(|change| Change::of(time, change, &key, &known)));
            now.insert(key, known);
        }
        // What cannot be known now has not gone.
        let unknown: Vec<&str> = report.unknown().map(|(id, _)| id).collect();
        for (key, known) in std::mem::take(&mut self.known) {
            if unknown.contains(&key.0.as_str()) {
                now.insert(key, known);
            } else if !now.contains_key(&key) {
                changes.push(Change::of(time, "went", &key, &known));
            }
        }
        self.known = now;
        changes
    }

    fn lines(&mut self, changes: &[Change]) -> Result<(), Failure> {
        let mut text = String::new();
        for change in changes {
            match (self.format, &change.id) {
                (Format::Json, _) => {
                    text += &serde_json::to_string(change)
                        .map_err(|error| Failure::failed("cannot write JSON").because(&error))?;
                }
                (Format::Raw, Some(id)) => text += &format!("{} {id}", change.change),
                (Format::Raw, None) => text += change.change,
                (Format::Pretty, _) => text += &change.line(self.screen.coloured),
            }
            text.push('\n');
        }
        self.write(&text)
    }

    fn redraw(&mut self, page: &str) -> Result<(), Failure> {
        let mut text = format!("{CLEAR}{page}");
        if !self.recent.is_empty() {
            text.push('\n');
        }
        for change in &self.recent {
            text += &change.line(self.screen.coloured);
            text.push('\n');
        }
        let (now, every) = (SystemClock.now(), human(self.every));
        text += &format!("\nlooked at {now}, every {every}; ctrl-c ends it\n");
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if is_closed_pipe(&error) => self.unread = true,
            Err(error) => return Err(Failure::failed("cannot write to stdout").because(&error)),
            Ok(()) => {}
        }
        Ok(())
    }
}

impl Change {
    fn of(time: Timestamp, change: &'static str, (id, subject): &Key, known: &Known) -> Self {
        Self {
            time,
            change,
            id: Some(id.clone()),
            severity: Some(known.severity),
            subject: Some(subject.clone()).filter(|subject| !subject.is_empty()),
            text: known.text.clone(),
            mend: Some(known.mend.clone()),
        }
    }

    /// Of the store as a whole.
    fn of_all(time: Timestamp, change: &'static str, text: &str) -> Self {
        let (id, severity, subject, mend) = (None, None, None, None);
        Self { time, change, id, severity, subject, text: text.to_owned(), mend }
    }

    fn line(&self, coloured: bool) -> String {
        let mut line = format!("{} {:<6}", self.time, self.change);
        if let (Some(severity), Some(id)) = (self.severity, &self.id) {
            let style = if coloured { colour(severity) } else { anstyle::Style::new() };
            line += &format!(" {style}{:<5}{style:#} {id}", word(severity).to_uppercase());
        }
        if let Some(subject) = &self.subject {
            line += &format!(" {}", escape(subject));
        }
        format!("{line}: {}", escape(&self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::super::screen::tests::diagnosis;
    use super::*;
    use crate::address::Address;

    fn changes(watch: &mut Watch, found: &[(Severity, &str)]) -> Vec<(&'static str, String)> {
        let diagnosis = diagnosis(found);
        let report = Report::new(&diagnosis, &Address::none(), &[]);
        let changes = watch.learn(&report, Timestamp::from_millis(7));
        changes
            .into_iter()
            .map(|change| (change.change, change.subject.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn what_comes_and_goes_is_told_once() {
        let mut watch = Watch::new(Format::Json, Duration::from_secs(1));
        let (note, risk) = (Severity::Note, Severity::Risk);
        let told = |change, subject: &str| (change, subject.to_owned());
        assert_eq!(changes(&mut watch, &[(note, "x")]), [told("came", "x")]);
        assert_eq!(changes(&mut watch, &[(note, "x")]), []);
        assert_eq!(changes(&mut watch, &[(risk, "x")]), [told("worse", "x")]);
        let moved = changes(&mut watch, &[(risk, "y"), (note, "z")]);
        assert_eq!(moved, [told("came", "y"), told("came", "z"), told("went", "x")]);
        // The other checks could not be made: nobody knows that they went.
        assert_eq!(changes(&mut watch, &[(note, "y")]), [told("better", "y")]);
        watch.lost = Some("no answer".to_owned());
        assert_eq!(changes(&mut watch, &[(note, "y"), (note, "z")]), [told("back", "")]);
    }

    #[test]
    fn a_line_says_what_and_harms_no_terminal() {
        let mut watch = Watch::new(Format::Pretty, Duration::from_secs(1));
        let diagnosis = diagnosis(&[(Severity::Risk, "k\u{1b}")]);
        let report = Report::new(&diagnosis, &Address::none(), &[]);
        let line = watch.learn(&report, Timestamp::from_millis(1_767_323_045_006))[0].line(false);
        let expected = "2026-01-02T03:04:05.006Z came   RISK  a.b k\\u001b: it is so, and has";
        assert!(line.starts_with(expected), "{line}");
    }
}
