//! Builds the woven tree, and leaves out what the compiler does not take.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::set::Set;
use crate::tree::Tree;

/// After so many rounds something else is wrong.
const ROUNDS_MAX: usize = 12;

/// The test programs. Mutants that do not compile are added to `unviable`, and noted: finding them
/// takes longest.
pub(crate) fn build(
    tree: &mut Tree,
    set: &Set,
    target: &Path,
    unviable: &mut BTreeSet<usize>,
    note: impl Fn(&Tree, &BTreeSet<usize>),
) -> Result<Vec<PathBuf>, String> {
    for round in 1..=ROUNDS_MAX {
        tree.weave(unviable)?;
        let messages = cargo(tree, set, target)?;
        let errors: Vec<&Value> = messages.iter().filter_map(error).collect();
        if errors.is_empty() {
            return Ok(messages.iter().filter_map(program).collect());
        }
        let before = unviable.len();
        for error in &errors {
            unviable.extend(blamed(tree, error));
        }
        if unviable.len() == before {
            let text = |error: &&Value| error["rendered"].as_str().unwrap_or("").to_owned();
            let texts: Vec<String> = errors.iter().take(5).map(text).collect();
            return Err(format!("does not compile:\n{}", texts.join("\n")));
        }
        let left_out = unviable.len() - before;
        eprintln!("mutants: round {round}: {left_out} more do not compile");
        note(tree, unviable);
    }
    Err("the mutants that do not compile come to no end".to_owned())
}

fn cargo(tree: &Tree, set: &Set, target: &Path) -> Result<Vec<Value>, String> {
    let mut command = Command::new("cargo");
    command.args(["test", "--offline", "--no-run", "--message-format=json", "--package=rumormill"]);
    command.args(["--no-default-features", "--features", &set.features]);
    if set.tests.is_empty() || !set.modules.is_empty() {
        command.arg("--lib");
    }
    for test in &set.tests {
        command.args(["--test", test]);
    }
    command.current_dir(&tree.folder).env("CARGO_TARGET_DIR", target).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if messages.is_empty() { Err("cargo said nothing".to_owned()) } else { Ok(messages) }
}

fn error(message: &Value) -> Option<&Value> {
    let message = message.get("message")?;
    let is_one =
        message["level"] == "error" && message["spans"].as_array().is_some_and(|s| !s.is_empty());
    is_one.then_some(message)
}

fn program(message: &Value) -> Option<PathBuf> {
    let is_test = message["profile"]["test"] == true;
    message["executable"].as_str().filter(|_| is_test).map(PathBuf::from)
}

/// By the place it is about; else by any place it names.
fn blamed(tree: &Tree, error: &Value) -> Vec<usize> {
    let spans = error["spans"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |span: &Value| {
        let number = |name: &str| span[name].as_u64().and_then(|n| usize::try_from(n).ok());
        let (Some(start), Some(end)) = (number("byte_start"), number("byte_end")) else {
            return Vec::new();
        };
        tree.blamed(span["file_name"].as_str().unwrap_or(""), &(start..end))
    };
    let (first, others): (Vec<&Value>, Vec<&Value>) =
        spans.iter().partition(|span| span["is_primary"] == true);
    let found: Vec<usize> = first.into_iter().flat_map(of).collect();
    if found.is_empty() { others.into_iter().flat_map(of).collect() } else { found }
}
