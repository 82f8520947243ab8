//! Events for later: a reminder that goes out while nobody waits for it.
//!
//! ```text
//! cargo run --example delayed_publish
//! ```

use std::time::Duration;

use rumormill::{Bus, Context, DRAIN_DEADLINE, Event};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.payment.due")]
struct PaymentDue {
    order: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Bus::connect("memory:").await?;
    let (reminded, mut reminders) = mpsc::channel(8);
    bus.subscribe("billing", move |due: PaymentDue, _: Context| {
        let reminded = reminded.clone();
        async move { Ok(reminded.send(due.order).await?) }
    })
    .await?;

    // Published in one order, due in another.
    let start = Instant::now();
    for order in 1..=3 {
        bus.publish_after(&PaymentDue { order }, delay(order)).await?;
    }
    println!("all published");
    for _ in 1..=3 {
        let Some(order) = reminders.recv().await else { break };
        let verdict = if start.elapsed() < delay(order) { "too early" } else { "due" };
        println!("order {order} after {:?}: {verdict}", delay(order));
    }
    bus.drain(DRAIN_DEADLINE).await;
    Ok(())
}

fn delay(order: u32) -> Duration {
    Duration::from_millis(match order {
        1 => 600,
        2 => 0,
        _ => 200,
    })
}
