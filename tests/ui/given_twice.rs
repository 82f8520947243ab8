use rumormill::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", type = "tocks")]
struct Tick;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", key = id)]
#[event(key = id)]
struct Tock {
    id: u8,
}

fn main() {}
