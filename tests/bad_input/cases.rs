//! Reads cases of bad input: one JSON object a line, with a name that no other case has.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, none of which needs all of it")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub fn folder() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    [own.join("tests/bad_input"), own.join("../tests/bad_input")]
        .into_iter()
        .find(|folder| folder.join("names.ndjson").exists())
        .expect("the cases are there")
}

/// All cases of a file.
pub fn cases<T: DeserializeOwned>(file: &str) -> Vec<T> {
    let path = folder().join(file);
    let text = std::fs::read_to_string(&path).expect("the cases are there");
    let mut names = BTreeSet::new();
    let mut read = |(line, case): (usize, &str)| {
        let at = format!("{}:{}", path.display(), line + 1);
        let value: Value = serde_json::from_str(case).unwrap_or_else(|why| panic!("{at}: {why}"));
        let name = value["name"].as_str().unwrap_or_else(|| panic!("{at}: no name"));
        assert!(names.insert(name.to_owned()), "{at}: {name} is there twice");
        T::deserialize(value).unwrap_or_else(|why| panic!("{at}: {why}"))
    };
    text.lines().enumerate().map(&mut read).collect()
}

/// Input as it is written in a case: a text; `{"hex": ...}`; `{"repeat": [text, times]}`;
/// `{"hexrepeat": [hex, times]}`; or an array of these, one after the other.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Input(pub Value);

impl Input {
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_with(&|other| panic!("{other} is no input"))
    }

    /// Leaves to `make` what is of another form.
    pub fn bytes_with(&self, make: &dyn Fn(&Value) -> Vec<u8>) -> Vec<u8> {
        bytes(&self.0, make)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.bytes()).expect("text")
    }
}

fn bytes(value: &Value, make: &dyn Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    if let Some(text) = value.as_str() {
        return text.as_bytes().to_vec();
    }
    if let Some(parts) = value.as_array() {
        return parts.iter().flat_map(|part| bytes(part, make)).collect();
    }
    let repeated = |pair: &Value| {
        let times = pair[1].as_u64().expect("a number of times");
        (pair[0].as_str().expect("a text").to_owned(), usize::try_from(times).expect("it fits"))
    };
    if let Some(pair) = value.get("repeat") {
        let (text, times) = repeated(pair);
        return text.repeat(times).into_bytes();
    }
    if let Some(pair) = value.get("hexrepeat") {
        let (text, times) = repeated(pair);
        return hex(&text).repeat(times);
    }
    match value.get("hex") {
        Some(text) => hex(text.as_str().expect("a text")),
        None => make(value),
    }
}

/// The bytes of hexadecimal digits.
pub fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}: two digits a byte");
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
}
