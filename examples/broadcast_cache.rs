//! A cache in every instance, kept fresh by a broadcast.
//!
//! ```text
//! cargo run --example broadcast_cache
//! ```
//!
//! Three instances of a shop hold all prices in memory. A price is changed in the database by one
//! of them, which then publishes the change; the broadcast brings it to all. Each instance
//! subscribes before it loads the prices: what changes in between comes twice, and nothing is
//! missed. Nothing about an instance is kept in the store, so they may come and go.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::{Bus, Context, Event, Services};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.price.changed", key = product)]
struct PriceChanged {
    product: String,
    cents: u64,
}

type Prices = Mutex<BTreeMap<String, u64>>;

fn set(prices: &Prices, product: String, cents: u64) {
    prices.lock().unwrap_or_else(PoisonError::into_inner).insert(product, cents);
}

/// One process of the shop.
struct Instance {
    bus: Bus,
    cache: Arc<Prices>,
}

impl Instance {
    async fn start(store: &MemoryDriver, database: &Prices) -> Result<Self, rumormill::Error> {
        let bus = Bus::builder().driver(store.client()).services(Services::none()).build().await?;
        let cache = Arc::new(Prices::default());
        let own = Arc::clone(&cache);
        let refresh = move |changed: PriceChanged, _: Context| {
            set(&own, changed.product, changed.cents);
            std::future::ready(Ok(()))
        };
        bus.broadcast("prices", refresh).await?;
        for (product, cents) in &*database.lock().unwrap_or_else(PoisonError::into_inner) {
            set(&cache, product.clone(), *cents);
        }
        Ok(Self { bus, cache })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = MemoryDriver::new(MemoryOptions::default()); // on Redis: one url for all
    let database = Prices::default();
    set(&database, "apple".into(), 30);
    set(&database, "pear".into(), 40);
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Instance::start(&store, &database).await?);
    }
    for (product, cents) in [("apple", 35), ("plum", 20), ("apple", 25)] {
        set(&database, product.into(), cents);
        instances[0].bus.publish(&PriceChanged { product: product.into(), cents }).await?;
    }
    for (number, Instance { bus, cache }) in instances.iter().enumerate() {
        bus.settled().await?; // only to print: a shop just reads its cache
        let cache = cache.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let prices: Vec<_> = cache.iter().map(|(name, cents)| format!("{name} {cents}")).collect();
        println!("instance {number}: {}", prices.join(", "));
    }
    for Instance { bus, cache: _ } in instances {
        bus.drain(rumormill::DRAIN_DEADLINE).await;
    }
    Ok(())
}
