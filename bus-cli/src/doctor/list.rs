//! The catalogue of what is looked at.

use rumormill::driver::admin::Check;
use rumormill::driver::redis::checks;

use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::table::{Column, Table};

/// Less alike than this, a name is no slip of the finger.
const LIKENESS_MIN: f64 = 0.8;

/// Refuses the id of a check that there is not.
pub(super) fn check(id: &str) -> Result<(), Failure> {
    let known = checks();
    if known.iter().any(|check| check.id == id) {
        return Ok(());
    }
    let failure = Failure::usage(format!("--ignore: no check is {id:?}"));
    let likeness = |check: &&Check| strsim::jaro_winkler(id, check.id);
    let near = known.into_iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    Err(match near.filter(|near| likeness(near) >= LIKENESS_MIN) {
        Some(near) => failure.with_help(format!("did you mean {}?", near.id)),
        None => failure.with_help("bus-cli doctor --list prints them"),
    })
}

/// Prints the catalogue.
pub(super) fn print(checks: &[&Check], format: Format) -> Result<Exit, Failure> {
    let mut table = Table::new([Column::left("ID"), Column::left("LOOKS AT")]);
    for check in checks {
        table.row([check.id.to_owned(), check.about.to_owned()]);
    }
    table.print(format, checks)
}
