//! A handler whose effect happens once, however often its event comes: the note that it was
//! handled, the effect, and what it publishes are one transaction of its own database.
//!
//! ```text
//! cargo run --example sql_idempotent
//! cargo run --example sql_idempotent -- redis://127.0.0.1:6379
//! ```
//!
//! Everything that makes trouble is done on purpose: some events are published twice, the handler
//! fails before its commit and after it, and the relay is killed while it works. In the end every
//! deposit is booked once, and every booking is published once.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumormill::outbox::{Relay, RelayOptions, SqliteOutbox};
use rumormill::{Bus, Context, DRAIN_DEADLINE, Event, EventId, HandlerError, PublishOptions};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use tokio::sync::oneshot;

/// Someone pays in.
#[derive(Clone, Serialize, Deserialize, Event)]
#[event(type = "bank.deposit.made", key = account)]
struct DepositMade {
    account: String,
    cents: i64,
}

/// The new balance, and which booking of the account it is.
#[derive(Serialize, Deserialize, Event)]
#[event(type = "ledger.balance.changed", key = account)]
struct BalanceChanged {
    account: String,
    cents: i64,
    booking: i64,
}

const TABLES: &str = "
    CREATE TABLE processed_events (
        handler TEXT NOT NULL, event_id TEXT NOT NULL, PRIMARY KEY (handler, event_id)
    );
    CREATE TABLE accounts (name TEXT PRIMARY KEY, cents INTEGER NOT NULL, bookings INTEGER NOT NULL)
";

const BOOK: &str = "
    INSERT INTO accounts VALUES (?1, ?2, 1)
    ON CONFLICT (name) DO UPDATE SET cents = cents + excluded.cents, bookings = bookings + 1
    RETURNING cents, bookings
";

struct Ledger {
    pool: SqlitePool,
    outbox: SqliteOutbox,
    runs: AtomicU32,
    repeats: AtomicU32,
}

impl Ledger {
    /// The pattern: three writes, one transaction.
    async fn book(&self, deposit: DepositMade, ctx: &Context) -> Result<(), HandlerError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        // 1. The note. Whoever comes second finds it.
        let note = "INSERT INTO processed_events VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        let id = ctx.envelope().id().to_string();
        let noted = sqlx::query(note).bind(ctx.group()).bind(id).execute(&mut *tx).await?;
        if noted.rows_affected() == 0 {
            self.repeats.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        // 2. The effect.
        let booked = sqlx::query_as(BOOK).bind(&deposit.account).bind(deposit.cents);
        let (cents, booking) = booked.fetch_one(&mut *tx).await?;
        // 3. What it publishes: a row, in place of `ctx.publish`.
        let changed = BalanceChanged { account: deposit.account, cents, booking };
        self.outbox.publish_with(&mut tx, &changed, ctx.caused()).await?;
        fail("before the commit", 3, deposit.cents, ctx)?;
        tx.commit().await?;
        fail("after the commit", 4, deposit.cents, ctx)
    }
}

/// What a crash would do: the event comes again.
fn fail(place: &'static str, cents: i64, own: i64, ctx: &Context) -> Result<(), HandlerError> {
    if own == cents && ctx.attempt() == 1 {
        return Err(HandlerError::retry(format!("something failed {place}")));
    }
    Ok(())
}

/// What the bus was told of each account.
type Told = Arc<Mutex<BTreeMap<String, Vec<(i64, i64)>>>>;

/// Runs until it is killed at some moment, and then another one that works to the end.
async fn relay(bus: &Bus, outbox: &SqliteOutbox) -> Result<(), Box<dyn Error>> {
    let lease = Duration::from_secs(1);
    let options = RelayOptions { lease, batch_events_max: 1, ..RelayOptions::default() };
    let relay = || Relay::new(bus, outbox.clone()).options(options.clone());
    let first = relay()?;
    let handle = first.handle();
    let running = tokio::spawn(first.run(std::future::pending()));
    while handle.counts().sent < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.abort();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(relay()?.run(async { drop(stopped.await) }));
    bus.settled().await?;
    while outbox.depth().await?.waiting > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(stop);
    running.await?;
    Ok(bus.settled().await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let file = SqliteConnectOptions::new().filename(directory.path().join("ledger.db"));
    let file = file.create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePool::connect_with(file).await?;
    sqlx::raw_sql(TABLES).execute(&pool).await?;
    let outbox = SqliteOutbox::new(pool.clone());
    outbox.migrate().await?;
    let (runs, repeats) = (AtomicU32::new(0), AtomicU32::new(0));
    let ledger = Arc::new(Ledger { pool: pool.clone(), outbox: outbox.clone(), runs, repeats });
    let told = Told::default();

    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".to_owned());
    let bus = Bus::connect(&url).await?;
    let own = Arc::clone(&ledger);
    bus.subscribe("ledger", move |deposit: DepositMade, ctx: Context| {
        let own = Arc::clone(&own);
        async move { own.book(deposit, &ctx).await }
    })
    .await?;
    let own = Arc::clone(&told);
    bus.subscribe("statements", move |changed: BalanceChanged, _: Context| {
        let mut told = own.lock().unwrap_or_else(PoisonError::into_inner);
        told.entry(changed.account).or_default().push((changed.booking, changed.cents));
        std::future::ready(Ok(()))
    })
    .await?;
    publish(&bus).await?;
    relay(&bus, &outbox).await?;
    bus.drain(DRAIN_DEADLINE).await;

    let count = |number: &AtomicU32| number.load(Ordering::Relaxed);
    let (runs, repeats) = (count(&ledger.runs), count(&ledger.repeats));
    println!("{runs} runs of the handler, {repeats} of them for nothing");
    let accounts = sqlx::query_as("SELECT name, cents, bookings FROM accounts ORDER BY name");
    let accounts: Vec<(String, i64, i64)> = accounts.fetch_all(&pool).await?;
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, cents, bookings) in accounts {
        let heard = told.remove(&name).unwrap_or_default();
        let each_once = heard.iter().map(|(booking, _)| *booking).eq(1..=bookings);
        let last = heard.last().is_some_and(|(_, last)| *last == cents);
        let verdict = if each_once && last { "each told once, in order" } else { "WRONG" };
        println!("{name}: {cents} cents in {bookings} bookings, {verdict}");
    }
    Ok(())
}

/// Five deposits to each of two accounts; the second one of each is published twice.
async fn publish(bus: &Bus) -> Result<(), Box<dyn Error>> {
    for account in ["alice", "bob"] {
        for cents in 1..=5 {
            let deposit = DepositMade { account: account.to_owned(), cents };
            let id =
                EventId::derived(format!("{account} {cents} {}", std::process::id()).as_bytes());
            for _ in 0..if cents == 2 { 2 } else { 1 } {
                bus.publish_with(&deposit, PublishOptions::default().id(id)).await?;
            }
        }
    }
    Ok(())
}
