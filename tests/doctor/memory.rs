//! Room that is not there, or taken from the logs.

use rumormill::driver::admin::Severity;

use crate::kit::{Ward, mend, setting};

async fn ward() -> Ward {
    Ward::with(&["--maxmemory", "256mb"]).await
}

pub(crate) async fn evicts(id: &str) {
    let ward = ward().await;
    ward.passes(id).await;
    ward.say("CONFIG SET maxmemory-policy allkeys-lru");
    let found = ward.finds(id, Severity::Risk, "maxmemory-policy is allkeys-lru").await;
    ward.say("CONFIG SET maxmemory 0");
    ward.finds(id, Severity::Note, "while maxmemory is 0").await;
    mend(&ward, &found);
    ward.passes(id).await;
}

pub(crate) async fn evicted(id: &str) {
    let ward = ward().await;
    ward.passes(id).await;
    ward.say("CONFIG SET maxmemory-policy allkeys-lru");
    let room = ward.number("used_memory") + 300_000;
    ward.say(&format!("CONFIG SET maxmemory {room}"));
    let value = "x".repeat(10_000);
    for number in 0..100 {
        ward.ask(&["SET", &format!("filler:{number}"), &value]);
    }
    let keys = ward.number("evicted_keys");
    assert!(keys > 0);
    ward.finds(id, Severity::Fault, &format!("{keys} keys were evicted")).await;
    ward.say("CONFIG SET maxmemory 256mb");
    ward.say("CONFIG RESETSTAT");
    ward.passes(id).await;
}

pub(crate) async fn no_limit(id: &str) {
    let bad = (Severity::Note, "maxmemory is 0");
    setting(id, ward().await, ["maxmemory", "256mb", "0"], bad).await;
}

pub(crate) async fn nearly_full(id: &str) {
    let ward = ward().await;
    ward.passes(id).await;
    // Room enough that what the look itself takes does not fill it.
    let value = "x".repeat(20 << 20);
    ward.ask(&["SET", "filler", &value]);
    let used = ward.number("used_memory");
    ward.say(&format!("CONFIG SET maxmemory {}", used / 100 * 106));
    let found = ward.finds(id, Severity::Risk, "are used").await;
    ward.say("CONFIG SET maxmemory 10mb");
    ward.finds(id, Severity::Fault, "of 10 MiB are used").await;
    mend(&ward, &found);
    ward.passes(id).await;
}

pub(crate) async fn beyond_host(id: &str) {
    let bad = (Severity::Risk, "the machine has");
    setting(id, ward().await, ["maxmemory", "256mb", "100000gb"], bad).await;
}
