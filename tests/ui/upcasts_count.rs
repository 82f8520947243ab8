use rumormill::Event;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct V1;

fn v1_to_v2(_: V1) -> Four {
    Four
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 3, upcasts(v1_to_v2))]
struct Missing;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 2, upcasts(v1_to_v2, v1_to_v2))]
struct TooMany;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 4, oldest = 3, upcasts(v1_to_v2, v1_to_v2))]
struct Four;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 2, oldest = 1)]
struct NoFunction;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 2, oldest = 3)]
struct Backwards;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 2, upcasts = v1_to_v2)]
struct NoList;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 2, upcasts(|old| old))]
struct Closure;

fn main() {}
