//! Groups and their consumers.

use rumormill::driver::Driver;
use rumormill::driver::admin::Severity;

use crate::kit::{Bed, HOUR, MINUTE};

#[tokio::test]
async fn a_group_with_work_and_nobody_to_do_it_is_found() {
    let (bed, feed) = Bed::live().await;
    drop(feed);
    bed.append("t:0", &["3"]).await;
    bed.driver.close().await;
    let finding = bed.only("groups.no-consumer").await;
    assert_eq!((finding.severity, finding.subject.as_deref()), (Severity::Fault, Some("g")));
    assert!(finding.text.contains("1 unread on t:0"), "{finding:?}");
    assert!(finding.mend.ends_with("bus-cli groups show g"), "{finding:?}");
}

#[tokio::test]
async fn a_group_that_is_gone_for_a_week_is_found() {
    let bed = Bed::left().await;
    let seen = bed.ago(8 * 24 * HOUR);
    bed.server.say(&format!("HSET rm:routes:g t.> {{\"version\":1,\"seen\":{seen}}}"));
    let finding = bed.only("groups.gone").await;
    assert!(finding.text.contains("8 days"), "{finding:?}");
    bed.mend(&finding);
    bed.well().await;
}

#[tokio::test]
async fn a_live_group_that_is_behind_is_found() {
    let bed = Bed::new().await;
    let feed = bed.subscribe(false).await;
    let old = bed.ago(20 * MINUTE);
    bed.server.say(&format!("XADD rm:{{t:0}}:log {old}-0 type t.x data 1"));
    let finding = bed.only("groups.behind").await;
    assert!(finding.text.contains("20 min on t:0"), "{finding:?}");
    bed.leave(feed).await;
}

#[tokio::test]
async fn a_group_of_another_program_is_found() {
    let bed = Bed::left().await;
    bed.server.ask(&["XGROUP", "CREATE", "rm:{t:0}:log", "it's another's", "0"]);
    let finding = bed.only("groups.foreign").await;
    assert_eq!(finding.severity, Severity::Risk);
    bed.mend(&finding);
    bed.well().await;
    // One that could be ours by its name, and has read everything.
    bed.server.ask(&["XGROUP", "CREATE", "rm:{t:0}:log", "look", "$"]);
    let finding = bed.only("groups.foreign").await;
    assert_eq!(finding.severity, Severity::Note);
    bed.mend(&finding);
    bed.server.ask(&["XGROUP", "CREATE", "rm:{t:0}:log", "no\u{e9}\u{1b}[2J", "$"]);
    bed.server.ask(&[b"XGROUP".as_slice(), b"CREATE", b"rm:{t:1}:log", b"\xff\xfe", b"$"]);
    bed.only("groups.foreign").await;
}

#[tokio::test]
async fn a_group_whose_routes_are_gone_is_found() {
    let bed = Bed::left().await;
    bed.server.say("DEL rm:routes:g");
    assert_eq!(bed.only("groups.unrouted").await.subject.as_deref(), Some("g"));
}

#[tokio::test]
async fn heartbeats_of_hundreds_of_dead_consumers_are_worth_a_note() {
    let bed = Bed::left().await;
    let fill = "for i = 1, 200 do redis.call('ZADD', KEYS[1], ARGV[1], 'g dead-' .. i) end";
    let old = bed.ago(2 * HOUR).to_string();
    bed.server.ask(&["EVAL", fill, "1", "rm:consumers", &old]);
    let finding = bed.only("consumers.dead").await;
    bed.mend(&finding);
    bed.well().await;
}

#[tokio::test]
async fn a_heartbeat_in_the_future_is_found() {
    let bed = Bed::left().await;
    let later = (bed.ago(0) + HOUR).to_string();
    bed.server.ask(&["ZADD", "rm:consumers", &later, "g future"]);
    let finding = bed.only("consumers.ahead").await;
    bed.mend(&finding);
    bed.well().await;
}

#[tokio::test]
async fn consumers_that_nobody_will_delete_are_worth_a_note() {
    let bed = Bed::left().await;
    let fill = "for i = 1, 100 do \
                redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], 'g', 'dead-' .. i) end";
    bed.server.ask(&["EVAL", fill, "1", "rm:{t:0}:retry:g"]);
    let finding = bed.only("consumers.left-over").await;
    assert!(finding.text.starts_with("100 consumers"), "{finding:?}");
    bed.mend(&finding);
    bed.well().await;
}
