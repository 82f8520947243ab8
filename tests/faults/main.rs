//! Every fault under load on a real server: nothing acknowledged is lost, nothing stands twice in
//! the log, and both halves work again by themselves. One round each; `scripts/reliability` runs
//! many and makes the table of `docs/reliability.md`.
//!
//! Nothing here asserts how soon: a machine may be busy. That it happens at all has a generous
//! deadline.

#[path = "../fault/mod.rs"]
mod fault;
#[path = "../server/mod.rs"]
mod server;

mod connections;
mod data;
mod proxy;
mod refusals;
mod several;
mod workers;

/// How requests are told apart: a word of a request stands between two line ends, in the text of a
/// script it does not.
const XADD: &str = "\r\nXADD\r\n";
const XREADGROUP: &str = "\r\nXREADGROUP\r\n";
/// The settle script alone is given the key of the dead letters.
const SETTLE: &str = ":dead:readers";
