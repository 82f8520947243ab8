//! Places in a JSON text, and changing what is there. The rest stays byte for byte: the order of
//! members, numbers that no type of ours holds, names that come twice.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deepest nesting that is gone through.
const DEPTH_MAX: usize = 128;

/// One step from a value into what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The member of this name; of an array the element of this number, else that of each element.
    Name(String),
    /// Each member or element.
    Each,
}

/// The way to values in a JSON text, such as `user.email` or `items.*.price`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

impl Path {
    /// Reads a path: names with dots between them, `*` for each, `\.` for a dot in a name. Empty
    /// is the whole.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let (mut names, mut signs) = (vec![String::new()], text.chars());
        while let Some(sign) = signs.next() {
            match sign {
                '.' => names.push(String::new()),
                '\\' => {
                    let escaped = signs.next().ok_or("it ends with a backslash")?;
                    names.last_mut().expect("never empty").push(escaped);
                }
                sign => names.last_mut().expect("never empty").push(sign),
            }
        }
        if names.iter().any(String::is_empty) {
            return Err("a name in it is empty".to_owned());
        }
        let step = |name: String| if name == "*" { Step::Each } else { Step::Name(name) };
        Ok(Self(names.into_iter().map(step).collect()))
    }

    /// The text with each value at this path replaced; nothing where there is none.
    ///
    /// # Errors
    /// Where it is nested too deep to be gone through.
    pub(super) fn edit(
        &self,
        json: &str,
        change: &mut Change<'_>,
    ) -> Result<Option<String>, String> {
        edit(json, &self.0, DEPTH_MAX, change)
    }
}

/// What becomes of a value, or why nothing can.
pub(super) type Change<'a> = dyn FnMut(&str) -> Result<String, String> + 'a;

/// The text with each scalar in it replaced.
pub(super) fn each_scalar(json: &str, change: &mut Change<'_>) -> Result<String, String> {
    scalars(json, DEPTH_MAX, change)
}

fn scalars(json: &str, depth: usize, change: &mut Change<'_>) -> Result<String, String> {
    if !json.starts_with(['{', '[']) {
        return change(json);
    }
    let each = &mut |_: &str, value: &str, depth| scalars(value, depth, change).map(Some);
    Ok(hold(json, depth, each)?.unwrap_or_else(|| json.to_owned()))
}

fn edit(
    json: &str,
    path: &[Step],
    depth: usize,
    change: &mut Change<'_>,
) -> Result<Option<String>, String> {
    let Some((step, rest)) = path.split_first() else { return change(json).map(Some) };
    let is_array = json.starts_with('[');
    if !is_array && !json.starts_with('{') {
        return Ok(None);
    }
    let into = &mut |own: &str, value: &str, depth| match step {
        Step::Name(name) if name == own => edit(value, rest, depth, change),
        Step::Name(name) if is_array && !is_number(name) => edit(value, path, depth, change),
        Step::Name(_) => Ok(None),
        Step::Each => edit(value, rest, depth, change),
    };
    hold(json, depth, into)
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|sign| sign.is_ascii_digit())
}

/// What becomes of a value that stands under a name, so deep; nothing where it stays.
type Within<'a> = dyn FnMut(&str, &str, usize) -> Result<Option<String>, String> + 'a;

/// Changes what an object or an array holds; elements have their numbers for names.
fn hold(json: &str, depth: usize, within: &mut Within<'_>) -> Result<Option<String>, String> {
    let depth = depth.checked_sub(1).ok_or("its payload is nested too deep")?;
    let is_object = json.starts_with('{');
    let values = if is_object {
        serde_json::from_str::<Members<'_>>(json).map(|members| members.0)
    } else {
        let numbered = |(at, value): (usize, _)| (at.to_string(), value);
        let elements = serde_json::from_str::<Vec<&RawValue>>(json);
        elements.map(|elements| elements.into_iter().enumerate().map(numbered).collect())
    };
    let values: Vec<(String, &RawValue)> = values.map_err(|error| error.to_string())?;
    let (mut text, mut changed) = (String::new(), false);
    for (name, value) in values {
        let edited = within(&name, value.get(), depth)?;
        text.push(if text.is_empty() { if is_object { '{' } else { '[' } } else { ',' });
        if is_object {
            text += &serde_json::to_string(&name).expect("text is always JSON");
            text.push(':');
        }
        text += edited.as_deref().unwrap_or(value.get());
        changed |= edited.is_some();
    }
    text.push(if is_object { '}' } else { ']' });
    Ok(changed.then_some(text))
}

/// The members of an object in their order, those of one name among them.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor).map(Members)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry::<String, &RawValue>().map_err(de::Error::custom)? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(path: &str, json: &str) -> Option<String> {
        let path = Path::parse(path).expect("a path");
        path.edit(json, &mut |_| Ok("X".to_owned())).expect("not too deep")
    }

    #[test]
    fn what_is_not_named_stays_as_it_was() {
        let json = r#"{"b":1.0e2, "a":{"x":"s","y":123456789012345678901},"a":{"x":[]}}"#;
        let expected = r#"{"b":1.0e2,"a":{"x":X,"y":123456789012345678901},"a":{"x":X}}"#;
        assert_eq!(edited("a.x", json).as_deref(), Some(expected));
        assert_eq!(edited("c", json), None);
        assert_eq!(edited("b.x", json), None);
        assert_eq!(edited("", "7").as_deref(), Some("X"));
        let escaped = r#"{"e\u006dail":1,"x.y":2,"*":3}"#;
        assert_eq!(edited("email", escaped).as_deref(), Some(r#"{"email":X,"x.y":2,"*":3}"#));
        assert_eq!(edited("x\\.y", escaped).as_deref(), Some(r#"{"email":1,"x.y":X,"*":3}"#));
    }

    #[test]
    fn arrays_are_gone_through_with_a_star_a_number_or_without() {
        let json = r#"[{"m":"a"},{"n":1},[{"m":"b"}]]"#;
        let all = r#"[{"m":X},{"n":1},[{"m":X}]]"#;
        assert_eq!(edited("m", json).as_deref(), Some(all), "each, however deep");
        assert_eq!(edited("*.m", json).as_deref(), Some(all));
        assert_eq!(edited("0.m", json).as_deref(), Some(r#"[{"m":X},{"n":1},[{"m":"b"}]]"#));
        assert_eq!(edited("*", "{\"a\":1,\"b\":[2]}").as_deref(), Some(r#"{"a":X,"b":X}"#));
        assert_eq!(edited("*", "[]"), None);
    }

    #[test]
    fn every_scalar_of_a_value_can_be_changed() {
        let change = &mut |scalar: &str| Ok(format!("<{scalar}>"));
        let text = each_scalar(r#"{"a":[1,"x",{"b":null}],"c":{}}"#, change).expect("flat");
        assert_eq!(text, r#"{"a":[<1>,<"x">,{"b":<null>}],"c":{}}"#);
    }

    #[test]
    fn what_is_too_deep_is_refused_and_not_passed() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        let path = Path::parse("a").expect("a path");
        assert!(path.edit(&deep, &mut |_| Ok(String::new())).is_err());
        assert!(each_scalar(&deep, &mut |_| Ok(String::new())).is_err());
    }

    #[test]
    fn a_path_without_a_name_is_refused() {
        for bad in [".", "a.", ".a", "a..b", "a\\"] {
            assert!(Path::parse(bad).is_err(), "{bad}");
        }
    }
}
