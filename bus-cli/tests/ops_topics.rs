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
fn limits_are_set_kept_and_taken_back() {
    let lab = Lab::new();
    lab.dead("email", 1);
    let retention = || lab.object(&["topics", "show", "orders"])["retention"].clone();
    let day = 24 * 60 * 60 * 1000;
    assert_eq!(retention()["set"]["keep_ms"], serde_json::Value::Null);
    assert_eq!(
        [&retention()["keep_ms"], &retention()["keep_bytes"], &retention()["cap_bytes"]],
        [&day.into(), &(256 << 20).into(), &(1_u64 << 30).into()] as [&serde_json::Value; 3]
    );

    // What others wrote about the topic stays.
    let written = r#"{"partitions":1,"owner":"shop"}"#;
    lab.server.ask(&["HSET", "rm:topics", "orders", written]);
    let set = ["topics", "set", "orders", "--keep", "90m", "--cap-bytes", "2GiB"];
    let (_, err, code) = run(lab.cli(&set).arg("--dry-run"));
    assert_eq!(code, 0, "{err}");
    let would = "would keep what is settled of topic orders for 1h 30m, up to the default, with a \
                 cap of 2.0 GiB per partition on ";
    assert!(err.contains(would), "{err}");
    assert_eq!(retention()["set"]["keep_ms"], serde_json::Value::Null, "as it was");
    assert_eq!(lab.refused(&set).1, 2, "nobody can be asked");

    let changed = lab.object(&[&set[..], &["--yes"]].concat());
    let limits = r#"{"keep_ms":5400000,"keep_bytes":null,"cap_bytes":2147483648}"#;
    assert_eq!(changed["limits"], serde_json::from_str::<serde_json::Value>(limits).expect("JSON"));
    assert_eq!(changed["partitions"], 1);
    assert_eq!(retention()["set"], changed["limits"]);
    assert_eq!(retention()["keep_ms"], 5_400_000);
    let back = ["topics", "set", "orders", "--keep", "default", "--partitions", "2", "--yes"];
    let changed = lab.object(&back);
    assert_eq!(changed["limits"]["keep_ms"], serde_json::Value::Null);
    assert_eq!(changed["limits"]["cap_bytes"], 2_147_483_648_u64, "what is not named stays");
    assert_eq!(changed["partitions"], 2);
    let now = lab.server.ask(&["HGET", "rm:topics", "orders"]).text();
    let now: serde_json::Value = serde_json::from_str(&now).expect("JSON");
    let expected = r#"{"partitions":2,"owner":"shop","cap_bytes":2147483648}"#;
    assert_eq!(now, serde_json::from_str::<serde_json::Value>(expected).expect("JSON"));
    let (_, err, code) = run(&mut lab.cli(&["topics", "set", "orders", "--cap-bytes", "2GiB"]));
    assert_eq!(code, 0, "nothing is to be asked: {err}");
}

#[test]
fn limits_that_cannot_work_are_refused() {
    let lab = Lab::new();
    lab.dead("email", 1);
    let (err, code) = lab.refused(&["topics", "set", "orders"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("nothing is to be set"), "{err}");
    for bad in ["1GB", "0", "x"] {
        let (err, code) = lab.refused(&["topics", "set", "orders", "--keep-bytes", bad]);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains("--keep-bytes"), "{err}");
    }
    let crossed = ["--keep-bytes", "2GiB", "--cap-bytes", "1GiB", "--yes"];
    let (err, code) = lab.refused(&[&["topics", "set", "orders"], &crossed[..]].concat());
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("below"), "{err}");
    let (err, code) = lab.refused(&["topics", "set", "nobody", "--keep", "1h", "--yes"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("topic nobody is not known"), "{err}");
}

#[test]
fn show_says_who_holds_how_much_and_why() {
    let lab = Lab::new();
    lab.dead("email", 3);
    let log = "rm:{orders:0}:log";
    let entries = lab.server.ask(&["XLEN", log]).int();
    for name in ["stuck", "late", "left"] {
        lab.server.ask(&["XGROUP", "CREATE", log, name, "0"]);
    }
    let read = ["XREADGROUP", "GROUP", "stuck", "worker-7", "COUNT", "1", "STREAMS", log, ">"];
    lab.server.ask(&read);
    let long_ago = r#"{"version":1,"seen":1000}"#;
    lab.server.ask(&["HSET", "rm:routes:left", "orders.>", long_ago]);
    lab.server.ask(&["HSET", "rm:{orders:0}:dropped", "late", "17"]);

    let report = lab.object(&["topics", "show", "orders"]);
    let groups = report["partitions"][0]["groups"].as_array().expect("a list").clone();
    let of = |name: &str| groups.iter().find(|group| group["group"] == name).expect("it is there");
    assert_eq!(of("email")["holds"]["why"], "settled");
    assert_eq!(of("email")["holds"]["entries"]["count"], 0);
    assert!(of("email")["holds"]["last_seen"].is_string(), "{groups:?}");
    assert_eq!(of("late")["holds"]["why"], "unread");
    assert_eq!(of("late")["holds"]["entries"]["count"], entries);
    assert_eq!(of("late")["holds"]["foreign"], true);
    assert_eq!((&of("late")["dropped"], &of("stuck")["dropped"]), (&17.into(), &0.into()));
    assert_eq!(of("stuck")["holds"]["why"], "pending");
    assert_eq!(of("stuck")["holds"]["consumer"], "worker-7");
    assert_eq!(of("stuck")["holds"]["entries"]["count"], entries);
    let first = report["partitions"][0]["first"].clone();
    assert_eq!(of("stuck")["holds"]["oldest"], first);
    assert_eq!(of("left")["holds"]["why"], "gone");
    assert_eq!(of("left")["holds"]["entries"]["count"], 0);

    let shown = lines(&mut lab.cli(&["topics", "show", "orders"])).join("\n");
    for words in ["pending at worker-7", "another program's group", "gone, last seen"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(shown.contains("settled entries are kept for 1d 0h (default), up to"), "{shown}");
}

#[test]
fn a_group_without_a_live_member_is_told_from_one_that_lives() {
    let lab = Lab::new();
    lab.dead("email", 1);
    let bus = lab.bus();
    lab.publish(&bus, 1);
    lab.leave(&bus);
    let report = lab.object(&["topics", "show", "orders"]);
    let holds = &report["partitions"][0]["groups"][0]["holds"];
    assert_eq!(holds["why"], "unread");
    assert!(holds["until"].is_string(), "{holds}");
    let shown = lines(&mut lab.cli(&["topics", "show", "orders"])).join("\n");
    assert!(shown.contains("unread, no live member since"), "{shown}");
    assert!(shown.contains("stops holding in 6d 23h"), "{shown}");
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
