use rumormill::Event;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct V1;

#[derive(Deserialize)]
struct V2;

#[derive(Deserialize)]
struct V3;

fn v1_to_v2(_: V1) -> V2 {
    V2
}

fn v2_to_v3(_: V2) -> V3 {
    V3
}

fn v2_to_gap(_: V2) -> Gap {
    Gap
}

fn v3_to_gap(_: V3) -> Gap {
    Gap
}

fn v2_to_order(_: V2) -> Order {
    Order
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 3, upcasts(v1_to_v2, v3_to_gap))]
struct Gap;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 3, upcasts(v2_to_order, v1_to_v2))]
struct Order;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 3, upcasts(v1_to_v2, v2_to_v3))]
struct EndsBefore;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "ticks", version = 3, upcasts(v1_to_v2, v2_to_gap))]
struct EndsElsewhere;

fn main() {}
