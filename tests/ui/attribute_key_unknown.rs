use rumormill::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", topic = "ticks")]
struct Tick;

fn main() {}
