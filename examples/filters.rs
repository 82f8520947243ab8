//! Filters: who gets which order, decided by header, key and payload.
//!
//! ```text
//! cargo run --example filters
//! ```

use rumormill::{Bus, Context, Event, Filter, GroupSubscription, PublishOptions, Routes, Services};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.order.placed", key = order)]
struct Placed {
    order: String,
    euros: u32,
}

/// A group that prints the orders that pass `filter`.
fn printing(group: &'static str, filter: Filter) -> GroupSubscription {
    GroupSubscription::new(group, |routes: Routes<()>| {
        let routes = routes.on_fn(move |placed: Placed, _: Context| async move {
            println!("[{group}] {} for {} euros", placed.order, placed.euros);
            Ok(())
        });
        routes.when(filter)
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Bus::builder().services(Services::none()).build().await?;
    let real = || !Filter::key_prefix("test-");
    bus.subscribe_many([
        printing("acme", real() & Filter::header("tenant", "acme")),
        printing("fraud", real() & Filter::payload(|placed: &Placed| placed.euros > 1_000)),
        printing("tests", Filter::key_prefix("test-")),
    ])
    .await?;

    let orders = [
        ("order-1", 20, "acme"),
        ("order-2", 5_000, "acme"),
        ("order-3", 7_000, "other"),
        ("test-4", 9_000, "acme"),
    ];
    for (order, euros, tenant) in orders {
        let options = PublishOptions::default().header("tenant", tenant);
        bus.publish_with(&Placed { order: order.to_owned(), euros }, options).await?;
    }
    bus.settled().await?;
    for service in bus.services() {
        let filter = service.routes[0].filter.as_deref().unwrap_or("everything");
        let filtered = bus.counts(&service.group).filtered;
        println!("{}: {filtered} filtered; wants {filter}", service.group);
    }
    Ok(())
}
