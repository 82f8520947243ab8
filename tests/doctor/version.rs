//! What a version is known for, and commands that are not there.

use rumormill::driver::admin::{Severity, Verdict};

use crate::kit::Ward;

/// The table itself is tested beside it: a server has one version.
pub(crate) async fn holes(id: &str) {
    let ward = Ward::with(&[]).await;
    let store = ward.look().await.store;
    let verdict = ward.verdict(id).await;
    let ids: Vec<_> =
        verdict.findings().iter().filter_map(|finding| finding.subject.as_deref()).collect();
    assert!(!matches!(verdict, Verdict::Unknown(_)), "{verdict:?}");
    match (store.name.as_str(), store.version.as_str()) {
        ("Redis", "7.0.15") => {
            let holes = ["CVE-2024-31449", "CVE-2024-46981", "CVE-2025-21605", "CVE-2025-49844"];
            assert_eq!(ids, holes);
            assert!(verdict.findings()[3].mend.contains("7.2.11"), "{verdict:?}");
        }
        ("Redis", "8.2.3") => assert_eq!(ids, ["CVE-2026-23479"]),
        _ => assert!(!ids.contains(&"CVE-2022-35951"), "{store:?}: {ids:?}"),
    }
}

pub(crate) async fn unmaintained(id: &str) {
    let ward = Ward::with(&[]).await;
    let store = ward.look().await.store;
    if store.name == "Redis" && store.version.starts_with("7.0.") {
        ward.finds(id, Severity::Note, "7.0.15 of January 2024").await;
    } else {
        ward.passes(id).await;
    }
}

pub(crate) async fn commands(id: &str) {
    let ward = Ward::with(&["--rename-command", "XCLAIM", ""]).await;
    let findings = ward.findings(id).await;
    assert_eq!(findings[0].severity, Severity::Fault, "{findings:?}");
    assert_eq!(findings[0].text, "the server does not know XCLAIM");
    let ward = Ward::with(&[]).await;
    let verdict = ward.verdict(id).await;
    assert!(verdict.findings().iter().all(|finding| finding.severity == Severity::Note));
    let is_new = ward.look().await.store.version.starts_with("8.2");
    assert_eq!(verdict == Verdict::Passed, is_new, "{verdict:?}");
}
