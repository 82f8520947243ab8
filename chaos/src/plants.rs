//! Known bugs that can be switched on in the library, to see that a run finds them.

use crate::Result;

/// A bug's name, and what it does.
#[cfg(feature = "plant")]
fn all() -> Vec<(&'static str, &'static str)> {
    rumormill::plant::ALL.iter().map(|plant| (plant.name(), plant.says())).collect()
}

#[cfg(not(feature = "plant"))]
fn all() -> Vec<(&'static str, &'static str)> {
    Vec::new()
}

const MISSING: &str =
    "this program was built without known bugs: cargo run -p chaos --features plant -- ...";

/// The list, a line each.
pub(crate) fn list() -> String {
    if all().is_empty() {
        return format!("{MISSING}\n");
    }
    all().iter().map(|(name, says)| format!("{name:26} {says}\n")).collect()
}

/// Whether there is such a bug.
pub(crate) fn check(name: &str) -> Result<()> {
    let all = all();
    if all.is_empty() {
        return Err(MISSING.into());
    }
    if all.iter().any(|(own, _)| *own == name) {
        return Ok(());
    }
    Err(format!("there is no plant {name:?}: see `chaos plants`").into())
}
