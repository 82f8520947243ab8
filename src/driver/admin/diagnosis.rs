//! What a look at a store found wrong with it.

use serde::Serialize;

use crate::delivery::Durability;

/// A store, looked at from all sides.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// What answers.
    pub store: Store,
    /// Every check, in the order of the catalogue, those that found nothing among them.
    pub checks: Vec<Checked>,
}

impl Diagnosis {
    /// What was found, worst first.
    pub fn findings(&self) -> Vec<(&'static Check, &Finding)> {
        let found = self.checks.iter().flat_map(|checked| {
            checked.verdict.findings().iter().map(|finding| (checked.check, finding))
        });
        let mut findings: Vec<_> = found.collect();
        findings.sort_by_key(|(_, finding)| std::cmp::Reverse(finding.severity));
        findings
    }

    /// The worst of what was found; nothing where all is well.
    pub fn worst(&self) -> Option<Severity> {
        self.findings().iter().map(|(_, finding)| finding.severity).max()
    }
}

/// Who answers, as it says itself; empty where it does not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Store {
    /// What it is: `Redis`, `Valkey`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is in replication: `master`, `slave`.
    pub role: String,
    /// What it does to keep what it is given.
    pub durability: Durability,
    /// What else is worth knowing of it, each a line.
    pub about: Vec<String>,
}

/// A question that is asked of a store.
#[derive(Debug, Serialize)]
pub struct Check {
    /// Its name, which stays: `persistence.off`.
    pub id: &'static str,
    /// What is looked at, in a few words.
    pub about: &'static str,
    /// What a finding means.
    pub meaning: &'static str,
    /// What it has cost others.
    pub cost: &'static str,
}

/// A check and its end.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// The check.
    #[serde(flatten)]
    pub check: &'static Check,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "detail", rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing was found.
    Passed,
    /// What was found, at least one.
    Found(Vec<Finding>),
    /// It cannot be known: why.
    Unknown(String),
}

impl Verdict {
    /// What was found, of none or several.
    pub fn of(findings: Vec<Finding>) -> Self {
        if findings.is_empty() { Self::Passed } else { Self::Found(findings) }
    }

    /// What was found.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Found(findings) => findings,
            Self::Passed | Self::Unknown(_) => &[],
        }
    }
}

/// Something that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The key, group, topic or setting, where it is about one.
    pub subject: Option<String>,
    /// What is so, with its numbers.
    pub text: String,
    /// The command that mends it, or where there is none, what to do.
    pub mend: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing is at risk.
    Note,
    /// Something may be lost, stand still or grow without a limit.
    Risk,
    /// Something is lost, stands still or is refused now.
    Fault,
}
