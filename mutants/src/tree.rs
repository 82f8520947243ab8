//! A copy of the sources with all mutants in it, none of which is chosen.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::find::{Finder, Insert, Part};
use crate::set::Set;

/// Where scripts go through on their way to the server.
const SCRIPT: &str = "src/driver/redis/script.rs";

/// A mutant of all files.
#[derive(Clone)]
pub(crate) struct Mutant {
    pub(crate) file: String,
    /// What it does, and where.
    pub(crate) says: String,
}

pub(crate) struct Tree {
    pub(crate) folder: PathBuf,
    pub(crate) mutants: Vec<Mutant>,
    files: Vec<Woven>,
}

struct Woven {
    path: String,
    source: String,
    inserts: Vec<Insert>,
    /// The number of its first mutant.
    first: usize,
    /// Where in the woven text something stands instead.
    places: Vec<(Range<usize>, usize)>,
}

impl Tree {
    /// Copies the project and finds the mutants.
    pub(crate) fn new(project: &Path, folder: PathBuf, set: &Set) -> Result<Self, String> {
        copy(project, &folder, &set.files)?;
        let mut tree = Self { folder, mutants: Vec::new(), files: Vec::new() };
        for path in &set.files {
            let source = read(&project.join(path))?;
            let found = Finder::read(&source).map_err(|error| format!("{path}: {error}"))?;
            let (mutants, inserts) = (found.mutants, found.inserts);
            let first = tree.mutants.len();
            tree.mutants.extend(mutants.into_iter().map(|mutant| Mutant {
                file: path.clone(),
                says: format!("{path}:{}: {}", mutant.line, mutant.says),
            }));
            let path = path.clone();
            tree.files.push(Woven { path, source, inserts, first, places: Vec::new() });
        }
        tree.frame(project, set)?;
        Ok(tree)
    }

    /// What the woven files need around them.
    fn frame(&mut self, project: &Path, set: &Set) -> Result<(), String> {
        let mut switch = include_str!("switch.rs").to_owned();
        switch += "static CHANGES: &[(usize, &str, &str, &str)] = &[\n";
        for change in &set.changes {
            let script = read(&project.join(&change.file))?;
            if script.matches(&change.old).count() != 1 {
                return Err(format!("{}: not once there: {}", change.file, change.old));
            }
            let number = self.mutants.len();
            let whole = change.file.trim_start_matches("src/");
            let (old, new) = (&change.old, &change.new);
            let _ = writeln!(switch, "    ({number}, include_str!({whole:?}), {old:?}, {new:?}),");
            let at = script.find(&change.old).unwrap_or(0);
            let line = script[..at].matches('\n').count() + 1;
            let says = format!("{}:{line}: `{}` is `{}`", change.file, change.old, change.new);
            self.mutants.push(Mutant { file: change.file.clone(), says });
        }
        switch += "];\n";
        write(&self.folder.join("src/mutant.rs"), &switch)?;
        let mut lib = read(&project.join("src/lib.rs"))?;
        lib += "\nextern crate self as rumormill;\nmod mutant;\n";
        for (number, path) in set.modules.iter().enumerate() {
            let _ = write!(lib, "#[cfg(test)]\n#[path = \"../{path}\"]\nmod program_{number};\n");
        }
        write(&self.folder.join("src/lib.rs"), &lib)?;
        let text = read(&project.join(SCRIPT))?;
        let (right, woven) = ("    text.into()\n", "    crate::mutant::script(text)\n");
        write(&self.folder.join(SCRIPT), &text.replace(right, woven))
    }

    /// Writes the files, without those that do not compile.
    pub(crate) fn weave(&mut self, unviable: &BTreeSet<usize>) -> Result<(), String> {
        for file in &mut self.files {
            let text = file.weave(unviable);
            write(&self.folder.join(&file.path), &text)?;
        }
        Ok(())
    }

    /// The mutants that an error of the compiler is about.
    pub(crate) fn blamed(&self, path: &str, at: &Range<usize>) -> Vec<usize> {
        let Some(file) = self.files.iter().find(|file| file.path == path) else {
            return Vec::new();
        };
        let within = |place: &Range<usize>| place.start <= at.start && at.end <= place.end;
        let overlaps = |place: &Range<usize>| place.start < at.end && at.start < place.end;
        let blamed = |is: &dyn Fn(&Range<usize>) -> bool| -> Vec<usize> {
            file.places.iter().filter(|(place, _)| is(place)).map(|(_, mutant)| *mutant).collect()
        };
        let exact = blamed(&within);
        if exact.is_empty() { blamed(&overlaps) } else { exact }
    }
}

impl Woven {
    fn weave(&mut self, unviable: &BTreeSet<usize>) -> String {
        let mut order: Vec<usize> = (0..self.inserts.len()).collect();
        order.sort_by_key(|&index| {
            let insert = &self.inserts[index];
            // Of closings the one that was found last is the innermost.
            let rank = if insert.closes { usize::MAX - index } else { index };
            (insert.at, !insert.closes, rank)
        });
        let (mut text, mut done) = (String::new(), 0);
        self.places.clear();
        for index in order {
            let insert = &self.inserts[index];
            text += &self.source[done..insert.at];
            done = insert.at;
            for part in &insert.parts {
                let number = |mutant: usize| self.first + mutant;
                match part {
                    Part::Text(part) => text += part,
                    Part::Is(mutant) if unviable.contains(&number(*mutant)) => text += "false",
                    Part::Is(mutant) => {
                        let _ = write!(text, "crate::mutant::is({})", number(*mutant));
                    }
                    Part::Instead(mutant, _) if unviable.contains(&number(*mutant)) => {
                        text += "unreachable!()";
                    }
                    Part::Instead(mutant, part) => {
                        let start = text.len();
                        text += part;
                        self.places.push((start..text.len(), number(*mutant)));
                    }
                }
            }
        }
        text + &self.source[done..]
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes what is not there already, so that it is not built again.
fn write(path: &Path, text: &str) -> Result<(), String> {
    if fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Copies what the library and its tests need. What is woven is not overwritten.
fn copy(project: &Path, folder: &Path, woven: &[String]) -> Result<(), String> {
    let parts = ["Cargo.lock", "README.md", "docs", "examples", "macros", "src", "tests"];
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--"])
        .args(parts)
        .current_dir(project)
        .output()
        .map_err(|error| format!("git ls-files: {error}"))?;
    for path in String::from_utf8_lossy(&listed.stdout).lines() {
        let Ok(bytes) = fs::read(project.join(path)) else { continue };
        let to = folder.join(path);
        let is_woven =
            woven.iter().any(|woven| woven == path) || ["src/lib.rs", SCRIPT].contains(&path);
        if is_woven && to.exists() || fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        let made = fs::create_dir_all(to.parent().unwrap_or(folder));
        made.and_then(|()| fs::write(&to, bytes)).map_err(|error| format!("{path}: {error}"))?;
    }
    manifest(project, folder)
}

/// Its manifest, without the other members, and without the library among what its tests need:
/// that one is the library without mutants.
fn manifest(project: &Path, folder: &Path) -> Result<(), String> {
    let text = read(&project.join("Cargo.toml"))?;
    let mut own = String::new();
    for line in text.lines() {
        match line.split(" = ").next() {
            Some("members" | "default-members") => {
                own += &format!(
                    "{} = [\".\", \"macros\"]",
                    line.split(" = ").next().unwrap_or("members")
                )
            }
            // The features of what both need stay as they are in ordinary builds, which are there.
            Some("rumormill") => {
                own += "base64.workspace = true\nredis.workspace = true\n";
                own += "sqlx = { workspace = true, features = [\"sqlite\", \"postgres\"] }";
            }
            _ => own += line,
        }
        own.push('\n');
    }
    own += "\n[profile.dev.package.rumormill]\ndebug = 0\n";
    write(&folder.join("Cargo.toml"), &own)
}
