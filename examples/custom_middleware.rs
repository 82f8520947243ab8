//! A middleware of one's own: counts how handlers end, per event type.
//!
//! ```text
//! cargo run --example custom_middleware
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rumormill::middleware::{Middleware, Next, RetryInPlace};
use rumormill::{Bus, Context, Event, HandlerError, Services};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.order.placed", key = order)]
struct Placed {
    order: String,
}

/// How often handlers succeeded and failed, per event type.
#[derive(Clone, Default)]
struct Tally(Arc<Mutex<BTreeMap<String, (u32, u32)>>>);

#[rumormill::async_trait]
impl Middleware for Tally {
    fn name(&self) -> &'static str {
        "tally"
    }

    async fn handle(&self, ctx: &Context, next: Next<'_>) -> Result<(), HandlerError> {
        let result = next.run(ctx).await;
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (succeeded, failed) = tally.entry(ctx.envelope().event_type().to_string()).or_default();
        match &result {
            Ok(()) => *succeeded += 1,
            Err(_) => *failed += 1,
        }
        result
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (attempts, tries) = (Tally::default(), Tally::default());
    let bus = Bus::builder()
        .services(Services::none())
        .with(attempts.clone()) // outside: sees one result per attempt
        .with(RetryInPlace::default())
        .with(tries.clone()) // inside: sees each try
        .build()
        .await?;
    let busy = AtomicU32::new(2);
    bus.subscribe("stock", move |_: Placed, _: Context| {
        let left =
            busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        std::future::ready(match left {
            Ok(_) => Err(HandlerError::retry_in_place("the shelf is being counted")),
            Err(_) => Ok(()),
        })
    })
    .await?;
    bus.publish(&Placed { order: "order-1".to_owned() }).await?;
    bus.settled().await?;
    println!("{}", bus.services()[0].routes[0].middleware.join(" > "));
    for (name, tally) in [("attempts", attempts), ("tries", tries)] {
        for (event, (succeeded, failed)) in &*tally.0.lock().unwrap_or_else(PoisonError::into_inner)
        {
            println!("{name} of {event}: {succeeded} succeeded, {failed} failed");
        }
    }
    Ok(())
}
