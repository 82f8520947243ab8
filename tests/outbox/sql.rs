//! What only a database can get wrong: transactions, rows by hand, tables that are not there.

use std::sync::Arc;
use std::time::Duration;

use rumormill::driver::Driver;
use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
use rumormill::outbox::{OutboxOptions, PostgresOutbox, Relay, Skip, SqliteOutbox, Store};
use rumormill::{Codec, Context, Envelope, Error, ErrorKind, Event, PublishOptions};
use serde::{Deserialize, Serialize};

use crate::kit::{ALL, bus, event, log, numbers, waiting};
use crate::picky::Picky;
use crate::postgres::Postgres;
use crate::stores::{Own, Sqlite};
use crate::suite::Subject;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.order.placed", version = 2, key = number)]
struct Placed {
    number: u64,
}

#[tokio::test]
async fn sqlite_publishes_what_is_committed_and_nothing_else() {
    let own = Sqlite::new().await;
    let mut tx = own.pool.begin().await.expect("a transaction");
    own.outbox.publish(&mut tx, &Placed { number: 1 }).await.expect("it is added");
    tx.rollback().await.expect("it is rolled back");
    let mut tx = own.pool.begin().await.expect("a transaction");
    let options = PublishOptions::default().header("tenant", "acme").codec(Codec::Json);
    let added = own.outbox.publish_with(&mut tx, &Placed { number: 2 }, options).await;
    assert_eq!(own.outbox.pending(ALL, &Skip::default()).await.expect("it answers").len(), 0);
    tx.commit().await.expect("it commits");
    let sent = sent_events(own.outbox.clone()).await;
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].id(), added.expect("it was added"));
    assert_eq!((sent[0].key(), sent[0].version()), (Some("2"), 2));
    assert_eq!(&**sent[0].payload(), br#"{"number":2}"#);
    assert_eq!(sent[0].header("tenant"), Some("acme"));
}

/// Runs a round; all that is in the bus then.
async fn sent_events(store: impl Store) -> Vec<Envelope> {
    let driver = MemoryDriver::new(MemoryOptions::default());
    let bus = bus(Arc::clone(&driver) as Arc<dyn Driver>).await;
    Relay::new(&bus, store).tick().await.expect("a round");
    log(&*driver).await
}

#[tokio::test]
async fn postgres_sees_a_lower_number_that_is_committed_later() {
    let server = Postgres::start().await;
    let own = Own::new(&server.pool().await, "outbox").await;
    let driver = Picky::new(1);
    let bus = bus(Arc::clone(&driver) as Arc<dyn Driver>).await;
    let mut relay = Relay::new(&bus, own.outbox.clone());
    let mut slow = own.pool.begin().await.expect("a transaction");
    own.outbox.add(&mut slow, &event("a.b", Some("slow"), 1)).await.expect("it is added");
    own.add_all(&[event("a.b", Some("quick"), 2)]).await.expect("it is added");
    relay.tick().await.expect("a round");
    assert_eq!(numbers(&*driver).await, [2], "it does not wait for the other");
    slow.commit().await.expect("it commits");
    relay.tick().await.expect("a round");
    assert_eq!(numbers(&*driver).await, [2, 1]);
    // It gives its lease up to the one that comes next.
    relay.run(async {}).await;
    garbage_does_not_stop(&own).await;
    what_is_wrong_is_named(&own).await;
}

/// Rows that no library wrote: some are events, some are none.
async fn garbage_does_not_stop(own: &Own) {
    let rows = [
        "(type, payload) VALUES ('orders.order.placed', '{\"number\":1}')",
        "(type, payload) VALUES ('no type!', '1')",
        "(type, payload, headers) VALUES ('a.b', '1', '[1]')",
        "(type, payload, time) VALUES ('a.b', '1', 'infinity')",
        "(type, payload, expires) VALUES ('a.b', '1', 'infinity')",
        "(type, payload, expires) VALUES ('a.b', '1', '10000-01-01T00:00:00Z')",
        "(type, payload, version) VALUES ('a.b', '1', -1)",
        "(type, payload, \"key\", time) VALUES ('a.b', '2', 'k', '2026-01-02 03:04:05.678Z')",
    ];
    for row in rows {
        let text = format!("INSERT INTO outbox {row}");
        sqlx::query(&text).execute(&own.pool).await.expect("it is written");
    }
    let sent = sent_events(own.outbox.clone()).await;
    let depth = own.outbox.depth().await.expect("it answers");
    assert_eq!((sent.len(), depth.waiting, depth.set_aside), (2, 0, 6));
    assert_eq!(sent[0].time().to_string(), "2026-01-02T03:04:05.678Z");
    assert_eq!(sent[1].event::<Placed>().expect("JSON").number, 1);
    assert_eq!(sent[1].content_type().as_str(), "application/json");
}

/// As the documentation says to write it, from a script and from a trigger.
#[tokio::test]
async fn postgres_payloads_by_hand_keep_their_backslashes() {
    let server = Postgres::start().await;
    let own = Own::new(&server.pool().await, "outbox").await;
    let script = r#"
        INSERT INTO outbox (type, "key", payload) VALUES ('a.b', 'k',
            convert_to('{"text": "one\ntwo \\ \"three\" é"}', 'UTF8'));
        CREATE TABLE notes (text TEXT);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO outbox (type, "key", payload) VALUES ('a.b', 'k',
                convert_to(json_build_object('text', NEW.text)::text, 'UTF8'));
            RETURN NEW;
        END $$;
        CREATE TRIGGER note AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION note();
        INSERT INTO notes VALUES (E'one\ntwo \\ "three" é');
    "#;
    sqlx::raw_sql(script).execute(&own.pool).await.expect("it is written");
    let sent = sent_events(own.outbox.clone()).await;
    assert_eq!(sent.len(), 2);
    for event in sent {
        let value: serde_json::Value = event.payload_as().expect("JSON");
        assert_eq!(value, serde_json::json!({ "text": "one\ntwo \\ \"three\" é" }));
    }
}

#[tokio::test]
async fn sqlite_rows_by_hand_are_events_or_set_aside() {
    let own = Sqlite::new().await;
    let rows = [
        "(type, payload) VALUES ('orders.order.placed', '{\"number\":1}')",
        "(type, payload) VALUES ('no type!', '1')",
        "(type, payload, headers) VALUES ('a.b', '1', 'no')",
        "(type, payload, time) VALUES ('a.b', '1', 'yesterday')",
        "(type, payload, expires) VALUES ('a.b', '1', 'tomorrow')",
        "(type, payload, expires) VALUES ('a.b', '1', '10000-01-01T00:00:00Z')",
        "(type, payload, version) VALUES ('a.b', '1', -1)",
        "(type, payload, id) VALUES ('a.b', '1', 'seven')",
        "(type, payload, \"key\") VALUES ('a.b', '1', CAST(x'ff' AS TEXT))",
        "(type, payload, \"key\", time) VALUES ('a.b', '2', 'k', '2026-01-02 03:04:05.678')",
    ];
    for row in rows {
        let text = format!("INSERT INTO outbox {row}");
        sqlx::query(&text).execute(&own.pool).await.expect("it is written");
    }
    let sent = sent_events(own.outbox.clone()).await;
    let depth = own.outbox.depth().await.expect("it answers");
    assert_eq!((sent.len(), depth.waiting, depth.set_aside), (2, 0, 8));
    let aside = own.outbox.set_aside(10).await.expect("it answers");
    let caused = "headers are no JSON object of texts: expected";
    assert!(aside.iter().any(|row| row.error.starts_with(caused)), "the cause, too: {aside:?}");
    assert_eq!(sent[0].time().to_string(), "2026-01-02T03:04:05.678Z");
    assert_eq!(sent[1].event::<Placed>().expect("JSON").number, 1);
}

async fn what_is_wrong_is_named(own: &Own) {
    let options = OutboxOptions { table: "nowhere".into(), ..OutboxOptions::default() };
    let outbox = PostgresOutbox::with(own.pool.clone(), &options).expect("a name");
    names_the_table(outbox.depth().await.map(drop));
}

fn names_the_table(answer: Result<(), Error>) {
    let error = answer.expect_err("there is no table");
    assert!(error.to_string().contains("\"nowhere\""), "{error}");
    assert!(error.help().is_some_and(|help| help.contains("migrate")), "{error:?}");
}

#[tokio::test]
async fn sqlite_names_what_is_wrong() {
    let own = Sqlite::new().await;
    let with = |table: &str| {
        let options = OutboxOptions { table: table.into(), ..OutboxOptions::default() };
        SqliteOutbox::with(own.pool.clone(), &options)
    };
    names_the_table(with("nowhere").expect("a name").depth().await.map(drop));
    for table in ["", "1st", "a\"b", "a.b", "ä", "outbox_relay", "outbox_waiting", &"x".repeat(49)]
    {
        let error = with(table).expect_err(table);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&format!("{table:?}")), "{error}");
    }
    let mut tx = own.pool.begin().await.expect("a transaction");
    let asked = PublishOptions::default().deduplicate();
    let refused = own.outbox.publish_with(&mut tx, &Placed { number: 1 }, asked).await;
    assert_eq!(refused.expect_err("it is always done").kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn what_a_handler_adds_names_its_event_as_the_cause() {
    let own = Arc::new(Sqlite::new().await);
    let driver = MemoryDriver::new(MemoryOptions::default());
    let bus = bus(Arc::clone(&driver) as Arc<dyn Driver>).await;
    let handler = Arc::clone(&own);
    bus.subscribe("shop", move |placed: Placed, ctx: Context| {
        let own = Arc::clone(&handler);
        async move {
            let mut tx = own.pool.begin().await?;
            let options = ctx.caused().header("by", "shop").key("other");
            own.outbox.publish_with(&mut tx, &placed, options).await?;
            Ok(tx.commit().await?)
        }
    })
    .await
    .expect("it subscribes");
    let options = PublishOptions::default().traceparent("00-1-2-01").key("one");
    let cause = bus.publish_with(&Placed { number: 1 }, options).await.expect("stored").id;
    bus.settled().await.expect("it is handled");
    let mut rows = own.outbox.pending(ALL, &Skip::default()).await.expect("it answers");
    let event = rows.remove(0).event.expect("an event");
    assert_eq!(event.causation_id(), Some(&*cause.to_string()));
    assert_eq!(event.correlation_id(), Some(&*cause.to_string()));
    assert_eq!(event.traceparent(), Some("00-1-2-01"));
    assert_eq!((event.key(), event.header("by")), (Some("other"), Some("shop")));
}

/// A relay beside writers: SQLite lets one write at a time, and the others wait.
#[tokio::test]
async fn sqlite_is_written_and_read_at_once() {
    let own = Arc::new(Sqlite::new().await);
    let driver = Picky::new(1);
    let bus = bus(Arc::clone(&driver) as Arc<dyn Driver>).await;
    let relay = Relay::new(&bus, own.outbox.clone());
    let handle = relay.handle();
    let running = tokio::spawn(relay.run(std::future::pending()));
    let writers = (0..4_u32).map(|writer| {
        let own = Arc::clone(&own);
        tokio::spawn(async move {
            for number in 0..25 {
                let mut tx = own.pool.begin_with("BEGIN IMMEDIATE").await.expect("a turn");
                let key = writer.to_string();
                let event = event("a.b", Some(&key), writer * 100 + number);
                own.outbox.add(&mut tx, &event).await.expect("it is added");
                tx.commit().await.expect("it commits");
            }
        })
    });
    for written in futures_util::future::join_all(writers).await {
        written.expect("a writer ends");
    }
    handle.wake();
    let all = crate::fault::comes(Duration::from_secs(30), || handle.counts().sent >= 100).await;
    running.abort();
    assert!(all, "{handle:?}");
    assert_eq!(waiting(&own.outbox).await, [0; 0]);
    let log = numbers(&*driver).await;
    for writer in 0..4 {
        let own: Vec<_> = log.iter().filter(|number| **number / 100 == writer).collect();
        assert_eq!(own.len(), 25);
        assert!(own.windows(2).all(|pair| pair[0] < pair[1]), "{log:?}");
    }
}
