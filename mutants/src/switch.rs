//! Which mutant is chosen, and which were come by.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{LazyLock, Mutex};

static CHOSEN: LazyLock<Option<usize>> =
    LazyLock::new(|| std::env::var("RUMORMILL_MUTANT").ok()?.parse().ok());

static SEEN: LazyLock<Option<Mutex<(HashSet<usize>, File)>>> = LazyLock::new(|| {
    let path = std::env::var("RUMORMILL_MUTANTS_SEEN").ok()?;
    let file = OpenOptions::new().create(true).append(true).open(path).ok()?;
    Some(Mutex::new((HashSet::new(), file)))
});

/// Whether a mutant is chosen.
#[allow(dead_code)]
pub(crate) fn is(mutant: usize) -> bool {
    if let Some(seen) = &*SEEN
        && let Ok(mut seen) = seen.lock()
        && seen.0.insert(mutant)
    {
        let _ = seen.1.write_all(format!("{mutant}\n").as_bytes());
    }
    *CHOSEN == Some(mutant)
}

/// A script's text, changed where a mutant of its text is chosen.
#[allow(dead_code)]
pub(crate) fn script(text: &'static str) -> Cow<'static, str> {
    for (number, whole, old, new) in CHANGES {
        if text.contains(whole) && is(*number) {
            return text.replace(whole, &whole.replace(old, new)).into();
        }
    }
    text.into()
}

