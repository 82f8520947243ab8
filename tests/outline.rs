//! What a registration tells without building its service is what the built one is.

use std::time::Duration;

use rumormill::middleware::RetryInPlace;
use rumormill::service::{Batch, BatchOptions, HandleBatch};
use rumormill::{
    Bus, Context, Event, Filter, Handle, HandlerError, Init, Routes, Service, ServiceOptions,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.placed", version = 3, oldest = 3)]
struct Placed;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.paid")]
struct Paid;

struct Billing;

impl Service for Billing {
    const NAME: &'static str = "billing";

    fn routes(routes: Routes<Self>) -> Routes<Self> {
        let batches = BatchOptions { size: 7, linger: Duration::from_millis(9) };
        routes
            .on::<Placed>()
            .when(!Filter::header("tenant", "test"))
            .concurrency(2)
            .on_batch::<Paid>(batches)
            .concurrency(3)
            .with(RetryInPlace::default())
    }

    fn options() -> ServiceOptions {
        ServiceOptions { lanes: 5, ..ServiceOptions::default() }
    }
}

impl Handle<Placed> for Billing {
    async fn handle(&self, _: Placed, _: &Context) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl HandleBatch<Paid> for Billing {
    async fn handle_batch(&self, _: Batch<Paid>) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl Billing {
    async fn from_init(_: &Init) -> Result<Self, rumormill::Error> {
        Ok(Self)
    }
}

rumormill::register!(Billing, Billing::from_init);

#[tokio::test]
async fn an_outline_is_what_the_bus_builds() {
    let bus = Bus::connect("memory:").await.expect("memory");
    let services = bus.services();
    let [built] = services.as_slice() else { panic!("{services:?}") };
    let registration = Bus::registered().next().expect("one is registered");
    let outline = registration.outline().expect("its routes are sound");
    assert_eq!(registration.name(), built.group);
    assert_eq!(rumormill::bus::OptionsDescription::from(&outline.options), built.options);
    assert_eq!(outline.routes.len(), 2);
    for (told, made) in outline.routes.iter().zip(&built.routes) {
        assert_eq!((told.pattern.as_str(), told.version), (&*made.pattern, made.version));
        assert_eq!((&told.filter, told.concurrency), (&made.filter, made.concurrency));
        assert_eq!(told.middleware, made.middleware);
        let batch = made.batch.map(|batch| (batch.size, u128::from(batch.linger_ms)));
        assert_eq!(told.batch.map(|batch| (batch.size, batch.linger.as_millis())), batch);
    }
    assert!(outline.routes[0].filter.is_some() && outline.routes[1].batch.is_some());
    bus.drain(Duration::ZERO).await;
}
