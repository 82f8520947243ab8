//! The role of `acl/operator.acl`: every command of `bus-cli` that operates a bus works, what else
//! there is does not, and no rule is superfluous.

mod acl;
#[path = "cli/mod.rs"]
mod cli;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use acl::{Role, needed};
use cli::{bare, bus_cli, lines, run};
use rumormill::{Bus, Context, Event, HandlerError, Services};
use serde::{Deserialize, Serialize};
use server::{Reply, Server};
use tokio::task::JoinSet;

/// What a user does without goes on, less well: of these rules no operation fails. What each gives
/// is told in `docs/how-to/acl.md`.
const WITHOUT: [&str; 6] =
    ["+role", "+client|id", "+client|kill", "+command|info", "+xrevrange", "+memory|usage"];

/// Rules that are tried at a time, each on a server of its own.
const AT_ONCE: usize = 4;
/// What only `doctor` asks; a refusal makes a finding unknown.
const DOCTOR: [&str; 9] = [
    "+scan",
    "+pttl",
    "+hexists",
    "+hlen",
    "+hscan",
    "+zcount",
    "+object|idletime",
    "+slowlog|get",
    "+client|info",
];

#[derive(Clone, Debug, Serialize, Deserialize, Event)]
#[event(type = "orders.placed", key = customer)]
struct Placed {
    customer: String,
}

/// A bus with something to operate: dead letters of a group that is gone.
async fn prepare(server: &Server) {
    let bus = Bus::builder().url(server.url()).services(Services::none()).build().await;
    let bus = bus.expect("connects");
    bus.subscribe("mail", |_: Placed, _: Context| async {
        Err::<(), _>(HandlerError::reject("never"))
    })
    .await
    .expect("subscribes");
    for at in 0..6 {
        bus.publish(&Placed { customer: format!("c{at}") }).await.expect("stored");
    }
    bus.settled().await.expect("settles");
    bus.drain(Duration::from_secs(5)).await;
    // It holds an entry.
    let (log, data) = ("rm:{orders:0}:log", r#"{"customer":"x"}"#);
    server.ask(&["XADD", log, "*", "type", "orders.placed", "data", data]);
    server.ask(&["XREADGROUP", "GROUP", "mail", "old", "STREAMS", log, ">"]);
    // Heard of long ago, so that its group may be moved.
    server.ask(&["DEL", "rm:consumers"]);
    server.ask(&["ZADD", "rm:consumers", "1", "mail old"]);
}

/// Every command that operates, each as one line.
fn commands(server: &Server, file: &str) -> Vec<String> {
    let Reply::List(letters) = server.say("XRANGE rm:{orders:0}:dead:mail - +") else {
        panic!("no letters");
    };
    let id = |at: usize| match &letters[at] {
        Reply::List(letter) => format!("orders:0/{}", letter[0].text()),
        other => panic!("{other:?}"),
    };
    let all = [
        "publish orders.placed {\"customer\":\"a\"}",
        "publish orders.placed {\"customer\":\"a\"} --deduplicate",
        "publish orders.placed {\"customer\":\"a\"} --after 1ms",
        "tail --since 1h --until-end",
        "tail --last 2 -n 1",
        "record > --since 1h --until-end --force --out FILE",
        "replay FILE --yes --speed max",
        "topics list",
        "topics show orders",
        "topics set orders --partitions 2 --yes",
        "topics set orders --keep 1h --yes",
        "groups list",
        "groups show mail",
        "groups seek mail --beginning --yes",
        "dead-letters list --group mail",
        "dead-letters show --group mail --id ID0",
        "dead-letters export --group mail",
        "dead-letters edit --group mail --id ID1 --patch [] --yes",
        "dead-letters redrive --group mail --id ID2 --yes",
        "dead-letters purge --group mail --id ID3 --yes",
        "dead-letters purge --group mail --all --yes",
        "dead-letters import --group mail LETTERS",
        "groups seek mail --end --yes",
        "publish fresh.made 1",
        "publish orders.placed {\"customer\":\"a\"} --deduplicate --wait 1",
    ];
    let fill = |line: &&str| {
        let line = line.replace("FILE", file).replace("LETTERS", &format!("{file}.letters"));
        (0..4).fold(line, |line, at| line.replace(&format!("ID{at}"), &id(at)))
    };
    all.iter().map(fill).collect()
}

/// Runs every command; what the first one that fails wrote.
fn operate(role: &Role, server: &Server) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("recording");
    let mut said = String::new();
    let file = file.to_str().expect("text");
    let mut export = bus_cli(server, &["dead-letters", "export", "--group", "mail"]);
    std::fs::write(format!("{file}.letters"), lines(&mut export).join("\n")).expect("a file");
    for line in commands(server, file) {
        let words: Vec<&str> = line.split(' ').collect();
        let (out, err, code) = run(bare(&words).env("BUS_URL", role.url(server)));
        said += &err;
        let short = err.contains("0 of 1 replicas");
        if code != 0 && !short {
            return Err(format!("{line}: {code} {err} {out}"));
        }
        if out.contains("\"durability\":\"unknown\"") {
            return Err("durability unknown: this user needs +info +config|get".to_owned());
        }
    }
    // Trimming is left to others, and that is said.
    let trims = |rule: &String| rule == "~rm:{*}:trim" || rule == "+pttl";
    if needed(&said).iter().all(trims) { Ok(()) } else { Err(said) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_may_operate_and_no_more_and_each_rule_is_named_where_it_is_missing() {
    let server = Server::with(&["--appendonly", "yes"]);
    let role = Role::read("operator");
    prepare(&server).await;
    role.apply(&server, None);
    operate(&role, &server).expect("allowed");
    for command in [
        "FLUSHALL",
        "KEYS *",
        "CONFIG SET maxmemory 1",
        "DEL rm:{orders:0}:log",
        "ACL SETUSER x",
        "XDEL rm:{orders:0}:log 0-1",
        "XTRIM rm:{orders:0}:log MAXLEN 0",
        "XADD other * a b",
        "XREADGROUP GROUP mail c STREAMS rm:{orders:0}:log >",
        "SHUTDOWN NOSAVE",
        "XGROUP DESTROY rm:{orders:0}:log mail",
        "DEL rm:topics",
    ] {
        role.refuses(&server, command);
    }
    let role = Arc::new(role);
    let (mut tries, mut superfluous) = (JoinSet::new(), Vec::new());
    for (at, rule) in role.rules() {
        if WITHOUT.contains(&rule.as_str()) || DOCTOR.contains(&rule.as_str()) {
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
    let server = Server::with(&["--appendonly", "yes"]);
    prepare(&server).await;
    role.apply(&server, Some(at));
    server.say("SCRIPT FLUSH");
    let text = tokio::task::block_in_place(|| operate(role, &server)).err().unwrap_or_default();
    let bare = rule.trim_start_matches(['%', 'R', 'W']);
    let names = |told: &String| match rule {
        "%R~rm:*" => told.starts_with("%R~rm:"),
        _ => told.trim_start_matches(['%', 'R', 'W']) == bare,
    };
    (!needed(&text).iter().any(names)).then(|| format!("{rule}: {text}"))
}
