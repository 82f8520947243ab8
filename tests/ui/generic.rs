use rumormill::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user.changed")]
struct UserChanged<T> {
    change: T,
}

fn main() {}
