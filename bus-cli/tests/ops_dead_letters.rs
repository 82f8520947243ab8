//! `bus-cli dead-letters` against a real server.

#[path = "cli/mod.rs"]
mod cli;
#[path = "ops/mod.rs"]
mod ops;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::io::Read;
use std::process::{Command, Stdio};

use cli::{lines, run};
use ops::{Cancelled, Lab};
use rumormill::{Context, HandlerError};

fn email(command: &'static str) -> [&'static str; 4] {
    ["dead-letters", command, "--group", "email"]
}

/// Two kinds of dead letters: three orders and a cancellation.
fn two_kinds() -> Lab {
    let lab = Lab::new();
    lab.dead("email", 3);
    let bus = lab.bus();
    lab.runtime.block_on(async {
        let reject = |_: Cancelled, _: Context| async { Err(HandlerError::reject("too late")) };
        bus.subscribe("email", reject).await.expect("subscribed");
        bus.publish(&Cancelled { number: 9 }).await.expect("stored");
        bus.settled().await.expect("all is settled");
    });
    lab.leave(&bus);
    lab
}

#[test]
fn letters_are_listed_by_cause_and_one_by_one() {
    let lab = two_kinds();
    let table = lines(&mut lab.cli(&email("list")));
    assert!(table[0].starts_with("FINGERPRINT "), "{table:?}");
    assert_eq!(table.len(), 3, "{table:?}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&table[1])[1..4], ["3", "rejected", "orders.order.placed"]);
    assert_eq!(words(&table[2])[1..4], ["1", "rejected", "orders.order.cancelled"]);
    assert!(table[1].ends_with("no such \\u001b[31m customer"), "{table:?}");

    let letters = lab.json(&email("export"));
    assert_eq!(letters.len(), 4);
    let placed: Vec<_> =
        letters.iter().filter(|letter| letter["event"]["type"] == "orders.order.placed").collect();
    let (letter, event) = (placed[0], &placed[0]["event"]);
    assert_eq!((&letter["cause"], &letter["attempts"]), (&"rejected".into(), &1.into()));
    assert_eq!(letter["errors"][0], "no such \u{1b}[31m customer");
    assert_eq!(letter["origin"], event["position"]);
    assert_eq!(letter["handler"], "orders.order.placed");
    assert!(event["data"]["number"].is_u64() && event["key"].is_string(), "{letter}");
    for field in ["first_seen", "given_up", "consumer", "dead_letter", "fingerprint", "host"] {
        assert!(letter[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {letter}");
    }
    let ids: Vec<&str> = letters.iter().filter_map(|line| line["dead_letter"].as_str()).collect();
    assert_eq!(lab.letters("email"), ids);
    let typed = [&email("export")[..], &["--type", "*.*.cancelled"]].concat();
    assert_eq!(lab.json(&typed).len(), 1);
    let twin = || lab.cli(&["dead-letters", "list", "--output", "raw"]);
    assert_eq!(lines(twin().env("BUS_DEAD_LETTERS_LIST_GROUP", "email")).len(), 4);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("bus.toml");
    let text = "[dead_letters.list]\ngroup = \"email\"\ntype = \"*.*.cancelled\"\n";
    std::fs::write(&file, text).expect("a file");
    assert_eq!(lines(twin().env("BUS_CONFIG", &file)).len(), 1);
}

#[test]
fn a_letter_is_shown_whole_and_harmless() {
    let lab = Lab::new();
    lab.dead("email", 1);
    let id = lab.letters("email").remove(0);
    let line = [&email("show")[..], &["--id", &id]].concat();
    let shown = lines(&mut lab.cli(&line)).join("\n");
    for part in [
        &format!("dead letter  {id}\nfingerprint  ")[..],
        " after 1 attempt\nfirst seen   2",
        "\nhandler      orders.order.placed, version ?\nconsumer     email.",
        "\ncause        rejected\nerror        no such \\u001b[31m customer\norigin       orders:",
        "\nevent        orders.order.placed\nid           ",
        "\npayload      application/msgpack, 17 bytes\n  {\n    \"number\": 0,\n",
    ] {
        assert!(shown.contains(part), "{part:?}: {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    assert_eq!(lab.object(&line)["dead_letter"], id.as_str());
    let raw = lab.cli(&line).args(["--output", "raw"]).output().expect("it runs");
    assert_eq!(raw.stdout, b"\x82\xa6number\x00\xa4note\xa2n0\n", "the payload, as MessagePack");
}

#[test]
fn what_is_no_event_is_shown_and_stays() {
    let lab = Lab::new();
    let bus = lab.rejecting("email");
    lab.publish(&bus, 1);
    lab.server.ask(&["XADD", "rm:{orders:0}:log", "*", "odd\u{1b}", "a\nb"]);
    lab.runtime.block_on(bus.settled()).expect("all is settled");
    lab.until("email", |count| count == 2);
    lab.leave(&bus);
    let letters = lab.json(&email("export"));
    assert_eq!(letters.len(), 2);
    let odd = letters.iter().find(|letter| letter["cause"] == "malformed").expect("it is there");
    assert_eq!(odd["fields"][0]["name"], "odd\u{1b}");
    let id = odd["dead_letter"].as_str().expect("an id");
    let shown = lines(&mut lab.cli(&[&email("show")[..], &["--id", id]].concat())).join("\n");
    assert!(shown.contains("  odd\\u001b: a\\u000ab"), "{shown}");

    let (out, err, code) = run(lab.cli(&email("redrive")).args(["--all", "--yes"]));
    assert_eq!(code, 3, "{err}");
    assert_eq!(out, "1 dead letter redriven, 1 kept: they hold no event\n");
    assert_eq!(lab.letters("email"), [id]);
    let line = [&email("redrive")[..], &["--id", id, "--yes", "--output", "json"]].concat();
    let (out, _, code) = run(&mut lab.cli(&line));
    let expected = "{\"group\":\"email\",\"moved\":0,\"missing\":0,\"malformed\":1}\n";
    assert_eq!((out.as_str(), code), (expected, 1));
    let purged = lab.object(&[&email("purge")[..], &["--all", "--yes"]].concat());
    assert_eq!(purged["deleted"], 1);
}

#[test]
fn what_is_redriven_is_handled_again() {
    let lab = two_kinds();
    let redrive = |more: &[&'static str]| [&email("redrive")[..], more].concat();
    let (err, code) = lab.refused(&redrive(&["--all"]));
    assert_eq!(code, 2, "nobody can be asked: {err}");
    assert!(err.contains("redrive 4 dead letters of group email"), "{err}");
    let (out, err, code) = run(&mut lab.cli(&redrive(&["--type", "orders.*.placed", "--dry-run"])));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("would redrive 3 dead letters of group email"), "{err}");
    assert!(out.contains("orders.order.placed") && !out.contains("cancelled"), "{out}");
    assert_eq!(lab.letters("email").len(), 4, "nothing was done");

    let sum = lab.object(&redrive(&["--type", "orders.*.placed", "--rate", "1000", "--yes"]));
    let expected = r#"{"group":"email","moved":3,"missing":0,"malformed":0}"#;
    assert_eq!(sum, serde_json::from_str::<serde_json::Value>(expected).expect("JSON"));
    assert_eq!(lab.letters("email").len(), 1);
    let before = lab.letters("email");
    let bus = lab.rejecting("email");
    lab.runtime.block_on(bus.settled()).expect("all is settled");
    lab.leave(&bus);
    let after = lab.letters("email");
    assert_eq!(after.len(), 4, "they were handled, and rejected again");
    assert!(before.iter().all(|id| after.contains(id)));
}

#[test]
fn letters_are_purged_by_id_type_and_all() {
    let lab = two_kinds();
    let ids = lab.letters("email");
    let purge = |more: &[&str]| lab.object(&[&email("purge")[..], more, &["--yes"]].concat());
    assert_eq!(purge(&["--id", &ids[0], "--id", &ids[0]])["deleted"], 1);
    let line = [&email("purge")[..], &["--id", &ids[0], "--yes"]].concat();
    let (err, code) = lab.refused(&line);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains(&format!("group email has no dead letter {}", ids[0])), "{err}");
    let (_, err, code) = run(lab.cli(&email("purge")).args(["--all", "--dry-run"]));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("would delete 3 dead letters"), "{err}");
    assert_eq!(lab.letters("email").len(), 3);
    assert_eq!(lab.refused(&[&email("purge")[..], &["--all"]].concat()).1, 2);
    let cancelled = lab.json(&[&email("export")[..], &["--type", "*.*.cancelled"]].concat()).len();
    assert_eq!(purge(&["--type", "*.*.cancelled"])["deleted"], cancelled);
    assert_eq!(purge(&["--all"])["deleted"], 3 - cancelled);
    assert!(lab.letters("email").is_empty());
    assert_eq!(purge(&["--all"])["deleted"], 0);
    let (out, _, code) = run(&mut lab.cli(&email("list")));
    assert_eq!((out.as_str(), code), ("no dead letter\n", 0));
}

#[test]
fn what_is_wrong_is_refused() {
    let lab = Lab::new();
    lab.dead("email", 1);
    for command in ["list", "show", "redrive", "purge", "export", "edit", "import"] {
        let mut line = vec!["dead-letters", command, "--group", "nobody"];
        match command {
            "show" | "edit" => line.extend(["--id", "orders:0/1-0"]),
            "list" | "export" => {}
            "import" => line.push("-"),
            _ => line.extend(["--all", "--yes"]),
        }
        let (err, code) = lab.refused(&line);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("group nobody is not known"), "{err}");
    }
    let cases: &[(&[&str], &str)] = &[
        (&["redrive"], "nothing says which dead letters"),
        (&["redrive", "--all", "--id", "orders:0/1-0"], "--id cannot be used with --all"),
        (&["purge", "--id", "orders:0/1-0/0"], "is where an event lay"),
        (&["purge", "--id", "7"], "is not like `orders:0/1700000000000-0`"),
        (&["redrive", "--type", "a..b"], "--type"),
        (&["redrive", "--all", "--rate", "0"], "--rate"),
        (&["show"], "--id"),
        (&["show", "--fingerprint", "x"], "fingerprint \"x\" is not 12 hexadecimal digits"),
        (&["show", "--id", "orders:0/1-0", "--fingerprint", "0123456789ab"], "cannot be used"),
        (&["purge", "--id", "orders:0/1-0", "--older-than", "1h"], "--id cannot be used with"),
        (&["redrive", "--newer-than", "1"], "--newer-than: duration \"1\" has no unit"),
        (&["export", "--fingerprint", ""], "--fingerprint"),
        (&["edit", "--patch", "{}"], "--id"),
        (&["import"], "FILE"),
    ];
    for (line, expected) in cases {
        let line = [&["dead-letters", line[0], "--group", "email"], &line[1..]].concat();
        let (err, code) = lab.refused(&line);
        assert_eq!(code, 2, "{line:?}: {err}");
        assert!(err.contains(expected), "{line:?}: {err}");
    }
}

#[test]
fn a_redrive_that_is_interrupted_says_where() {
    let lab = Lab::new();
    lab.dead("email", 250);
    let mut redrive = lab.cli(&email("redrive"));
    redrive.args(["--all", "--yes", "--rate", "50", "--output", "json"]);
    let mut child = redrive.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    lab.until("email", |count| count < 250);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
    child.stderr.take().expect("piped").read_to_string(&mut err).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(3), "{err}");
    let sum: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let moved = sum["moved"].as_u64().expect("a count");
    assert!((1..250).contains(&moved), "{sum}");
    let expected =
        format!("interrupted by SIGINT: {moved} of 250 dead letters of group email redriven");
    assert!(err.contains(&expected) && err.contains(", the last of them orders:"), "{err}");
    assert_eq!(lab.letters("email").len() as u64, 250 - moved);
}
