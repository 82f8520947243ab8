//! Users that may too little, or too much.

use std::net::UdpSocket;

use rumormill::driver::admin::Severity;
use rumormill::driver::redis::RedisOptions;
use tokio::task::block_in_place;

use crate::kit::{Ward, free_port};
use crate::server::{Reply, Server};

/// A user with all rights to the bus' keys, but these.
async fn with(rules: &str) -> Ward {
    let mut ward = Ward::with(&[]).await;
    ward.say(&format!("ACL SETUSER app on >pw ~rm:* &* +@all {rules}"));
    ward.enter("app").await;
    ward
}

/// Does what a finding says.
fn mend(ward: &Ward, mend: &str) {
    let line = mend.strip_prefix("redis-cli ").expect("a command").split(';').next();
    let words = line.into_iter().flat_map(str::split_whitespace);
    let words: Vec<&str> = words.map(|word| word.trim_matches('\'')).collect();
    ward.ask(&words);
}

pub(crate) async fn missing(id: &str) {
    let ward = with("").await;
    ward.passes(id).await;
    let rights = ward.look().await.store.about.join("; ");
    assert!(rights.contains("user app has all rights of a publisher, a consumer, an operator"));

    ward.say("ACL SETUSER app -xclaim -xgroup|create");
    let found = ward.finds(id, Severity::Risk, "as a consumer it lacks +xclaim").await;
    assert_eq!(found.subject.as_deref(), Some("app"));
    mend(&ward, &found.mend);
    ward.passes(id).await;

    ward.say("ACL SETUSER app -xrange");
    ward.finds(id, Severity::Risk, "as a publisher it lacks +xrange").await;
    ward.say("ACL SETUSER app +xrange resetkeys ~rm:*:log ~rm:topics");
    let found = ward.finds(id, Severity::Risk, "lacks ~rm:*").await;
    mend(&ward, &found.mend);
    ward.passes(id).await;

    ward.say("ACL SETUSER app -zcard");
    ward.finds(id, Severity::Note, "as an operator it lacks +zcard").await;
    ward.say("ACL SETUSER app -xreadgroup -xautoclaim -memory");
    ward.passes(id).await;
    ward.say("ACL SETUSER app -xadd");
    let found = ward.finds(id, Severity::Fault, "neither publish nor read").await;
    assert!(found.mend.contains("'+xreadgroup'"), "{found:?}");
}

pub(crate) async fn excess(id: &str) {
    let mut ward = with("").await;
    let found = ward.finds(id, Severity::Note, "FLUSHALL, SHUTDOWN, CONFIG SET").await;
    // The user that it proposes has all that the bus needs.
    let line = found.mend.split(", and log in").next().expect("a command");
    mend(&ward, &line.replace("PASSWORD", "pw"));
    ward.enter("bus").await;
    ward.passes(id).await;
    ward.passes("access.missing").await;
}

pub(crate) async fn open(id: &str) {
    let port = free_port();
    let ward = Ward::with(&["--port", &port]).await;
    ward.passes(id).await;
    ward.say("CONFIG SET protected-mode no");
    ward.finds(id, Severity::Fault, "user default needs no password").await;
    ward.ask(&["CONFIG", "SET", "bind", "127.0.0.1"]);
    ward.passes(id).await;
    ward.ask(&["CONFIG", "SET", "bind", "* -::*"]);
    ward.say("ACL SETUSER default resetpass >pw");
    // The connection that there is stays.
    ward.passes(id).await;
}

/// An address of this machine that is not its loopback.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

pub(crate) async fn plaintext(id: &str) {
    Ward::with(&[]).await.passes(id).await;
    let start = || {
        let port = free_port();
        (Server::with(&["--port", &port, "--protected-mode", "no"]), port)
    };
    let (server, port) = start();
    let options = RedisOptions::new(format!("redis://127.0.0.1:{port}"));
    Ward::connected(server, options).await.passes(id).await;
    // A machine without a network has no such address; the unit test beside the check remains.
    if let Some(own) = own_address() {
        let (server, port) = start();
        let options = RedisOptions::new(format!("redis://{own}:{port}"));
        let ward = Ward::connected(server, options).await;
        let found = ward.finds(id, Severity::Risk, "is not encrypted").await;
        assert_eq!(found.subject, Some(own));
    }
}

pub(crate) async fn denied(id: &str) {
    let ward = with("-xadd").await;
    ward.passes(id).await;
    let refused = block_in_place(|| {
        let mut session = ward.server.session().expect("a connection");
        session.say("AUTH app pw");
        session.send(&["XADD", "rm:{t:0}:log", "*", "f", "v"]).expect("sent");
        session.answer()
    });
    assert!(matches!(refused, Some(Reply::Error(error)) if error.starts_with("NOPERM")));
    let found = ward.finds(id, Severity::Risk, "command xadd was denied 1 times").await;
    assert_eq!(found.subject.as_deref(), Some("app"));
    assert!(found.mend.contains("ACL SETUSER 'app' '+xadd'"), "{found:?}");
    ward.say("ACL LOG RESET");
    let refused = block_in_place(|| ward.server.try_ask(&["AUTH", "app", "wrong"]));
    assert!(matches!(refused, Some(Reply::Error(_))), "{refused:?}");
    ward.finds(id, Severity::Risk, "a login was denied").await;
    ward.say("ACL LOG RESET");
    ward.passes(id).await;
}
