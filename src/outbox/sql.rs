//! What the two databases share: names, errors, and the columns of a row.

use sqlx::{ColumnIndex, Decode, Type};

use super::{Columns, Row, SetAside, Skip};
use crate::error::{Error, ErrorKind};
use crate::publisher::PublishOptions;

/// The columns, in the order of [`Columns`], for the head of an INSERT.
pub(super) const COLUMNS: &str = "id, type, version, time, content_type, payload, \"key\", \
     source, expires, traceparent, correlation_id, causation_id, headers";

/// A text about the table `outbox`, for another one.
pub(super) fn rename(text: &str, table: &str) -> String {
    text.replace("\"outbox", &format!("\"{table}"))
}

/// What failed, on which table, and what to do where that is known.
pub(super) fn failed(what: &str, table: &str, error: sqlx::Error) -> Error {
    let kind = match &error {
        sqlx::Error::Database(_) => ErrorKind::Server,
        sqlx::Error::PoolTimedOut => ErrorKind::Timeout,
        sqlx::Error::PoolClosed => ErrorKind::Closed,
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => ErrorKind::Codec,
        sqlx::Error::ColumnNotFound(_) => ErrorKind::Invalid,
        _ => ErrorKind::Unreachable,
    };
    let database = error.as_database_error();
    let kind = match database {
        Some(refusal) if refusal.is_unique_violation() => ErrorKind::Conflict,
        _ => kind,
    };
    let text = format!("{what} outbox table {table:?}: {error}");
    let failed = Error::new(kind, text);
    let failed = match database.filter(|refusal| is_without_table(&**refusal)) {
        Some(_) => failed.with_help("make it with `migrate`, or by your own migrations"),
        None => failed,
    };
    failed.with_source(error)
}

/// PostgreSQL: `undefined_table`; SQLite has no code for it.
fn is_without_table(refusal: &dyn sqlx::error::DatabaseError) -> bool {
    refusal.code().is_some_and(|code| code == "42P01")
        || refusal.message().starts_with("no such table")
}

/// A relay compares all that it publishes: there is nothing to ask for.
pub(super) fn refuse_deduplication(options: &PublishOptions) -> Result<(), Error> {
    if !options.deduplicate {
        return Ok(());
    }
    let text = "what goes through an outbox is always deduplicated, by its relay";
    Err(Error::invalid(text).with_help("leave deduplication out here"))
}

/// The keys to skip, as one text each. A topic holds no `/`.
pub(super) fn lanes(skip: &Skip) -> Vec<String> {
    skip.keys.iter().map(|(topic, key)| format!("{topic}/{key}")).collect()
}

pub(super) fn topics(skip: &Skip) -> Vec<String> {
    skip.topics.iter().map(ToString::to_string).collect()
}

/// A row of a `pending` statement: number, then [`COLUMNS`]. One that cannot be read is no event,
/// and holds up no other.
pub(super) fn read<'r, R>(row: &'r R) -> Result<Row, sqlx::Error>
where
    R: sqlx::Row,
    usize: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    let unreadable = |error: sqlx::Error| {
        Error::new(ErrorKind::Codec, format!("the row cannot be read: {error}"))
    };
    let event = columns(row).map_err(unreadable).and_then(Columns::envelope);
    Ok(Row { number: row.try_get(0)?, event })
}

fn columns<'r, R>(row: &'r R) -> Result<Columns, sqlx::Error>
where
    R: sqlx::Row,
    usize: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(Columns {
        id: row.try_get(1)?,
        event_type: row.try_get(2)?,
        version: row.try_get(3)?,
        time: row.try_get(4)?,
        content_type: row.try_get(5)?,
        payload: row.try_get(6)?,
        key: row.try_get(7)?,
        source: row.try_get(8)?,
        expires: row.try_get(9)?,
        traceparent: row.try_get(10)?,
        correlation_id: row.try_get(11)?,
        causation_id: row.try_get(12)?,
        headers: row.try_get(13)?,
    })
}

/// A row that was set aside: number, id, type, key, error. It may be what cannot be read that it
/// was set aside for.
pub(super) fn read_set_aside<'r, R>(row: &'r R) -> Result<SetAside, sqlx::Error>
where
    R: sqlx::Row,
    usize: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(SetAside {
        number: row.try_get(0)?,
        id: text(row, 1)?.unwrap_or_default(),
        event_type: text(row, 2)?.unwrap_or_default(),
        key: text(row, 3)?,
        error: text(row, 4)?.unwrap_or_default(),
    })
}

/// A text; what is none in it is replaced.
fn text<'r, R>(row: &'r R, at: usize) -> Result<Option<String>, sqlx::Error>
where
    R: sqlx::Row,
    usize: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    let shown = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    row.try_get(at).or_else(|_| row.try_get::<Option<Vec<u8>>, _>(at).map(|bytes| bytes.map(shown)))
}
