//! XACKDEL where the server has it: run these with `REDIS_SERVER` set to a Redis 8.2 or later, and
//! with one before it.

use std::time::Duration;

use crate::kit::*;
use crate::server::{Reply, Server};
use rumormill::delivery::{Outcome, Settled};
use rumormill::driver::Driver;

fn knows_it(server: &Server) -> bool {
    matches!(server.say("COMMAND INFO XACKDEL").list(), [Reply::List(_)])
}

/// An event is retried, and acknowledged at its second attempt; then again, which is a repeat.
async fn a_retry_ends(server: &Server) {
    let driver = connect(server).await;
    append(&driver, "t:0", &["1"]).await;
    let mut feed = subscribe(&driver, "g").await;
    let entry = next(&mut feed).await;
    settle(&feed, settle_all(&entry, &retry(Duration::ZERO))).await;
    let again = next(&mut feed).await;
    assert_eq!(settle(&feed, settle_all(&again, &Outcome::ack())).await, [Settled::Done]);
    assert_eq!(settle(&feed, settle_all(&again, &Outcome::ack())).await, [Settled::Already]);
    assert_eq!(server.say("XLEN rm:{t:0}:retry:g"), Reply::Int(0), "settled retries are deleted");
    assert_eq!(server.say("XPENDING rm:{t:0}:retry:g g").list()[0], Reply::Int(0));
    driver.close().await;
}

#[tokio::test]
async fn a_retry_ends_with_one_command_where_the_server_has_it() {
    let server = Server::start();
    let known = knows_it(&server);
    a_retry_ends(&server).await;
    let calls = ["xackdel", "xdel"].map(|command| server.calls(command));
    assert_eq!(calls, if known { [2, 0] } else { [0, 2] }, "known: {known}");
}

#[tokio::test]
async fn a_retry_ends_though_the_user_may_not_use_it() {
    let server = Server::start();
    let known = knows_it(&server);
    if known {
        server.say("ACL SETUSER default -xackdel");
    }
    a_retry_ends(&server).await;
    assert_eq!([server.calls("xackdel"), server.calls("xdel")], [0, 2], "known: {known}");
}
