//! What the doctor finds on a bus: each fault is brought about on a real server, on a bus that was
//! or is in use, and seen by its own check alone.

mod groups;
mod keys;
mod kit;
mod letters;
mod logs;
mod pending;
#[path = "../server/mod.rs"]
mod server;
mod topics;
mod whole;
