use rumormill::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user.created", key = id)]
struct UserCreated {
    user_id: String,
    email: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user.renamed", key = id)]
struct UserRenamed {
    user_id: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user.paired", key = 2)]
struct UserPaired(String, String);

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", key = id)]
struct Tick;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user.quoted", key = "user_id")]
struct Quoted {
    user_id: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user.marked")]
struct Marked {
    #[event(key)]
    user_id: String,
}

fn main() {}
