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
mod workers;
