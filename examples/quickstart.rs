//! The shortest useful program: one event, one handler.
//!
//! ```text
//! cargo run --example quickstart
//! cargo run --example quickstart -- redis://127.0.0.1:6379
//! ```

use rumormill::{Bus, Context, DRAIN_DEADLINE, Event};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user_service.user.created", key = user_id)]
struct UserCreated {
    user_id: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".to_owned());
    let bus = Bus::connect(&url).await?;
    bus.subscribe("email", |event: UserCreated, _: Context| async move {
        println!("welcome, {}", event.user_id);
        Ok(())
    })
    .await?;
    bus.publish(&UserCreated { user_id: "alice".into() }).await?;
    bus.settled().await?;
    bus.drain(DRAIN_DEADLINE).await;
    Ok(())
}
