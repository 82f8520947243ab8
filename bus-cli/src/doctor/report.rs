//! A diagnosis beside what was accepted: what counts, and the exit code that follows.

use rumormill::driver::admin::{Checked, Diagnosis, Finding, Severity, Store, Verdict};
use serde::Serialize;

use crate::address::Address;
use crate::failure::Exit;

/// One look, as one JSON object.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    /// Without its secrets.
    pub(super) address: String,
    pub(super) store: &'a Store,
    /// The worst that counts; nothing where all is well.
    pub(super) worst: Option<Severity>,
    pub(super) summary: Summary,
    pub(super) checks: Vec<Judged<'a>>,
}

/// How many checks ended how. Those that found only what is ignored count as found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    pub(super) passed: usize,
    pub(super) found: usize,
    pub(super) unknown: usize,
    pub(super) faults: usize,
    pub(super) risks: usize,
    pub(super) notes: usize,
    /// Findings that do not count.
    pub(super) ignored: usize,
}

/// A check's end, and whether it counts.
#[derive(Serialize)]
pub(super) struct Judged<'a> {
    #[serde(flatten)]
    pub(super) checked: &'a Checked,
    pub(super) ignored: bool,
}

/// A finding and where it belongs.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) checked: &'a Checked,
    pub(super) finding: &'a Finding,
    pub(super) ignored: bool,
}

impl<'a> Report<'a> {
    pub(super) fn new(diagnosis: &'a Diagnosis, address: &Address, ignored: &[String]) -> Self {
        let judge = |checked: &'a Checked| {
            let ignored = ignored.iter().any(|id| id == checked.check.id);
            Judged { checked, ignored }
        };
        let checks: Vec<_> = diagnosis.checks.iter().map(judge).collect();
        let mut report = Self {
            address: address.to_string(),
            store: &diagnosis.store,
            worst: None,
            summary: Summary::default(),
            checks,
        };
        report.sum();
        report
    }

    fn sum(&mut self) {
        let mut summary = Summary::default();
        for judged in &self.checks {
            match &judged.checked.verdict {
                Verdict::Passed => summary.passed += 1,
                Verdict::Found(_) => summary.found += 1,
                Verdict::Unknown(_) => summary.unknown += 1,
            }
        }
        let findings = self.findings();
        for found in &findings {
            match found.finding.severity {
                _ if found.ignored => summary.ignored += 1,
                Severity::Fault => summary.faults += 1,
                Severity::Risk => summary.risks += 1,
                Severity::Note => summary.notes += 1,
            }
        }
        let counting = findings.iter().filter(|found| !found.ignored);
        let worst = counting.map(|found| found.finding.severity).max();
        (self.summary, self.worst) = (summary, worst);
    }

    /// What was found, worst first, and what does not count last.
    pub(super) fn findings(&self) -> Vec<Found<'a>> {
        let mut findings: Vec<Found<'a>> = Vec::new();
        for Judged { checked, ignored } in &self.checks {
            let of_check = checked.verdict.findings().iter();
            findings.extend(of_check.map(|finding| Found { checked, finding, ignored: *ignored }));
        }
        findings.sort_by_key(|found| (found.ignored, std::cmp::Reverse(found.finding.severity)));
        findings
    }

    /// The checks that could not be made, and why.
    pub(super) fn unknown(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        self.checks.iter().filter_map(|judged| match &judged.checked.verdict {
            Verdict::Unknown(why) => Some((judged.checked.check.id, why.as_str())),
            _ => None,
        })
    }

    /// The ids of what counts, each once, worst first.
    pub(super) fn ids(&self) -> String {
        let mut ids: Vec<&str> = Vec::new();
        for found in self.findings().iter().filter(|found| !found.ignored) {
            if !ids.contains(&found.checked.check.id) {
                ids.push(found.checked.check.id);
            }
        }
        ids.iter().map(|id| format!("{id}\n")).collect()
    }

    pub(super) fn exit(&self) -> Exit {
        match self.worst {
            None | Some(Severity::Note) => Exit::Done,
            Some(Severity::Risk | Severity::Fault) => Exit::Partly,
        }
    }
}

/// How bad it is, in a word.
pub(super) fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Risk => "risk",
        Severity::Fault => "fault",
    }
}
