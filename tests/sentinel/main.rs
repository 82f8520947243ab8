//! The master is killed under load, again and again, and sentinels make another one: what was
//! acknowledged is there. Two kills; `RUMORMILL_SENTINEL_KILLS=20` makes it twenty.

mod cluster;
#[path = "../fault/mod.rs"]
mod fault;
#[path = "../server/mod.rs"]
mod server;

use std::time::Duration;

use rumormill::{Bus, Confirm, Durability, Services};
use tokio::time::Instant;

use cluster::{Cluster, DOWN_AFTER};
use fault::asked;
use fault::drive::{Case, drive};
use fault::load::{Load, Numbered, connect};
use fault::table::Promise;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_is_killed_and_nothing_acknowledged_is_lost() {
    let cluster = Cluster::start().await;
    let url = cluster.url();
    let case = Case {
        rounds: asked("RUMORMILL_SENTINEL_KILLS", 2),
        promise: Promise::within(DOWN_AFTER + Duration::from_millis(2_500)),
        ..Case::new(30, "master killed, three sentinels, WAIT 1")
    };
    let load = Load::over(publisher(&url).await, connect(&url).await).await;
    drive(case, cluster, load, async |cluster| {
        let killed = Instant::now();
        cluster.kill_master();
        cluster.recover().await;
        killed
    })
    .await;
}

/// Stored is what a replica has, too.
async fn publisher(url: &str) -> Bus {
    let confirm = Confirm::Replicas { count: 1, timeout: Duration::from_millis(500) };
    let builder = Bus::builder().url(url).services(Services::none()).confirm(confirm);
    let bus = builder.build().await.expect("the sentinels name a master");
    let first = bus.publish(&Numbered { number: 0, key: "first".to_owned() }).await;
    assert_eq!(first.expect("stored").durability, Durability::Replicated);
    bus
}
