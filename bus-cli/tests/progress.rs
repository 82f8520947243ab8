//! What is long can be stopped, and says how far it is; what changes can be rehearsed.

#[path = "cli/mod.rs"]
mod cli;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use cli::{bare, bus_cli, feed, lines, run};
use server::Server;

#[test]
fn a_publish_that_is_interrupted_says_which_lines_are_done() {
    let server = Server::start();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("events");
    let events: String =
        (0..10_000).map(|n| format!("{{\"type\":\"a.b\",\"data\":{n}}}\n")).collect();
    fs::write(&file, events).expect("a file");
    for signal in ["-INT", "-TERM"] {
        let mut publish = bus_cli(&server, &["publish", "--rate", "1000", "--from"]);
        publish.arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = publish.spawn().expect("the binary runs");
        let mut receipts = BufReader::new(child.stdout.take().expect("piped")).lines();
        for _ in 0..30 {
            receipts.next().expect("a receipt").expect("text");
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
        let done = 30 + receipts.count();
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        assert_eq!(child.wait().expect("it ends").code(), Some(3), "{said}");
        assert!(done < 10_000, "it was interrupted");
        let expected = format!("lines 1 to {done} are done, those after {done} were not published");
        assert!(said.starts_with("error: interrupted after "), "{said}");
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn a_rehearsal_reads_everything_and_publishes_nothing() {
    let server = Server::start();
    let line = ["publish", "--from", "-", "--dry-run"];
    let input = "{\"type\":\"a.b\"}\n{\n{\"type\":\"a.c\"}\n";
    let (out, err, code) = feed(&mut bus_cli(&server, &line), input);
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("error: line 2 is no event"), "{err}");
    assert!(err.ends_with("would publish 2 events (--dry-run)\n"), "{err}");
    let (_, err, code) = run(&mut bare(&["publish", "a.b", "--count", "7", "--dry-run"]));
    assert_eq!((code, err.as_str()), (0, "would publish 7 events (--dry-run)\n"));
    let tail = ["tail", "--since", "1h", "--until-end"];
    assert!(lines(&mut bus_cli(&server, &tail)).is_empty());
}
