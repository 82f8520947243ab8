//! The three stores in the suite.

use async_trait::async_trait;
use rumormill::outbox::{
    Depth, MemoryOutbox, OutboxOptions, PostgresOutbox, SetAside, SqliteOutbox,
};
use rumormill::{Envelope, Error};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{PgPool, SqlitePool};
use tempfile::TempDir;

use crate::postgres::Postgres;
use crate::suite::{self, Subject};

#[tokio::test]
async fn memory_does_what_a_store_must() {
    suite::hold(async || MemoryOutbox::default()).await;
}

#[tokio::test]
async fn sqlite_does_what_a_store_must() {
    suite::hold(async || Sqlite::new().await).await;
}

#[tokio::test]
async fn postgres_does_what_a_store_must() {
    let server = Postgres::start().await;
    let pool = server.pool().await;
    let tables = std::sync::atomic::AtomicU32::new(0);
    suite::hold(async || {
        let number = tables.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Own::new(&pool, &format!("outbox_{number}")).await
    })
    .await;
}

/// An outbox in a file of its own.
pub(crate) struct Sqlite {
    _directory: TempDir,
    pub(crate) pool: SqlitePool,
    pub(crate) outbox: SqliteOutbox,
}

impl Sqlite {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("own.db"))
            .journal_mode(SqliteJournalMode::Wal)
            .create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await;
        let pool = pool.expect("a file");
        let outbox = SqliteOutbox::new(pool.clone());
        outbox.migrate().await.expect("it makes its tables");
        outbox.migrate().await.expect("it finds its tables");
        Self { _directory: directory, pool, outbox }
    }
}

/// An outbox in a table of its own.
pub(crate) struct Own {
    pub(crate) pool: PgPool,
    pub(crate) outbox: PostgresOutbox,
}

impl Own {
    pub(crate) async fn new(pool: &PgPool, table: &str) -> Self {
        let options = OutboxOptions { table: table.into(), ..OutboxOptions::default() };
        let outbox = PostgresOutbox::with(pool.clone(), &options).expect("a table's name");
        // As the instances of a service do that start together.
        for made in futures_util::future::join_all((0..4).map(|_| outbox.migrate())).await {
            made.expect("it makes its tables");
        }
        Self { pool: pool.clone(), outbox }
    }
}

#[async_trait]
impl Subject for MemoryOutbox {
    async fn add_all(&self, events: &[Envelope]) -> Result<(), Error> {
        events.iter().try_for_each(|event| self.add(event))
    }

    async fn count(&self) -> Depth {
        self.depth()
    }

    async fn aside(&self) -> Vec<SetAside> {
        self.set_aside(100)
    }

    async fn back(&self, numbers: &[i64]) -> u64 {
        self.put_back(numbers)
    }
}

macro_rules! sql_subject {
    ($own:ty) => {
        #[async_trait]
        impl Subject for $own {
            async fn add_all(&self, events: &[Envelope]) -> Result<(), Error> {
                let mut tx = self.pool.begin().await.expect("a transaction");
                for event in events {
                    self.outbox.add(&mut tx, event).await?;
                }
                tx.commit().await.expect("it commits");
                Ok(())
            }

            async fn count(&self) -> Depth {
                self.outbox.depth().await.expect("it answers")
            }

            async fn aside(&self) -> Vec<SetAside> {
                self.outbox.set_aside(100).await.expect("it answers")
            }

            async fn back(&self, numbers: &[i64]) -> u64 {
                self.outbox.put_back(numbers).await.expect("it answers")
            }
        }

        #[async_trait]
        impl rumormill::outbox::Store for $own {
            async fn lead(
                &self,
                relay: rumormill::EventId,
                lease: std::time::Duration,
            ) -> Result<bool, Error> {
                self.outbox.lead(relay, lease).await
            }

            async fn pending(
                &self,
                most: rumormill::outbox::Most,
                skip: &rumormill::outbox::Skip,
            ) -> Result<Vec<rumormill::outbox::Row>, Error> {
                self.outbox.pending(most, skip).await
            }

            async fn end(&self, ends: &[(i64, rumormill::outbox::End)]) -> Result<(), Error> {
                self.outbox.end(ends).await
            }
        }
    };
}

sql_subject!(Sqlite);
sql_subject!(Own);
