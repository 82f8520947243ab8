//! `bus-cli topics` against a real server.

#[path = "cli/mod.rs"]
mod cli;
#[path = "ops/mod.rs"]
mod ops;
#[path = "../../tests/server/mod.rs"]
mod server;

use cli::{bare, lines, run};
use ops::Lab;

#[test]
fn topics_are_listed_and_shown() {
    let lab = Lab::new();
    let (out, err, code) = run(&mut lab.cli(&["topics", "list"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("no topic"), "{out}");
    lab.dead("email", 3);

    let table = lines(&mut lab.cli(&["topics", "list"]));
    assert!(table[0].starts_with("TOPIC "), "{table:?}");
    assert!(table[1].starts_with("orders "), "{table:?}");
    assert_eq!(lines(&mut lab.cli(&["topics", "list", "--output", "raw"])), ["orders"]);
    let report = lab.object(&["topics", "list"]);
    assert_eq!(report, lab.object(&["topics", "show", "orders"]));
    assert_eq!(report["topic"], "orders");
    let part = &report["partitions"][0];
    assert_eq!(part["partition"], "orders:0");
    assert!(part["entries"].as_u64().is_some_and(|entries| entries >= 1), "{part}");
    assert_eq!(part["groups"][0]["group"], "email");
    assert_eq!(part["groups"][0]["unread"]["exact"], true);
    let shown = lines(&mut lab.cli(&["topics", "show", "orders"])).join("\n");
    assert!(shown.contains("PARTITION  ENTRIES") && shown.contains("\n\nGROUP  "), "{shown}");
}

#[test]
fn an_unknown_topic_is_1_and_a_bad_one_is_2() {
    let lab = Lab::new();
    let (err, code) = lab.refused(&["topics", "show", "nobody"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.starts_with("error: cannot show the topic: topic nobody is not known\n"), "{err}");
    assert!(err.contains("\n  help: list the topics"), "{err}");
    let (err, code) = lab.refused(&["topics", "show", "no.body"]);
    assert_eq!(code, 2, "{err}");
    assert_eq!(lab.refused(&["topics", "set", "a", "--partitions", "0"]).1, 2);
    assert_eq!(lab.refused(&["topics", "set", "a", "--partitions", "257"]).1, 2);
    assert_eq!(lab.refused(&["topics", "set", "a"]).1, 2);
}

#[test]
fn a_topic_grows_and_never_shrinks() {
    let lab = Lab::new();
    lab.dead("email", 1);
    let before = lab.object(&["topics", "show", "orders"])["partitions"].clone();
    let has = before.as_array().expect("a list").len();
    let more = (has + 2).to_string();
    let set = ["topics", "set", "orders", "--partitions", &more];

    let (err, code) = lab.refused(&set);
    assert_eq!(code, 2, "nobody can be asked: {err}");
    assert!(err.contains("keys move"), "{err}");
    assert!(err.contains("--yes does it unasked"), "{err}");
    let (_, err, code) = run(lab.cli(&set).arg("--dry-run"));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains(&format!("would give topic orders {more} partitions")), "{err}");
    assert_eq!(lab.object(&["topics", "show", "orders"])["partitions"], before, "as it was");

    let change = lab.object(&[&set[..], &["--yes"]].concat());
    assert_eq!((&change["before"], &change["partitions"]), (&has.into(), &(has + 2).into()));
    assert_eq!(change["groups"], serde_json::json!(["email"]));
    let after = lab.object(&["topics", "show", "orders"])["partitions"].clone();
    assert_eq!(after.as_array().map(Vec::len), Some(has + 2));

    let fewer = ["topics", "set", "orders", "--partitions", "1", "--dry-run"];
    let (err, code) = lab.refused(&fewer);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("cannot shrink to 1"), "{err}");
    let (_, err, code) = run(&mut lab.cli(&set));
    assert_eq!(code, 0, "nothing is to be asked: {err}");
    assert!(err.contains("as it is"), "{err}");
}

#[test]
fn a_topic_can_be_made_known_and_flags_have_twins() {
    let lab = Lab::new();
    let mut set = lab.cli(&["topics", "set", "news", "--output", "json"]);
    set.env("BUS_TOPICS_SET_PARTITIONS", "3").env("BUS_TOPICS_SET_YES", "true");
    let made = lines(&mut set);
    assert_eq!(made, [r#"{"topic":"news","before":null,"partitions":3,"groups":[]}"#]);
    assert_eq!(lab.object(&["topics", "list"])["partitions"].as_array().map(Vec::len), Some(3));
}

#[test]
fn an_unreachable_server_is_4_for_each_of_them() {
    // Nothing listens on port 1.
    let cases: &[&[&str]] = &[
        &["topics", "list"],
        &["groups", "show", "email"],
        &["dead-letters", "purge", "--group", "email", "--all", "--yes"],
    ];
    for line in cases {
        let (out, err, code) = run(bare(line).args(["--url", "redis://:hunter22@127.0.0.1:1"]));
        assert_eq!((code, out.as_str()), (4, ""), "{err}");
        assert!(err.contains("\n  help: start the server"), "{err}");
        assert!(!err.contains("hunter22"), "{err}");
    }
}
