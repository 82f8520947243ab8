//! `bus-cli metrics` against a real server: once, and over HTTP.

#[path = "cli/mod.rs"]
mod cli;
#[path = "ops/mod.rs"]
mod ops;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cli::{lines, run};
use ops::Lab;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// `metrics --listen` at work on a port of its own.
struct Exporter {
    child: Child,
    address: String,
}

impl Exporter {
    fn start(lab: &Lab) -> Self {
        let mut command = lab.cli(&["metrics", "--listen", "127.0.0.1:0"]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary runs");
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        stderr.read_line(&mut said).expect("text");
        let address = said.strip_prefix("serving http://").expect("it says where");
        let address = address.trim_end().strip_suffix("/metrics").expect("and what").to_owned();
        // What else it says must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        write!(stream, "{request} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn depths_and_ages_are_written_once() {
    let lab = Lab::new();
    lab.dead("email", 3);
    let text = lines(&mut lab.cli(&["metrics"]));
    let number = |name: &str| {
        let line = text.iter().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {text:#?}"));
        line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
    };
    let part = "group=\"email\",partition=\"0\",topic=\"orders\"";
    assert_eq!(number("rumormill_up"), 1.0);
    assert_eq!(number(&format!("rumormill_group_dead_letters{{{part}}}")), 3.0);
    assert!(number(&format!("rumormill_group_dead_letters_age_seconds{{{part}}}")) > 0.0);
    assert_eq!(number(&format!("rumormill_group_unread_entries{{{part}}}")), 0.0);
    assert_eq!(number(&format!("rumormill_group_dropped_entries_total{{{part}}}")), 0.0);
    assert_eq!(number("rumormill_group_consumers{group=\"email\"}"), 0.0);
    assert!(number("rumormill_log_entries{partition=\"0\",topic=\"orders\"}") >= 1.0);
    assert_eq!(text.last().map(String::as_str), Some("# EOF"));

    let samples = lab.json(&["metrics"]);
    let dead = samples.iter().find(|sample| sample["name"] == "rumormill_group_dead_letters");
    let dead = dead.expect("the same numbers as JSON");
    assert_eq!((&dead["labels"]["group"], &dead["value"]), (&"email".into(), &3.0.into()));
}

#[test]
fn whoever_asks_gets_new_numbers_until_the_end() {
    let mut lab = Lab::new();
    let mut exporter = Exporter::start(&lab);
    let first = exporter.ask("GET /metrics");
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
    assert!(
        first.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0;"),
        "{first}"
    );
    assert!(first.contains("rumormill_up{} 1.0\n") && !first.contains("dead_letters"), "{first}");
    lab.dead("email", 2);
    let then = exporter.ask("GET /metrics?name=x");
    assert!(
        then.contains("rumormill_group_dead_letters{group=\"email\"") && then.contains("} 2.0\n"),
        "{then}"
    );
    assert!(exporter.ask("GET /").starts_with("HTTP/1.1 404 "));
    assert!(exporter.ask("POST /metrics").starts_with("HTTP/1.1 405 "));
    assert!(exporter.ask("HEAD /metrics").starts_with("HTTP/1.1 200 OK\r\n"));

    // Clients that say nothing, or something else, keep nobody from asking.
    let idle: Vec<TcpStream> = (0..10).map(|_| exporter.connect()).collect();
    let mut rude = exporter.connect();
    rude.write_all(b"\x16\x03\x01\x00\xff\r\n\r\n").expect("sent");
    assert!(exporter.ask("GET /metrics").contains("rumormill_up{} 1.0\n"));
    drop(idle);

    lab.server.kill();
    assert!(exporter.ask("GET /metrics").contains("rumormill_up{} 0.0\n"));
    let pid = exporter.child.id().to_string();
    assert!(Command::new("kill").arg(pid).status().expect("kill").success());
    assert_eq!(exporter.child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn an_address_that_is_taken_is_refused() {
    let lab = Lab::new();
    let exporter = Exporter::start(&lab);
    let (_, err, code) = run(&mut lab.cli(&["metrics", "--listen", &exporter.address]));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains(&format!("cannot listen on {}", exporter.address)), "{err}");
    let (_, err, code) = run(&mut lab.cli(&["metrics", "--listen", "nowhere"]));
    assert!(code == 2 && err.contains("--listen"), "{err}");
}
