//! Copies that are missing, late, or no copies any more.

use std::time::Duration;

use rumormill::Confirm;
use rumormill::driver::admin::{Severity, Verdict};
use rumormill::driver::redis::RedisOptions;
use tokio::task::block_in_place;

use crate::kit::{Ward, free_port, mend};
use crate::server::Server;

/// A primary, and its port.
fn primary(settings: &[&str]) -> (Server, String) {
    let port = free_port();
    let own = ["--port", &port, "--repl-diskless-sync-delay", "0"];
    (Server::with(&[&own[..], settings].concat()), port)
}

/// A primary with a replica that is in step.
async fn pair(settings: &[&str]) -> (Ward, Server) {
    let (server, port) = primary(settings);
    let replica = Server::with(&["--replicaof", "127.0.0.1", &port]);
    let ward = Ward::on(server).await;
    in_step(&ward).await;
    (ward, replica)
}

async fn in_step(ward: &Ward) {
    let id = "replication.lagging";
    let is_there = |_: &Verdict| ward.info("connected_slaves") == "1";
    ward.until(id, is_there).await;
    ward.until(id, |verdict| *verdict == Verdict::Passed).await;
}

pub(crate) async fn replica(id: &str) {
    let ward = Ward::with(&[]).await;
    ward.passes(id).await;
    ward.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let found = ward.finds(id, Severity::Fault, "a replica of 127.0.0.1:1").await;
    assert!(found.mend.contains("connect to 127.0.0.1:1"), "{found:?}");
    ward.say("REPLICAOF NO ONE");
    ward.passes(id).await;
}

pub(crate) async fn missing(id: &str) {
    let (server, port) = primary(&[]);
    let confirm = Confirm::Replicas { count: 1, timeout: Duration::from_secs(1) };
    let options = RedisOptions { confirm, ..RedisOptions::new(server.url()) };
    let ward = Ward::connected(server, options).await;
    ward.finds(id, Severity::Fault, "1 replicas are to confirm").await;
    let _replica = block_in_place(|| Server::with(&["--replicaof", "127.0.0.1", &port]));
    in_step(&ward).await;
    ward.passes(id).await;
}

pub(crate) async fn lagging(id: &str) {
    let (ward, replica) = pair(&[]).await;
    replica.pause();
    let value = "x".repeat(3 << 20);
    ward.ask(&["SET", "big", &value]);
    ward.finds(id, Severity::Risk, "3072 KiB behind").await;
    replica.resume();
    in_step(&ward).await;
}

pub(crate) async fn unguarded(id: &str) {
    let (ward, _replica) = pair(&[]).await;
    let found = ward.finds(id, Severity::Note, "min-replicas-to-write is 0").await;
    mend(&ward, &found);
    ward.passes(id).await;
}

pub(crate) async fn refuses(id: &str) {
    let ward = Ward::with(&[]).await;
    ward.passes(id).await;
    ward.say("CONFIG SET min-replicas-to-write 1");
    let found = ward.finds(id, Severity::Fault, "0 replicas are in step").await;
    mend(&ward, &found);
    ward.passes(id).await;
}

pub(crate) async fn empty_restart(id: &str) {
    let (ward, _replica) = pair(&["--appendonly", "no"]).await;
    let found = ward.finds(id, Severity::Risk, "1 replicas follow").await;
    mend_appendonly(&ward, &found.mend);
    ward.passes(id).await;
}

fn mend_appendonly(ward: &Ward, mend: &str) {
    assert!(mend.contains("CONFIG SET appendonly yes"), "{mend}");
    ward.say("CONFIG SET appendonly yes");
}
