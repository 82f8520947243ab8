//! An outbox in SQLite.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::{Columns, Depth, End, Most, OutboxOptions, Row, SetAside, Skip, Store, sql};
use crate::envelope::Envelope;
use crate::error::Error;
use crate::event::Event;
use crate::event_id::EventId;
use crate::publisher::{Encoder, PublishOptions};
use crate::time::Timestamp;

/// The tables of an outbox in SQLite, by their default name. [`SqliteOutbox::migrate`] makes them;
/// so may your own migrations.
///
/// ```sql
#[doc = include_str!("schema/sqlite.sql")]
/// ```
pub const SQLITE_SCHEMA: &str = include_str!("schema/sqlite.sql");

/// Milliseconds since 1970.
const NOW: &str = "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)";

/// An outbox in SQLite: the writing side, and a [`Store`] for a [`Relay`](super::Relay). Cloning
/// shares it.
///
/// Transactions that read before they write should begin with `BEGIN IMMEDIATE`
/// (`pool.begin_with`): SQLite cannot wait for a lock in the middle of one, and says `database is
/// locked` at once.
///
/// ```
/// use rumormill::Event;
/// use rumormill::outbox::SqliteOutbox;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(type = "orders.order.placed", key = number)]
/// struct Placed { number: u64 }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
/// # let pool = pool.connect("sqlite::memory:").await?;
/// # sqlx::raw_sql("CREATE TABLE orders (number INTEGER)").execute(&pool).await?;
/// let outbox = SqliteOutbox::new(pool.clone());
/// outbox.migrate().await?;
///
/// let mut tx = pool.begin().await?;
/// sqlx::query("INSERT INTO orders VALUES (7)").execute(&mut *tx).await?;
/// outbox.publish(&mut tx, &Placed { number: 7 }).await?;
/// tx.commit().await?; // both, or neither
/// # assert_eq!(outbox.depth().await?.waiting, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteOutbox(Arc<Shared>);

struct Shared {
    pool: SqlitePool,
    table: String,
    encoder: Encoder,
    statements: Statements,
}

struct Statements {
    insert: String,
    lead: String,
    pending: String,
    sent: String,
    aside: String,
    depth: String,
    list: String,
    back: String,
}

impl Statements {
    fn new(table: &str) -> Self {
        let text = |text: String| sql::rename(&text, table);
        Self {
            insert: text(insert()),
            lead: text(lead()),
            pending: text(pending()),
            sent: text(
                r#"DELETE FROM "outbox" WHERE number IN (SELECT value FROM json_each(?1))"#.into(),
            ),
            aside: text(r#"UPDATE "outbox" SET error = ?2 WHERE number = ?1"#.into()),
            depth: text(format!(
                r#"SELECT count(*) FILTER (WHERE error IS NULL), count(error),
                    min({}) FILTER (WHERE error IS NULL) FROM "outbox""#,
                millis("time"),
            )),
            list: text(
                r#"SELECT number, id, type, "key", error FROM "outbox"
                WHERE error IS NOT NULL ORDER BY number LIMIT ?1"#
                    .into(),
            ),
            back: text(
                r#"UPDATE "outbox" SET error = NULL WHERE error IS NOT NULL
                AND (?1 = '[]' OR number IN (SELECT value FROM json_each(?1)))"#
                    .into(),
            ),
        }
    }
}

fn insert() -> String {
    let values: Vec<_> = (1..=13).map(|place| format!("?{place}")).collect();
    format!(r#"INSERT INTO "outbox" ({}) VALUES ({})"#, sql::COLUMNS, values.join(", "))
}

fn lead() -> String {
    format!(
        r#"INSERT INTO "outbox_relay" (one, relay, until) VALUES (1, ?1, {NOW} + ?2)
        ON CONFLICT (one) DO UPDATE SET relay = excluded.relay, until = excluded.until
        WHERE "outbox_relay".relay = excluded.relay OR "outbox_relay".until <= {NOW}"#
    )
}

/// A moment that was written as text, as milliseconds since 1970; -1 where the text is none.
fn millis(column: &str) -> String {
    format!(
        "CASE WHEN {column} IS NOT NULL THEN coalesce(
            CAST(round((julianday({column}) - 2440587.5) * 86400000.0) AS INTEGER), -1) END"
    )
}

/// Casts: SQLite keeps in any column what it was given.
fn pending() -> String {
    let (time, expires) = (millis("time"), millis("expires"));
    format!(
        r#"WITH waiting AS (
            SELECT number, length(payload) AS bytes FROM "outbox"
            WHERE error IS NULL
              AND substr(type, 1, instr(type || '.', '.') - 1)
                  NOT IN (SELECT value FROM json_each(?1))
              AND number NOT IN (SELECT value FROM json_each(?2))
              AND ("key" IS NULL
                  OR substr(type, 1, instr(type || '.', '.') - 1) || '/' || "key"
                      NOT IN (SELECT value FROM json_each(?3)))
            ORDER BY number LIMIT ?4
        ), summed AS (
            SELECT number, row_number() OVER (ORDER BY number) AS place,
                sum(bytes) OVER (ORDER BY number) AS bytes FROM waiting
        )
        SELECT number, CAST(id AS TEXT), CAST(type AS TEXT), CAST(version AS INTEGER), {time},
            CAST(content_type AS TEXT), CAST(payload AS BLOB), CAST("key" AS TEXT),
            CAST(source AS TEXT), {expires}, CAST(traceparent AS TEXT),
            CAST(correlation_id AS TEXT), CAST(causation_id AS TEXT), CAST(headers AS TEXT)
        FROM "outbox"
        WHERE number IN (SELECT number FROM summed WHERE bytes <= ?5 OR place = 1)
        ORDER BY number"#
    )
}

impl SqliteOutbox {
    /// An outbox in the table `outbox`, with default options.
    pub fn new(pool: SqlitePool) -> Self {
        Self::of(pool, &OutboxOptions::default())
    }

    /// An outbox with options.
    ///
    /// # Errors
    /// As [`OutboxOptions::check`].
    pub fn with(pool: SqlitePool, options: &OutboxOptions) -> Result<Self, Error> {
        options.check()?;
        Ok(Self::of(pool, options))
    }

    fn of(pool: SqlitePool, options: &OutboxOptions) -> Self {
        let statements = Statements::new(&options.table);
        let (table, encoder) = (options.table.clone(), options.encoder());
        Self(Arc::new(Shared { pool, table, encoder, statements }))
    }

    /// The text that makes the tables, by their names.
    pub fn schema(&self) -> String {
        sql::rename(SQLITE_SCHEMA, &self.0.table)
    }

    /// Makes the tables where they are not there.
    ///
    /// # Errors
    /// Where the database refuses.
    pub async fn migrate(&self) -> Result<(), Error> {
        let made = sqlx::raw_sql(&self.schema()).execute(&self.0.pool).await;
        made.map(drop).map_err(|error| self.failed("make", error))
    }

    /// Adds an event in the caller's transaction; gives its id. It is published if and only if
    /// the transaction is committed.
    ///
    /// # Errors
    /// Where the event cannot be encoded, a limit is exceeded, or the database refuses.
    pub async fn publish<E: Event>(
        &self,
        tx: &mut SqliteConnection,
        event: &E,
    ) -> Result<EventId, Error> {
        self.publish_with(tx, event, PublishOptions::default()).await
    }

    /// [`publish`](SqliteOutbox::publish) with a key, headers, an expiry or an id of the caller's.
    /// In a handler, [`Context::caused`](crate::Context::caused) names the event as the cause.
    ///
    /// # Errors
    /// As [`publish`](SqliteOutbox::publish), and where the id is in the table already.
    pub async fn publish_with<E: Event>(
        &self,
        tx: &mut SqliteConnection,
        event: &E,
        options: PublishOptions,
    ) -> Result<EventId, Error> {
        sql::refuse_deduplication(&options)?;
        let envelope = self.0.encoder.encode(event, options)?;
        self.add(tx, &envelope).await?;
        Ok(envelope.id())
    }

    /// Adds an event that is already an envelope.
    ///
    /// # Errors
    /// Where the database refuses: [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) where the
    /// id is in the table already.
    pub async fn add(&self, tx: &mut SqliteConnection, envelope: &Envelope) -> Result<(), Error> {
        let columns = Columns::new(envelope);
        let added = sqlx::query(&self.0.statements.insert)
            .bind(columns.id)
            .bind(columns.event_type)
            .bind(columns.version)
            .bind(envelope.time().to_string())
            .bind(columns.content_type)
            .bind(columns.payload)
            .bind(columns.key)
            .bind(columns.source)
            .bind(envelope.expires().as_ref().map(Timestamp::to_string))
            .bind(columns.traceparent)
            .bind(columns.correlation_id)
            .bind(columns.causation_id)
            .bind(columns.headers)
            .execute(tx);
        added.await.map(drop).map_err(|error| self.failed("add to", error))
    }

    /// How full the outbox is. Reads the whole table.
    ///
    /// # Errors
    /// Where the database refuses.
    pub async fn depth(&self) -> Result<Depth, Error> {
        let row = sqlx::query(&self.0.statements.depth).fetch_one(&self.0.pool);
        let row = row.await.map_err(|error| self.failed("count", error))?;
        let number = |at: usize| row.try_get::<Option<i64>, _>(at);
        let read = || Ok::<_, sqlx::Error>((number(0)?, number(1)?, number(2)?));
        let (waiting, set_aside, since) = read().map_err(|error| self.failed("count", error))?;
        Ok(Depth::new(waiting, set_aside, since, self.0.encoder.clock.now()))
    }

    /// The first rows that were set aside, at most `most`.
    ///
    /// # Errors
    /// Where the database refuses.
    pub async fn set_aside(&self, most: u32) -> Result<Vec<SetAside>, Error> {
        let rows = sqlx::query(&self.0.statements.list).bind(most).fetch_all(&self.0.pool).await;
        let read = |rows: Vec<_>| rows.iter().map(sql::read_set_aside).collect();
        rows.and_then(read).map_err(|error| self.failed("read", error))
    }

    /// Lets rows wait again that were set aside: these, or all where none is named. Gives how
    /// many. Their events are stored behind those of their keys that went on meanwhile.
    ///
    /// # Errors
    /// Where the database refuses.
    pub async fn put_back(&self, numbers: &[i64]) -> Result<u64, Error> {
        let back = sqlx::query(&self.0.statements.back).bind(json(numbers)).execute(&self.0.pool);
        let back = back.await.map_err(|error| self.failed("put back into", error))?;
        Ok(back.rows_affected())
    }

    fn failed(&self, what: &str, error: sqlx::Error) -> Error {
        sql::failed(what, &self.0.table, error)
    }
}

/// SQLite takes no lists.
fn json<T: serde::Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).expect("numbers and texts are JSON")
}

fn limit(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[async_trait]
impl Store for SqliteOutbox {
    async fn lead(&self, relay: EventId, lease: Duration) -> Result<bool, Error> {
        let millis = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let taken = sqlx::query(&self.0.statements.lead)
            .bind(relay.to_string())
            .bind(millis)
            .execute(&self.0.pool);
        let taken = taken.await.map_err(|error| self.failed("lease", error))?;
        Ok(taken.rows_affected() > 0)
    }

    async fn pending(&self, most: Most, skip: &Skip) -> Result<Vec<Row>, Error> {
        let rows = sqlx::query(&self.0.statements.pending)
            .bind(json(&sql::topics(skip)))
            .bind(json(&skip.rows))
            .bind(json(&sql::lanes(skip)))
            .bind(limit(most.events))
            .bind(limit(most.bytes))
            .fetch_all(&self.0.pool)
            .await;
        let read = |rows: Vec<_>| rows.iter().map(sql::read).collect();
        rows.and_then(read).map_err(|error| self.failed("read", error))
    }

    async fn end(&self, ends: &[(i64, End)]) -> Result<(), Error> {
        self.write_down(ends).await.map_err(|error| self.failed("write to", error))
    }
}

impl SqliteOutbox {
    async fn write_down(&self, ends: &[(i64, End)]) -> Result<(), sqlx::Error> {
        let sent: Vec<_> =
            ends.iter().filter(|(_, end)| *end == End::Sent).map(|(number, _)| *number).collect();
        // Begins with a write: SQLite waits for the lock here, and nowhere else.
        let mut tx = self.0.pool.begin().await?;
        sqlx::query(&self.0.statements.sent).bind(json(&sent)).execute(&mut *tx).await?;
        for (number, end) in ends {
            if let End::SetAside(error) = end {
                let aside = sqlx::query(&self.0.statements.aside).bind(number).bind(error);
                aside.execute(&mut *tx).await?;
            }
        }
        tx.commit().await
    }
}

impl fmt::Debug for SqliteOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOutbox").field("table", &self.0.table).finish_non_exhaustive()
    }
}
