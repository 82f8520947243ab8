//! The master is killed under load, again and again, and sentinels make another one: what was
//! acknowledged is there. Two kills; `RUMORMILL_SENTINEL_KILLS=20` makes it twenty.

mod cluster;
#[path = "../fault/mod.rs"]
mod fault;
#[path = "../server/mod.rs"]
mod server;

use std::time::Duration;

use tokio::time::Instant;

use cluster::{Cluster, DOWN_AFTER};
use fault::asked;
use fault::drive::{Case, drive};
use fault::load::Load;
use fault::table::Promise;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_is_killed_and_nothing_acknowledged_is_lost() {
    let cluster = Cluster::start().await;
    let url = cluster.url();
    let case = Case {
        rounds: asked("RUMORMILL_SENTINEL_KILLS", 2),
        promise: Promise::within(DOWN_AFTER + Duration::from_millis(2_500)),
        ..Case::new(30, "master killed, three sentinels")
    };
    drive(case, cluster, Load::start(&url).await, async |cluster| {
        let killed = Instant::now();
        cluster.kill_master();
        cluster.recover().await;
        killed
    })
    .await;
}
