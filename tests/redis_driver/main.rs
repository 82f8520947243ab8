//! What the Redis driver does that the conformance suite cannot see: keys and fields, costs, and
//! what happens when the server fails.

mod ackdel;
mod clock;
mod closing;
mod confirming;
mod connecting;
mod consumers;
mod failing;
mod healing;
mod idempotent;
mod kit;
mod leases;
mod permitting;
mod proxy;
mod publishing;
mod reading;
mod sentinel;
#[path = "../server/mod.rs"]
mod server;
mod settling;
mod supervising;
mod sweeping;
mod watching;
mod wire;
