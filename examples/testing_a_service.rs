//! A service with a dependency, and its tests: a stand-in for what it needs, retries and reminders
//! without waiting, dead letters.
//!
//! ```text
//! cargo test --test testing_a_service    # the tests below
//! cargo run --example testing_a_service  # the service itself, for one invoice
//! ```

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumormill::{Bus, Context, Event, Handle, HandlerError, Init, Routes, Service};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(type = "billing.invoice.issued", key = number)]
struct InvoiceIssued {
    number: String,
    cents: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(type = "payments.charge.made", key = invoice)]
struct ChargeMade {
    invoice: String,
}

/// What the service needs of the world, so that a test can take its place.
#[rumormill::async_trait]
trait Bank: Send + Sync {
    async fn charge(&self, invoice: &str, cents: u64) -> Result<(), String>;
}

struct Payments {
    bank: Arc<dyn Bank>,
}

impl Service for Payments {
    const NAME: &'static str = "payments";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        routes.on::<InvoiceIssued>()
    }
}

impl Handle<InvoiceIssued> for Payments {
    async fn handle(&self, invoice: InvoiceIssued, ctx: &Context) -> Result<(), HandlerError> {
        if invoice.cents == 0 {
            return Err(HandlerError::reject("an invoice over nothing"));
        }
        // The invoice's number makes the charge idempotent: a repeat is no second charge.
        self.bank.charge(&invoice.number, invoice.cents).await?;
        ctx.publish(&ChargeMade { invoice: invoice.number })?;
        Ok(())
    }
}

impl Payments {
    async fn from_init(init: &Init) -> Result<Self, rumormill::Error> {
        Ok(Self { bank: Arc::clone(&*init.resource::<Arc<dyn Bank>>()?) })
    }
}

rumormill::register!(Payments, Payments::from_init);

/// Notes what is charged; refuses while it is told to.
#[derive(Default)]
struct PaperBank {
    charged: Mutex<Vec<(String, u64)>>,
    refusals: Mutex<u32>,
}

#[rumormill::async_trait]
impl Bank for PaperBank {
    async fn charge(&self, invoice: &str, cents: u64) -> Result<(), String> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if *refusals > 0 {
            *refusals -= 1;
            return Err("the bank is closed".into());
        }
        let mut charged = self.charged.lock().unwrap_or_else(PoisonError::into_inner);
        charged.push((invoice.to_owned(), cents));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let paper = Arc::new(PaperBank::default());
    let bank: Arc<dyn Bank> = paper.clone();
    let bus = Bus::builder().resource(bank).build().await?;
    bus.start().await?;
    bus.publish(&InvoiceIssued { number: "2026-001".into(), cents: 4_200 }).await?;
    bus.settled().await?;
    bus.drain(Duration::from_secs(5)).await;
    for (invoice, cents) in paper.charged.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("charged {cents} cents for invoice {invoice}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumormill::testing::TestBus;

    /// The service as it is registered, with a bank of paper that refuses so often.
    async fn payments(refusals: u32) -> (TestBus, Arc<PaperBank>) {
        let paper = Arc::new(PaperBank { refusals: Mutex::new(refusals), ..PaperBank::default() });
        let bank: Arc<dyn Bank> = paper.clone();
        (TestBus::builder().resource(bank).start().await, paper)
    }

    fn invoice(cents: u64) -> InvoiceIssued {
        InvoiceIssued { number: "2026-001".into(), cents }
    }

    #[tokio::test]
    async fn an_invoice_is_charged_and_the_charge_is_told() {
        let (bus, bank) = payments(0).await;
        bus.publish(&invoice(4_200)).await;
        assert_eq!(bus.expect_published::<ChargeMade>().await.invoice, "2026-001");
        assert_eq!(*bank.charged.lock().unwrap(), [("2026-001".to_owned(), 4_200)]);
    }

    #[tokio::test]
    async fn a_closed_bank_is_asked_again() {
        let (bus, _bank) = payments(2).await;
        bus.publish(&invoice(4_200)).await;
        bus.expect_nothing_published::<ChargeMade>().await;
        assert_eq!(bus.advance_to_next().await.attempt, 2);
        assert_eq!(bus.advance_to_next().await.attempt, 3);
        bus.expect_published::<ChargeMade>().await;
    }

    #[tokio::test]
    async fn a_bank_that_stays_closed_ends_in_the_dead_letters() {
        let (bus, _bank) = payments(u32::MAX).await;
        bus.publish(&invoice(4_200)).await;
        bus.advance(Duration::from_secs(3_600)).await;
        let dead = bus.expect_dead::<InvoiceIssued>().await;
        assert_eq!((dead.attempts, dead.event()), (16, invoice(4_200)));
        assert_eq!(dead.failure.errors, ["the bank is closed"]);
    }

    #[tokio::test]
    async fn an_invoice_over_nothing_is_tried_once() {
        let (bus, bank) = payments(0).await;
        bus.publish(&invoice(0)).await;
        assert_eq!(bus.expect_dead::<InvoiceIssued>().await.attempts, 1);
        assert!(bank.charged.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_invoice_for_tomorrow_waits_until_then() {
        let (bus, _bank) = payments(0).await;
        bus.publish_after(&invoice(4_200), Duration::from_secs(86_400)).await.unwrap();
        bus.expect_nothing_published::<ChargeMade>().await;
        assert!(bus.advance_to_next().await.is_publish());
        bus.expect_published::<ChargeMade>().await;
    }

    #[tokio::test]
    async fn a_service_can_be_built_by_hand() {
        let bus = TestBus::builder().services(rumormill::Services::none()).start().await;
        let bank = Arc::new(PaperBank::default());
        bus.start_service(Payments { bank }).await;
        bus.publish(&invoice(1)).await;
        bus.expect_published::<ChargeMade>().await;
    }
}
