//! `bus-cli bench` measures, says what, and leaves nothing on the server.

#[path = "cli/mod.rs"]
mod cli;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cli::{bare, bus_cli, run};
use serde_json::Value;
use server::Server;

/// How long something may take to become so.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs to a good end; what it found, and what it said.
fn measure(server: &Server, line: &[&str]) -> (Value, String) {
    let mut command = bus_cli(server, &[&["bench", "--output", "json"], line].concat());
    let (out, err, code) = run(&mut command);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().count(), 1, "{out}");
    (serde_json::from_str(&out).expect("JSON"), err)
}

fn number(found: &Value, path: &str) -> f64 {
    found.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {found}"))
}

fn info(server: &Server, name: &str) -> u64 {
    let info = server.say("INFO").text();
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name}"))
}

/// A measurement under way, with something written already.
fn begun(server: &Server) -> Child {
    let mut command = bus_cli(server, &["bench", "--duration", "10m"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the binary runs");
    for _ in 0..PATIENCE.as_millis() / 10 {
        let keys = server.say("KEYS rm:bench-*");
        let expire = |key: &server::Reply| server.ask(&["PTTL", &key.text()]).int() > 0;
        let has = |end: &str| keys.list().iter().any(|key| key.text().ends_with(end));
        // The one that comes last.
        let written = has(":log") && has(":checkpoint:bench-0");
        if written && keys.list().iter().all(expire) {
            return child;
        }
        // waits: for the first events, and for all keys to have an end
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!("it wrote nothing, or something without an end: {:?}", server.say("KEYS *"));
}

#[test]
fn a_measurement_tells_numbers_and_leaves_nothing() {
    let server = Server::start();
    server.say("SET rm:mine 7");
    server.say("SET other 8");
    let (found, said) = measure(&server, &["--duration", "2s"]);
    assert!(said.starts_with("measuring unix:"), "{said}");
    assert!(said.contains("under keys rm:bench-") && said.contains("removed at the end"), "{said}");
    assert!(number(&found, "/events_per_second") > 0.0, "{found}");
    assert!(number(&found, "/server/us_per_event") > 0.0, "{found}");
    assert!(number(&found, "/client/us_per_event") > 0.0, "{found}");
    assert!(number(&found, "/round_trip/p50_us") > 0.0, "{found}");
    let limits = ["server", "client", "machine", "network"];
    assert!(limits.iter().any(|limit| found["limit"] == *limit), "{found}");
    let quantiles = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"];
    let told = quantiles.map(|name| number(&found, &format!("/latency/{name}")));
    assert!(told[0] > 0.0 && told.is_sorted(), "{told:?}");
    let buckets = found["latency"]["histogram"].as_array().expect("buckets");
    let counted: u64 = buckets.iter().filter_map(|bucket| bucket["count"].as_u64()).sum();
    assert_eq!(Some(counted), found["latency"]["events"].as_u64(), "each event once: {found}");
    let mut keys: Vec<String> =
        server.say("KEYS *").list().iter().map(server::Reply::text).collect();
    keys.sort();
    assert_eq!(keys, ["other", "rm:mine"]);
}

#[test]
fn every_option_does_what_it_says() {
    let server = Server::start();
    let line = ["--duration", "2s", "--rate", "200", "--groups", "2", "--payload", "4KiB"];
    let more = ["--lanes", "2", "--window", "8"];
    let before = info(&server, "total_net_input_bytes");
    let (found, _) = measure(&server, &[&line[..], &more].concat());
    for (path, expected) in
        [("/latency/rate", 200.0), ("/latency/events", 200.0), ("/groups", 2.0), ("/window", 8.0)]
    {
        assert_eq!(number(&found, path), expected, "{path}: {found}");
    }
    let events = number(&found, "/events_per_second");
    assert!((number(&found, "/deliveries_per_second") - 2.0 * events).abs() <= 1.0, "{found}");
    let bytes = info(&server, "total_net_input_bytes") - before;
    let published = number(&found, "/events") + number(&found, "/latency/events");
    assert!(bytes as f64 > published * 4096.0, "{bytes} bytes for {published} events");
    let counted: u64 = found["latency"]["histogram"]
        .as_array()
        .map(|buckets| buckets.iter().filter_map(|bucket| bucket["count"].as_u64()).sum())
        .expect("buckets");
    assert_eq!(counted, 400, "each group handles each event: {found}");
    assert_eq!(server.say("DBSIZE").int(), 0);
}

#[test]
fn an_interrupted_measurement_cleans_up() {
    let server = Server::start();
    for (signal, name) in [("-INT", "SIGINT"), ("-TERM", "SIGTERM")] {
        let mut child = begun(&server);
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        assert_eq!(child.wait().expect("it ends").code(), Some(3), "{said}");
        assert!(said.contains(&format!("error: interrupted by {name}")), "{said}");
        assert_eq!(server.say("DBSIZE").int(), 0, "{:?}", server.say("KEYS *"));
    }
}

#[test]
fn a_killed_measurement_leaves_keys_that_expire() {
    let server = Server::start();
    let mut child = begun(&server);
    child.kill().expect("killed");
    child.wait().expect("it ends");
    let keys = server.say("KEYS *");
    assert!(!keys.list().is_empty());
    for key in keys.list() {
        let left = server.ask(&["PTTL", &key.text()]).int();
        assert!((1..=600_000).contains(&left), "{}: {left}", key.text());
    }
}

#[test]
fn a_user_who_may_not_clean_up_is_refused_before_anything_is_written() {
    let server = Server::start();
    server.say("ACL SETUSER untidy on >hunter22 ~rm:* +@all -unlink");
    let url = format!("{}?user=untidy&pass=hunter22", server.url());
    let (out, err, code) = run(bare(&["bench", "--duration", "2s"]).args(["--url", &url]));
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("cannot clean up the keys rm:bench-"), "{err}");
    assert!(err.to_lowercase().contains("unlink"), "{err}");
    assert!(!err.contains("hunter22"), "{err}");
    assert_eq!(server.say("DBSIZE").int(), 0);
}

#[test]
fn a_user_of_one_namespace_may_measure() {
    let server = Server::start();
    // INFO is among what is dangerous: then nobody knows how busy the server is.
    server.say("ACL SETUSER modest on >hunter22 ~rm:bench-* +@all -@dangerous");
    let url = format!("{}?user=modest&pass=hunter22", server.url());
    let mut command = bare(&["bench", "--duration", "2s", "--output", "json", "--url", &url]);
    let (out, err, code) = run(&mut command);
    assert_eq!(code, 0, "{err}");
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert!(number(&found, "/events_per_second") > 0.0, "{found}");
    assert!(found["server"].is_null(), "{found}");
    assert_ne!(found["limit"], "server");
    assert_eq!(server.say("DBSIZE").int(), 0);
}

#[test]
fn memory_is_measured_as_well() {
    let line = ["bench", "--url", "memory:", "--duration", "1s", "--output", "json"];
    let (out, err, code) = run(&mut bare(&line));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("written in this process"), "{err}");
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert!(number(&found, "/events_per_second") > 0.0, "{found}");
    assert!(found["server"].is_null() && found["round_trip"].is_null(), "{found}");
    assert!(["client", "machine"].iter().any(|limit| found["limit"] == *limit), "{found}");
}

#[test]
fn people_get_lines_and_a_picture() {
    let line = ["bench", "--url", "memory:", "--duration", "1s", "--rate", "500"];
    let (out, err, code) = run(&mut bare(&line));
    assert_eq!(code, 0, "{err}");
    for part in [" events/s  published, handled", "  limit       ", "99 % ", "#", "<= "] {
        assert!(out.contains(part), "{part:?}: {out}");
    }
    assert!(!out.contains('\x1b') && !err.contains('\x1b'), "no terminal: {out:?}{err:?}");
    let (out, _, code) = run(bare(&line).args(["--output", "raw"]));
    assert_eq!(code, 0);
    assert!(out.trim_end().parse::<u64>().is_ok(), "a number alone: {out:?}");
}

#[test]
fn a_rehearsal_says_what_would_be_written_and_connects_to_nothing() {
    // Nothing listens on port 1.
    let line = ["bench", "--url", "redis://127.0.0.1:1", "--dry-run", "--payload", "1KiB"];
    let (out, err, code) = run(&mut bare(&line));
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    let expected = "would measure redis://127.0.0.1:1 for 30s: events of 1.0 KiB are written \
                    under keys rm:bench-";
    assert!(err.starts_with(expected), "{err}");
    let (_, err, code) = run(&mut bare(&line[..3]));
    assert_eq!(code, 4, "{err}");
}

#[test]
fn what_cannot_be_measured_is_2() {
    let cases: &[(&[&str], &str)] = &[
        (&["--duration", "5"], "has no unit"),
        (&["--duration", "999ms"], "not between 1s and 1h"),
        (&["--duration", "2h"], "not between 1s and 1h"),
        (&["--payload", "15"], "not between 16 bytes and 1MiB"),
        (&["--payload", "2MiB"], "not between 16 bytes and 1MiB"),
        (&["--payload", "much"], "--payload"),
        (&["--window", "0"], "--window"),
        (&["--rate", "0"], "--rate"),
        (&["--groups", "17"], "--groups"),
        (&["--lanes", "0"], "--lanes"),
        (&["now"], "unexpected argument"),
    ];
    for (line, expected) in cases {
        let (out, err, code) = run(&mut bare(&[&["bench"], *line].concat()));
        assert_eq!((code, out.as_str()), (2, ""), "{line:?}: {err}");
        assert!(err.contains(expected), "{line:?}: {err}");
    }
}
