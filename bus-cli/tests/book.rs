//! The command lines in the README and the book: their subcommands and flags exist.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `--help` says, of the program itself or of a subcommand; `None` where there is none.
fn help(subcommand: &[&str]) -> Option<String> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_bus-cli"));
    let output = program.args(subcommand).arg("--help").output().expect("it starts");
    output.status.success().then(|| String::from_utf8(output.stdout).expect("UTF-8"))
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The words of each `bus-cli` command in shell code and in `code` of a line; what is quoted for
/// the shell is one word.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let mut shell = false;
    for line in text.lines() {
        if let Some(fence) = line.strip_prefix("```") {
            shell = fence == "sh";
            continue;
        }
        let spans: Vec<&str> = if shell {
            line.split('|').collect()
        } else {
            line.split('`').skip(1).step_by(2).collect()
        };
        for span in spans {
            let words = words(span);
            if words.first().is_some_and(|word| word == "bus-cli") && words.len() > 1 {
                commands.push(words[1..].to_vec());
            }
        }
    }
    commands
}

fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for sign in line.trim().chars() {
        match sign {
            '\'' => quoted = !quoted,
            '#' if !quoted && words.last().is_some_and(String::is_empty) => break,
            ' ' if !quoted => words.push(String::new()),
            sign => words.last_mut().expect("one at least").push(sign),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Those whose second word is a subcommand, too.
const NESTED: &[&str] = &["config", "dead-letters", "groups", "topics"];

/// The words that choose a subcommand.
fn subcommand(command: &[String]) -> Vec<&str> {
    let nested = command.first().is_some_and(|word| NESTED.contains(&word.as_str()));
    let words = command.iter().take(if nested { 2 } else { 1 });
    words.map(String::as_str).take_while(|word| !word.starts_with('-')).collect()
}

#[test]
fn documented_subcommands_and_flags_exist() {
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for command in commands(&text) {
            let shown = format!("{}: bus-cli {}", page.display(), command.join(" "));
            if command[0] == "help" {
                continue;
            }
            let subcommand = subcommand(&command);
            let help = help(&subcommand).unwrap_or_else(|| panic!("{shown}: no such subcommand"));
            for flag in command.iter().filter(|word| word.starts_with('-') && *word != "-") {
                let name = flag.split('=').next().expect("split gives one part at least");
                let known = help.split([' ', ',', '\n', '=', '[']).any(|word| word == name);
                assert!(known, "{shown}: {name} is no flag of it");
            }
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen} commands found");
}

#[test]
fn commands_are_found_and_taken_apart() {
    let text =
        "Say `bus-cli tail 'a b' -n 1`.\n```sh\nbus-cli x --y | bus-cli z # w\n```\n`bus-cli`";
    let found = commands(text);
    let expected = [vec!["tail", "a b", "-n", "1"], vec!["x", "--y"], vec!["z"]];
    assert_eq!(found, expected);
}
