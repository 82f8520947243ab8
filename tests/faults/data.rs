//! Somebody takes the log, the group or a consumer away.

use std::time::Duration;

use tokio::time::Instant;

use crate::fault::drive::{Case, Stage, drive};
use crate::fault::load::{GROUP, LOG, Load};
use crate::hold_calmly;
use crate::server::Server;

const MOMENT: Duration = Duration::from_millis(500);

async fn taking(case: Case, fault: impl AsyncFnMut(&mut Stage) -> Instant) {
    let stage = Stage::new(Server::start()).await;
    let url = stage.server.url();
    drive(case, stage, Load::start(&url).await, fault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_of_another_type() {
    taking(Case::destroying(23, "WRONGTYPE"), async |stage| {
        stage.block(|server| {
            let mut operator = server.session().expect("a connection");
            for command in ["MULTI", &format!("DEL {LOG}"), &format!("SET {LOG} other"), "EXEC"] {
                operator.say(command);
            }
        });
        hold_calmly(stage, MOMENT).await;
        stage.say(&format!("DEL {LOG}"));
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_flushed() {
    taking(Case::destroying(24, "FLUSHALL"), async |stage| {
        stage.say("FLUSHALL");
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_forgets_everything() {
    taking(Case::destroying(25, "restart without persistence"), async |stage| {
        stage.block(Server::kill);
        stage.restart(&[]).await;
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_group_is_destroyed() {
    taking(Case::new(26, "group destroyed"), async |stage| {
        stage.say(&format!("XGROUP DESTROY {LOG} {GROUP}"));
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_consumer_is_deleted() {
    taking(Case::new(27, "consumer deleted"), async |stage| {
        let consumers = stage.block(|server| server.say(&format!("XINFO CONSUMERS {LOG} {GROUP}")));
        for consumer in consumers.list() {
            let name = consumer.list()[1].text();
            stage.say(&format!("XGROUP DELCONSUMER {LOG} {GROUP} {name}"));
        }
        Instant::now()
    })
    .await;
}
