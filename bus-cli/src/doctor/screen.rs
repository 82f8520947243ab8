//! A report for people.

use anstyle::{AnsiColor, Style};
use rumormill::driver::admin::Severity;

use super::report::{Found, Report, Summary, word};
use crate::escape::escape;
use crate::failure::wrapped;
use crate::operate::several;
use crate::table::Screen;

/// Lines longer than this are hard to read, however wide the terminal is.
const COLUMNS_MAX: usize = 100;

/// The whole report.
pub(super) fn render(report: &Report<'_>, screen: Screen) -> String {
    draw(report, Page { screen, is_brief: false, text: String::new() })
}

/// What is so and what mends it, for who looks again and again.
pub(super) fn render_brief(report: &Report<'_>, screen: Screen) -> String {
    draw(report, Page { screen, is_brief: true, text: String::new() })
}

fn draw(report: &Report<'_>, mut page: Page) -> String {
    page.head(report);
    let findings = report.findings();
    let (ignored, counting): (Vec<_>, Vec<_>) = findings.iter().partition(|found| found.ignored);
    for of_check in by_check(&counting) {
        page.check(&of_check);
    }
    if !ignored.is_empty() {
        page.text.push('\n');
    }
    for found in ignored {
        page.ignored(found);
    }
    page.tail(report);
    page.text
}

/// The findings of a check together, where its worst one stands.
fn by_check<'f, 'a>(findings: &[&'f Found<'a>]) -> Vec<Vec<&'f Found<'a>>> {
    let mut groups: Vec<Vec<&Found<'a>>> = Vec::new();
    for found in findings {
        let id = found.checked.check.id;
        match groups.iter_mut().find(|group| group[0].checked.check.id == id) {
            Some(group) => group.push(found),
            None => groups.push(vec![found]),
        }
    }
    groups
}

struct Page {
    screen: Screen,
    /// Without what stays the same.
    is_brief: bool,
    text: String,
}

impl Page {
    /// Text after a head, as wide as it may be; further lines begin below its first word.
    fn part(&mut self, head: &str, text: &str) {
        let columns = self.screen.columns.map(|columns| columns.min(COLUMNS_MAX));
        self.text += &wrapped(head, &escape(text), columns);
    }

    fn style(&self, style: Style) -> Style {
        if self.screen.coloured { style } else { Style::new() }
    }

    fn head(&mut self, report: &Report<'_>) {
        let store = report.store;
        let role = match store.role.as_str() {
            "master" => "a primary",
            "slave" => "a replica",
            _ => "of a role that it does not tell",
        };
        let version = if store.version.is_empty() { "(no version)" } else { &store.version };
        let name = format!("{} {version} at {}", store.name, report.address);
        let text = format!("{name}, {role}; durability: {}", store.durability);
        self.part("", &text);
        for line in &store.about {
            self.part("  ", line);
        }
    }

    /// A check and all that it found, of which there is something.
    fn check(&mut self, findings: &[&Found<'_>]) {
        let check = findings[0].checked.check;
        let worst = findings[0].finding.severity;
        let (style, bold) = (self.style(colour(worst)), self.style(Style::new().bold()));
        let name = word(worst).to_uppercase();
        self.text += &format!("\n{style}{name:<5}{style:#}  {bold}{}{bold:#}\n", check.id);
        for found in findings {
            let finding = found.finding;
            let subject = finding.subject.iter().map(|subject| format!("{subject}: "));
            let less =
                (finding.severity != worst).then(|| format!("({}) ", word(finding.severity)));
            let head: String = less.into_iter().chain(subject).collect();
            self.part("  ", &format!("{head}{}", finding.text));
            // Commands stay whole, to be copied.
            self.text += &format!("    mend: {}\n", escape(&finding.mend));
        }
        if !self.is_brief {
            self.part("  means: ", check.meaning);
            self.part("  cost:  ", check.cost);
        }
    }

    /// In a line: it is known.
    fn ignored(&mut self, found: &Found<'_>) {
        let faint = self.style(Style::new().dimmed());
        let (name, id) = (word(found.finding.severity), found.checked.check.id);
        let text = format!("ignored: {name} {id}: {}", escape(&found.finding.text));
        self.text += &format!("{faint}{text}{faint:#}\n");
    }

    fn tail(&mut self, report: &Report<'_>) {
        self.text.push('\n');
        if report.findings().iter().any(|found| found.finding.mend.contains("redis-cli")) {
            let client = client(&report.address);
            self.text += &format!("redis-cli stands for: {}\n", escape(&client));
        }
        self.part("", &counted(report.summary));
        for (id, why) in report.unknown() {
            self.part("  ", &format!("{id}: {why}"));
        }
    }
}

/// How this server is reached by hand.
fn client(address: &str) -> String {
    match address.strip_prefix("unix://") {
        Some(path) => format!("redis-cli -s {}", path.split('?').next().unwrap_or(path)),
        None => format!("redis-cli -u {address}"),
    }
}

/// `38 checks: 30 passed, 5 found something (1 fault, 2 notes), 3 could not be made:`
fn counted(summary: Summary) -> String {
    let Summary { passed, found, unknown, faults, risks, notes, ignored } = summary;
    let all = several((passed + found + unknown) as u64, "check");
    let mut parts = vec![format!("{passed} passed")];
    if found > 0 {
        let kinds = [(faults, "fault"), (risks, "risk"), (notes, "note")];
        let kinds = kinds.into_iter().filter(|(count, _)| *count > 0);
        let mut kinds: Vec<_> = kinds.map(|(count, kind)| several(count as u64, kind)).collect();
        if ignored > 0 {
            kinds.push(format!("{ignored} ignored"));
        }
        parts.push(format!("{found} found something ({})", kinds.join(", ")));
    }
    if unknown > 0 {
        parts.push(format!("{unknown} could not be made:"));
    }
    format!("{all}: {}", parts.join(", "))
}

/// The colour of a severity.
pub(super) fn colour(severity: Severity) -> Style {
    let colour = match severity {
        Severity::Fault => AnsiColor::Red,
        Severity::Risk => AnsiColor::Yellow,
        Severity::Note => AnsiColor::Cyan,
    };
    colour.on_default().bold()
}

#[cfg(test)]
pub(super) mod tests {
    use rumormill::Durability;
    use rumormill::driver::admin::{Check, Checked, Diagnosis, Finding, Store, Verdict};
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::address::Address;
    use crate::failure::Exit;

    static CHECKS: [Check; 3] = [check("a.b"), check("c.d"), check("e.f")];

    const fn check(id: &'static str) -> Check {
        let (meaning, cost) = ("It means that.", "It has cost others this.");
        Check { id, about: "what is looked at", meaning, cost }
    }

    /// A finding of a check each, as bad as this, about `subject`.
    pub(in crate::doctor) fn diagnosis(found: &[(Severity, &str)]) -> Diagnosis {
        let finding = |(severity, subject): &(Severity, &str)| Finding {
            severity: *severity,
            subject: Some((*subject).to_owned()),
            text: "it is so, and has been \u{1b}[31m so for longer than anybody can tell"
                .to_owned(),
            mend: "redis-cli CONFIG SET a-setting-with-a-long-name to-a-value".to_owned(),
        };
        let mut checks: Vec<Checked> = CHECKS
            .iter()
            .zip(found)
            .map(|(check, found)| Checked { check, verdict: Verdict::of(vec![finding(found)]) })
            .collect();
        let unknown = Verdict::Unknown("it takes `+info`".to_owned());
        let rest = CHECKS.iter().skip(found.len());
        checks.extend(rest.map(|check| Checked { check, verdict: unknown.clone() }));
        let (name, version, role) = ("Redis".to_owned(), "7.0.15".to_owned(), "master".to_owned());
        let (durability, about) = (Durability::Fsync, vec!["2 replicas".to_owned()]);
        Diagnosis { store: Store { name, version, role, durability, about }, checks }
    }

    fn rendered(columns: Option<usize>, coloured: bool, ignored: &[String]) -> String {
        let diagnosis = diagnosis(&[(Severity::Note, "x"), (Severity::Fault, "y")]);
        let address = Address::new("redis://:hunter22@host".to_owned());
        render(&Report::new(&diagnosis, &address, ignored), Screen { columns, coloured })
    }

    #[test]
    fn the_worst_comes_first_and_nothing_harms_a_terminal() {
        let text = rendered(None, false, &[]);
        let expected = "\
            Redis 7.0.15 at redis://:***@host, a primary; durability: fsync\n  2 replicas\n\n\
            FAULT  c.d\n  y: it is so, and has been \\u001b[31m so for longer";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("\nNOTE   a.b\n  x: it is so"), "{text}");
        assert!(text.contains("\n  means: It means that.\n  cost:  It has"), "{text}");
        let end = "\nredis-cli stands for: redis-cli -u redis://:***@host\n\
                   3 checks: 0 passed, 2 found something (1 fault, 1 note), 1 could not be \
                   made:\n  e.f: it takes `+info`\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn lines_fit_and_commands_stay_whole() {
        let text = rendered(Some(40), false, &[]);
        let (commands, rest): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.contains("redis-cli "));
        assert!(rest.iter().all(|line| line.width() <= 40), "{text}");
        assert!(commands[..2].iter().all(|line| line.ends_with("to-a-value")), "{text}");
        assert!(rendered(None, true, &[]).contains("\u{1b}[1m\u{1b}[31mFAULT"));
    }

    #[test]
    fn what_is_ignored_is_shown_and_does_not_count() {
        let text = rendered(None, false, &["c.d".to_owned()]);
        assert!(text.contains("\nignored: fault c.d: it is so"), "{text}");
        assert!(text.contains("2 found something (1 note, 1 ignored)"), "{text}");
        let diagnosis = diagnosis(&[(Severity::Note, "x"), (Severity::Fault, "y")]);
        let report = |ignored: &[&str]| {
            let ignored: Vec<String> = ignored.iter().map(ToString::to_string).collect();
            let report = Report::new(&diagnosis, &Address::none(), &ignored);
            (report.exit(), report.ids())
        };
        assert_eq!(report(&[]), (Exit::Partly, "c.d\na.b\n".to_owned()));
        assert_eq!(report(&["c.d"]), (Exit::Done, "a.b\n".to_owned()));
        assert_eq!(report(&["c.d", "a.b"]), (Exit::Done, String::new()));
    }
}
