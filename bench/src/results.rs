//! What was measured, kept in a file, so that one section can be measured again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::case::{Case, Series};
use crate::job::Job;

/// By the name of the section.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results(pub(crate) BTreeMap<String, Measured>);

/// What a section gave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) series: Vec<Series>,
    /// Single figures by name, a value for each round.
    pub(crate) figures: BTreeMap<String, Vec<f64>>,
    pub(crate) skipped: Vec<String>,
    /// As it was typed.
    pub(crate) command: String,
    pub(crate) took_seconds: u64,
}

impl Results {
    /// Those of earlier runs; none where there are none that can be read.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(crate) fn write(&self, path: &PathBuf) -> Result<(), Error> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(path, serde_json::to_string_pretty(self)?)?)
    }

    /// The series of a section that a condition finds.
    pub(crate) fn series(&self, section: &str, is: impl Fn(&Case) -> bool) -> Vec<&Series> {
        let all = self.0.get(section).into_iter().flat_map(|measured| &measured.series);
        all.filter(|series| !series.rounds.is_empty() && is(&series.case)).collect()
    }

    /// The one of a peer whose job passes.
    pub(crate) fn one(
        &self,
        section: &str,
        peer: &str,
        is: impl Fn(&Job) -> bool,
    ) -> Option<&Series> {
        self.series(section, |case| case.peer == peer && is(&case.job)).first().copied()
    }

    /// The median of a figure.
    pub(crate) fn figure(&self, section: &str, name: &str) -> f64 {
        let values = self.0.get(section).and_then(|measured| measured.figures.get(name));
        crate::stats::median(values.into_iter().flatten().copied())
    }
}
