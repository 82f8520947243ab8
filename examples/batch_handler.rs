//! A batch handler: many payments booked in one step, and the one that is wrong by itself.
//!
//! ```text
//! cargo run --example batch_handler
//! ```

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use rumormill::{
    Batch, BatchOptions, Bus, Event, HandleBatch, HandlerError, Init, Routes, Service,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "payments.payment.received", key = account)]
struct Received {
    account: String,
    cents: i64,
}

/// Stands for a database, where a hundred rows cost little more than one.
#[derive(Default)]
struct Ledger {
    steps: AtomicU32,
    total: AtomicI64,
}

impl Service for Ledger {
    const NAME: &'static str = "ledger";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        let batch = BatchOptions { size: 50, linger: Duration::from_millis(20) };
        routes.on_batch::<Received>(batch).concurrency(1)
    }
}

impl HandleBatch<Received> for Ledger {
    async fn handle_batch(&self, batch: Batch<Received>) -> Result<(), HandlerError> {
        let mut sum = 0;
        for item in &batch {
            if item.event.cents > 0 {
                sum += item.event.cents;
            } else {
                item.fail(HandlerError::reject("a payment brings money"));
            }
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(sum, Ordering::Relaxed);
        Ok(()) // acknowledges all but those that were failed
    }
}

impl Ledger {
    async fn from_init(_: &Init) -> Result<Self, rumormill::Error> {
        Ok(Self::default())
    }
}

rumormill::register!(Ledger, Ledger::from_init);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Bus::connect("memory:").await?;
    bus.start().await?;
    let account = |number| format!("account {}", number % 4);
    let payments: Vec<_> =
        (0..200).map(|number| Received { account: account(number), cents: number }).collect();
    for answer in bus.publish_many(&payments).await {
        answer?;
    }
    bus.settled().await?;
    let ledger = bus.service::<Ledger>().expect("it is registered above");
    println!("booked {} cents", ledger.total.load(Ordering::Relaxed));
    println!("fewer steps than payments: {}", ledger.steps.load(Ordering::Relaxed) < 100);
    Ok(())
}
