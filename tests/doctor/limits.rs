//! Limits of the server that are too low, or reached.

use rumormill::driver::admin::Severity;
use rumormill::driver::redis::RedisOptions;
use tokio::task::block_in_place;

use crate::kit::{Ward, mend, setting};
use crate::server::{Reply, Server};

pub(crate) async fn clients(id: &str) {
    let ward = Ward::with(&[]).await;
    ward.passes(id).await;
    // One that is kept: another might not be let in.
    let mut operator = ward.server.session().expect("a connection");
    // The one that asks is gone at once.
    let connected = ward.number("connected_clients") - 1;
    block_in_place(|| operator.say(&format!("CONFIG SET maxclients {connected}")));
    let found = ward.finds(id, Severity::Risk, "connections are in use").await;
    assert!(found.mend.contains(&format!("maxclients {}", connected * 2)), "{found:?}");
    block_in_place(|| operator.say("CONFIG SET maxclients 1000"));
    ward.passes(id).await;
}

pub(crate) async fn clients_refused(id: &str) {
    let ward = Ward::with(&[]).await;
    ward.passes(id).await;
    let mut operator = ward.server.session().expect("a connection");
    block_in_place(|| {
        operator.say("CONFIG SET maxclients 1");
        let refused = ward.server.try_ask(&["PING"]);
        assert!(!matches!(refused, Some(Reply::Text(_))), "{refused:?}");
        operator.say("CONFIG SET maxclients 1000");
    });
    ward.finds(id, Severity::Note, "connections were refused").await;
    ward.say("CONFIG RESETSTAT");
    ward.passes(id).await;
}

pub(crate) async fn idle_timeout(id: &str) {
    let bad = (Severity::Note, "timeout is 100 s");
    setting(id, Ward::with(&[]).await, ["timeout", "0", "100"], bad).await;
}

pub(crate) async fn entry(id: &str) {
    let ward = Ward::with(&[]).await;
    ward.passes(id).await;
    for name in ["proto-max-bulk-len", "client-query-buffer-limit"] {
        ward.ask(&["CONFIG", "SET", name, "1mb"]);
        let found = ward.finds(id, Severity::Risk, &format!("{name} is 1024 KiB")).await;
        mend(&ward, &found);
        ward.passes(id).await;
    }
}

pub(crate) async fn answers(id: &str) {
    let name = "client-output-buffer-limit";
    let values = [name, "normal 0 0 0", "normal 2mb 1mb 60"];
    let bad = (Severity::Risk, "of normal clients is 1024 KiB");
    setting(id, Ward::with(&[]).await, values, bad).await;
}

pub(crate) async fn stream_nodes(id: &str) {
    let ward = Ward::with(&["--stream-node-max-bytes", "0"]).await;
    let bad = (Severity::Risk, "stream-node-max-entries is 0");
    setting(id, ward, ["stream-node-max-entries", "100", "0"], bad).await;
}

pub(crate) async fn database(id: &str) {
    Ward::with(&[]).await.passes(id).await;
    let server = Server::with(&[]);
    let options = RedisOptions::new(format!("{}?db=3", server.url()));
    let ward = Ward::connected(server, options).await;
    ward.finds(id, Severity::Note, "database 3").await;
}
