//! Entries and keys.

use rumormill::driver::admin::Severity;

use crate::kit::Bed;

#[tokio::test]
async fn large_entries_are_told_and_too_large_ones_found() {
    let (bed, mut feed) = Bed::live().await;
    let large = "x".repeat(600 * 1024);
    bed.append("t:0", &[&large]).await;
    bed.end(&mut feed, &rumormill::delivery::Outcome::ack()).await;
    bed.leave(feed).await;
    assert_eq!(bed.only("entries.big").await.severity, Severity::Note);
    let data = "x".repeat(1200 * 1024);
    bed.server.ask(&["XADD", "rm:{t:0}:log", "*", "type", "t.x", "data", &data]);
    bed.absorb("t:0");
    assert_eq!(bed.only("entries.big").await.severity, Severity::Risk);
}

#[tokio::test]
async fn an_entry_that_is_no_event_is_found() {
    let bed = Bed::left().await;
    bed.server.say("XADD rm:{t:0}:log * type t.x data 1");
    bed.absorb("t:0");
    bed.well().await;
    bed.server.say("XADD rm:{t:0}:log * user alice");
    bed.absorb("t:0");
    assert_eq!(bed.only("entries.malformed").await.subject.as_deref(), Some("t:0"));
}

#[tokio::test]
async fn an_event_in_the_log_of_another_topic_is_found() {
    let bed = Bed::left().await;
    bed.server.say("XADD rm:{t:1}:log * type other.x data 1");
    bed.absorb("t:1");
    let finding = bed.only("entries.stray").await;
    assert!(finding.text.contains("other.x"), "{finding:?}");
}

#[tokio::test]
async fn keys_of_others_under_our_prefix_are_told_twenty_by_name() {
    let bed = Bed::left().await;
    bed.server.say("SET other:x 1");
    bed.server.say("SET rmx 1");
    bed.well().await;
    for number in 0..25 {
        bed.server.say(&format!("SET rm:note:{number:02} x"));
    }
    assert_eq!(bed.only("keys.foreign").await.subject.as_deref(), Some("rm:note:00"));
    let diagnosis = bed.diagnose().await;
    let told: Vec<_> = crate::kit::of_bus(&diagnosis).collect();
    assert_eq!((told.len(), told[20].1.text.as_str()), (21, "and 5 more"));
}

#[tokio::test]
async fn a_key_of_another_type_is_found() {
    let bed = Bed::left().await;
    bed.server.say("SET rm:{t:0}:due:g x");
    let finding = bed.only("keys.type").await;
    assert_eq!(finding.text, "string, where a zset belongs");
    bed.mend(&finding);
    bed.well().await;
    // One that a user who may not look through the keys would find as well.
    bed.server.say("SET rm:{t:0}:log x");
    assert_eq!(bed.only("keys.type").await.subject.as_deref(), Some("rm:{t:0}:log"));
}

#[tokio::test]
async fn a_key_that_will_expire_is_found() {
    let bed = Bed::left().await;
    bed.server.say("EXPIRE rm:{t:0}:log 600");
    let finding = bed.only("keys.expiring").await;
    bed.mend(&finding);
    bed.well().await;
}

#[tokio::test]
async fn a_mark_that_never_expires_is_found() {
    let bed = Bed::left().await;
    bed.server.say("SET rm:{t:0}:trim me EX 600");
    bed.well().await;
    bed.server.say("PERSIST rm:{t:0}:trim");
    let finding = bed.only("keys.lasting").await;
    assert_eq!(finding.severity, Severity::Fault);
    bed.mend(&finding);
    bed.well().await;
}

#[tokio::test]
async fn what_a_group_left_that_is_no_more_is_found() {
    let bed = Bed::left().await;
    bed.server.say("XGROUP DESTROY rm:{t:0}:log g");
    bed.server.say("XGROUP DESTROY rm:{t:1}:log g");
    bed.server.say("DEL rm:routes:g");
    let finding = bed.only_beside("keys.left-over", &["topics.unread"]).await;
    assert_eq!((finding.severity, finding.subject.as_deref()), (Severity::Risk, Some("g")));
    bed.mend(&finding);
    bed.only("topics.unread").await;
}
