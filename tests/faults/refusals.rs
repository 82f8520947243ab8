//! The server is there and says no.

use std::time::Duration;

use tokio::time::Instant;

use crate::fault::drive::{Case, Stage, drive};
use crate::fault::load::Load;
use crate::fault::{PATIENCE, comes, hold};
use crate::hold_calmly;
use crate::server::Server;

const MOMENT: Duration = Duration::from_secs(1);

async fn refusing(case: Case, server: Server, fault: impl AsyncFnMut(&mut Stage) -> Instant) {
    let stage = Stage::new(server).await;
    let url = stage.server.url();
    drive(case, stage, Load::start(&url).await, fault).await;
}

/// Between two commands of an operator's, for a moment.
async fn between(stage: &mut Stage, begin: &str, end: &str) -> Instant {
    stage.say(begin);
    hold_calmly(stage, MOMENT).await;
    stage.say(end);
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_becomes_a_replica() {
    refusing(Case::new(15, "READONLY after a role change"), Server::start(), async |stage| {
        between(stage, "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_loading() {
    let server = Server::durable();
    let many = "for i = 1, 6000 do redis.call('SET', 'junk' .. i, i) end";
    server.ask(&["EVAL", many, "0"]);
    refusing(Case::new(16, "LOADING"), server, async |stage| {
        stage.block(Server::kill);
        stage.restart(&["--key-load-delay", "200"]).await;
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_full() {
    let server = Server::start();
    // Others use the memory: a log may have its share of it, a quarter, all the same.
    // The server makes it of nothing: a script that puts it together takes a busy machine longer
    // than a client waits.
    for number in 0..8 {
        server.say(&format!("SETRANGE junk{number} 8388607 -"));
    }
    refusing(Case::new(17, "OOM"), server, async |stage| {
        between(stage, "CONFIG SET maxmemory 64mb", "CONFIG SET maxmemory 0").await
    })
    .await;
}

/// The folder for snapshots is gone, so one fails, so the server takes no writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_cannot_be_written() {
    let server = Server::with(&["--appendonly", "no", "--enable-protected-configs", "yes"]);
    refusing(Case::new(18, "MISCONF"), server, async |stage| {
        let gone = stage.server.path("gone");
        std::fs::create_dir(&gone).expect("a folder");
        let home = stage.server.path("");
        stage.say(&format!("CONFIG SET dir {}", gone.display()));
        std::fs::remove_dir(&gone).expect("it is empty");
        stage.block(|server| server.ask(&["CONFIG", "SET", "save", "3600 1000000"]));
        stage.say("BGSAVE");
        assert!(comes(PATIENCE, || saved(stage, "err")).await, "the snapshot does not fail");
        hold_calmly(stage, MOMENT).await;
        stage.say(&format!("CONFIG SET dir {}", home.display()));
        stage.say("BGSAVE");
        assert!(comes(PATIENCE, || saved(stage, "ok")).await, "the snapshot fails still");
        Instant::now()
    })
    .await;
}

fn saved(stage: &Stage, how: &str) -> bool {
    let info = tokio::task::block_in_place(|| stage.server.say("INFO persistence").text());
    info.contains("rdb_bgsave_in_progress:0")
        && info.contains(&format!("rdb_last_bgsave_status:{how}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_clients_are_connected() {
    refusing(Case::new(19, "maxclients"), Server::start(), async |stage| {
        let mut operator = stage.block(|server| server.session()).expect("a connection");
        tokio::task::block_in_place(|| {
            operator.say("CONFIG SET maxclients 1");
            operator.say("CLIENT KILL TYPE normal");
        });
        hold(MOMENT).await;
        tokio::task::block_in_place(|| operator.say("CONFIG SET maxclients 10000"));
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_are_taken_away() {
    let server = Server::start();
    server.say("ACL SETUSER app on >pw ~* &* +@all");
    let stage = Stage::new(server).await;
    let url = format!("{}?user=app&pass=pw", stage.server.url());
    let load = Load::start(&url).await;
    drive(Case::new(20, "NOPERM"), stage, load, async |stage| {
        between(stage, "ACL SETUSER app -xadd -xreadgroup", "ACL SETUSER app +@all").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_keeps_the_server_busy() {
    let server = Server::with(&["--appendonly", "no", "--busy-reply-threshold", "20"]);
    refusing(Case::new(21, "BUSY"), server, async |stage| {
        let mut stranger = stage.block(|server| server.session()).expect("a connection");
        stranger.send(&["EVAL", "while true do end", "0"]).expect("the server listens");
        hold(MOMENT).await;
        stage.say("SCRIPT KILL");
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_are_flushed() {
    refusing(Case::new(22, "NOSCRIPT"), Server::start(), async |stage| {
        for _ in 0..50 {
            stage.say("SCRIPT FLUSH");
            hold(MOMENT / 50).await;
        }
        Instant::now()
    })
    .await;
}
