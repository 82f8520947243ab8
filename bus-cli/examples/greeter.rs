//! The command line of rumormill with a service of one's own:
//! `cargo run -p bus-cli --example greeter -- daemon --url redis://127.0.0.1:6379`.

use std::time::Duration;

use rumormill::{Context, Event, Handle, HandlerError, Init, Routes, Service};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "user_service.user.created", key = user_id)]
struct UserCreated {
    user_id: String,
    /// How long a welcome takes.
    #[serde(default)]
    millis: u64,
}

struct Greeter;

impl Service for Greeter {
    const NAME: &'static str = "greeter";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.on::<UserCreated>()
    }
}

impl Handle<UserCreated> for Greeter {
    async fn handle(&self, event: UserCreated, _: &Context) -> Result<(), HandlerError> {
        println!("welcome, {}", event.user_id);
        tokio::time::sleep(Duration::from_millis(event.millis)).await;
        println!("settled in, {}", event.user_id);
        Ok(())
    }
}

impl Greeter {
    async fn from_init(_: &Init) -> Result<Self, rumormill::Error> {
        Ok(Self)
    }
}

rumormill::register!(Greeter, Greeter::from_init);

fn main() -> std::process::ExitCode {
    bus_cli::main()
}
