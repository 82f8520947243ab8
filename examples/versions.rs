//! An event that has changed its shape twice: handlers see only the newest.
//!
//! ```text
//! cargo run --example versions
//! ```
//!
//! `examples/events.lock.json` remembers the shape, and a test compares (`rumormill::schema`).

use std::error::Error;

use rumormill::{Bus, Clock, Codec, Context, Envelope, Event, SystemClock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Version 1: a name.
#[derive(Serialize, Deserialize)]
struct UserCreatedV1 {
    name: String,
}

/// Version 2: the name in two parts.
#[derive(Serialize, Deserialize)]
struct UserCreatedV2 {
    first: String,
    last: String,
}

/// The event as it is today: with a language, which older events do not know.
#[derive(Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "users.created", version = 3, upcasts(v1_to_v2, v2_to_v3))]
struct UserCreated {
    first: String,
    last: String,
    language: String,
}
rumormill::schema!(UserCreated);

fn v1_to_v2(UserCreatedV1 { name }: UserCreatedV1) -> UserCreatedV2 {
    let (first, last) = name.split_once(' ').unwrap_or((&name, ""));
    UserCreatedV2 { first: first.to_owned(), last: last.to_owned() }
}

fn v2_to_v3(old: UserCreatedV2) -> UserCreated {
    UserCreated { first: old.first, last: old.last, language: "en".to_owned() }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bus = Bus::connect("memory:").await?;
    bus.subscribe("greeter", |user: UserCreated, ctx: Context| async move {
        let version = ctx.envelope().version();
        println!("version {version}: {}, {} ({})", user.last, user.first, user.language);
        Ok(())
    })
    .await?;

    // What programs published that were built one and two versions ago.
    let one = Codec::Json.encode(&UserCreatedV1 { name: "Ada Lovelace".into() })?;
    let two =
        Codec::Json.encode(&UserCreatedV2 { first: "Grace".into(), last: "Hopper".into() })?;
    for (version, payload) in [(1, one), (2, two)] {
        bus.publisher().publish_envelope(old(version, payload)?).await?;
        bus.settled().await?;
    }
    let today =
        UserCreated { first: "Barbara".into(), last: "Liskov".into(), language: "en".into() };
    bus.publish(&today).await?;
    bus.settled().await?;
    bus.drain(rumormill::DRAIN_DEADLINE).await;
    Ok(())
}

fn old(version: u32, payload: Vec<u8>) -> Result<Envelope, rumormill::Error> {
    let json = Codec::Json.content_type();
    Envelope::builder(UserCreated::TYPE, json, payload, SystemClock.now()).version(version).build()
}
