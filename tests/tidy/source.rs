//! A source file as the rules see it: tokens with their lines, without comments and documentation,
//! each knowing whether it belongs to test code.

use std::fs;
use std::path::{Path, PathBuf};

use crate::lexer;

/// A file of the repository, with its path from the root, `/` between the parts.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A Rust file, taken apart.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) tokens: Vec<Token>,
    pub(crate) functions: Vec<Function>,
    /// Lines of documentation, with their numbers.
    pub(crate) docs: Vec<(usize, String)>,
}

pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) test: bool,
}

pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

impl File {
    /// Every file of the repository that ends in one of `extensions`.
    pub(crate) fn all(extensions: &[&str]) -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut paths = Vec::new();
        walk(root, &mut paths);
        let wanted = |path: &PathBuf| {
            path.extension().is_some_and(|own| extensions.iter().any(|wanted| own == *wanted))
        };
        let mut files: Vec<Self> =
            paths.into_iter().filter(wanted).map(|path| Self::read(root, &path)).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(!files.is_empty(), "no file ends in {extensions:?}");
        files
    }

    fn read(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let relative = path.strip_prefix(root).expect("the walk began at the root");
        let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
        Self { path: parts.join("/"), text }
    }
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of the repository") {
        let path = entry.expect("an entry of the repository").path();
        let name = path.file_name().expect("an entry has a name").to_string_lossy();
        if name == "target" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

impl Source {
    /// Every Rust file of the repository.
    pub(crate) fn all() -> Vec<Self> {
        File::all(&["rs"]).iter().map(|file| Self::parse(&file.path, &file.text)).collect()
    }

    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let (mut tokens, docs) = lexer::read(text);
        let mut source =
            Self { path: path.to_owned(), tokens: Vec::new(), functions: Vec::new(), docs };
        let all = source.is_test();
        tokens.iter_mut().for_each(|token| token.test = all);
        mark_tests(&mut tokens);
        source.functions = functions(&tokens);
        source.tokens = tokens;
        source
    }

    /// Whether the whole file is test code.
    pub(crate) fn is_test(&self) -> bool {
        let path = &self.path;
        path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
    }

    /// The token that begins each place where the texts stand one after another.
    pub(crate) fn find(&self, texts: &[&str]) -> impl Iterator<Item = &Token> {
        let starts = self.tokens.windows(texts.len());
        starts
            .filter(move |window| window.iter().zip(texts).all(|(token, text)| token.text == *text))
            .map(|window| &window[0])
    }
}

/// Marks what `#[cfg(test)]` and `#[test]` stand before.
fn mark_tests(tokens: &mut [Token]) {
    for at in 0..tokens.len() {
        let inner = tokens[at..].get(1).is_some_and(|token| token.text == "!");
        let open = at + 1 + usize::from(inner);
        if tokens[at].text != "#" || tokens.get(open).is_none_or(|token| token.text != "[") {
            continue;
        }
        let close = closing(tokens, open);
        let words: Vec<&str> = tokens[open + 1..close].iter().map(|t| t.text.as_str()).collect();
        if is_test_attribute(&words) {
            let end = if inner { tokens.len() } else { item_end(tokens, close + 1) };
            tokens[at..end].iter_mut().for_each(|token| token.test = true);
        }
    }
}

/// `cfg(test)`, `cfg(all(test, ..))`, `test`, `tokio::test(..)`.
fn is_test_attribute(words: &[&str]) -> bool {
    let path: Vec<&str> = words.iter().take_while(|word| **word != "(").copied().collect();
    match path.as_slice() {
        ["cfg"] => words.contains(&"test") && !words.contains(&"not"),
        [.., last] => *last == "test",
        [] => false,
    }
}

/// The functions with a name and a body.
fn functions(tokens: &[Token]) -> Vec<Function> {
    let is_function = |at: &usize| {
        let name = tokens.get(at + 1);
        tokens[*at].text == "fn" && name.is_some_and(|name| name.text != "(")
    };
    let starts = (0..tokens.len()).filter(is_function);
    let with_body = starts.filter_map(|at| {
        let last = &tokens[item_end(tokens, at).checked_sub(1)?];
        let (name, line) = (tokens[at + 1].text.clone(), tokens[at].line);
        (last.text == "}").then(|| Function { name, line, lines: last.line - line + 1 })
    });
    with_body.collect()
}

/// Where the item ends that begins at `at`: after its `;` or after its braces, exclusive.
fn item_end(tokens: &[Token], at: usize) -> usize {
    let mut at = at;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            "{" => return closing(tokens, at) + 1,
            "(" | "[" => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    tokens.len()
}

/// The bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 1 => return at,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
    }
    panic!("line {}: a bracket is not closed", tokens[open].line)
}
