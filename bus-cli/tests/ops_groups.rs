//! `bus-cli groups` against a real server.

#[path = "cli/mod.rs"]
mod cli;
#[path = "ops/mod.rs"]
mod ops;
#[path = "../../tests/server/mod.rs"]
mod server;

use cli::{lines, run};
use ops::Lab;
use serde_json::Value;

/// The sum of a number over the partitions of a plan.
fn sum(plan: &Value, field: &str) -> u64 {
    let parts = plan["partitions"].as_array().expect("a list");
    parts.iter().map(|part| part[field]["count"].as_u64().expect("a count")).sum()
}

fn unread(lab: &Lab, group: &str) -> u64 {
    sum(&lab.object(&["groups", "show", group]), "unread")
}

#[test]
fn groups_are_listed_and_shown() {
    let lab = Lab::new();
    let (out, err, code) = run(&mut lab.cli(&["groups", "list"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("no group"), "{out}");
    lab.dead("email", 3);
    let bus = lab.rejecting("push");
    lab.runtime.block_on(bus.settled()).expect("all is settled");

    assert_eq!(lines(&mut lab.cli(&["groups", "list", "--output", "raw"])), ["email", "push"]);
    let table = lines(&mut lab.cli(&["groups", "list"]));
    assert!(table[0].starts_with("GROUP ") && table[1].starts_with("email "), "{table:?}");
    let reports = lab.json(&["groups", "list"]);
    assert_eq!(reports.len(), 2);
    let dead = |report: &Value| -> u64 {
        let parts = report["partitions"].as_array().expect("a list");
        parts.iter().map(|part| part["dead"]["count"].as_u64().expect("a count")).sum()
    };
    assert_eq!(dead(&reports[0]), 3);
    let push = lab.object(&["groups", "show", "push"]);
    assert_eq!(push["consumers"][0]["live"], true);
    assert_eq!(push["routes"][0]["pattern"], "orders.order.placed");
    let shown = lines(&mut lab.cli(&["groups", "show", "push"])).join("\n");
    for part in ["PARTITION ", "\n\nROUTE ", "\n\nCONSUMER ", " live "] {
        assert!(shown.contains(part), "{part:?}: {shown}");
    }
    lab.leave(&bus);
}

#[test]
fn what_is_not_known_is_1_and_what_is_not_said_is_2() {
    let lab = Lab::new();
    lab.dead("email", 1);
    for line in [&["groups", "show", "nobody"][..], &["groups", "seek", "nobody", "--end", "-y"]] {
        let (err, code) = lab.refused(line);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("group nobody is not known"), "{err}");
        assert!(err.contains("\n  help: list the groups"), "{err}");
    }
    let seek = |more: &[&str]| lab.refused(&[&["groups", "seek", "email"], more].concat());
    assert_eq!(seek(&["--end", "--partition", "orders:999", "--yes"]).1, 1);
    let cases: &[(&[&str], &str)] = &[
        (&[], "nothing says where"),
        (&["--end", "--beginning"], "--beginning cannot be used with --end"),
        (&["--to-id", "x"], "entry id \"x\""),
        (&["--to-time", "yesterday"], "2026-01-02T03:04:05Z"),
        (&["--end", "--partition", "orders"], "--partition"),
    ];
    for (more, expected) in cases {
        let (err, code) = seek(more);
        assert_eq!(code, 2, "{more:?}: {err}");
        assert!(err.contains(expected), "{more:?}: {err}");
    }
}

#[test]
fn a_group_is_moved_back_and_forth() {
    let lab = Lab::new();
    lab.dead("email", 5);
    let entries = {
        let topic = lab.object(&["topics", "show", "orders"]);
        let parts = topic["partitions"].as_array().expect("a list").clone();
        parts.iter().map(|part| part["entries"].as_u64().expect("a count")).sum::<u64>()
    };
    assert!(entries >= 1);
    assert_eq!(unread(&lab, "email"), 0);
    let seek = |more: &[&'static str]| [&["groups", "seek", "email"][..], more].concat();

    let plan = lab.object(&seek(&["--beginning", "--dry-run"]));
    assert_eq!((sum(&plan, "repeats"), sum(&plan, "skips")), (entries, 0));
    let (err, code) = lab.refused(&seek(&["--beginning"]));
    assert_eq!(code, 2, "nobody can be asked: {err}");
    let expected = format!("repeats {entries} and skips 0 entries");
    assert!(err.contains(&expected), "{err}");
    assert_eq!(unread(&lab, "email"), 0, "nothing was done");

    let table = lines(&mut lab.cli(&seek(&["--beginning", "--yes"])));
    assert!(table[0].starts_with("PARTITION "), "{table:?}");
    assert!(table.last().is_some_and(|line| line.starts_with("moved group email")), "{table:?}");
    assert_eq!(unread(&lab, "email"), entries);
    let report = lab.object(&seek(&["--end", "--yes"]));
    assert_eq!(report["group"], "email");
    assert_eq!(unread(&lab, "email"), 0);

    let report = lab.object(&seek(&["--to-time", "1h", "--yes"]));
    assert!(report["partitions"][0]["to"].is_string(), "{report}");
    assert_eq!(unread(&lab, "email"), entries);
    let (_, err, code) = run(&mut lab.cli(&seek(&["--to-time", "1h", "--end"])));
    assert_eq!(code, 2, "{err}");
    lab.object(&seek(&["--end", "--yes"]));
    let (_, err, code) = run(&mut lab.cli(&seek(&["--end"])));
    assert_eq!(code, 0, "nothing is to be asked: {err}");
    assert!(err.contains("nothing to move"), "{err}");
}

#[test]
fn an_id_is_where_the_group_goes_on() {
    let lab = Lab::new();
    lab.dead("email", 1);
    let topic = lab.object(&["topics", "show", "orders"]);
    let parts = topic["partitions"].as_array().expect("a list");
    let part = parts.iter().find(|part| part["last"].is_string()).expect("it holds the event");
    let id = part["last"].as_str().expect("an id");
    let partition = part["partition"].as_str().expect("a partition");
    let line = ["groups", "seek", "email", "--to-id", id, "--partition", partition];
    let report = lab.object(&[&line[..], &["--yes"]].concat());
    assert_eq!(report["partitions"].as_array().map(Vec::len), Some(1));
    assert_eq!(unread(&lab, "email"), 1, "the entry itself is read again");
    let (out, _, code) = run(lab.cli(&line).arg("--dry-run"));
    assert_eq!(code, 0);
    assert!(out.contains(&format!(" at {id} ")), "{out}");
}

#[test]
fn a_group_at_work_is_not_moved_unless_it_is_forced() {
    let lab = Lab::new();
    let bus = lab.rejecting("email");
    lab.publish(&bus, 2);
    lab.runtime.block_on(bus.settled()).expect("all is settled");
    let line = ["groups", "seek", "email", "--beginning", "--yes"];
    let (err, code) = lab.refused(&line);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("it has live consumers: "), "{err}");
    assert!(err.contains("--force"), "{err}");
    assert_eq!(lab.letters("email").len(), 2, "nothing was repeated");
    let report = lab.object(&[&line[..], &["--force"]].concat());
    assert_eq!(report["partitions"][0]["to"], "0-0");
    lab.runtime.block_on(bus.settled()).expect("all is settled");
    lab.leave(&bus);
}
