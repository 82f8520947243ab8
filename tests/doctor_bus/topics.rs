//! Topics, partitions and routes.

use rumormill::driver::admin::Severity;

use crate::kit::{Bed, HOUR, MINUTE};

#[tokio::test]
async fn a_bus_that_was_used_in_order_is_well() {
    let bed = Bed::left().await;
    bed.well().await;
}

#[tokio::test]
async fn a_topic_that_cannot_be_read_is_found() {
    let bed = Bed::left().await;
    bed.server.say("HSET rm:topics bad {\"partitions\":0}");
    let finding = bed.only("topics.malformed").await;
    assert_eq!(finding.subject.as_deref(), Some("bad"));
    bed.mend(&finding);
    bed.well().await;
    bed.server.say("HSET rm:topics t {\"partitions\":2,\"keep_ms\":\"x\"}");
    assert_eq!(bed.only("topics.malformed").await.severity, Severity::Risk);
    bed.server.say("HSET rm:topics t {\"partitions\":2}");
    bed.server.ask(&["HSET", "rm:topics", "no topic", "{\"partitions\":1}"]);
    let finding = bed.only("topics.malformed").await;
    bed.mend(&finding);
    bed.well().await;
}

#[tokio::test]
async fn a_topic_of_too_many_partitions_is_found() {
    let bed = Bed::left().await;
    bed.server.say("HSET rm:topics wide {\"partitions\":4000000000}");
    // So many are not looked at.
    bed.only_beside("topics.partitions", &["look.cut"]).await;
    bed.server.say("HSET rm:topics wide {\"partitions\":256}");
    bed.well().await;
}

#[tokio::test]
async fn a_log_without_a_topic_is_found() {
    let bed = Bed::left().await;
    bed.server.say("XADD rm:{u:2}:log * type u.x data 1");
    let finding = bed.only("topics.undeclared").await;
    assert_eq!(finding.severity, Severity::Fault);
    bed.mend(&finding);
    assert_eq!(bed.server.say("HGET rm:topics u").text(), "{\"partitions\":3}");
    // Now it is known, and nobody reads it.
    bed.only("topics.unread").await;
}

#[tokio::test]
async fn a_partition_that_was_taken_away_is_found() {
    let bed = Bed::left().await;
    bed.server.say("HSET rm:topics t {\"partitions\":1}");
    let finding = bed.only("partitions.beyond").await;
    assert_eq!(finding.mend, "bus-cli topics set t --partitions 2");
}

#[tokio::test]
async fn a_partition_that_a_group_wants_and_does_not_read_is_found() {
    let bed = Bed::new().await;
    let old = bed.ago(10 * MINUTE);
    bed.server.say(&format!("XADD rm:{{t:1}}:log {old}-0 type t.x data 1"));
    let mut feed = bed.subscribe(false).await;
    bed.end(&mut feed, &rumormill::delivery::Outcome::ack()).await;
    bed.settled().await;
    bed.leave(feed).await;
    bed.well().await;
    bed.server.say("XGROUP DESTROY rm:{t:1}:log g");
    let finding = bed.only("partitions.unread").await;
    assert_eq!(finding.subject.as_deref(), Some("t:1"));
    bed.mend(&finding);
    bed.only("groups.no-consumer").await;
}

#[tokio::test]
async fn a_topic_that_nobody_reads_is_worth_a_note() {
    let bed = Bed::left().await;
    bed.server.say("HSET rm:topics lonely {\"partitions\":1}");
    bed.well().await;
    bed.server.say("XADD rm:{lonely:0}:log * type lonely.x data 1");
    let finding = bed.only("topics.unread").await;
    assert_eq!((finding.severity, finding.subject.as_deref()), (Severity::Note, Some("lonely")));
}

#[tokio::test]
async fn a_route_that_cannot_be_read_is_found() {
    let bed = Bed::left().await;
    bed.server.say("HSET rm:routes:g t..x {\"version\":1,\"seen\":5}");
    let finding = bed.only("routes.malformed").await;
    bed.mend(&finding);
    bed.well().await;
}

#[tokio::test]
async fn a_route_that_no_live_member_has_is_found() {
    let (bed, feed) = Bed::live().await;
    bed.well().await;
    let seen = bed.ago(HOUR);
    bed.server.say(&format!("HSET rm:routes:g t.old {{\"version\":3,\"seen\":{seen}}}"));
    let finding = bed.only("routes.unsaid").await;
    assert!(finding.text.contains("t.old"), "{finding:?}");
    bed.mend(&finding);
    bed.well().await;
    bed.leave(feed).await;
}

#[tokio::test]
async fn a_route_that_counts_no_more_is_worth_a_note() {
    let (bed, feed) = Bed::live().await;
    let seen = bed.ago(25 * HOUR);
    bed.server.say(&format!("HSET rm:routes:g t.old {{\"version\":3,\"seen\":{seen}}}"));
    let finding = bed.only("routes.stale").await;
    bed.mend(&finding);
    bed.well().await;
    bed.leave(feed).await;
}
