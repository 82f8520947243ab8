//! The role of `acl/consumer.acl`: what it may, what it may not, and that no rule is superfluous.

mod acl;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use acl::{Role, forget_log, keep_log, log, needed};
use rumormill::driver::LeaseTimes;
use rumormill::driver::redis::{RedisDriver, RedisOptions, RetentionOptions};
use rumormill::middleware::Idempotent;
use rumormill::service::RetryPolicy;
use rumormill::{
    Bus, Confirm, Context, Durability, Error, Event, GroupSubscription, HandlerError, PublishError,
    ServiceOptions, Services,
};
use serde::{Deserialize, Serialize};
use server::{Reply, Server};

/// What a user does without goes on, less well: of these rules no operation fails. What each gives
/// is told in `docs/how-to/acl.md`.
const WITHOUT: [&str; 6] =
    ["+role", "+client|id", "+client|kill", "+client|unblock", "+command|info", "+xrevrange"];
/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event(type = "orders.placed", key = customer)]
struct Placed {
    customer: String,
    what: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event(type = "mails.sent")]
struct Sent;

async fn bus(role: &Role, server: &Server, confirm: Confirm) -> Result<Bus, Error> {
    let mut options = RedisOptions::new(role.url(server));
    options.block = Duration::from_millis(50);
    options.checkpoint_every = Duration::from_millis(50);
    options.confirm = confirm;
    options.retention = RetentionOptions {
        trim_every: Duration::from_millis(50),
        keep: Duration::ZERO,
        ..RetentionOptions::default()
    };
    let driver = RedisDriver::connect(options).await?;
    Bus::builder().driver(driver).services(Services::none()).build().await
}

fn options() -> ServiceOptions {
    let ms = Duration::from_millis;
    ServiceOptions {
        lease: LeaseTimes { lease: ms(600), renew: ms(100), sweep: ms(100) },
        retry: RetryPolicy { first: ms(5), attempts_max: 2, ..RetryPolicy::default() },
        settle_wait: ms(5),
        park_keys: true,
        ..ServiceOptions::default()
    }
}

async fn handle(event: Placed, ctx: Context, handled: &AtomicU32) -> Result<(), HandlerError> {
    match event.what.as_str() {
        "again" if ctx.attempt() == 1 => return Err(HandlerError::retry("not yet")),
        "dead" => return Err(HandlerError::reject("never")),
        // waits: as a handler does that takes its time
        "slow" => tokio::time::sleep(Duration::from_millis(250)).await,
        _ => ctx.publish(&Sent)?,
    }
    handled.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

/// What others left: an entry that a consumer of old holds, handed out often, and its sign of life.
fn leave_behind(server: &Server) {
    let held = r#"{"customer":"c","what":"left"}"#;
    let log = "rm:{orders:0}:log";
    let id = server.ask(&["XADD", log, "*", "type", "orders.placed", "data", held]).text();
    server.ask(&["XGROUP", "CREATE", log, "mail", "0"]);
    server.ask(&["XREADGROUP", "GROUP", "mail", "old", "STREAMS", log, ">"]);
    let again = ["XCLAIM", log, "mail", "old", "0", &id, "IDLE", "99999", "RETRYCOUNT", "5"];
    server.ask(&again);
    for topic in ["orders", "refunds"] {
        server.ask(&["HSET", "rm:topics", topic, r#"{"partitions":1}"#]);
    }
    // A log that lost what the group had not read.
    let log = "rm:{refunds:0}:log";
    server.ask(&["XADD", log, "*", "type", "refunds.made", "data", "1"]);
    server.ask(&["XGROUP", "CREATE", log, "mail", "0"]);
    server.ask(&["XREADGROUP", "GROUP", "mail", "old", "NOACK", "STREAMS", log, ">"]);
    for _ in 0..3 {
        server.ask(&["XADD", log, "*", "type", "refunds.made", "data", "1"]);
    }
    server.ask(&["XTRIM", log, "MAXLEN", "=", "1"]);
    // A group of another program: what it did last says whether it lives.
    server.ask(&["XGROUP", "CREATE", log, "stranger", "0"]);
    server.ask(&["ZADD", "rm:consumers", "1", "mail old"]);
}

/// The consumers that hold something.
fn pending(server: &Server) -> Vec<String> {
    let Reply::List(summary) = server.say("XPENDING rm:{orders:0}:log mail") else { return vec![] };
    let Some(Reply::List(consumers)) = summary.get(3) else { return vec![] };
    let name = |row: &Reply| match row {
        Reply::List(row) => row[0].text(),
        other => panic!("{other:?}"),
    };
    consumers.iter().map(name).collect()
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) -> Result<(), Error> {
    for _ in 0..PATIENCE.as_millis() / 10 {
        if holds() {
            return Ok(());
        }
        // waits: for the state of the server, with a deadline
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(Error::invalid(format!("it never came that {what}")))
}

fn cause(error: PublishError) -> Error {
    match error {
        PublishError::NotStored(error) | PublishError::Unknown(error) => error,
    }
}

/// Everything that a consumer does; an error as it tells it.
async fn consume_all(role: &Role, server: &Server) -> Result<(), Error> {
    leave_behind(server);
    let bus = bus(role, server, Confirm::Server).await?;
    let handled = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&handled);
    let heard = Arc::new(AtomicU32::new(0));
    let hear = Arc::clone(&heard);
    bus.broadcast("cache", move |_: Placed, _: Context| {
        hear.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    })
    .await?;
    let mail = GroupSubscription::new("mail", |routes| {
        let routes = routes.on_any_fn("refunds.>", |_, _| async { Ok(()) });
        let routes = routes.with(Idempotent::default());
        routes.on_fn(move |event: Placed, ctx: Context| {
            let count = Arc::clone(&count);
            async move { handle(event, ctx, &count).await }
        })
    });
    bus.subscribe_many(vec![mail.options(options())]).await?;
    let events = ["ok", "again", "dead", "slow"].map(|what| Placed {
        customer: if what == "dead" { "d".to_owned() } else { what.to_owned() },
        what: what.to_owned(),
    });
    for answer in bus.publish_many(&events).await {
        let receipt = answer.map_err(cause)?;
        if receipt.durability == Durability::Unknown {
            return Err(Error::invalid("durability unknown: this user needs +info +config|get"));
        }
    }
    bus.publish_after(&events[0], Duration::from_millis(1)).await.map_err(cause)?;
    let dead = || server.say("XLEN rm:{orders:0}:dead:mail").int() == 1;
    until("the event is given up", dead).await?;
    // It waits behind the dead letter of its key.
    let parked = Placed { customer: "d".to_owned(), what: "ok".to_owned() };
    bus.publish(&parked).await.map_err(cause)?;
    until("it is parked", || server.say("ZCARD rm:{orders:0}:parked:mail").int() == 1).await?;
    until("the rest is handled", || handled.load(Ordering::SeqCst) == 5).await?;
    until("the broadcast heard it", || heard.load(Ordering::SeqCst) >= 5).await?;
    until("what is settled is trimmed", || server.say("XLEN rm:{orders:0}:log").int() == 0).await?;
    until("the old consumer is gone", || {
        let left = server.say("XINFO CONSUMERS rm:{orders:0}:log mail");
        !format!("{left:?}").contains("[111, 108, 100]")
    })
    .await?;
    let has_checkpoint = || server.say("EXISTS rm:{orders:0}:checkpoint:mail").int() == 1;
    until("there is a checkpoint", has_checkpoint).await?;
    stand_losses(&bus, server, &handled).await?;
    confirm(role, server, &events[0]).await?;
    // What is slow is handed over by a drain.
    for at in 0..20 {
        let slow = Placed { customer: format!("s{at}"), what: "slow".to_owned() };
        bus.publish(&slow).await.map_err(cause)?;
    }
    bus.drain(Duration::from_millis(50)).await;
    Ok(())
}

/// What is lost under a consumer, and found again.
async fn stand_losses(bus: &Bus, server: &Server, handled: &AtomicU32) -> Result<(), Error> {
    // A stranger takes what is being handled off the books; it is handled all the same.
    let before = handled.load(Ordering::SeqCst);
    bus.publish(&Placed { customer: "s".to_owned(), what: "slow".to_owned() })
        .await
        .map_err(cause)?;
    let held = || pending(server);
    until("it is handed out", || !held().is_empty()).await?;
    for consumer in held() {
        server.ask(&["XGROUP", "DELCONSUMER", "rm:{orders:0}:log", "mail", &consumer]);
    }
    until("it is handled", || handled.load(Ordering::SeqCst) > before).await?;
    // The log is lost, and with it the group and what its checkpoint says.
    server.say("DEL rm:{orders:0}:log");
    until("the group is there again", || server.say("EXISTS rm:{orders:0}:log").int() == 1).await?;
    Ok(())
}

/// A publish that replicas confirm, of which there are none.
async fn confirm(role: &Role, server: &Server, event: &Placed) -> Result<(), Error> {
    let replicas = Confirm::Replicas { count: 1, timeout: Duration::from_millis(10) };
    let waiting = bus(role, server, replicas).await?;
    if let Err(error) = waiting.publish_after(event, Duration::from_millis(1)).await {
        let error = cause(error);
        if !error.to_string().contains("0 of 1 replicas") {
            return Err(error);
        }
    }
    waiting.drain(Duration::ZERO).await;
    Ok(())
}

/// An operation that ends as soon as the log names the rule.
async fn named(rule: &str, work: impl Future<Output = Result<(), Error>>) -> Result<(), String> {
    let bare = rule.trim_start_matches(['%', 'R', 'W']);
    let names = |text: &str| {
        needed(text).iter().any(|told| told.trim_start_matches(['%', 'R', 'W']) == bare)
    };
    let watch = async {
        while !names(&log()) {
            // waits: for the log to name the rule, as long as the work takes
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = watch => Ok(()),
        done = work => {
            let error = done.err().map(|error| format!("{error:?}")).unwrap_or_default();
            let text = format!("{error} {}", log());
            if names(&text) { Ok(()) } else { Err(format!("{rule}: {text}")) }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_may_consume_and_no_more_and_each_rule_is_named_where_it_is_missing() {
    keep_log();
    let server = Server::with(&["--appendonly", "yes"]);
    let role = Role::read("consumer");
    role.apply(&server, None);
    let done = consume_all(&role, &server).await;
    let told = needed(&log());
    assert!(done.is_ok() && told.is_empty(), "{done:?} {told:?} {}", log());
    for command in [
        "FLUSHALL",
        "KEYS *",
        "CONFIG SET maxmemory 1",
        "DEL rm:{orders:0}:log",
        "ACL WHOAMI",
        "XDEL rm:{orders:0}:log 0-1",
        "XDEL rm:{orders:0}:dead:mail 0-1",
        "XADD other * a b",
        "XTRIM rm:{orders:0}:dead:mail MAXLEN 0",
        "XTRIM rm:{orders:0}:retry:mail MAXLEN 0",
        "XGROUP DESTROY rm:{orders:0}:log mail",
        "DEL rm:topics",
        "SHUTDOWN NOSAVE",
    ] {
        role.refuses(&server, command);
    }
    let mut superfluous = Vec::new();
    for (at, rule) in role.rules() {
        // Valkey counts on after a trim as if nothing had been missed: there is nothing to set.
        let valkey = server.say("INFO server").text().contains("valkey_version");
        if WITHOUT.contains(&rule.as_str()) || valkey && rule == "+xgroup|setid" {
            continue;
        }
        // A server of its own: what the one before left may still be on its way out.
        let server = Server::with(&["--appendonly", "yes"]);
        role.apply(&server, Some(at));
        forget_log();
        superfluous.extend(named(&rule, consume_all(&role, &server)).await.err());
    }
    assert!(superfluous.is_empty(), "not named where missing:\n{}", superfluous.join("\n"));
}
