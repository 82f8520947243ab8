use rumormill::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user service.created")]
struct Blank;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user..created")]
struct EmptySegment;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "")]
struct Empty;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user.*")]
struct Wildcard;

#[derive(Serialize, Deserialize, Event)]
#[event(type = 7)]
struct Number;

fn main() {}
