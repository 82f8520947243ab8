//! `bus-cli publish` and `bus-cli tail` as two processes on a real server.

#[path = "cli/mod.rs"]
mod cli;
#[path = "../../tests/server/mod.rs"]
mod server;

use cli::{Tail, bare, bus_cli, feed, lines, run};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use server::{Reply, Server};

const WEBHOOKS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/github-webhooks.ndjson");

/// What both sides of the pipe say of an event.
#[derive(Debug, Deserialize)]
struct Line {
    r#type: String,
    key: Option<String>,
    data: Box<RawValue>,
}

fn parsed(line: &str) -> (String, Option<String>, String) {
    let Line { r#type, key, data } = serde_json::from_str(line).expect(line);
    (r#type, key, data.get().to_owned())
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).expect(line)
}

fn publish(server: &Server, line: &[&str]) -> Vec<String> {
    lines(&mut bus_cli(server, &[&["publish"], line].concat()))
}

fn tail(server: &Server, line: &[&str]) -> Vec<String> {
    lines(&mut bus_cli(server, &[&["tail"], line].concat()))
}

fn history(server: &Server) -> Vec<String> {
    tail(server, &["--since", "1h", "--until-end"])
}

#[test]
fn what_is_published_from_a_file_is_tailed_equal_and_in_order() {
    let server = Server::start();
    let tail = Tail::start(&server, &["github.>", "-n", "219"]);
    let receipts = publish(&server, &["--from", WEBHOOKS]);
    let shown: Vec<_> = tail.rest().iter().map(|line| parsed(line)).collect();
    let file = std::fs::read_to_string(WEBHOOKS).expect("the webhooks");
    let sent: Vec<_> = file.lines().map(parsed).collect();
    assert_eq!((sent.len(), receipts.len()), (219, 219));
    assert_eq!(shown, sent);
}

#[test]
fn a_receipt_names_id_position_and_durability() {
    let server = Server::start();
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let line = ["a.b", "{ \"n\" : 1e2 }", "--id", id, "--key", "k", "--header", "h=v=w"];
    let receipts = publish(&server, &line);
    let [receipt] = receipts.as_slice() else { panic!("{receipts:?}") };
    let value = json(receipt);
    let position = value["position"].as_str().expect("a position");
    assert!(position.starts_with("a:0/"), "{position}");
    let expected =
        format!("{{\"id\":\"{id}\",\"position\":\"{position}\",\"durability\":\"volatile\"}}");
    assert_eq!(*receipt, expected);

    let shown = history(&server);
    let event = json(&shown[0]);
    assert_eq!((&event["id"], &event["position"]), (&value["id"], &value["position"]));
    assert_eq!((&event["key"], &event["headers"]["h"]), (&json("\"k\""), &json("\"v=w\"")));
    assert_eq!(event["content_type"], "application/json");
    assert_eq!(event["source"], "bus-cli");
    assert_eq!(tail(&server, &["--last", "1", "-n", "1", "--output", "raw"]), ["{ \"n\" : 1e2 }"]);
    let from = tail(&server, &["--from-id", position, "-n", "1"]);
    assert_eq!(from, shown);
}

#[test]
fn an_id_that_was_published_is_not_published_again() {
    let server = Server::start();
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let line = ["a.b", "1", "--id", id, "--deduplicate"];
    let first = publish(&server, &line).remove(0);
    assert!(!first.contains("deduplicated"), "{first}");
    let expected = first.replace('}', ",\"deduplicated\":true}");
    assert_eq!(publish(&server, &line), [expected]);

    let file = history(&server).join("\n") + "\n{\"type\":\"a.b\",\"data\":2}\n";
    let mut again = bus_cli(&server, &["publish", "--from", "-", "--deduplicate"]);
    let (out, err, code) = feed(&mut again, &file);
    assert_eq!((code, err.as_str()), (0, ""));
    let known: Vec<_> = out.lines().map(|line| json(line)["deduplicated"].clone()).collect();
    assert_eq!(known, [Value::Bool(true), Value::Null]);
    assert_eq!(history(&server).len(), 2);

    let line = ["publish", "a.b", "--deduplicate", "--after", "1s"];
    assert_eq!(run(&mut bus_cli(&server, &line)).2, 2);
}

#[test]
fn replicas_that_do_not_confirm_make_the_outcome_unknown() {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        free.local_addr().expect("an address").port().to_string()
    };
    let primary = Server::with(&["--port", &port, "--repl-diskless-sync-delay", "0"]);
    let (out, err, code) = run(&mut bus_cli(&primary, &["publish", "a.b", "--wait", "1"]));
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("may be stored") && err.contains("0 of 1 replicas"), "{err}");
    let replica = Server::with(&["--replicaof", "127.0.0.1", &port]);
    let receipt = (0..100).find_map(|_| {
        // Not before the replica is in step; each try waits for it for a second.
        let (out, _, _) = run(&mut bus_cli(&primary, &["publish", "a.b", "--wait", "1"]));
        out.lines().next().map(json)
    });
    assert_eq!(receipt.expect("confirmed in the end")["durability"], "replicated");
    drop(replica);
    let (_, err, code) = run(&mut bare(&["publish", "a.b", "--wait", "1", "--url", "memory:"]));
    assert_ne!(code, 0, "{err}");
}

#[test]
fn durability_is_the_servers() {
    let server = Server::durable();
    assert_eq!(json(&publish(&server, &["a.b"])[0])["durability"], "fsync");
}

#[test]
fn payloads_come_from_stdin_and_from_files() {
    let server = Server::start();
    let (_, err, code) = feed(&mut bus_cli(&server, &["publish", "a.b", "-"]), "[1,  2]\n");
    assert_eq!((code, err.as_str()), (0, ""));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("data.json");
    std::fs::write(&path, "\"from a file\"\n").expect("a file");
    publish(&server, &["a.b", &format!("@{}", path.display())]);
    publish(&server, &["a.b"]);
    let line = ["--since", "1h", "--until-end", "--output", "raw"];
    assert_eq!(tail(&server, &line), ["[1,  2]", "\"from a file\"", "null"]);
}

#[test]
fn a_count_is_as_many_events() {
    let server = Server::start();
    let receipts = publish(&server, &["a.b", "1", "--count", "1234", "--output", "raw"]);
    let ids: std::collections::BTreeSet<_> = receipts.iter().collect();
    assert_eq!((receipts.len(), ids.len()), (1234, 1234));
    assert_eq!(history(&server).len(), 1234);
    assert_eq!(publish(&server, &["a.b", "--count", "30", "--rate", "1000"]).len(), 30);
}

#[test]
fn bad_lines_are_named_and_the_rest_is_published() {
    let server = Server::start();
    let input = "{\"type\":\"a.b\",\"data\":1}\n{\"type\":\"a.b\",\"dta\":2}\n\nnope\n\
        {\"type\":\"a b\"}\n{\"type\":\"a.b\",\"data\":3,\"topic\":\"x\",\"position\":0}\n";
    let (out, err, code) = feed(&mut bus_cli(&server, &["publish", "--from", "-"]), input);
    assert_eq!((code, out.lines().count()), (3, 2), "{err}");
    for expected in ["line 2 is no event: unknown field `dta`", "line 4 ", "line 5 "] {
        assert!(err.contains(expected), "{expected}: {err}");
    }
    assert_eq!(err.matches("error: ").count(), 3, "{err}");
    let shown: Vec<_> = history(&server).iter().map(|line| parsed(line).2).collect();
    assert_eq!(shown, ["1", "3"]);
}

#[test]
fn what_was_tailed_can_be_published_elsewhere() {
    let server = Server::start();
    let line = "{\"type\":\"a.b\",\"version\":3,\"source\":\"shop\",\
        \"time\":\"2026-01-02T03:04:05Z\",\"expires\":\"2036-01-02T03:04:05.006Z\",\
        \"key\":\"k\",\"headers\":{\"z\":\"1\",\"a\":\"\"},\
        \"content_type\":\"application/msgpack\",\"traceparent\":\"t\",\
        \"correlation_id\":\"c\",\"causation_id\":\"d\",\
        \"data\":{\"z\":[18446744073709551615,-1,0.5,null],\"a\":\"ä\"}}\n";
    let other = "{\"type\":\"a.b\",\"content_type\":\"image/png\",\"data_base64\":\"AP8=\"}\n";
    let (_, err, code) =
        feed(&mut bus_cli(&server, &["publish", "--from", "-"]), &format!("{line}{other}"));
    assert_eq!(code, 0, "{err}");
    let first = history(&server);
    assert!(first[0].contains("\"data\":{\"z\":[18446744073709551615,-1,0.5,null],\"a\":\"ä\"}"));
    assert!(first[1].contains("\"data_base64\":\"AP8=\""));

    let mut again = bus_cli(&server, &["publish", "--from", "-", "--namespace", "copy"]);
    assert_eq!(feed(&mut again, &first.join("\n")).2, 0);
    let second = tail(&server, &["--since", "1h", "--until-end", "--namespace", "copy"]);
    let equal = |line: &String| {
        let mut event = json(line);
        event.as_object_mut().expect("an object").remove("position");
        event
    };
    let (first, second): (Vec<_>, Vec<_>) =
        (first.iter().map(equal).collect(), second.iter().map(equal).collect());
    assert_eq!(first, second);
}

#[test]
fn a_delayed_event_has_no_position_yet() {
    let server = Server::start();
    let receipt = json(&publish(&server, &["a.b", "1", "--after", "1h"])[0]);
    assert_eq!(receipt["position"], Value::Null);
    assert!(history(&server).is_empty());
    assert_eq!(server.say("ZCARD rm:{a:0}:delayed"), Reply::Int(1));
}

#[test]
fn topics_that_appear_later_are_tailed_from_their_beginning() {
    let server = Server::start();
    let tail = Tail::start(&server, &["-n", "2"]);
    publish(&server, &["first.seen", "1"]);
    publish(&server, &["second.seen", "2"]);
    let mut types: Vec<_> = tail.rest().iter().map(|line| parsed(line).0).collect();
    types.sort();
    assert_eq!(types, ["first.seen", "second.seen"]);
}

#[test]
fn only_what_matches_is_tailed() {
    let server = Server::start();
    for event_type in ["a.b", "a.c", "a.b.c", "x.b", "y.z"] {
        publish(&server, &[event_type]);
    }
    let line = ["*.b", "y.>", "--since", "1h", "--until-end"];
    let types: Vec<_> = tail(&server, &line).iter().map(|line| parsed(line).0).collect();
    assert_eq!(types, ["a.b", "x.b", "y.z"]);
}

#[test]
fn tail_leaves_nothing_behind() {
    let server = Server::start();
    publish(&server, &["a.b"]);
    let before = server.say("DBSIZE");
    history(&server);
    assert_eq!(server.say("DBSIZE"), before);
    assert_eq!(server.say("XINFO GROUPS rm:{a:0}:log"), Reply::List(Vec::new()));
}

#[test]
fn a_signal_and_a_closed_pipe_are_good_ends() {
    let server = Server::start();
    for signal in ["-INT", "-TERM"] {
        let tail = Tail::start(&server, &[]);
        tail.signal(signal);
        assert_eq!(tail.end(), 0, "{signal}");
    }
    let mut tail = Tail::start(&server, &["a.>"]);
    publish(&server, &["a.b"]);
    tail.line();
    let mut closed = tail.close();
    // It notices with the next event that it writes.
    while !closed.has_ended() {
        publish(&server, &["a.b"]);
    }
    assert_eq!(closed.end(), 0);
}

#[test]
fn tail_outlives_the_server() {
    let mut server = Server::durable();
    let mut tail = Tail::start(&server, &["-n", "2"]);
    publish(&server, &["a.b", "1"]);
    assert_eq!(parsed(&tail.line()).2, "1");
    server.kill();
    assert!(tail.said().starts_with("error: cannot tail: "));
    server.restart();
    publish(&server, &["a.b", "2"]);
    let shown: Vec<_> = tail.rest().iter().map(|line| parsed(line).2).collect();
    assert_eq!(shown, ["2"]);
}

#[test]
fn foreign_entries_are_shown_and_what_is_no_event_is_said() {
    let server = Server::start();
    publish(&server, &["a.b", "1"]);
    server.say("XADD rm:{a:0}:log * foo bar\x1b[31m");
    server.say("XADD rm:{a:0}:log * type a.c data {\"n\":2}");
    let (out, err, code) = run(&mut bus_cli(&server, &["tail", "--since", "1h", "--until-end"]));
    let shown: Vec<_> = out.lines().map(|line| parsed(line).2).collect();
    assert_eq!((shown, code), (vec!["1".to_owned(), "{\"n\":2}".to_owned()], 0));
    assert!(err.starts_with("error: a:0/") && err.contains(" is no event: "), "{err}");
    assert!(!err.contains('\x1b'), "{err}");
}
