//! An outbox in PostgreSQL.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{PgConnection, PgPool, Row as _};

use super::{Columns, Depth, End, Most, OutboxOptions, Row, SetAside, Skip, Store, sql};
use crate::envelope::Envelope;
use crate::error::Error;
use crate::event::Event;
use crate::event_id::EventId;
use crate::publisher::{Encoder, PublishOptions};

/// The tables of an outbox in PostgreSQL, by their default name. [`PostgresOutbox::migrate`] makes
/// them; so may your own migrations.
///
/// ```sql
#[doc = include_str!("schema/postgres.sql")]
/// ```
pub const POSTGRES_SCHEMA: &str = include_str!("schema/postgres.sql");

/// An outbox in PostgreSQL: the writing side, and a [`Store`] for a [`Relay`](super::Relay).
/// Cloning shares it.
///
/// TLS is a matter of the pool: turn on a `tls-` feature of `sqlx` in your own `Cargo.toml`.
///
/// ```no_run
/// use rumormill::Event;
/// use rumormill::outbox::PostgresOutbox;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(type = "orders.order.placed", key = number)]
/// struct Placed { number: u64 }
///
/// # async fn place(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
/// let outbox = PostgresOutbox::new(pool.clone());
/// outbox.migrate().await?;
///
/// let mut tx = pool.begin().await?;
/// sqlx::query("INSERT INTO orders VALUES (7)").execute(&mut *tx).await?;
/// outbox.publish(&mut tx, &Placed { number: 7 }).await?;
/// tx.commit().await?; // both, or neither
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresOutbox(Arc<Shared>);

struct Shared {
    pool: PgPool,
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
        let text = |text: &str| sql::rename(text, table);
        Self {
            insert: text(&insert()),
            lead: text(LEAD),
            pending: text(&pending()),
            sent: text(r#"DELETE FROM "outbox" WHERE number = ANY($1)"#),
            aside: text(r#"UPDATE "outbox" SET error = $2 WHERE number = $1"#),
            depth: text(&format!(
                r#"SELECT count(*) FILTER (WHERE error IS NULL), count(error),
                    min({}) FILTER (WHERE error IS NULL) FROM "outbox""#,
                millis("time"),
            )),
            list: text(
                r#"SELECT number, id::text, type, "key", error FROM "outbox"
                WHERE error IS NOT NULL ORDER BY number LIMIT $1"#,
            ),
            back: text(
                r#"UPDATE "outbox" SET error = NULL WHERE error IS NOT NULL
                AND (cardinality($1) = 0 OR number = ANY($1))"#,
            ),
        }
    }
}

/// The clock of the moment, not that of the transaction's beginning.
const LEAD: &str = r#"INSERT INTO "outbox_relay" (one, relay, until)
    VALUES (1, $1, clock_timestamp() + $2 * interval '1 millisecond')
    ON CONFLICT (one) DO UPDATE SET relay = excluded.relay, until = excluded.until
    WHERE "outbox_relay".relay = excluded.relay OR "outbox_relay".until <= clock_timestamp()"#;

fn insert() -> String {
    let moment = |place: u32| format!("to_timestamp(${place}::bigint / 1000.0)");
    let values: Vec<_> = (1..=13)
        .map(|place| match place {
            1 => "$1::uuid".to_owned(),
            3 => "$3::bigint::integer".to_owned(),
            4 | 9 => moment(place),
            13 => "$13::json".to_owned(),
            _ => format!("${place}"),
        })
        .collect();
    format!(r#"INSERT INTO "outbox" ({}) VALUES ({})"#, sql::COLUMNS, values.join(", "))
}

/// A moment as milliseconds since 1970; -1 where it is infinite.
fn millis(column: &str) -> String {
    let millis = format!("round(extract(epoch FROM {column}) * 1000)::bigint");
    format!("CASE WHEN isfinite({column}) THEN {millis} WHEN {column} IS NOT NULL THEN -1 END")
}

fn pending() -> String {
    let (time, expires) = (millis("time"), millis("expires"));
    format!(
        r#"WITH waiting AS (
            SELECT number, octet_length(payload) AS bytes FROM "outbox"
            WHERE error IS NULL
              AND split_part(type, '.', 1) <> ALL($1)
              AND number <> ALL($2)
              AND ("key" IS NULL OR split_part(type, '.', 1) || '/' || "key" <> ALL($3))
            ORDER BY number LIMIT $4
        ), summed AS (
            SELECT number, row_number() OVER (ORDER BY number) AS place,
                sum(bytes) OVER (ORDER BY number) AS bytes FROM waiting
        )
        SELECT number, id::text, type, version::bigint, {time}, content_type, payload, "key",
            source, {expires}, traceparent, correlation_id, causation_id, headers::text
        FROM "outbox"
        WHERE number IN (SELECT number FROM summed WHERE bytes <= $5 OR place = 1)
        ORDER BY number"#
    )
}

impl PostgresOutbox {
    /// An outbox in the table `outbox`, with default options.
    pub fn new(pool: PgPool) -> Self {
        Self::of(pool, &OutboxOptions::default())
    }

    /// An outbox with options.
    ///
    /// # Errors
    /// As [`OutboxOptions::check`].
    pub fn with(pool: PgPool, options: &OutboxOptions) -> Result<Self, Error> {
        options.check()?;
        Ok(Self::of(pool, options))
    }

    fn of(pool: PgPool, options: &OutboxOptions) -> Self {
        let statements = Statements::new(&options.table);
        let (table, encoder) = (options.table.clone(), options.encoder());
        Self(Arc::new(Shared { pool, table, encoder, statements }))
    }

    /// The text that makes the tables, by their names.
    pub fn schema(&self) -> String {
        sql::rename(POSTGRES_SCHEMA, &self.0.table)
    }

    /// Makes the tables where they are not there.
    ///
    /// # Errors
    /// Where the database refuses.
    pub async fn migrate(&self) -> Result<(), Error> {
        // One transaction, and one at a time: two that make a table at once do not agree.
        let lock = "SELECT pg_advisory_xact_lock(hashtext('rumormill outbox'));";
        let text = format!("{lock}\n{}", self.schema());
        let made = sqlx::raw_sql(&text).execute(&self.0.pool).await;
        made.map(drop).map_err(|error| self.failed("make", error))
    }

    /// Adds an event in the caller's transaction; gives its id. It is published if and only if
    /// the transaction is committed.
    ///
    /// # Errors
    /// Where the event cannot be encoded, a limit is exceeded, or the database refuses.
    pub async fn publish<E: Event>(
        &self,
        tx: &mut PgConnection,
        event: &E,
    ) -> Result<EventId, Error> {
        self.publish_with(tx, event, PublishOptions::default()).await
    }

    /// [`publish`](PostgresOutbox::publish) with a key, headers, an expiry or an id of the
    /// caller's. In a handler, [`Context::caused`](crate::Context::caused) names the event as the
    /// cause.
    ///
    /// # Errors
    /// As [`publish`](PostgresOutbox::publish), and where the id is in the table already.
    pub async fn publish_with<E: Event>(
        &self,
        tx: &mut PgConnection,
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
    pub async fn add(&self, tx: &mut PgConnection, envelope: &Envelope) -> Result<(), Error> {
        let columns = Columns::new(envelope);
        let added = sqlx::query(&self.0.statements.insert)
            .bind(columns.id)
            .bind(columns.event_type)
            .bind(columns.version)
            .bind(columns.time)
            .bind(columns.content_type)
            .bind(columns.payload)
            .bind(columns.key)
            .bind(columns.source)
            .bind(columns.expires)
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
        let rows = sqlx::query(&self.0.statements.list)
            .bind(i64::from(most))
            .fetch_all(&self.0.pool)
            .await;
        let read = |rows: Vec<_>| rows.iter().map(sql::read_set_aside).collect();
        rows.and_then(read).map_err(|error| self.failed("read", error))
    }

    /// Lets rows wait again that were set aside: these, or all where none is named. Gives how
    /// many. Their events are stored behind those of their keys that went on meanwhile.
    ///
    /// # Errors
    /// Where the database refuses.
    pub async fn put_back(&self, numbers: &[i64]) -> Result<u64, Error> {
        let back = sqlx::query(&self.0.statements.back).bind(numbers).execute(&self.0.pool);
        let back = back.await.map_err(|error| self.failed("put back into", error))?;
        Ok(back.rows_affected())
    }

    fn failed(&self, what: &str, error: sqlx::Error) -> Error {
        sql::failed(what, &self.0.table, error)
    }
}

fn limit(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[async_trait]
impl Store for PostgresOutbox {
    async fn lead(&self, relay: EventId, lease: Duration) -> Result<bool, Error> {
        let taken = sqlx::query(&self.0.statements.lead)
            .bind(relay.to_string())
            .bind(lease.as_secs_f64() * 1_000.0)
            .execute(&self.0.pool);
        let taken = taken.await.map_err(|error| self.failed("lease", error))?;
        Ok(taken.rows_affected() > 0)
    }

    async fn pending(&self, most: Most, skip: &Skip) -> Result<Vec<Row>, Error> {
        let rows = sqlx::query(&self.0.statements.pending)
            .bind(sql::topics(skip))
            .bind(&skip.rows)
            .bind(sql::lanes(skip))
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

impl PostgresOutbox {
    async fn write_down(&self, ends: &[(i64, End)]) -> Result<(), sqlx::Error> {
        let sent: Vec<_> =
            ends.iter().filter(|(_, end)| *end == End::Sent).map(|(number, _)| *number).collect();
        let mut tx = self.0.pool.begin().await?;
        sqlx::query(&self.0.statements.sent).bind(&sent).execute(&mut *tx).await?;
        for (number, end) in ends {
            if let End::SetAside(error) = end {
                let aside = sqlx::query(&self.0.statements.aside).bind(number).bind(error);
                aside.execute(&mut *tx).await?;
            }
        }
        tx.commit().await
    }
}

impl fmt::Debug for PostgresOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOutbox").field("table", &self.0.table).finish_non_exhaustive()
    }
}
