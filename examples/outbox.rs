//! A publisher with an outbox: orders and their events are written in one transaction, and a relay
//! publishes the events afterwards.
//!
//! ```text
//! cargo run --example outbox
//! cargo run --example outbox -- redis://127.0.0.1:6379
//! ```
//!
//! The first part of the program does not know the bus: it writes while Redis may be down. An
//! order whose transaction is rolled back leaves no event behind.

use std::error::Error;
use std::time::Duration;

use rumormill::outbox::{OutboxOptions, Relay, SqliteOutbox};
use rumormill::{Bus, Codec, Context, DRAIN_DEADLINE, Event};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use tokio::sync::oneshot;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.order.placed", key = customer)]
struct OrderPlaced {
    order: i64,
    customer: String,
    cents: i64,
}

/// What the shop has in store.
const STOCK: i64 = 3;

async fn place(
    pool: &SqlitePool,
    outbox: &SqliteOutbox,
    customer: &str,
) -> Result<i64, Box<dyn Error>> {
    // Begins with the lock: SQLite cannot wait for it later.
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let order = sqlx::query("INSERT INTO orders (customer, cents) VALUES (?1, 1200)")
        .bind(customer)
        .execute(&mut *tx)
        .await?
        .last_insert_rowid();
    let event = OrderPlaced { order, customer: customer.to_owned(), cents: 1_200 };
    outbox.publish(&mut tx, &event).await?;
    let orders: i64 = sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&mut *tx).await?;
    if orders > STOCK {
        // Dropped without a commit: neither the order nor its event was ever there.
        return Err("sold out".into());
    }
    tx.commit().await?;
    Ok(order)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let file = SqliteConnectOptions::new().filename(directory.path().join("shop.db"));
    let file = file.create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePool::connect_with(file).await?;
    let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER)";
    sqlx::query(table).execute(&pool).await?;
    // JSON: whoever looks into the table can read the events.
    let options = OutboxOptions { codec: Codec::Json, ..OutboxOptions::default() };
    let outbox = SqliteOutbox::with(pool.clone(), &options)?;
    outbox.migrate().await?;
    for customer in ["alice", "bob", "alice", "carol"] {
        match place(&pool, &outbox, customer).await {
            Ok(order) => println!("order {order} of {customer} is placed"),
            Err(error) => println!("no order for {customer}: {error}"),
        }
    }
    println!("{} events wait", outbox.depth().await?.waiting);

    // Usually another process, or many: one relay works at a time.
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".to_owned());
    let bus = Bus::connect(&url).await?;
    bus.subscribe("mail", |placed: OrderPlaced, _: Context| async move {
        println!("mail to {}: thank you for order {}", placed.customer, placed.order);
        Ok(())
    })
    .await?;
    let relay = Relay::new(&bus, outbox.clone());
    let handle = relay.handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(relay.run(async { drop(stopped.await) }));
    handle.wake(); // after each commit in this process: nobody waits for the next poll
    while outbox.depth().await?.waiting > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bus.settled().await?;
    drop(stop);
    let counts = running.await?;
    println!("{} events relayed, {} wait", counts.sent, outbox.depth().await?.waiting);
    bus.drain(DRAIN_DEADLINE).await;
    Ok(())
}
