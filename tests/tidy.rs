//! The house rules that a test can hold. Each lists every offence as `file:line`.

#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use rules::Offence;
use source::{File, Source};

fn hold(rule: &str, offences: &[Offence]) {
    let list: Vec<String> = offences.iter().map(Offence::to_string).collect();
    assert!(list.is_empty(), "{rule}:\n  {}\n", list.join("\n  "));
}

fn hold_in_sources(rule: &str, check: impl Fn(&Source) -> Vec<Offence>) {
    hold(rule, &Source::all().iter().flat_map(check).collect::<Vec<_>>());
}

fn hold_in_files(rule: &str, extensions: &[&str], check: impl Fn(&File) -> Vec<Offence>) {
    hold(rule, &File::all(extensions).iter().flat_map(check).collect::<Vec<_>>());
}

#[test]
fn lines_have_at_most_100_columns() {
    hold_in_files("at most 100 columns", &["rs", "lua"], rules::long_lines);
}

#[test]
fn files_have_at_most_500_lines() {
    hold_in_files("at most 500 lines a file", &["rs", "lua"], rules::long_file);
}

#[test]
fn functions_have_at_most_70_lines() {
    hold_in_sources("at most 70 lines a function", rules::long_functions);
}

#[test]
fn pure_modules_know_no_runtime_no_files_and_no_clock() {
    hold_in_sources("pure modules are values only", rules::impure);
}

#[test]
fn only_the_redis_driver_names_the_redis_crate() {
    hold_in_sources("`redis::` only in src/driver/redis/", rules::redis_crate);
}

#[test]
fn key_names_are_only_in_keys_rs() {
    hold_in_sources("key names only in src/driver/redis/keys.rs", rules::key_names);
    hold_in_files("scripts take their keys as KEYS", &["rs", "lua"], rules::key_names_in_lua);
}

#[test]
fn dependencies_go_one_way() {
    let sources = Source::all();
    let lib = sources.iter().find(|source| source.path == "src/lib.rs").expect("the library");
    let exports = rules::crate_uses(lib);
    let rule = "arrows go one way: see the table in tests/tidy/rules.rs";
    hold_in_sources(rule, |source| rules::arrows(source, &exports));
}

#[test]
fn nothing_unwraps_outside_tests() {
    hold_in_sources("say with `expect` which invariant holds", rules::unwraps);
}

#[test]
fn no_channel_is_unbounded() {
    hold_in_sources("every queue has a limit", rules::limitless_channels);
}

#[test]
fn no_test_is_ignored() {
    hold_in_sources("a test runs or goes", rules::ignored);
}

#[test]
fn nothing_is_left_to_do() {
    hold_in_sources("no stubs", rules::stubs);
}

#[test]
fn tests_wait_for_conditions() {
    let rule = "a sleep in a test says above it `// waits: <for what>`";
    let files = File::all(&["rs"]);
    let check = |file: &File| rules::sleeps(&Source::parse(&file.path, &file.text), &file.text);
    hold(rule, &files.iter().flat_map(check).collect::<Vec<_>>());
}

#[test]
fn every_crate_inherits_the_lints() {
    hold_in_files("write `[lints]` and `workspace = true`", &["toml"], rules::lints);
}

/// Each rule finds its offence, so that none holds for want of looking.
#[test]
fn each_rule_can_fail() {
    let source = |path: &str, text: &str| Source::parse(path, text);
    let library = |text: &str| source("src/worker/lane.rs", text);
    let exports = rules::crate_uses(&source("src/lib.rs", "pub use crate::bus::{Bus, X as Y};"));
    let arrows = |path: &str, text: &str| rules::arrows(&source(path, text), &exports);
    let found: Vec<(&str, Vec<Offence>)> = vec![
        ("impure", rules::impure(&source("src/envelope/wire.rs", "use tokio::time::sleep;"))),
        ("impure", rules::impure(&source("src/service/backoff.rs", "use std::{fmt, fs};"))),
        ("impure", rules::impure(&source("src/codec.rs", "fn f() { SystemTime::now(); }"))),
        ("redis_crate", rules::redis_crate(&library("use redis::Client;"))),
        ("key_names", rules::key_names(&library("fn f() { format!(\"{p}:retry:{g}\"); }"))),
        ("key_names", rules::key_names(&library("const ROUTES: &str = \"rm:routes\";"))),
        ("arrows", arrows("src/driver/memory.rs", "use crate::bus::Bus;")),
        ("arrows", arrows("src/error.rs", "use crate::{time::T, driver::D};")),
        ("arrows", arrows("src/middleware/retry.rs", "fn f(d: crate::driver::D);")),
        ("arrows", arrows("src/driver/redis/mod.rs", "use crate::Bus;")),
        ("arrows", arrows("src/error.rs", "use crate::{time::{A, B}, worker as w, time};")),
        ("arrows", arrows("src/service/mod.rs", "use crate::worker::Worker;")),
        ("arrows", arrows("src/helpers.rs", "use crate::error::Error;")),
        ("unwraps", rules::unwraps(&library("fn f() { g().unwrap(); }"))),
        (
            "limitless_channels",
            rules::limitless_channels(&library("use tokio::sync::mpsc::unbounded_channel;")),
        ),
        ("ignored", rules::ignored(&library("#[test]\n#[ignore = \"slow\"]\nfn f() {}"))),
        ("ignored", rules::ignored(&library("/// ```ignore\n/// f();\n/// ```\nfn f() {}"))),
        ("stubs", rules::stubs(&library("fn f() { todo!() }"))),
        ("sleeps", {
            let text = "async fn f() { tokio::time::sleep(a).await; }";
            rules::sleeps(&source("tests/demo.rs", text), text)
        }),
    ];
    for (rule, offences) in &found {
        assert_eq!(offences.len(), 1, "{rule}: {offences:?}");
    }
    let long = format!("fn f() {{\n{}}}", "a();\n".repeat(69));
    assert_eq!(rules::long_functions(&library(&long)).len(), 1);
}

#[test]
fn the_lexer_tells_code_from_text() {
    let text = "fn f<'a>(c: char) -> &'a str {\n  /* fn /* */ g */ let q = '\"'; let e = '\\'';\n  \
        r#\"a \" fn\"# // fn h\n}\nconst R#TYPE: &str = b\"\\\"fn\";";
    let text = text.replace("R#TYPE", "r#type");
    let (tokens, _) = lexer::read(&text);
    let at = |text: &str| tokens.iter().filter(|token| token.text == text).count();
    assert_eq!((at("fn"), at("r#type"), at("'a"), at("\"")), (1, 1, 2, 0));
    let raw = tokens.iter().find(|token| token.text.starts_with("r#\"")).expect("a raw string");
    assert_eq!((raw.text.as_str(), raw.line), ("r#\"a \" fn\"#", 3));
    let source = Source::parse("src/lib.rs", &text);
    assert_eq!(source.functions.iter().map(|function| function.lines).collect::<Vec<_>>(), [4]);
}

#[test]
fn the_rules_leave_tests_and_documentation_alone() {
    let text = "
        /// `x.unwrap()`, `todo!()`, `rm:{topic:0}:log`.
        #[cfg(test)]
        mod tests {
            use crate::bus::Bus;
            #[test]
            fn f() { g(\":retry:\").unwrap(); }
        }
        #[cfg(test)]
        use crate::bus::Bus;
        fn f() {}";
    let source = Source::parse("src/driver/memory.rs", text);
    for check in [rules::unwraps, rules::key_names, rules::stubs] {
        assert_eq!(check(&source), []);
    }
    assert_eq!(rules::arrows(&source, &[]), []);
    let after = format!("{text} fn g() {{ h().unwrap(); }}");
    let offences = rules::unwraps(&Source::parse("src/driver/memory.rs", &after));
    assert_eq!(offences.len(), 1, "what follows test code is looked at");
    let waiting = "async fn f() {\n    // waits: for the lease to end\n    sleep(a).await;\n}";
    assert_eq!(rules::sleeps(&Source::parse("tests/demo.rs", waiting), waiting), []);
}
