//! Files that are not kept, or cannot be written.

use std::fs;

use rumormill::driver::admin::{Severity, Verdict};

use crate::kit::{Ward, setting};

const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

pub(crate) async fn off(id: &str) {
    let ward = Ward::with(&DURABLE).await;
    let bad = (Severity::Risk, "no snapshot is ever made");
    setting(id, ward, ["appendonly", "yes", "no"], bad).await;
}

pub(crate) async fn snapshots_only(id: &str) {
    let ward = Ward::with(&DURABLE).await;
    ward.ask(&["CONFIG", "SET", "save", "3600 1000"]);
    ward.passes(id).await;
    ward.passes("persistence.off").await;
    ward.say("CONFIG SET appendonly no");
    ward.say("SET k v");
    let found = ward.finds(id, Severity::Risk, "1 changes are in memory alone").await;
    assert!(found.text.contains("\"3600 1000\""), "{found:?}");
    ward.passes("persistence.off").await;
}

pub(crate) async fn never_synced(id: &str) {
    let ward = Ward::with(&DURABLE).await;
    let bad = (Severity::Risk, "appendfsync is no");
    setting(id, ward, ["appendfsync", "always", "no"], bad).await;
}

pub(crate) async fn everysec(id: &str) {
    let ward = Ward::with(&DURABLE).await;
    let bad = (Severity::Note, "two seconds");
    setting(id, ward, ["appendfsync", "always", "everysec"], bad).await;
}

pub(crate) async fn rewrite_unsynced(id: &str) {
    let ward = Ward::with(&DURABLE).await;
    let bad = (Severity::Risk, "no-appendfsync-on-rewrite is yes");
    setting(id, ward, ["no-appendfsync-on-rewrite", "no", "yes"], bad).await;
}

/// The file is a device that is always full.
pub(crate) async fn append_fails(id: &str) {
    let ward = Ward::with(&["--appendonly", "no", "--appendfsync", "everysec"]).await;
    ward.passes(id).await;
    let folder = ward.server.path("appendonlydir");
    fs::create_dir(&folder).expect("a folder");
    let file = folder.join("temp-appendonly.aof.incr");
    std::os::unix::fs::symlink("/dev/full", file).expect("a link");
    ward.say("CONFIG SET appendonly yes");
    ward.say("SET k v");
    ward.until(id, |verdict| *verdict != Verdict::Passed).await;
    ward.finds(id, Severity::Fault, "every write is refused").await;
}

/// A file stands where its folder should be.
pub(crate) async fn rewrite_fails(id: &str) {
    let ward = Ward::with(&DURABLE).await;
    ward.passes(id).await;
    let folder = ward.server.path("appendonlydir");
    fs::rename(&folder, ward.server.path("aside")).expect("moved");
    fs::write(&folder, "").expect("a file");
    let _refused = ward.server.try_ask(&["BGREWRITEAOF"]);
    ward.until(id, |verdict| *verdict != Verdict::Passed).await;
    ward.finds(id, Severity::Risk, "the last rewrite").await;
    fs::remove_file(&folder).expect("it is there");
    fs::rename(ward.server.path("aside"), &folder).expect("moved back");
    ward.say("BGREWRITEAOF");
    ward.until(id, |verdict| *verdict == Verdict::Passed).await;
}

/// The folder for snapshots is gone.
pub(crate) async fn snapshot_fails(id: &str) {
    let ward = Ward::with(&["--appendonly", "no", "--enable-protected-configs", "yes"]).await;
    ward.passes(id).await;
    let gone = ward.server.path("gone");
    fs::create_dir(&gone).expect("a folder");
    ward.say(&format!("CONFIG SET dir {}", gone.display()));
    fs::remove_dir(&gone).expect("it is empty");
    let _refused = ward.server.try_ask(&["BGSAVE"]);
    ward.until(id, |verdict| *verdict != Verdict::Passed).await;
    ward.finds(id, Severity::Risk, "the last snapshot failed").await;
    ward.ask(&["CONFIG", "SET", "save", "3600 1000000"]);
    ward.finds(id, Severity::Fault, "every write is refused").await;
    ward.say(&format!("CONFIG SET dir {}", ward.server.path("").display()));
    ward.say("BGSAVE");
    ward.until(id, |verdict| *verdict == Verdict::Passed).await;
}
