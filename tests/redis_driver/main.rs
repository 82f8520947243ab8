//! What the Redis driver does that the conformance suite cannot see: keys and fields, costs, and
//! what happens when the server fails.

mod confirming;
mod connecting;
mod failing;
mod kit;
mod proxy;
mod publishing;
mod reading;
#[path = "../server/mod.rs"]
mod server;
mod settling;
mod wire;
