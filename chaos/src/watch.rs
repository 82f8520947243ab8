//! Reads the histories while they are written: what a run waits for, and what it tells meanwhile.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::Result;
use crate::history::{Record, What};
use crate::load::{Act, GROUPS};

/// What the histories say so far.
pub(crate) struct Watch {
    folder: PathBuf,
    files: HashMap<PathBuf, u64>,
    pub(crate) acknowledged: u64,
    pub(crate) not_stored: u64,
    pub(crate) unknown: u64,
    pub(crate) delivered: u64,
    pub(crate) effects: u64,
    /// When the newest event was invoked that is acknowledged.
    stored: u64,
    /// When the newest event was invoked that a group has.
    handled: HashMap<String, u64>,
    /// How often a handler was given an act.
    acts: HashMap<Act, u64>,
}

impl Watch {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            files: HashMap::new(),
            acknowledged: 0,
            not_stored: 0,
            unknown: 0,
            delivered: 0,
            effects: 0,
            stored: 0,
            handled: HashMap::new(),
            acts: HashMap::new(),
        }
    }

    /// Reads what was added.
    pub(crate) fn look(&mut self) -> Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".ndjson") && name.starts_with(['p', 'w']) {
                self.follow(path)?;
            }
        }
        Ok(())
    }

    fn follow(&mut self, path: PathBuf) -> Result<()> {
        let from = self.files.get(&path).copied().unwrap_or(0);
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        // A line that is being written comes next time.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let Record { t: _, what } = serde_json::from_slice(line)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            self.take(&what);
        }
        self.files.insert(path, from + whole as u64);
        Ok(())
    }

    fn take(&mut self, what: &What) {
        match what {
            What::Ok { made, .. } => {
                self.acknowledged += 1;
                self.stored = self.stored.max(*made);
            }
            What::NotStored { .. } => self.not_stored += 1,
            What::Unknown { .. } => self.unknown += 1,
            What::Deliver { group, made, act, .. } => {
                self.delivered += 1;
                *self.acts.entry(*act).or_default() += 1;
                let newest = self.handled.entry(group.clone()).or_default();
                *newest = (*newest).max(*made);
            }
            What::Effect { .. } => self.effects += 1,
            _ => {}
        }
    }

    /// Events that were invoked at `since` or later are acknowledged, and every group has some.
    pub(crate) fn is_well(&self, since: u64) -> bool {
        let handled = |group: &str| self.handled.get(group).is_some_and(|made| *made >= since);
        self.stored >= since && GROUPS.iter().all(|group| handled(group))
    }

    pub(crate) fn acts(&self, act: Act) -> u64 {
        self.acts.get(&act).copied().unwrap_or(0)
    }
}
