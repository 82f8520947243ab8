//! Logs: history, ends, size, and lag.

use rumormill::delivery::Outcome;
use rumormill::driver::admin::Severity;

use crate::kit::{Bed, HOUR, MINUTE};

#[tokio::test]
async fn a_log_that_knows_less_than_it_did_is_found() {
    let bed = Bed::left().await;
    bed.server.say("DEL rm:{t:0}:log");
    bed.server.say("XGROUP CREATE rm:{t:0}:log g 0 MKSTREAM");
    assert_eq!(bed.only("log.went-back").await.subject.as_deref(), Some("g t:0"));
}

#[tokio::test]
async fn a_group_beyond_the_end_of_its_log_is_found() {
    let bed = Bed::left().await;
    let later = bed.ago(0) + HOUR;
    bed.server.say(&format!("XGROUP SETID rm:{{t:0}}:log g {later}-0"));
    let finding = bed.only("log.position-beyond").await;
    assert_eq!(finding.mend, "bus-cli groups seek g --end --partition t:0");
}

/// A group that handled an event of ten minutes ago.
async fn with_an_old_event() -> Bed {
    let bed = Bed::new().await;
    let old = bed.ago(10 * MINUTE);
    bed.server.say(&format!("XADD rm:{{t:0}}:log {old}-0 type t.x data 1"));
    let mut feed = bed.subscribe(false).await;
    bed.end(&mut feed, &Outcome::ack()).await;
    bed.settled().await;
    bed.leave(feed).await;
    bed
}

#[tokio::test]
async fn a_group_without_a_checkpoint_is_worth_a_note() {
    let bed = with_an_old_event().await;
    bed.well().await;
    bed.server.say("HDEL rm:{t:0}:checkpoint:g safe");
    bed.only("checkpoint.missing").await;
    bed.server.say("DEL rm:{t:0}:checkpoint:g");
    assert_eq!(bed.only("checkpoint.missing").await.severity, Severity::Note);
}

#[tokio::test]
async fn a_checkpoint_beyond_the_end_is_found() {
    let bed = Bed::left().await;
    let later = bed.ago(0) + HOUR;
    bed.server.say(&format!("HSET rm:{{t:0}}:checkpoint:g safe {later}-0"));
    let finding = bed.only("checkpoint.beyond").await;
    bed.mend(&finding);
    bed.well().await;
}

#[tokio::test]
async fn a_log_ahead_of_the_clock_is_found() {
    let (bed, mut feed) = Bed::live().await;
    let later = bed.ago(0) + HOUR;
    bed.server.say(&format!("XADD rm:{{t:0}}:log {later}-0 type t.x data 1"));
    bed.end(&mut feed, &Outcome::ack()).await;
    let finding = bed.only("log.ahead").await;
    assert!(finding.text.contains("59 min") || finding.text.contains("60 min"), "{finding:?}");
    bed.leave(feed).await;
}

#[tokio::test]
async fn a_log_at_the_end_of_all_ids_is_found() {
    let (bed, mut feed) = Bed::live().await;
    let last = "18446744073709551615-18446744073709551615";
    bed.server.say(&format!("XADD rm:{{t:0}}:log {last} type t.x data 1"));
    let refused = bed.server.try_ask(&["XADD", "rm:{t:0}:log", "*", "type", "t.x", "data", "1"]);
    assert!(matches!(refused, Some(crate::server::Reply::Error(_))), "{refused:?}");
    bed.end(&mut feed, &Outcome::ack()).await;
    bed.settled().await;
    bed.leave(feed).await;
    let finding = bed.only("log.exhausted").await;
    assert_eq!(finding.severity, Severity::Fault);
    bed.mend(&finding);
    bed.well().await;
    bed.server.say("XADD rm:{t:0}:log * type t.x data 1");
    assert_eq!(bed.ghost_reads("t:0").len(), 1, "the group reads on");
}

/// A bus whose topic keeps little.
async fn tight(limits: &str) -> Bed {
    let bed = Bed::left().await;
    let written = format!("{{\"partitions\":2,{limits}}}");
    bed.server.ask(&["HSET", "rm:topics", "t", &written]);
    bed
}

fn add(bed: &Bed, bytes: usize) {
    let data = "x".repeat(bytes);
    bed.server.ask(&["XADD", "rm:{t:0}:log", "*", "type", "t.x", "data", &data]);
}

#[tokio::test]
async fn a_log_near_its_cap_is_found() {
    let bed = tight("\"keep_bytes\":1000,\"cap_bytes\":10000").await;
    bed.well().await;
    for _ in 0..10 {
        add(&bed, 2000);
    }
    bed.absorb("t:0");
    let finding = bed.only("log.near-cap").await;
    assert!(finding.text.ends_with("no group needs it"), "{finding:?}");
}

#[tokio::test]
async fn a_log_that_a_group_holds_is_found_and_the_group_named() {
    let bed = tight("\"keep_bytes\":1000").await;
    for _ in 0..10 {
        add(&bed, 2000);
    }
    assert_eq!(bed.ghost_reads("t:0").len(), 10);
    let finding = bed.only("log.held").await;
    assert!(finding.text.contains("group g needs what is"), "{finding:?}");
    bed.absorb_pending("t:0");
    bed.well().await;
}

#[tokio::test]
async fn what_was_trimmed_unread_is_found() {
    let bed = Bed::left().await;
    for _ in 0..3 {
        add(&bed, 5);
    }
    bed.haunt();
    bed.server.say("XTRIM rm:{t:0}:log MAXLEN = 1");
    // Older servers count on as if they were there.
    let is_right = bed.server.say("XINFO GROUPS rm:{t:0}:log").list()[0].list()[11].int() == 1;
    let others: &[&str] = if is_right { &[] } else { &["lag.wrong"] };
    let finding = bed.only_beside("log.trimmed-unread", others).await;
    assert!(finding.text.starts_with("2 entries"), "{finding:?}");
}

#[tokio::test]
async fn what_was_dropped_over_the_cap_is_found() {
    let bed = Bed::left().await;
    bed.server.say("HSET rm:{t:0}:dropped g 5");
    let finding = bed.only("log.dropped").await;
    assert!(finding.text.contains("group g lost 5 entries"), "{finding:?}");
    bed.mend(&finding);
    bed.well().await;
}

#[tokio::test]
async fn a_lag_that_is_wrong_is_worth_a_note() {
    let bed = Bed::left().await;
    bed.haunt();
    for _ in 0..3 {
        add(&bed, 5);
    }
    bed.well().await;
    let groups = bed.server.say("XINFO GROUPS rm:{t:0}:log");
    let position = groups.list()[0].list()[7].text();
    bed.server.say(&format!("XGROUP SETID rm:{{t:0}}:log g {position} ENTRIESREAD 0"));
    let finding = bed.only("lag.wrong").await;
    assert!(finding.text.contains("and 3 are unread"), "{finding:?}");
}

#[tokio::test]
async fn a_lag_that_is_not_told_is_worth_a_note() {
    let bed = Bed::left().await;
    bed.haunt();
    for _ in 0..3 {
        add(&bed, 5);
    }
    let rows = bed.server.say("XREVRANGE rm:{t:0}:log + -");
    let middle = rows.list()[1].list()[0].text();
    bed.server.say(&format!("XDEL rm:{{t:0}}:log {middle}"));
    bed.only("lag.unknown").await;
}

#[tokio::test]
async fn a_log_that_nobody_trims_is_found() {
    let bed = Bed::new().await;
    let feed = bed.subscribe(false).await;
    bed.leave(feed).await;
    let fill = "for i = 1, 150 do \
                redis.call('XADD', KEYS[1], ARGV[1] .. '-' .. i, 'type', 't.x', 'data', '1') end";
    let old = bed.ago(26 * HOUR).to_string();
    bed.server.ask(&["EVAL", fill, "1", "rm:{t:0}:log", &old]);
    bed.server.say("HSET rm:{t:0}:checkpoint:g safe 0-0");
    bed.absorb("t:0");
    let finding = bed.only("log.untrimmed").await;
    assert_eq!(finding.subject.as_deref(), Some("t:0"));
    bed.mend(&finding);
    bed.well().await;
}
