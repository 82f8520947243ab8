//! What gets lost below without a word: each is reported as an incident and counted, and reading
//! goes on.

mod groups;
mod keys;
// Not all of it is needed here.
#[allow(dead_code)]
#[path = "../redis_driver/kit.rs"]
mod kit;
mod logs;
#[path = "../server/mod.rs"]
mod server;
mod settles;
mod trims;
mod watch;
