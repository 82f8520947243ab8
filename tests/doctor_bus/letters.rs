//! Dead letters, and what waits behind them.

use rumormill::delivery::Outcome;
use rumormill::driver::admin::Severity;
use rumormill::driver::redis::{RedisDriver, RedisOptions};

use crate::kit::{Bed, HOUR, dead_letter, options};

/// A group that gave one event up, and ended.
async fn with_a_letter() -> Bed {
    let (bed, mut feed) = Bed::live().await;
    bed.append("t:0", &["3"]).await;
    bed.end(&mut feed, &dead_letter()).await;
    bed.leave(feed).await;
    bed
}

#[tokio::test]
async fn dead_letters_are_told_and_their_cap_is_a_fault() {
    let bed = with_a_letter().await;
    let finding = bed.only("dead-letters.depth").await;
    assert_eq!((finding.severity, finding.text.as_str()), (Severity::Note, "1 dead letter"));
    assert_eq!(finding.mend, "bus-cli dead-letters list --group g");
    let at_cap = RedisOptions { dead_letters_max: 1, ..options(&bed.server) };
    let doctor = RedisDriver::connect(at_cap).await.expect("connects");
    let bed = Bed { doctor, ..bed };
    assert_eq!(bed.only("dead-letters.depth").await.severity, Severity::Fault);
}

#[tokio::test]
async fn a_letter_that_was_forgotten_is_found() {
    let bed = Bed::left().await;
    let old = bed.ago(50 * HOUR);
    bed.server.say(&format!("XADD rm:{{t:0}}:dead:g {old}-0 raw x d y"));
    let finding = bed.only_beside("dead-letters.old", &["dead-letters.depth"]).await;
    assert!(finding.text.contains("2 days"), "{finding:?}");
}

#[tokio::test]
async fn letters_that_come_fast_are_found() {
    let (bed, mut feed) = Bed::live().await;
    let payloads = ["x"; 50];
    for _ in 0..2 {
        bed.append("t:0", &payloads).await;
        bed.end(&mut feed, &dead_letter()).await;
    }
    bed.only_beside("dead-letters.growing", &["dead-letters.depth"]).await;
    bed.leave(feed).await;
}

/// A group that keeps the order of keys: its first event was given up, the second waits for it.
async fn with_a_parked_event() -> Bed {
    let bed = Bed::new().await;
    let mut feed = bed.subscribe(true).await;
    bed.append("t:0", &["1"]).await;
    bed.append("t:0", &["2"]).await;
    bed.end(&mut feed, &dead_letter()).await;
    bed.end(&mut feed, &Outcome::Park).await;
    assert_eq!(bed.server.say("ZCARD rm:{t:0}:parked:g").int(), 1);
    bed.settled().await;
    bed.leave(feed).await;
    bed
}

#[tokio::test]
async fn what_waits_behind_a_dead_letter_is_told() {
    let bed = with_a_parked_event().await;
    let finding = bed.only_beside("parked.waiting", &["dead-letters.depth"]).await;
    assert_eq!(finding.severity, Severity::Note);
    assert!(finding.text.starts_with("1 event on t:0"), "{finding:?}");
}

#[tokio::test]
async fn a_key_that_is_held_by_a_letter_that_is_gone_is_found() {
    let bed = with_a_parked_event().await;
    let letter = bed.server.say("XRANGE rm:{t:0}:dead:g - +").list()[0].list()[0].text();
    bed.server.say(&format!("XDEL rm:{{t:0}}:dead:g {letter}"));
    let finding = bed.only_beside("parked.orphaned", &["parked.waiting"]).await;
    assert_eq!(finding.severity, Severity::Fault);
    bed.mend(&finding);
    assert_eq!(bed.server.say("ZCARD rm:{t:0}:parked:g").int(), 0);
    assert_eq!(bed.server.say("XLEN rm:{t:0}:retry:g").int(), 1);
    bed.only("groups.no-consumer").await;
}
