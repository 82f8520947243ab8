//! Three services that know nothing of each other: each gets its own copy of every order, one
//! answers with an event of its own, and one listens to a pattern.
//!
//! ```text
//! cargo run --example several_services
//! cargo run --example several_services -- redis://127.0.0.1:6379
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use rumormill::{
    Bus, Context, DRAIN_DEADLINE, Envelope, Event, Handle, HandleAny, HandlerError, Init, Routes,
    Service,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.placed", key = customer)]
struct OrderPlaced {
    customer: String,
    cents: u64,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "billing.invoiced", key = customer)]
struct Invoiced {
    customer: String,
    cents: u64,
}

/// Says what it does and tells the others.
struct Billing;

impl Service for Billing {
    const NAME: &'static str = "billing";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.on::<OrderPlaced>()
    }
}

impl Handle<OrderPlaced> for Billing {
    async fn handle(&self, order: OrderPlaced, ctx: &Context) -> Result<(), HandlerError> {
        println!("[billing] {} owes {} cents", order.customer, order.cents);
        // Stored together with the end of this delivery, or not at all.
        ctx.publish(&Invoiced { customer: order.customer, cents: order.cents })?;
        Ok(())
    }
}

/// Handles two types: a `Handle` for each.
struct Shipping;

impl Service for Shipping {
    const NAME: &'static str = "shipping";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.on::<OrderPlaced>().on::<Invoiced>()
    }
}

impl Handle<OrderPlaced> for Shipping {
    async fn handle(&self, order: OrderPlaced, _: &Context) -> Result<(), HandlerError> {
        println!("[shipping] packing for {}", order.customer);
        Ok(())
    }
}

impl Handle<Invoiced> for Shipping {
    async fn handle(&self, invoice: Invoiced, _: &Context) -> Result<(), HandlerError> {
        println!("[shipping] {} may be sent", invoice.customer);
        Ok(())
    }
}

/// Counts whatever comes, without knowing the types.
#[derive(Default)]
struct Audit {
    events: AtomicU64,
}

impl Service for Audit {
    const NAME: &'static str = "audit";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.on_any("orders.>").on_any("billing.>")
    }
}

impl HandleAny for Audit {
    async fn handle_any(&self, _: &Envelope, _: &Context) -> Result<(), HandlerError> {
        self.events.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

async fn billing(_: &Init) -> Result<Billing, rumormill::Error> {
    Ok(Billing)
}

async fn shipping(_: &Init) -> Result<Shipping, rumormill::Error> {
    Ok(Shipping)
}

async fn audit(_: &Init) -> Result<Audit, rumormill::Error> {
    Ok(Audit::default())
}

// In whatever file the service lives: the bus finds them all.
rumormill::register!(Billing, billing);
rumormill::register!(Shipping, shipping);
rumormill::register!(Audit, audit);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".to_owned());
    let bus = Bus::connect(&url).await?;
    bus.start().await?;
    for (customer, cents) in [("alice", 1_200), ("bob", 350)] {
        bus.publish(&OrderPlaced { customer: customer.into(), cents }).await?;
    }
    bus.settled().await?;
    let audit = bus.service::<Audit>().ok_or("no audit")?;
    println!("[audit] {} events", audit.events.load(Ordering::Relaxed));
    bus.drain(DRAIN_DEADLINE).await;
    Ok(())
}
