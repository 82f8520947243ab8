//! The book is whole: every page in the table of contents and among the tests, every link leads
//! somewhere, every piece of code says what it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a fence may say. Rust is compiled by `src/doc_tests.rs`; `bus-cli/tests/book.rs` checks
/// the command lines.
const FENCES: &[&str] = &[
    "rust",
    "rust,no_run",
    "rust,no_run,standalone_crate",
    "rust,test_harness",
    "sh",
    "text",
    // What was typed after `$ `, and what came back: a script writes it.
    "console",
    "toml",
    "ini",
    "sql",
];

/// Written for clients in other languages: no Rust, fences without a language.
const WIRE: &str = "wire.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The pages below `docs/`, from there, without the table of contents.
fn pages() -> BTreeSet<String> {
    let docs = root().join("docs");
    let mut folders = vec![docs.clone()];
    let mut pages = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let page = path.strip_prefix(&docs).expect("it is below").to_string_lossy();
                pages.insert(page.replace('\\', "/"));
            }
        }
    }
    assert!(pages.remove("SUMMARY.md"), "a book has a table of contents");
    pages
}

/// The targets of `[text](target)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        for part in line.split("](").skip(1) {
            let target = part.split(')').next().expect("split gives one part at least");
            links.push(target.split('#').next().unwrap_or_default().to_owned());
        }
    }
    links
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let linked: BTreeSet<String> = links(&read("docs/SUMMARY.md")).into_iter().collect();
    assert_eq!(linked, pages());
}

#[test]
fn every_page_is_among_the_tests() {
    let tested = read("src/doc_tests.rs");
    for page in pages().iter().filter(|page| *page != WIRE) {
        assert!(tested.contains(&format!("\"docs/{page}\"")), "add {page} to src/doc_tests.rs");
    }
    assert!(tested.contains("\"README.md\""));
}

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    let pages = pages().into_iter().map(|page| format!("docs/{page}"));
    for page in pages.chain(["README.md".to_owned(), "docs/SUMMARY.md".to_owned()]) {
        let path = root().join(&page);
        let folder = path.parent().expect("a file lies in a folder");
        let outside = |link: &String| link.starts_with("http") || link.is_empty();
        let links = links(&read(&page)).into_iter().filter(|link| !outside(link));
        dead.extend(
            links.filter(|link| !folder.join(link).exists()).map(|link| (page.clone(), link)),
        );
    }
    assert!(dead.is_empty(), "{dead:?}");
}

#[test]
fn code_says_what_it_is_and_none_is_left_out_of_the_tests() {
    for page in pages().iter().filter(|page| *page != WIRE) {
        let text = read(&format!("docs/{page}"));
        let fences: Vec<&str> =
            text.lines().filter_map(|line| line.trim_start().strip_prefix("```")).collect();
        assert!(fences.len().is_multiple_of(2), "{page}: a fence is open");
        for opening in fences.iter().step_by(2) {
            assert!(FENCES.contains(opening), "{page}: {opening:?} is not one of {FENCES:?}");
        }
    }
}

#[test]
fn the_guarantees_are_the_readmes() {
    let promises = |text: &str, name: fn(&str) -> Option<&str>| -> Vec<String> {
        text.lines().filter_map(name).map(str::to_owned).collect()
    };
    let readme = promises(&read("README.md"), |line| {
        let (name, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
        let one_word = name.chars().all(|sign| sign.is_ascii_lowercase());
        (one_word && rest.contains(" | yes")).then_some(name)
    });
    let book =
        promises(&read("docs/guarantees.md"), |line| line.strip_prefix("| [")?.split(']').next());
    assert_eq!(readme, book);
    assert_eq!(book.len(), 9, "{book:?}");
}

/// Where mdbook is found; elsewhere this says that it was not.
#[test]
fn mdbook_builds_it() {
    use std::process::Command;
    if Command::new("mdbook").arg("--version").output().is_err() {
        println!("skipped: mdbook is not on the path");
        return;
    }
    let out = tempfile::tempdir().expect("a folder");
    let built = Command::new("mdbook")
        .args(["build", "--dest-dir"])
        .arg(out.path())
        .arg(root().join("docs"))
        .output()
        .expect("mdbook starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    assert!(out.path().join("getting-started.html").exists());
}
