//! `bus-cli record` and `bus-cli replay` on a real server.

#[path = "cli/mod.rs"]
mod cli;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use cli::{bus_cli, feed, lines, run};
use serde_json::{Value, json};
use server::{Reply, Server};

/// An event with every field, and one whose payload no JSON can show.
const EVENTS: [&str; 3] = [
    concat!(
        r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057","type":"users.user.created","#,
        r#""version":3,"source":"signup","time":"2026-01-02T03:04:05.006Z","#,
        r#""expires":"2026-01-02T04:04:05.006Z","key":"carol","#,
        r#""headers":{"tenant":"acme","a":"b"},"#,
        r#""traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","#,
        r#""correlation_id":"flow","causation_id":"cause","#,
        r#""data":{"email":"carol@example.com","n":1.50}}"#,
    ),
    concat!(
        r#"{"type":"users.user.created","content_type":"application/msgpack","key":"carol","#,
        r#""data":{"email":"carol@example.com","n":2}}"#,
    ),
    r#"{"type":"files.stored","content_type":"application/octet-stream","data_base64":"AP+AAQ=="}"#,
];

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("text").to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).expect("a file")
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.path().join(name), text).expect("a file");
        self.file(name)
    }
}

fn publish(server: &Server, events: &[&str]) {
    let (_, err, code) = feed(
        &mut bus_cli(server, &["publish", "--from", "-"]),
        &events.iter().map(|event| format!("{event}\n")).collect::<String>(),
    );
    assert_eq!(code, 0, "{err}");
}

fn history(server: &Server) -> Vec<Value> {
    let lines = lines(&mut bus_cli(server, &["tail", "--since", "1h", "--until-end"]));
    lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Records what is there; the lines, whole.
fn record_all(server: &Server, folder: &Folder, name: &str) -> Vec<Value> {
    let out = folder.file(name);
    let line = ["record", ">", "--since", "1h", "--until-end", "--out", &out];
    let (_, err, code) = run(&mut bus_cli(server, &line));
    assert_eq!(code, 0, "{err}");
    folder.read(name).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn replay(server: &Server, line: &[&str]) -> (String, String, i32) {
    run(&mut bus_cli(server, &[&["replay", "--speed", "max", "--yes"], line].concat()))
}

fn without(event: &Value, fields: &[&str]) -> Value {
    let mut event = event.clone();
    for field in fields {
        event.as_object_mut().expect("an object").remove(*field);
    }
    event
}

#[test]
fn a_recording_replays_with_all_its_fields_and_a_mark() {
    let (first, second, folder) = (Server::start(), Server::start(), Folder::new());
    publish(&first, &EVENTS);
    let recorded = record_all(&first, &folder, "all");
    assert_eq!(recorded.len(), 3);
    assert_eq!(recorded[0]["offset_ms"], 0);
    for (line, event) in recorded.iter().zip(history(&first)) {
        assert_eq!(without(line, &["offset_ms"]), event, "as tail writes it");
    }
    let (receipts, err, code) = replay(&second, &[&folder.file("all")]);
    assert_eq!((receipts.lines().count(), code), (3, 0), "{err}");
    let run_id = err.lines().find_map(|line| line.strip_prefix("replay ")).expect("the run");
    let own = ["id", "time", "expires", "position", "headers", "traceparent", "offset_ms"];
    let replayed = history(&second);
    assert_eq!(replayed.len(), 3);
    // Within a millisecond the order is that of the topics' names.
    let of = |old: &Value| {
        let is_it = |new: &&Value| new["headers"]["rumormill-replay-of"] == old["id"];
        replayed.iter().find(is_it).expect("it was replayed")
    };
    for old in &recorded {
        let new = of(old);
        assert_eq!(without(new, &own), without(old, &own));
        assert_ne!(new["id"], old["id"]);
        assert_eq!(new["traceparent"], Value::Null);
        assert_eq!(new["headers"]["rumormill-replay"], run_id);
    }
    let first = recorded.iter().find(|event| event["version"] == 3).expect("it was recorded");
    let carol = of(first);
    assert_eq!(carol["headers"]["tenant"], "acme");
    let millis = |event: &Value, field: &str| {
        let time: rumormill::Timestamp =
            event[field].as_str().expect("a time").parse().expect("a time");
        time.as_millis()
    };
    assert_eq!(millis(carol, "expires") - millis(carol, "time"), 3_600_000, "moved alike");
    assert!(millis(carol, "time") > millis(first, "time"));
}

#[test]
fn ids_are_kept_where_asked_and_then_deduplicated() {
    let (server, folder) = (Server::start(), Folder::new());
    let file = folder.write("events", &EVENTS.join("\n"));
    let known = |out: &str| out.lines().filter(|line| line.contains("deduplicated")).count();
    let (out, err, code) = replay(&server, &[&file, "--keep-ids"]);
    assert_eq!((known(&out), code), (0, 0), "{err}");
    let kept = "01890a5d-ac96-774b-bcce-b302099a8057";
    assert!(history(&server).iter().any(|event| event["id"] == kept));
    // Lines without an id get a new one each time.
    let (out, err, code) = replay(&server, &[&file, "--keep-ids"]);
    assert_eq!((known(&out), code), (1, 0), "{err}");
}

#[test]
fn a_run_that_goes_on_gives_the_same_ids() {
    let (server, folder) = (Server::start(), Folder::new());
    publish(&server, &EVENTS);
    record_all(&server, &folder, "all");
    let file = folder.file("all");
    let run_id = "01890a5d-ac96-774b-bcce-000000000001";
    let ids = |out: &str| -> Vec<Value> {
        let receipt = |line| serde_json::from_str::<Value>(line).expect("a receipt")["id"].clone();
        out.lines().map(receipt).collect()
    };
    let (all, ..) = replay(&server, &[&file, "--run", run_id]);
    let (rest, _, code) = replay(&server, &[&file, "--run", run_id, "--from-line", "2"]);
    assert_eq!((ids(&rest), code), (ids(&all)[1..].to_vec(), 0));
    let (other, ..) = replay(&server, &[&file]);
    assert_ne!(ids(&other), ids(&all));
}

/// Every byte that the server holds of a partition's log.
fn log_holds(server: &Server, secret: &str) -> bool {
    fn holds(reply: &Reply, secret: &[u8]) -> bool {
        match reply {
            Reply::Text(bytes) => bytes.windows(secret.len()).any(|part| part == secret),
            Reply::List(items) => items.iter().any(|item| holds(item, secret)),
            _ => false,
        }
    }
    ["rm:{users:0}:log", "rm:{files:0}:log"]
        .iter()
        .any(|key| holds(&server.ask(&["XRANGE", key, "-", "+"]), secret.as_bytes()))
}

#[test]
fn masked_values_are_nowhere_in_the_store() {
    let (server, folder) = (Server::start(), Folder::new());
    let file = folder.write("events", &EVENTS.join("\n"));
    let masks = ["--mask", "data.email", "--mask", "key"];
    let (out, err, code) = replay(&server, &[&[file.as_str()], &masks[..]].concat());
    assert_eq!((out.lines().count(), code), (2, 3), "{err}");
    // What cannot be looked into is not passed on.
    assert!(err.contains("line 3 is left out: --mask data.email: the payload of event"), "{err}");
    assert!(!log_holds(&server, "carol"));
    assert!(log_holds(&server, "masked-"));
    let events = history(&server);
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["data"]["email"], events[1]["data"]["email"], "joins still work");
    assert_eq!(events[0]["key"], events[1]["key"]);

    // A key that says the same is told before anything is published.
    let other = Server::start();
    let text =
        r#"{"type":"users.a","key":"carol@example.com","data":{"email":"carol@example.com"}}"#;
    let file = folder.write("told", text);
    let line = ["replay", &file, "--mask", "data.email", "--mask", "data.emial", "--dry-run"];
    let (_, err, code) = run(&mut bus_cli(&other, &line));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("--mask key hides it there, too"), "{err}");
    assert!(err.contains("--mask data.emial changes nothing"), "{err}");
    assert!(history(&other).is_empty());
}

#[test]
fn tokens_under_a_key_of_a_file_are_those_of_every_run() {
    let (server, folder) = (Server::start(), Folder::new());
    let file = folder.write("events", EVENTS[1]);
    let key = folder.write("key", "0123456789abcdef");
    for _ in 0..2 {
        let line = [&file, "--mask", "data.email", "--mask-key", &key];
        assert_eq!(replay(&server, &line).2, 0);
    }
    assert_eq!(replay(&server, &[&file, "--mask", "data.email"]).2, 0);
    let emails: Vec<Value> = history(&server).iter().map(|e| e["data"]["email"].clone()).collect();
    assert_eq!(emails[0], emails[1]);
    assert_ne!(emails[0], emails[2], "without a key of one's own each run has another");
}

#[test]
fn a_dry_run_says_who_would_handle_what_and_publishes_nothing() {
    let (server, folder) = (Server::start(), Folder::new());
    publish(&server, &EVENTS);
    record_all(&server, &folder, "all");
    // A group as a member leaves it: on the log, with a route.
    server.ask(&["XGROUP", "CREATE", "rm:{users:0}:log", "crm", "0"]);
    server.ask(&["HSET", "rm:routes:crm", "users.>", r#"{"version":null,"seen":1}"#]);
    let file = folder.file("all");
    let line = ["replay", &file, "--dry-run", "--output", "json", "--rewrite", "type=x.{}"];
    let rows = lines(&mut bus_cli(&server, &line));
    let rows: Vec<Value> =
        rows.iter().map(|row| serde_json::from_str(row).expect("JSON")).collect();
    assert_eq!(rows, [json!({"topic": "x", "known": false, "events": 3, "groups": []})]);
    let (out, err, code) =
        run(&mut bus_cli(&server, &["replay", &file, "--dry-run", "--only", "users.>"]));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("users") && out.contains("2  crm (none live)"), "{out}");
    assert!(err.contains("would publish 2 events to unix://"), "{err}");
    assert_eq!(history(&server).len(), 3);
}

#[test]
fn nothing_is_published_unasked_and_a_wrong_rule_is_a_usage_error() {
    let (server, folder) = (Server::start(), Folder::new());
    let file = folder.write("events", EVENTS[1]);
    let cases: [(&[&str], &str); 5] = [
        (&[], "stdin is no terminal"),
        (&["--yes", "--speed", "0"], "--speed"),
        (&["--yes", "--rewrite", "email=1"], "key, type, source, correlation_id, header.NAME"),
        (&["--yes", "--mask", "type"], "masked can be key, source"),
        (&["--yes", "--mask-key", "k"], "of no use without --mask"),
    ];
    for (rest, expected) in cases {
        let line = [&["replay", file.as_str()], rest].concat();
        let (out, err, code) = run(&mut bus_cli(&server, &line));
        assert_eq!((code, out.as_str()), (2, ""), "{rest:?}: {err}");
        assert!(err.contains(expected), "{rest:?}: {err}");
    }
    assert!(history(&server).is_empty());
}

#[test]
fn bad_lines_are_left_out_and_named_and_stdin_will_do() {
    let server = Server::start();
    let text = format!("{}\n{{\"type\":\n{}\n", EVENTS[1], EVENTS[2]);
    let (out, err, code) =
        feed(&mut bus_cli(&server, &["replay", "-", "--yes", "--speed", "max"]), &text);
    assert_eq!((out.lines().count(), code), (2, 3), "{err}");
    assert!(err.contains("line 2 is left out: it is no event"), "{err}");
}

#[test]
fn an_interrupted_replay_says_how_to_go_on() {
    let (server, folder) = (Server::start(), Folder::new());
    let event = |offset| format!("{{\"type\":\"a.b\",\"data\":1,\"offset_ms\":{offset}}}\n");
    let file = folder.write("slow", &(event(0) + &event(0) + &event(3_600_000)));
    let mut command = bus_cli(&server, &["replay", &file, "--yes"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let mut receipts = BufReader::new(child.stdout.take().expect("piped")).lines();
    for _ in 0..2 {
        receipts.next().expect("a receipt").expect("text");
    }
    signal(&child, "-INT");
    let output = child.wait_with_output().expect("it ends");
    let err = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(err.contains("lines up to 2 are done"), "{err}");
    assert!(err.contains("--from-line 3 --run "), "{err}");
    assert_eq!(history(&server).len(), 2);
}

fn signal(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill").args([signal, &pid]).status().expect("runs");
    assert!(sent.success());
}

/// A recording that was begun.
struct Recording {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    path: PathBuf,
}

impl Recording {
    fn start(server: &Server, path: &str, line: &[&str]) -> Self {
        let mut command = bus_cli(server, &[&["record", ">", "--out", path], line].concat());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary runs");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        stderr.read_line(&mut said).expect("text");
        assert_eq!(said.trim_end(), "recording");
        Self { child, stderr, path: path.into() }
    }

    /// Waits until the file has so many lines.
    fn until(&self, lines: usize) {
        for _ in 0..2000 {
            let text = std::fs::read_to_string(&self.path).expect("a file");
            if text.lines().count() >= lines {
                return;
            }
            // waits: for the lines, with a deadline
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no {lines} lines");
    }

    /// The rest of what it says, and its exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.stderr, &mut said).expect("text");
        (said, self.child.wait().expect("it ends").code())
    }
}

#[test]
fn an_interrupted_recording_ends_well_and_says_how_much() {
    let (server, folder) = (Server::start(), Folder::new());
    let recording = Recording::start(&server, &folder.file("out"), &[]);
    publish(&server, &EVENTS);
    recording.until(3);
    signal(&recording.child, "-INT");
    let (said, code) = recording.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("recorded 3 events"), "{said}");
    // A file that is there stays.
    let out = folder.file("out");
    let (_, err, code) = run(&mut bus_cli(&server, &["record", ">", "--out", &out]));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("--force replaces it"), "{err}");
    assert_eq!(folder.read("out").lines().count(), 3);
    let line = ["record", ">", "--out", &out, "--force", "--for", "1ms"];
    assert_eq!(run(&mut bus_cli(&server, &line)).2, 0);
    assert_eq!(folder.read("out"), "");
}

#[test]
fn a_kill_cuts_the_last_line_at_most_and_a_replay_leaves_that_out() {
    let (server, folder) = (Server::start(), Folder::new());
    let mut recording = Recording::start(&server, &folder.file("out"), &[]);
    let line = ["publish", "a.b", &format!("\"{}\"", "x".repeat(3000)), "--count", "4000"];
    let mut publisher = bus_cli(&server, &line);
    let mut publisher = publisher.stdout(Stdio::null()).spawn().expect("the binary runs");
    recording.until(200);
    recording.child.kill().expect("it runs");
    recording.child.wait().expect("it ends");
    assert!(publisher.wait().expect("it ends").success());
    let text = folder.read("out");
    // The system may end a write between two pages; nothing before that is touched.
    let whole = &text[..text.rfind('\n').expect("lines") + 1];
    for line in whole.lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(event["data"].as_str().map(str::len), Some(3000));
    }
    let other = Server::start();
    let cut = folder.write("cut", &whole[..whole.len() - 10]);
    let (receipts, err, code) = replay(&other, &[&cut]);
    let lines = whole.lines().count();
    assert_eq!((receipts.lines().count(), code), (lines - 1, 3), "{err}");
    assert!(err.contains(&format!("line {lines} is left out")), "{err}");
}

#[test]
fn a_limit_ends_the_recording_with_whole_lines() {
    let (server, folder) = (Server::start(), Folder::new());
    publish(&server, &[EVENTS[1]; 10]);
    let out = folder.file("out");
    let line = ["record", "users.>", "--since", "1h", "--until-end", "--out", &out];
    let (_, err, code) = run(bus_cli(&server, &line).args(["--max-bytes", "1KiB"]));
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("the recording ends early"), "{err}");
    let text = folder.read("out");
    assert!(text.len() <= 1024 && text.ends_with('\n') && text.lines().count() >= 2, "{text}");
    let (_, _, code) = run(bus_cli(&server, &line).args(["--force", "-n", "4"]));
    assert_eq!((folder.read("out").lines().count(), code), (4, 0));
}

#[test]
fn what_was_trimmed_before_it_was_read_is_told() {
    let (server, folder) = (Server::start(), Folder::new());
    for _ in 0..3 {
        publish(&server, &EVENTS[2..]);
    }
    server.say("XTRIM rm:{files:0}:log MAXLEN = 1");
    let out = folder.file("out");
    let line = ["record", ">", "--since", "1h", "--until-end", "--out", &out];
    let (_, err, code) = run(&mut bus_cli(&server, &line));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("earlier entries are gone"), "{err}");
    // What is no event is told as well, and counts.
    server.say("XADD rm:{files:0}:log * junk 1");
    let (_, err, code) = run(bus_cli(&server, &line).arg("--force"));
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("1 entry are no events") || err.contains("is no event"), "{err}");
}
