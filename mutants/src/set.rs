//! A set of files to change and tests to run, read from `NAME.set`.

use std::fs;
use std::path::Path;

/// A change of a script, which is text until it runs.
pub(crate) struct Change {
    pub(crate) file: String,
    pub(crate) old: String,
    pub(crate) new: String,
}

#[derive(Default)]
pub(crate) struct Set {
    pub(crate) features: String,
    /// So many seconds may a portion of the tests take, far more than any does.
    pub(crate) seconds: u32,
    /// Test programs that are built as modules of the library: then it is built once.
    pub(crate) modules: Vec<String>,
    /// Test programs as they are.
    pub(crate) tests: Vec<String>,
    pub(crate) files: Vec<String>,
    pub(crate) changes: Vec<Change>,
}

impl Set {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut set = Self::default();
        let mut script = String::new();
        let mut old = None;
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let rest = rest.to_owned();
            match word {
                "features" => set.features = rest,
                "seconds" => set.seconds = rest.parse().map_err(|_| format!("{rest} seconds"))?,
                "module" => set.modules.push(rest),
                "test" => set.tests.push(rest),
                "file" => set.files.push(rest),
                "script" => script = rest,
                "-" => old = Some(rest),
                "+" => {
                    let old = old.take().ok_or_else(|| format!("+ without -: {line}"))?;
                    set.changes.push(Change { file: script.clone(), old, new: rest });
                }
                _ => return Err(format!("{}: what is {line:?}?", path.display())),
            }
        }
        Ok(set)
    }
}
