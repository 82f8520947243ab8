//! What was handed out, and what is due.

use std::time::Duration;

use rumormill::delivery::Outcome;

use crate::kit::{Bed, HOUR, retry};

#[tokio::test]
async fn what_a_dead_consumer_holds_in_a_live_group_is_found() {
    let (bed, feed) = Bed::live().await;
    bed.append("t:0", &["3"]).await;
    let id = bed.ghost_reads("t:0")[0];
    bed.server.say(&format!("XCLAIM rm:{{t:0}}:log g ghost 0 {id} IDLE 300000 JUSTID"));
    bed.server.ask(&["ZREM", "rm:consumers", "g ghost"]);
    let finding = bed.only("pending.abandoned").await;
    assert!(finding.text.contains("held by ghost"), "{finding:?}");
    bed.mend(&finding);
    bed.well().await;
    bed.leave(feed).await;
}

#[tokio::test]
async fn an_entry_that_is_held_for_hours_is_found() {
    let bed = Bed::new().await;
    let mut feed = bed.subscribe(false).await;
    let old = bed.ago(2 * HOUR);
    bed.server.say(&format!("XADD rm:{{t:0}}:log {old}-0 type t.x data 1"));
    let held = bed.take(&mut feed).await;
    let finding = bed.only("pending.stuck").await;
    assert!(finding.text.contains(&held.id.to_string()), "{finding:?}");
    bed.leave(feed).await;
}

#[tokio::test]
async fn an_entry_that_was_handed_out_again_and_again_is_found() {
    let bed = Bed::left().await;
    bed.server.say("XADD rm:{t:0}:log * type t.x data 1");
    let id = bed.ghost_reads("t:0")[0];
    bed.server.say(&format!("XCLAIM rm:{{t:0}}:log g ghost 0 {id} RETRYCOUNT 12 JUSTID"));
    let finding = bed.only("pending.handed-out").await;
    assert!(finding.text.contains("12 times"), "{finding:?}");
}

#[tokio::test]
async fn a_pending_entry_whose_message_is_gone_is_found() {
    let bed = Bed::left().await;
    bed.server.say("XADD rm:{t:0}:log * type t.x data 1");
    let id = bed.ghost_reads("t:0")[0];
    bed.server.say(&format!("XDEL rm:{{t:0}}:log {id}"));
    let finding = bed.only("pending.gone").await;
    assert!(finding.text.contains(&id.to_string()), "{finding:?}");
    bed.mend(&finding);
    bed.well().await;
}

#[tokio::test]
async fn progress_of_an_entry_that_was_taken_away_is_worth_a_note() {
    let (bed, mut feed) = Bed::live().await;
    bed.append("t:0", &["3", "4"]).await;
    let entry = bed.take(&mut feed).await;
    let first = entry.deliveries().next().expect("two").settle(Outcome::ack());
    for answer in feed.settler.settle(vec![first]).await {
        answer.expect("settled");
    }
    assert_eq!(bed.server.say("HLEN rm:{t:0}:progress:g").int(), 1);
    bed.well().await;
    // A live consumer would take the entry back.
    bed.leave(feed).await;
    bed.server.say(&format!("XACK rm:{{t:0}}:log g {}", entry.id));
    let finding = bed.only("progress.left-over").await;
    bed.mend(&finding);
    bed.well().await;
}

#[tokio::test]
async fn a_note_of_a_suspect_that_runs_no_more_is_found() {
    let bed = Bed::left().await;
    bed.server.say("HSET rm:{t:0}:running:g 5-5 1:4");
    let finding = bed.only("suspects.stale").await;
    bed.mend(&finding);
    bed.well().await;
}

#[tokio::test]
async fn a_retry_stream_without_its_group_is_found() {
    let bed = Bed::left().await;
    bed.server.say("XGROUP DESTROY rm:{t:0}:retry:g g");
    let finding = bed.only("retry.no-group").await;
    bed.mend(&finding);
    bed.well().await;
}

/// What was to come later should have come by now.
fn make_overdue(bed: &Bed, key: &str) {
    let member = bed.server.say(&format!("ZRANGE {key} 0 0")).list()[0].bytes().to_vec();
    let past = bed.ago(60_000).to_string();
    bed.server.ask(&[b"ZADD".as_slice(), key.as_bytes(), b"XX", past.as_bytes(), &member]);
}

#[tokio::test]
async fn overdue_attempts_are_found() {
    let (bed, mut feed) = Bed::live().await;
    bed.append("t:0", &["3"]).await;
    bed.end(&mut feed, &retry(Duration::from_secs(3600))).await;
    bed.leave(feed).await;
    bed.well().await;
    make_overdue(&bed, "rm:{t:0}:due:g");
    let finding = bed.only("schedule.retries").await;
    assert_eq!(finding.subject.as_deref(), Some("g t:0"));
    assert!(finding.mend.contains("bus-cli daemon --maintenance"), "{finding:?}");
}

#[tokio::test]
async fn overdue_publishes_are_found() {
    let (bed, feed) = Bed::live().await;
    bed.append_later("t:1", &["3"], Duration::from_secs(3600)).await;
    bed.leave(feed).await;
    bed.well().await;
    make_overdue(&bed, "rm:{t:1}:delayed");
    assert_eq!(bed.only("schedule.publishes").await.subject.as_deref(), Some("t:1"));
}

#[tokio::test]
async fn a_reader_that_never_acknowledges_is_found() {
    let bed = Bed::left().await;
    let fill = "for i = 1, 100000 do \
                redis.call('XADD', KEYS[1], '*', 'type', 't.x', 'data', '1') end \
                for i = 1, 100 do redis.call('XREADGROUP', 'GROUP', 'g', 'ghost', 'COUNT', 1000, \
                'STREAMS', KEYS[1], '>') end";
    bed.server.ask(&["EVAL", fill, "1", "rm:{t:0}:log"]);
    bed.haunt();
    let finding = bed.only("pending.many").await;
    assert!(finding.text.starts_with("100000 pending on t:0"), "{finding:?}");
}

#[tokio::test]
async fn a_flood_of_retries_is_found() {
    let (bed, mut feed) = Bed::live().await;
    bed.append("t:0", &["3"]).await;
    bed.end(&mut feed, &retry(Duration::from_secs(3600))).await;
    bed.leave(feed).await;
    // As if it had failed with ten thousand others.
    let fill = "local one = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES') \
                for i = 2, 10000 do redis.call('ZADD', KEYS[1], one[2], one[1] .. i) end";
    bed.server.ask(&["EVAL", fill, "1", "rm:{t:0}:due:g"]);
    assert!(bed.only("schedule.many").await.text.starts_with("10000 to be tried again"));
}
