//! Outboxes: the suite that every store must pass, on memory, SQLite and PostgreSQL; the relay
//! with a bus that refuses; and what is left after everything was killed at some moment.

#[path = "../fault/mod.rs"]
mod fault;
#[path = "../postgres/mod.rs"]
mod postgres;
#[path = "../server/mod.rs"]
mod server;

mod crash;
mod kit;
mod picky;
mod relay;
mod sql;
mod stores;
mod stuck;
mod suite;
