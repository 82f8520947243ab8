use rumormill::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 0)]
struct Zero;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 4294967296)]
struct Large;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = "1")]
struct Text;

fn main() {}
