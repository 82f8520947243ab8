use rumormill::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(version = 1, key = user_id)]
struct UserCreated {
    user_id: String,
}

fn main() {}
