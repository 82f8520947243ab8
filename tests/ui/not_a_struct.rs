use rumormill::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user.changed")]
enum UserChanged {
    Renamed,
}

#[derive(Event)]
#[event(type = "bits")]
union Bits {
    number: u32,
}

fn main() {}
