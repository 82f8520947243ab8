//! `bus-cli dead-letters` as a workbench: causes, edits, exports, trying a fix; against a real
//! server.

#[path = "cli/mod.rs"]
mod cli;
#[path = "ops/mod.rs"]
mod ops;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::time::Duration;

use cli::{feed, lines, run};
use ops::{Cancelled, Lab, Placed};
use rumormill::{
    Bus, Context, HandlerError, RetryPolicy, Routes, ServiceOptions, Services, Timestamp,
};
use serde_json::{Value, json};

fn email(command: &'static str, more: &[&'static str]) -> Vec<&'static str> {
    [&["dead-letters", command, "--group", "email"], more].concat()
}

fn with<'a>(line: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [line, more].concat()
}

/// Four letters of "no user", two of a spent one with two errors, one of another type.
fn three_causes() -> Lab {
    let lab = Lab::new();
    let retry =
        RetryPolicy { attempts_max: 2, first: Duration::from_millis(1), ..RetryPolicy::default() };
    let options = ServiceOptions { retry, ..ServiceOptions::default() };
    let builder = Bus::builder().url(lab.server.url()).services(Services::none());
    let builder = builder.version("4.5.6");
    let bus = lab.runtime.block_on(builder.build()).expect("the server answers");
    lab.runtime.block_on(async {
        bus.subscribe_routes("email", options, |routes: Routes<()>| {
            routes
                .on_fn(|order: Placed, _: Context| async move {
                    if order.number.is_multiple_of(3) {
                        let cause = std::io::Error::other(format!("port {}", order.number));
                        return Err(cause.into());
                    }
                    Err(HandlerError::reject(format!(
                        "no user {} ('{}')",
                        order.number, order.note
                    )))
                })
                .on_fn(|_: Cancelled, _: Context| async { Err(HandlerError::reject("late")) })
        })
        .await
        .expect("subscribed");
        bus.publish(&Cancelled { number: 9 }).await.expect("stored");
    });
    lab.publish(&bus, 6);
    lab.runtime.block_on(bus.settled()).expect("all is settled");
    lab.leave(&bus);
    lab
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_else(|| panic!("{field} of {object}"))
}

#[test]
fn causes_are_told_apart_and_chosen() {
    let lab = three_causes();
    let causes = lab.json(&email("list", &[]));
    let counts: Vec<_> = causes.iter().map(|cause| cause["count"].as_u64()).collect();
    assert_eq!(counts, [Some(4), Some(2), Some(1)], "{causes:?}");
    assert_eq!(causes[0]["cause"], "rejected");
    assert_eq!(causes[1]["cause"], "attempts_spent");
    assert_eq!(causes[2]["type"], "orders.order.cancelled");
    assert_eq!(causes[0]["handler"], "orders.order.placed");
    // As moments: the text of one has a fraction only where there is one.
    let moment = |field| text(&causes[0], field).parse::<Timestamp>().expect("a moment");
    assert!(moment("first") <= moment("last"));
    let id = text(&causes[1], "example");
    let shown = lab.object(&with(&email("show", &[]), &["--id", id]));
    assert_eq!(shown["fingerprint"], causes[1]["fingerprint"]);
    assert_eq!((&shown["attempts"], &shown["service_version"]), (&json!(2), &json!("4.5.6")));

    let fingerprint = text(&causes[0], "fingerprint");
    let line = with(&email("show", &[]), &["--fingerprint", fingerprint]);
    let pretty = lines(&mut lab.cli(&line)).join("\n");
    assert!(pretty.contains(&format!("fingerprint  {fingerprint}, the last of 4\n")), "{pretty}");
    assert!(pretty.contains("handler      orders.order.placed, version 4.5.6\n"), "{pretty}");
    let exported = lab.json(&with(&email("export", &[]), &["--fingerprint", fingerprint]));
    assert_eq!(exported.len(), 4);
    assert!(exported.iter().all(|letter| letter["fingerprint"] == fingerprint));
    let none = with(&email("show", &[]), &["--fingerprint", "0123456789ab"]);
    let (err, code) = lab.refused(&none);
    assert!(code == 1 && err.contains("no dead letter of fingerprint 0123456789ab"), "{err}");

    let redrive = with(&email("redrive", &["--yes"]), &["--fingerprint", fingerprint]);
    assert_eq!(lab.object(&redrive)["moved"], 4);
    assert_eq!(lab.json(&email("list", &[])).len(), 2);
    let both = format!("{},{}", text(&causes[1], "fingerprint"), text(&causes[2], "fingerprint"));
    let purge = with(&email("purge", &["--yes"]), &["--fingerprint", &both]);
    assert_eq!(lab.object(&purge)["deleted"], 3);
}

#[test]
fn letters_are_chosen_by_their_age() {
    let lab = Lab::new();
    lab.dead("email", 3);
    assert_eq!(lab.json(&email("export", &["--newer-than", "1h"])).len(), 3);
    assert_eq!(lab.json(&email("export", &["--older-than", "1h"])).len(), 0);
    let (_, err, code) = run(&mut lab.cli(&email("redrive", &["--older-than", "1h", "--dry-run"])));
    assert_eq!((code, err.contains("would redrive nothing")), (0, true), "{err}");
    let mixed = email("purge", &["--older-than", "0s", "--newer-than", "1h", "--yes"]);
    assert_eq!(lab.object(&mixed)["deleted"], 3);
}

#[test]
fn a_limit_takes_the_oldest() {
    let lab = Lab::new();
    lab.dead("email", 250);
    let all = lab.letters("email");
    let limited = |command, limit, more| {
        with(&email(command, more), &["--limit", limit]).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(lab.json(&limited("export", "120", &[])).len(), 120);
    assert_eq!(lab.object(&limited("redrive", "3", &["--yes"]))["moved"], 3);
    assert_eq!(lab.letters("email"), all[3..]);
    let chosen = limited("purge", "200", &["--type", "orders.order.placed", "--yes"]);
    assert_eq!(lab.object(&chosen)["deleted"], 200);
    assert_eq!(lab.letters("email"), all[203..]);
    let (err, code) = lab.refused(&limited("purge", "0", &["--yes"]));
    assert!(code == 2 && err.contains("--limit"), "{err}");
    let named = with(&limited("purge", "1", &["--yes"]), &["--id", &all[249]]);
    let (err, code) = lab.refused(&named);
    assert!(code == 2 && err.contains("--id cannot be used with"), "{err}");
}

#[test]
fn a_payload_is_patched_and_the_original_kept() {
    let lab = Lab::new();
    lab.dead("email", 1);
    let id = lab.letters("email").remove(0);
    let patch = |more: &[&'static str]| -> Vec<&str> {
        [&email("edit", more)[..], &["--id", &id]].concat()
    };
    let (out, err, code) = run(&mut lab.cli(&patch(&["--patch", "{\"number\":77}", "--dry-run"])));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("-  \"number\": 0,\n+  \"number\": 77,\n   \"note\": \"n0\""), "{out}");
    assert!(err.contains("would edit dead letter"), "{err}");
    let (err, code) = lab.refused(&patch(&["--patch", "{\"number\":77}"]));
    assert!(code == 2 && err.contains("cannot ask whether to edit"), "{err}");
    assert_eq!(lab.letters("email"), [id.as_str()]);

    let operations = r#"[{"op":"test","path":"/number","value":0},
        {"op":"replace","path":"/number","value":77}]"#;
    let edit = with(&email("edit", &["--yes"]), &["--id", &id, "--patch", operations]);
    let done = lab.object(&edit);
    assert_eq!(done["before"], json!({"number": 0, "note": "n0"}));
    assert_eq!(done["after"], json!({"number": 77, "note": "n0"}));
    let edited = text(&done, "edited").to_owned();
    assert_eq!(lab.letters("email"), [edited.as_str()]);
    let shown = lab.object(&with(&email("show", &[]), &["--id", &edited]));
    assert_eq!(shown["original"], done["before"]);
    assert_eq!(shown["event"]["data"], done["after"]);
    assert_eq!(shown["event"]["content_type"], "application/msgpack");
    let pretty = lines(&mut lab.cli(&with(&email("show", &[]), &["--id", &edited]))).join("\n");
    assert!(pretty.contains("\noriginal     17 bytes, before it was edited\n  {"), "{pretty}");

    let (err, code) = lab.refused(&edit);
    assert!(code == 1 && err.contains("has no dead letter"), "the old id is gone: {err}");
    let wrong = with(&email("edit", &["--yes"]), &["--id", &edited, "--patch", operations]);
    let (err, code) = lab.refused(&wrong);
    assert!(code == 1 && err.contains("cannot edit dead letter"), "its test fails: {err}");

    let all = email("redrive", &["--all", "--yes"]);
    assert_eq!(lab.object(&all)["moved"], 1);
    let bus = lab.bus();
    let (sender, mut seen) = tokio::sync::mpsc::channel(1);
    lab.runtime.block_on(async {
        bus.subscribe("email", move |order: Placed, _: Context| {
            let sender = sender.clone();
            async move { Ok(sender.send(order.number).await?) }
        })
        .await
        .expect("subscribed");
        assert_eq!(seen.recv().await, Some(77), "the handler gets what was edited");
    });
    lab.leave(&bus);
}

#[test]
fn a_payload_is_changed_in_the_users_editor() {
    let lab = Lab::new();
    lab.dead("email", 1);
    let id = lab.letters("email").remove(0);
    let line = with(&email("edit", &["--yes", "--output", "json"]), &["--id", &id]);
    let (out, err, code) = run(lab.cli(&line).env("PATH", path()).env("EDITOR", "true"));
    assert_eq!(code, 0, "{err}");
    let same: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&same["edited"], &same["before"]), (&Value::Null, &same["after"]));
    let (_, err, code) = run(lab.cli(&line).env("PATH", path()).env("EDITOR", "false"));
    assert!(code == 1 && err.contains("nothing was done: false ended with"), "{err}");
    let spoil = "sed -i s/}//";
    let (_, err, code) = run(lab.cli(&line).env("PATH", path()).env("EDITOR", spoil));
    assert!(
        code == 1 && err.contains("it is no JSON") && err.contains("what you wrote is in "),
        "{err}"
    );
    let kept = err.split("what you wrote is in ").nth(1).expect("a path").lines().next();
    std::fs::remove_file(kept.expect("a path").trim()).expect("it was kept");
    assert_eq!(lab.letters("email"), [id.as_str()], "nothing was done");
    let mend = "sed -i s/n0/mended/";
    let (out, err, code) = run(lab.cli(&line).env("PATH", path()).env("EDITOR", mend));
    assert_eq!(code, 0, "{err}");
    let done: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(done["after"], json!({"number": 0, "note": "mended"}));
}

fn path() -> String {
    std::env::var("PATH").expect("a path")
}

#[test]
fn what_json_cannot_show_is_not_edited() {
    let lab = Lab::new();
    let bus = lab.rejecting("email");
    let payload = "{\"number\":1,\"note\":\"x\"} ";
    let entry = ["XADD", "rm:{orders:0}:log", "*", "type", "orders.order.placed", "data", payload];
    lab.publish(&bus, 1);
    lab.server.ask(&entry);
    lab.until("email", |count| count == 2);
    lab.leave(&bus);
    let letters = lab.json(&email("export", &[]));
    let odd = letters.iter().find(|letter| letter["event"]["data"].is_null()).expect("base64");
    let id = text(odd, "dead_letter");
    let line = with(&email("edit", &["--yes", "--patch", "{}"]), &["--id", id]);
    let (err, code) = lab.refused(&line);
    assert_eq!(code, 1);
    assert!(err.contains("JSON cannot show its application/json without loss"), "{err}");
}

#[test]
fn letters_go_to_a_file_and_come_back_once() {
    let lab = three_causes();
    let before = lines(&mut lab.cli(&email("export", &[])));
    assert_eq!(before.len(), 7);
    let import = email("import", &["-"]);
    let feed_json = |input: &str| {
        let (out, err, code) = feed(lab.cli(&import).args(["--output", "json"]), input);
        let report: Value = serde_json::from_str(&out).expect("JSON");
        ((report["added"].as_u64(), report["present"].as_u64(), code), err)
    };
    let file = before.join("\n");
    assert_eq!(feed_json(&file).0, (Some(0), Some(7), 0), "all are there");
    let fingerprint = lab.json(&email("list", &[]))[0]["fingerprint"].clone();
    let purge =
        with(&email("purge", &["--yes"]), &["--fingerprint", fingerprint.as_str().expect("text")]);
    assert_eq!(lab.object(&purge)["deleted"], 4);
    let (out, _, _) = feed(lab.cli(&import).arg("--dry-run"), &file);
    assert_eq!(out, "4 dead letters to be imported, 3 there already\n");
    assert_eq!(lab.letters("email").len(), 3, "nothing was done");
    let twice = format!("{file}\n\n{file}\n");
    assert_eq!(feed_json(&twice).0, (Some(4), Some(10), 0));
    assert_eq!(feed_json(&file).0, (Some(0), Some(7), 0), "once more changes nothing");
    let essence = |lines: &[String]| {
        let mut letters: Vec<Value> =
            lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        for letter in &mut letters {
            let letter = letter.as_object_mut().expect("an object");
            let id = letter.remove("dead_letter").expect("an id");
            let first = letter
                .remove("first_id")
                .map(|id| format!("orders:0/{}", id.as_str().expect("text")));
            letter.insert("first".to_owned(), first.map_or(id, Value::String));
        }
        letters.sort_by_key(Value::to_string);
        letters
    };
    let after = lines(&mut lab.cli(&email("export", &[])));
    assert_eq!(essence(&after), essence(&before), "whole, whatever way it took");

    let purged = lab.object(&email("purge", &["--all", "--yes"]));
    assert_eq!(purged["deleted"], 7);
    let broken = format!("{}\n{}\n{{}}\n", before[0], before[1]);
    let ((added, _, code), err) = feed_json(&broken);
    assert!(err.contains("line 3 of - is no dead letter: missing field"), "{err}");
    assert_eq!((added, code), (Some(0), 1), "nothing of an unfinished step");
    let strange = before[0].replace("\"dead_letter\":\"orders:0/", "\"dead_letter\":\"other:0/");
    let (_, err) = feed_json(&strange);
    assert!(err.contains("group email does not read other:0"), "{err}");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("letters.ndjson");
    std::fs::write(&path, &file).expect("a file");
    let path = path.to_str().expect("text");
    assert_eq!(lab.object(&with(&email("import", &[]), &[path]))["added"], 7);
    assert_eq!(lab.refused(&email("import", &["/none"])).1, 1);
    let sum = lab.object(&email("redrive", &["--all", "--yes"]));
    assert_eq!(sum["moved"], 7, "what was imported can be redriven");
}

#[test]
fn a_fix_is_tried_on_a_local_process() {
    let lab = three_causes();
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    let command = format!(
        "read -r line; echo \"$line\" >> {0}; echo noise; case \"$line\" in *n4*) exit 7;; esac",
        log.display()
    );
    let line = email("redrive", &["--type", "orders.*.placed", "--into"]);
    let line = with(&line, &[&command, "--output", "json"]);
    let (out, err, code) = run(lab.cli(&line).env("PATH", path()));
    assert_eq!(code, 3, "one of six failed: {err}");
    assert!(err.contains("noise") && err.contains("5 of 6 dead letters handled"), "{err}");
    let answers: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), 6);
    let failed: Vec<_> = answers.iter().filter(|answer| answer["result"] == "failed").collect();
    assert_eq!((failed.len(), &failed[0]["exit"]), (1, &json!(7)));
    let seen = std::fs::read_to_string(&log).expect("it ran");
    let events: Vec<Value> =
        seen.lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect();
    assert_eq!(events.len(), 6);
    assert!(events.iter().all(|event| event["type"] == "orders.order.placed"));
    assert_eq!(lab.letters("email").len(), 7, "they stay where they are");

    let all = |command: &'static str| email("redrive", &["--all", "--into", command]);
    let (out, _, code) = run(lab.cli(&all("true")).env("PATH", path()));
    assert_eq!((code, out.lines().filter(|line| line.ends_with("  exit 0")).count()), (0, 7));
    assert_eq!(run(lab.cli(&all("kill -9 $$")).env("PATH", path())).2, 1, "none was handled");
    let (_, err, code) = run(lab.cli(&with(&all("false"), &["--dry-run"])).env("PATH", path()));
    assert!(code == 0 && err.contains("would run \"false\" for 7 dead letters"), "{err}");
    assert_eq!(lab.letters("email").len(), 7);
}

#[test]
fn depth_and_age_are_shown_with_the_group() {
    let lab = Lab::new();
    lab.dead("email", 2);
    let table = lines(&mut lab.cli(&["groups", "list"]));
    assert!(table[0].contains("DEAD  OLDEST"), "{table:?}");
    assert!(table[1].contains("  2  ") && table[1].contains(" ago"), "{table:?}");
    let shown = lines(&mut lab.cli(&["groups", "show", "email"]));
    assert!(shown[0].contains("  DEAD  SINCE  ") && shown[1].contains("s ago  "), "{shown:?}");
    let report = lab.object(&["groups", "show", "email"]);
    assert!(report["partitions"][0]["dead"]["first_time"].is_string(), "{report}");
}

/// Handles the orders of one note in order, but for one that it rejects while `broken`.
fn parking(lab: &Lab, broken: bool) -> (Bus, tokio::sync::mpsc::Receiver<u64>) {
    let bus = lab.bus();
    let (say, said) = tokio::sync::mpsc::channel(64);
    let options = ServiceOptions { park_keys: true, ..ServiceOptions::default() };
    let subscribed = bus.subscribe_routes("email", options, |routes: Routes<()>| {
        routes.on_fn(move |order: Placed, _: Context| {
            let say = say.clone();
            async move {
                if broken && order.number == 1 {
                    return Err(HandlerError::reject("not this one"));
                }
                Ok(say.send(order.number).await?)
            }
        })
    });
    lab.runtime.block_on(subscribed).expect("subscribed");
    (bus, said)
}

#[test]
fn what_a_letter_parks_is_counted_and_goes_with_it() {
    let lab = Lab::new();
    let (bus, mut said) = parking(&lab, true);
    lab.runtime.block_on(async {
        for number in 0..5 {
            bus.publish(&Placed { number, note: "one key".to_owned() }).await.expect("stored");
        }
        bus.publish(&Placed { number: 5, note: "another".to_owned() }).await.expect("stored");
        bus.settled().await.expect("all is settled");
    });
    lab.leave(&bus);
    let mut handled: Vec<u64> = std::iter::from_fn(|| said.try_recv().ok()).collect();
    handled.sort_unstable();
    assert_eq!(handled, [0, 5], "what came later waits");
    let table = lines(&mut lab.cli(&email("list", &[])));
    let last = table.last().expect("a line");
    assert_eq!(last, "3 events parked: they wait for a letter of their key");
    let report = lab.object(&["groups", "show", "email"]);
    assert_eq!(report["partitions"][0]["parked"], 3);
    let shown = lines(&mut lab.cli(&["groups", "show", "email"]));
    assert!(shown[0].ends_with("PARKED") && shown[1].ends_with("     3"), "{shown:?}");

    assert_eq!(lab.object(&email("redrive", &["--all", "--yes"]))["moved"], 1);
    let (bus, mut said) = parking(&lab, false);
    lab.runtime.block_on(async {
        bus.publish(&Placed { number: 6, note: "one key".to_owned() }).await.expect("stored");
        for number in [1, 2, 3, 4, 6] {
            assert_eq!(said.recv().await, Some(number), "in the order of the key");
        }
        bus.settled().await.expect("all is settled");
    });
    lab.leave(&bus);
    assert_eq!(lab.object(&["groups", "show", "email"])["partitions"][0]["parked"], 0);

    let (bus, mut said) = parking(&lab, true);
    lab.runtime.block_on(async {
        for number in 1..4 {
            bus.publish(&Placed { number, note: "one key".to_owned() }).await.expect("stored");
        }
        bus.settled().await.expect("all is settled");
        assert!(said.try_recv().is_err());
    });
    assert_eq!(lab.object(&email("purge", &["--all", "--yes"]))["deleted"], 1);
    lab.runtime.block_on(async {
        for number in [2, 3] {
            assert_eq!(said.recv().await, Some(number), "the letter is dropped");
        }
    });
    lab.leave(&bus);
}
