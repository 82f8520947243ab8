//! A picture of a round: faults, publishes, deliveries and gaps over time.

use crate::check::Book;
use crate::report::Report;

/// The page with the picture and the table.
pub(crate) fn page(_: &Book, report: &Report) -> String {
    format!("<!doctype html><title>chaos</title><pre>{report}</pre>\n")
}
