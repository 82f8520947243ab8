//! Relays that run as processes, killed at moments that a seed chooses, and so are the database,
//! its connections and Redis. In the end every committed event is in the log once, those of a key
//! in the order of their commits.
//!
//! The database tells what is right: each transaction counts its key's row up, and publishes the
//! number.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rumormill::driver::Driver;
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::outbox::{PostgresOutbox, Relay, RelayOptions, SqliteOutbox, Store};
use rumormill::{Bus, Event};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

use crate::fault::process::Process;
use crate::fault::{asked, hold, rounds};
use crate::kit::{self, log};
use crate::postgres::{self, Postgres};
use crate::server::Server;

/// What makes this program a relay: where the bus is, and where the outbox.
const RELAY: &str = "RUMORMILL_TEST_RELAY";
/// By which its connections are known.
const PROGRAM: &str = "relay";
const WRITER: &str = "writer";
const KEYS: u32 = 5;
/// Long enough for a lease of a process that was killed, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize, Event)]
#[event(type = "accounts.account.changed", key = key)]
struct Changed {
    key: u32,
    number: i64,
}

/// Something that is broken.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillRelay,
    CutRelay,
    CutWriter,
    KillDatabase,
    KillRedis,
    /// Nobody else may write for a while.
    Lock,
}

fn shuffled(faults: &[Fault], random: &mut fastrand::Rng) -> Vec<Fault> {
    let mut faults = faults.to_vec();
    random.shuffle(&mut faults);
    faults
}

/// The relays, as processes.
struct Relays {
    argument: String,
    running: Vec<Process>,
}

impl Relays {
    fn start(server: &Server, outbox: &str) -> Self {
        let argument = format!("{} {outbox}", server.url());
        let mut relays = Self { argument, running: Vec::new() };
        relays.running.extend([relays.another(), relays.another()]);
        relays
    }

    fn another(&self) -> Process {
        Process::start("crash::a_relay_when_it_is_asked", RELAY, &self.argument)
    }

    fn kill(&mut self, which: usize) {
        self.running[which].kill();
        self.running[which] = self.another();
    }
}

/// Not a test: what runs in the other processes.
#[tokio::test]
async fn a_relay_when_it_is_asked() {
    let Ok(asked) = std::env::var(RELAY) else { return };
    let mut words = asked.split(' ');
    let (url, kind, path) = (words.next(), words.next(), words.next());
    let (Some(url), Some(kind), Some(path)) = (url, kind, path) else { panic!("{asked:?}") };
    // Redis may be down just now.
    let bus = loop {
        match Bus::connect(url).await {
            Ok(bus) => break bus,
            Err(_) => hold(Duration::from_millis(50)).await,
        }
    };
    match kind {
        "sqlite" => work(&bus, SqliteOutbox::new(sqlite(Path::new(path)).await)).await,
        _ => {
            let options = postgres::options(Path::new(path)).application_name(PROGRAM);
            let pool = sqlx::postgres::PgPoolOptions::new().max_connections(2);
            work(&bus, PostgresOutbox::new(pool.connect_lazy_with(options))).await;
        }
    }
}

async fn work(bus: &Bus, store: impl Store) {
    // Small rounds: more moments to die at.
    let options = RelayOptions {
        lease: Duration::from_secs(1),
        poll: Duration::from_millis(10),
        round_events_max: 40,
        batch_events_max: 7,
        ..RelayOptions::default()
    };
    let relay = Relay::new(bus, store).options(options).expect("valid");
    relay.run(std::future::pending()).await;
}

async fn sqlite(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .create_if_missing(true);
    SqlitePoolOptions::new().max_connections(3).connect_with(options).await.expect("a file")
}

/// Writes until it is told to stop. Which transactions were committed is not its to say: where
/// the answer to a commit is lost, only the database knows.
macro_rules! writing {
    ($pool:expr, $outbox:expr, $seed:expr, $stopping:expr, $count:literal, $begin:expr) => {
        async {
            let mut random = fastrand::Rng::with_seed($seed);
            while !$stopping.load(Ordering::Relaxed) {
                let written = async {
                    let mut tx = $begin.await?;
                    for _ in 0..random.u32(1..4) {
                        let key = random.u32(..KEYS);
                        // Locks the key's row first: then the order of events is that of commits.
                        let counted = sqlx::query_scalar($count).bind(i64::from(key));
                        let number: i64 = counted.fetch_one(&mut *tx).await?;
                        let event = Changed { key, number };
                        if let Err(error) = $outbox.publish(&mut tx, &event).await {
                            assert!(!error.is_permanent(), "{error}");
                            return Ok(());
                        }
                    }
                    if random.u8(..8) == 0 { tx.rollback().await } else { tx.commit().await }
                };
                let _broken: Result<(), sqlx::Error> = written.await;
                hold(Duration::from_millis(random.u64(..3))).await;
            }
        }
    };
}

/// How far each key was counted, by the database.
type Truth = BTreeMap<u32, i64>;

/// What is in the log agrees with what is in the database.
async fn judge(server: &Server, truth: &Truth, story: &str) {
    let driver = RedisDriver::connect(RedisOptions::new(server.url())).await.expect("it is back");
    let mut seen: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    for event in log(&*driver).await {
        let Changed { key, number } = event.event().expect("of the writer");
        seen.entry(key).or_default().push(number);
    }
    driver.close().await;
    assert!(truth.values().sum::<i64>() > 50, "hardly anything was written: {truth:?}");
    for (key, last) in truth {
        let own = seen.remove(key).unwrap_or_default();
        let expected: Vec<_> = (1..=*last).collect();
        assert_eq!(own, expected, "key {key}, {story}");
    }
    assert!(seen.is_empty(), "never committed: {seen:?}, {story}");
}

fn seeds() -> impl Iterator<Item = u64> {
    let first = asked("RUMORMILL_SEED", 1) as u64;
    (first..).take(rounds())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_postgres_nothing_is_lost_and_nothing_stored_twice() {
    for seed in seeds() {
        with_postgres(seed).await;
    }
}

async fn with_postgres(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut database, mut server) = (Postgres::start().await, Server::durable());
    let pool = database.pool_of(4, WRITER).await.expect("it answers");
    let outbox = PostgresOutbox::new(pool.clone());
    outbox.migrate().await.expect("it makes its tables");
    sqlx::raw_sql(&counts("BIGINT")).execute(&pool).await.expect("it is empty");
    let mut relays = Relays::start(&server, &format!("postgres {}", database.host().display()));
    let stopping = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let (pool, outbox, stopping) = (pool.clone(), outbox.clone(), Arc::clone(&stopping));
            tokio::spawn(async move {
                writing!(
                    pool,
                    outbox,
                    seed * 10 + writer,
                    stopping,
                    "UPDATE counts SET number = number + 1 WHERE name = $1 RETURNING number",
                    pool.begin()
                )
                .await;
            })
        })
        .collect();
    let faults = [
        Fault::KillRelay,
        Fault::KillRelay,
        Fault::KillRelay,
        Fault::CutRelay,
        Fault::CutRelay,
        Fault::CutWriter,
        Fault::KillDatabase,
        Fault::KillRedis,
    ];
    let faults = shuffled(&faults, &mut random);
    for fault in &faults {
        hold(Duration::from_millis(random.u64(50..500))).await;
        match fault {
            Fault::KillRelay => relays.kill(random.usize(..2)),
            Fault::CutRelay => database.disconnect(PROGRAM).await,
            Fault::CutWriter => database.disconnect(WRITER).await,
            Fault::KillDatabase => {
                database.kill();
                database.restart().await;
            }
            Fault::KillRedis | Fault::Lock => break_redis(&mut server),
        }
    }
    stopping.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer ends");
    }
    let emptied = emptied(async || outbox.depth().await.ok().map(|depth| depth.waiting)).await;
    let story = format!("seed {seed}, {faults:?}");
    assert!(emptied, "{:?} after {story}", outbox.depth().await);
    let rows = sqlx::query_as::<_, (i64, i64)>("SELECT name, number FROM counts");
    let truth = to_truth(rows.fetch_all(&pool).await.expect("it answers"));
    judge(&server, &truth, &story).await;
}

fn break_redis(server: &mut Server) {
    tokio::task::block_in_place(|| {
        server.kill();
        server.restart();
    });
}

/// A row for each key, at zero.
fn counts(number: &str) -> String {
    let rows: Vec<_> = (0..KEYS).map(|key| format!("({key}, 0)")).collect();
    format!(
        "CREATE TABLE counts (name {number} PRIMARY KEY, number {number} NOT NULL); \
         INSERT INTO counts VALUES {}",
        rows.join(", ")
    )
}

/// Whether all rows go in the end.
async fn emptied(waiting: impl AsyncFn() -> Option<u64>) -> bool {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while waiting().await != Some(0) {
        if tokio::time::Instant::now() > deadline {
            return false;
        }
        hold(Duration::from_millis(20)).await;
    }
    true
}

fn to_truth(rows: Vec<(i64, i64)>) -> Truth {
    rows.into_iter().map(|(key, number)| (u32::try_from(key).expect("a key"), number)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sqlite_nothing_is_lost_and_nothing_stored_twice() {
    for seed in seeds() {
        with_sqlite(seed).await;
    }
}

async fn with_sqlite(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, mut server) = (directory.path().join("own.db"), Server::durable());
    let pool = sqlite(&path).await;
    let outbox = SqliteOutbox::new(pool.clone());
    outbox.migrate().await.expect("it makes its tables");
    sqlx::raw_sql(&counts("INTEGER")).execute(&pool).await.expect("it is empty");
    let mut relays = Relays::start(&server, &format!("sqlite {}", path.display()));
    let stopping = Arc::new(AtomicBool::new(false));
    let writer = {
        let (pool, outbox, stopping) = (pool.clone(), outbox.clone(), Arc::clone(&stopping));
        tokio::spawn(async move {
            writing!(
                pool,
                outbox,
                seed * 10,
                stopping,
                "UPDATE counts SET number = number + 1 WHERE name = ?1 RETURNING number",
                pool.begin_with("BEGIN IMMEDIATE")
            )
            .await;
        })
    };
    let faults =
        [Fault::KillRelay, Fault::KillRelay, Fault::KillRelay, Fault::Lock, Fault::KillRedis];
    let faults = shuffled(&faults, &mut random);
    for fault in &faults {
        hold(Duration::from_millis(random.u64(50..500))).await;
        match fault {
            Fault::KillRelay => relays.kill(random.usize(..2)),
            Fault::Lock => {
                let lock = pool.begin_with("BEGIN IMMEDIATE").await.expect("a turn");
                hold(Duration::from_millis(random.u64(100..1_500))).await;
                lock.rollback().await.expect("it is given back");
            }
            _ => break_redis(&mut server),
        }
    }
    stopping.store(true, Ordering::Relaxed);
    writer.await.expect("the writer ends");
    let emptied = emptied(async || outbox.depth().await.ok().map(|depth| depth.waiting)).await;
    let story = format!("seed {seed}, {faults:?}");
    assert!(emptied, "{:?} after {story}", outbox.depth().await);
    let rows = sqlx::query_as::<_, (i64, i64)>("SELECT name, number FROM counts");
    let truth = to_truth(rows.fetch_all(&pool).await.expect("it answers"));
    judge(&server, &truth, &story).await;
}

/// The moment that a random kill may miss.
#[tokio::test]
async fn a_relay_that_dies_between_storing_and_writing_down_stores_nothing_twice() {
    let (server, own) = (Server::start(), crate::stores::Sqlite::new().await);
    let bus = Bus::connect(&server.url()).await.expect("a bus");
    let mut tx = own.pool.begin().await.expect("a transaction");
    for number in 0..70 {
        let key = (number % 2 == 0).then_some("k");
        own.outbox.add(&mut tx, &kit::event("a.b", key, number)).await.expect("it is added");
    }
    tx.commit().await.expect("it commits");
    let options = RelayOptions { lease: Duration::from_secs(1), ..RelayOptions::default() };
    let relay = || Relay::new(&bus, own.outbox.clone()).options(options.clone()).expect("valid");
    let refuse = "CREATE TRIGGER refuse BEFORE DELETE ON outbox \
                  BEGIN SELECT RAISE(ABORT, 'not now'); END";
    sqlx::query(refuse).execute(&own.pool).await.expect("a trigger");
    let mut dying = relay();
    dying.tick().await.expect_err("it cannot write down");
    drop(dying);
    sqlx::query("DROP TRIGGER refuse").execute(&own.pool).await.expect("no trigger");
    let mut next = relay();
    let handle = next.handle();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while handle.counts().sent < 70 && tokio::time::Instant::now() < deadline {
        next.tick().await.expect("a round");
    }
    assert_eq!((handle.counts().sent, handle.counts().deduplicated), (70, 70));
    assert_eq!(kit::numbers(&**bus.driver()).await, (0..70).collect::<Vec<_>>());
}
