//! The server is gone, stands still, or cannot be reached.

use std::time::Duration;

use tokio::time::Instant;

use crate::fault::drive::{Case, Stage, drive};
use crate::fault::load::Load;
use crate::fault::table::Promise;
use crate::fault::{PATIENCE, comes, hold, rounds};
use crate::server::Server;
use crate::{SETTLE, XADD, XREADGROUP};

/// Longer than an answer may take; in the table as long as the promise speaks of.
fn stall() -> Duration {
    if rounds() > 1 { Duration::from_secs(5) } else { Duration::from_millis(3_750) }
}

const MOMENT: Duration = Duration::from_millis(500);

async fn through_proxy(case: Case, fault: impl AsyncFnMut(&mut Stage) -> Instant) {
    let stage = Stage::new(Server::start()).await;
    let url = stage.proxy.url();
    drive(case, stage, Load::start(&url).await, fault).await;
}

async fn directly(case: Case, server: Server, fault: impl AsyncFnMut(&mut Stage) -> Instant) {
    let stage = Stage::new(server).await;
    let url = stage.server.url();
    drive(case, stage, Load::start(&url).await, fault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_killed_and_restarted() {
    let case = Case::new(1, "kill -9 and restart");
    directly(case, Server::durable(), async |stage| {
        stage.block(Server::kill);
        hold(MOMENT).await;
        stage.restart(&[]).await;
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_stands_still() {
    directly(Case::new(2, "SIGSTOP"), Server::start(), async |stage| {
        stage.server.pause();
        hold(stall()).await;
        stage.server.resume();
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_killed() {
    directly(Case::new(3, "CLIENT KILL"), Server::start(), async |stage| {
        stage.say("CLIENT KILL TYPE normal");
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_cut_and_refused() {
    through_proxy(Case::new(4, "connections cut and refused"), async |stage| {
        stage.proxy.refuse();
        hold(MOMENT).await;
        stage.proxy.pass();
        Instant::now()
    })
    .await;
}

/// Old connections are silent for ever, new ones work: from the first moment on, it is for the
/// client to find out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_half_open() {
    let promise = Promise::within(Duration::from_secs(10));
    let case = Case { promise, ..Case::new(5, "half-open link") };
    through_proxy(case, async |stage| {
        let since = Instant::now();
        stage.proxy.half_open();
        assert!(comes(PATIENCE, || stage.proxy.is_found()).await, "the dead link is not found");
        // What was kept back comes out when the publisher has long looked for it.
        hold(MOMENT).await;
        stage.proxy.pass();
        since
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_are_dropped() {
    through_proxy(Case::new(6, "packets dropped"), async |stage| {
        stage.proxy.black_hole();
        hold(stall()).await;
        stage.proxy.pass();
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_are_dropped_one_way() {
    through_proxy(Case::new(7, "packets dropped one way"), async |stage| {
        stage.proxy.swallow_answers();
        hold(stall()).await;
        stage.proxy.pass();
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_an_append_is_lost() {
    through_proxy(Case::new(8, "answer lost after XADD"), async |stage| {
        strike(stage, XADD, "").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_read_is_lost() {
    through_proxy(Case::new(9, "answer lost after XREADGROUP"), async |stage| {
        strike(stage, XREADGROUP, "faults:0").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_settlement_is_lost() {
    through_proxy(Case::new(10, "answer lost after a settle script"), async |stage| {
        strike(stage, SETTLE, "").await
    })
    .await;
}

/// Three answers are lost, each after its request was applied.
async fn strike(stage: &mut Stage, request: &'static str, answer: &'static str) -> Instant {
    stage.proxy.lose(request, answer, 3);
    assert!(comes(PATIENCE, || stage.proxy.left() == 0).await, "nobody asks any more");
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_spoiled() {
    through_proxy(Case::new(11, "answers corrupted"), async |stage| {
        for request in [XADD, XREADGROUP, SETTLE] {
            stage.proxy.spoil(request, 1);
            let struck = comes(PATIENCE, || stage.proxy.left() == 0).await;
            assert!(struck, "nobody asks for {request} any more");
        }
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_line_is_slow() {
    through_proxy(Case::new(12, "latency of 200 ms"), async |stage| {
        stage.proxy.delay(Duration::from_millis(200));
        hold(MOMENT * 3).await;
        stage.proxy.pass();
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_come_one_by_one() {
    through_proxy(Case::new(13, "bytes one by one"), async |stage| {
        stage.proxy.chop();
        hold(MOMENT * 2).await;
        stage.proxy.pass();
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_paused() {
    directly(Case::new(14, "CLIENT PAUSE"), Server::start(), async |stage| {
        stage.say(&format!("CLIENT PAUSE {} ALL", stall().as_millis()));
        // It answers this when the pause is over.
        stage.block(|server| server.say("PING"));
        Instant::now()
    })
    .await;
}
