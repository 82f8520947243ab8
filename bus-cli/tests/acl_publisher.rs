//! The role of `acl/publisher.acl`: what it may, what it may not, and that no rule is superfluous.

mod acl;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use acl::{Role, forget_log, keep_log, log, needed};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::{
    Bus, Clock, Confirm, ContentType, Durability, Envelope, Error, EventType, PublishError,
    Services, SystemClock,
};
use server::Server;
use tokio::task::JoinSet;

/// What a user does without goes on, less well: of these rules no operation fails. What each gives
/// is told in `docs/how-to/acl.md`.
const WITHOUT: [&str; 5] = ["+role", "+client|id", "+client|kill", "+command|info", "+xrevrange"];

/// A connection may be lost when nothing is under way on it: then it is tried again.
const TRIES: usize = 3;
/// Rules that are tried at a time, each on a server of its own.
const AT_ONCE: usize = 8;

async fn bus(role: &Role, server: &Server, confirm: Confirm) -> Result<Bus, Error> {
    let mut options = RedisOptions::new(role.url(server));
    options.confirm = confirm;
    options.deadline = Duration::from_secs(10);
    let driver = RedisDriver::connect(options).await?;
    Bus::builder().driver(driver).services(Services::none()).build().await
}

fn cause(error: PublishError) -> Error {
    match error {
        PublishError::NotStored(error) | PublishError::Unknown(error) => error,
    }
}

fn event() -> Envelope {
    let event_type = EventType::from_static("orders.placed");
    let envelope = Envelope::builder(event_type, ContentType::JSON, &b"1"[..], SystemClock.now());
    envelope.build().expect("small")
}

/// Everything that a publisher does; an error as it tells it.
async fn publish_all(role: &Role, server: &Server) -> Result<(), Error> {
    let bus = bus(role, server, Confirm::Server).await?;
    let publisher = bus.publisher();
    let told = |answer: Result<_, PublishError>| answer.map_err(cause);
    let receipt = told(publisher.publish_envelope(event()).await)?;
    if receipt.durability == Durability::Unknown {
        return Err(Error::invalid("durability unknown: this user needs +info +config|get"));
    }
    let one = event();
    for _ in 0..2 {
        let answers = publisher.publish_envelopes_deduplicated(vec![one.clone()]).await;
        for answer in answers {
            told(answer)?;
        }
    }
    let before = server.say("XLEN rm:{orders:0}:log").int();
    told(publisher.publish_envelope_after(event(), Duration::from_millis(1)).await)?;
    for _ in 0..1000 {
        if server.say("XLEN rm:{orders:0}:log").int() > before {
            break;
        }
        // waits: for the delayed event, with a deadline
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A connection that is lost with an event under way: the log says what became of it.
    server.say("CLIENT PAUSE 5000 WRITE");
    let doubtful = publisher.publish_envelope(event());
    let kill = async {
        // waits: for the event to be under way; where it is not yet, nothing is in doubt
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.say("CLIENT KILL TYPE normal SKIPME yes");
        server.say("CLIENT UNPAUSE");
    };
    told(tokio::join!(doubtful, kill).0)?;
    bus.drain(Duration::ZERO).await;
    let waiting =
        self::bus(role, server, Confirm::Replicas { count: 1, timeout: Duration::from_millis(10) });
    let waiting = waiting.await?;
    let answers = waiting.publisher().publish_envelopes_deduplicated(vec![event()]).await;
    for answer in answers {
        let error = told(answer).expect_err("there is no replica");
        if !error.to_string().contains("0 of 1 replicas") {
            return Err(error);
        }
    }
    waiting.drain(Duration::ZERO).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_may_publish_and_no_more_and_each_rule_is_named_where_it_is_missing() {
    keep_log();
    let server = Server::with(&["--appendonly", "yes"]);
    let role = Role::read("publisher");
    role.apply(&server, None);
    publish_all(&role, &server).await.expect("allowed");
    let told: Vec<String> = needed(&log());
    assert!(told.iter().all(|rule| rule == "~rm:{*}:trim"), "trimming is left to others: {told:?}");
    for command in [
        "FLUSHALL",
        "KEYS *",
        "CONFIG SET maxmemory 1",
        "DEL rm:{orders:0}:log",
        "ACL WHOAMI",
        "XTRIM rm:{orders:0}:log MAXLEN 0",
        "XDEL rm:{orders:0}:log 0-1",
        "XADD other * a b",
        "XREADGROUP GROUP g c STREAMS rm:{orders:0}:log >",
        "XRANGE rm:{orders:0}:dead:mail - +",
        "HGETALL rm:routes:mail",
        "XGROUP CREATE rm:{orders:0}:log g 0",
        "SHUTDOWN NOSAVE",
    ] {
        role.refuses(&server, command);
    }
    forget_log();
    let role = Arc::new(role);
    let (mut tries, mut superfluous) = (JoinSet::new(), Vec::new());
    for (at, rule) in role.rules() {
        if WITHOUT.contains(&rule.as_str()) {
            continue;
        }
        if tries.len() >= AT_ONCE {
            superfluous.extend(tries.join_next().await.and_then(|tried| tried.expect("no panic")));
        }
        let role = Arc::clone(&role);
        tries.spawn(async move { is_superfluous(&role, at, &rule).await });
    }
    let rest = tries.join_all().await;
    superfluous.extend(rest.into_iter().flatten());
    assert!(superfluous.is_empty(), "not named where missing:\n{}", superfluous.join("\n"));
}

/// What happened without a rule, where nothing named it.
async fn is_superfluous(role: &Role, at: usize, rule: &str) -> Option<String> {
    let mut told = None;
    for _ in 0..TRIES {
        told = Some(unnamed(role, at, rule).await?);
    }
    told
}

async fn unnamed(role: &Role, at: usize, rule: &str) -> Option<String> {
    let server = Server::with(&["--appendonly", "yes"]);
    role.apply(&server, Some(at));
    let error = publish_all(role, &server).await.err();
    let text = format!("{} {}", error.map(|e| format!("{e:?}")).unwrap_or_default(), log());
    let bare = rule.trim_start_matches("%W");
    let names = |told: &String| told.trim_start_matches("%R") == bare;
    (!needed(&text).iter().any(names)).then(|| format!("{rule}: {text}"))
}

#[test]
fn the_files_together_are_an_acl_file() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("users.acl");
    let roles = ["publisher", "consumer", "operator"];
    let text: String = roles.map(Role::text).concat() + "user default on nopass ~* &* +@all\n";
    std::fs::write(&path, text).expect("a file");
    let server = Server::with(&["--aclfile", path.to_str().expect("text")]);
    for name in roles {
        let role = Role::read(name);
        assert_eq!(role.say(&server, "PING").text(), "PONG");
        role.refuses(&server, "FLUSHALL");
    }
}
