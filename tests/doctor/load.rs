//! What held the server, what it refused, and what time it is.

use std::sync::Arc;

use rumormill::driver::admin::Severity;
use rumormill::driver::redis::RedisOptions;
use rumormill::{Clock, SystemClock, Timestamp};
use tokio::task::block_in_place;

use crate::kit::Ward;
use crate::server::{Reply, Server};

pub(crate) async fn slow(id: &str) {
    let ward = Ward::with(&["--enable-debug-command", "yes"]).await;
    ward.passes(id).await;
    ward.say("DEBUG SLEEP 0.15");
    let found = ward.finds(id, Severity::Note, "1 times in a day").await;
    assert_eq!(found.subject.as_deref(), Some("DEBUG"), "{found:?}");
    ward.say("SLOWLOG RESET");
    ward.passes(id).await;
}

pub(crate) async fn refusals(id: &str) {
    let ward = Ward::with(&[]).await;
    ward.passes(id).await;
    ward.say("CONFIG SET maxmemory 1");
    let refused = block_in_place(|| ward.server.try_ask(&["SET", "k", "v"]));
    assert!(matches!(refused, Some(Reply::Error(error)) if error.starts_with("OOM")));
    ward.say("CONFIG SET maxmemory 0");
    ward.finds(id, Severity::Note, "OOM ").await;
    ward.say("CONFIG RESETSTAT");
    ward.passes(id).await;
}

/// A machine whose clock is wrong by so many milliseconds.
#[derive(Debug)]
struct Wrong(i64);

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemClock.now().as_millis().saturating_add_signed(self.0))
    }
}

pub(crate) async fn clock(id: &str) {
    Ward::with(&[]).await.passes(id).await;
    for (wrong, severity, words) in [
        (3_600_000, Severity::Risk, "s behind this one"),
        (-3_600_000, Severity::Risk, "s ahead of this one"),
        (-3_000, Severity::Note, "s ahead of this one"),
    ] {
        let server = Server::with(&[]);
        let clock = Arc::new(Wrong(wrong));
        let options = RedisOptions { clock, ..RedisOptions::new(server.url()) };
        Ward::connected(server, options).await.finds(id, severity, words).await;
    }
}
