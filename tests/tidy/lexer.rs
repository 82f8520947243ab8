//! Just enough of Rust's lexical rules to tell code from text. `proc-macro2` could do it, but its
//! `span-locations` would be switched on for every derive of the build, and compile them twice.

use crate::source::Token;

/// The tokens of a file, and its lines of documentation with their numbers.
pub(crate) fn read(text: &str) -> (Vec<Token>, Vec<(usize, String)>) {
    let mut lexer = Lexer { rest: text, line: 1, tokens: Vec::new(), docs: Vec::new() };
    while let Some(first) = lexer.rest.chars().next() {
        lexer.step(first);
    }
    (lexer.tokens, lexer.docs)
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
    docs: Vec<(usize, String)>,
}

impl Lexer<'_> {
    fn step(&mut self, first: char) {
        let rest = self.rest;
        match first {
            '/' if rest.starts_with("//") => self.line_comment(),
            '/' if rest.starts_with("/*") => self.skip(block_comment(rest)),
            '"' => self.token(string(rest)),
            '\'' => self.token(quoted(rest)),
            _ if first.is_whitespace() => self.skip(first.len_utf8()),
            _ if is_word(first) => self.token(word(rest)),
            _ => self.token(first.len_utf8()),
        }
    }

    fn line_comment(&mut self) {
        let length = self.rest.find('\n').unwrap_or(self.rest.len());
        let comment = &self.rest[..length];
        if comment.starts_with("///") || comment.starts_with("//!") {
            self.docs.push((self.line, comment[3..].to_owned()));
        }
        self.skip(length);
    }

    fn token(&mut self, length: usize) {
        let text = self.rest[..length].to_owned();
        self.tokens.push(Token { text, line: self.line, test: false });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        let (skipped, rest) = self.rest.split_at(length);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }
}

fn is_word(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

fn run(text: &str) -> usize {
    text.find(|sign| !is_word(sign)).unwrap_or(text.len())
}

/// A word, or the string that it is the prefix of, or a raw identifier.
fn word(text: &str) -> usize {
    let length = run(text);
    let (prefix, rest) = text.split_at(length);
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    match prefix {
        "b" | "c" if rest.starts_with('"') => length + string(rest),
        "b" if rest.starts_with('\'') => length + quoted(rest),
        "r" | "br" | "cr" if rest[hashes..].starts_with('"') => length + raw_string(rest, hashes),
        "r" if hashes == 1 => length + 1 + run(&rest[1..]),
        _ => length,
    }
}

/// A string from its opening quote to its closing one.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, sign) in text.char_indices().skip(1) {
        match sign {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str, hashes: usize) -> usize {
    let end = format!("\"{}", "#".repeat(hashes));
    let inside = hashes + 1;
    text[inside..].find(&end).map_or(text.len(), |at| inside + at + end.len())
}

/// A character, or a lifetime.
fn quoted(text: &str) -> usize {
    let mut signs = text.char_indices().skip(1);
    match (signs.next(), signs.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let after = at + escaped.len_utf8();
            text[after..].find('\'').map_or(text.len(), |end| after + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1 + run(&text[1..]),
    }
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}
