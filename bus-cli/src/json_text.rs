//! The layout of JSON text. Only blanks outside of strings change: numbers, escapes and the order
//! of fields stay as they were written.

/// What is deeper stays on its line. Else a text of brackets would come out with the square of
/// their number in blanks.
const LEVELS_MAX: usize = 64;

/// Spread over lines, two blanks a level. What is no JSON comes out somehow.
pub(crate) fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut level = 0_usize;
    let mut tokens = tokens(text).peekable();
    let line = |out: &mut String, level: usize| {
        if level <= LEVELS_MAX {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", level));
        }
    };
    while let Some(token) = tokens.next() {
        match token {
            "{" | "[" => {
                out += token;
                if tokens.peek().is_some_and(|next| matches!(*next, "}" | "]")) {
                    out += tokens.next().unwrap_or_default();
                    continue;
                }
                level += 1;
                line(&mut out, level);
            }
            "}" | "]" => {
                if level <= LEVELS_MAX {
                    line(&mut out, level.saturating_sub(1));
                }
                level = level.saturating_sub(1);
                out += token;
            }
            "," => {
                out += token;
                line(&mut out, level);
            }
            ":" => out += ": ",
            _ => out += token,
        }
    }
    out
}

/// Without blanks.
pub(crate) fn compact(text: &str) -> String {
    tokens(text).collect()
}

/// The numbers in it, as they are written.
pub(crate) fn numbers(text: &str) -> impl Iterator<Item = &str> {
    tokens(text).filter(|token| token.starts_with(|first: char| "-0123456789".contains(first)))
}

/// Strings, signs, and what stands between them, without the blanks.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let first = rest.chars().next()?;
        let length = match first {
            '"' => string(rest),
            '{' | '}' | '[' | ']' | ',' | ':' => 1,
            _ => rest.find(|sign| "{}[],:\" \t\n\r".contains(sign)).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

/// The bytes of the string at the beginning.
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

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{ \"b\" : [ 1.10,{},\n[ ] ],\t\"a\":\"x, \\\"{ y\\\\\" ,\"n\":-1e400}";

    #[test]
    fn only_the_layout_changes() {
        let compact = "{\"b\":[1.10,{},[]],\"a\":\"x, \\\"{ y\\\\\",\"n\":-1e400}";
        assert_eq!(super::compact(TEXT), compact);
        let lines = "{\n  \"b\": [\n    1.10,\n    {},\n    []\n  ],\n  \
            \"a\": \"x, \\\"{ y\\\\\",\n  \"n\": -1e400\n}";
        assert_eq!(pretty(TEXT), lines);
        assert_eq!(super::compact(lines), compact);
        for odd in ["", "1", "\"", "\"\\", "}}", "{\"a\"", "é x"] {
            assert_eq!(super::compact(&pretty(odd)), super::compact(odd), "{odd}");
        }
    }

    #[test]
    fn deep_text_does_not_grow_with_the_square_of_its_depth() {
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        let pretty = pretty(&deep);
        assert!(pretty.len() < deep.len() + 20_000, "{} bytes", pretty.len());
        assert_eq!(super::compact(&pretty), deep);
    }

    #[test]
    fn numbers_are_found() {
        assert_eq!(numbers(TEXT).collect::<Vec<_>>(), ["1.10", "-1e400"]);
    }
}
