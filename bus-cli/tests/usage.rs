//! Wrong command lines, unreachable servers, and twins in the environment.

#[path = "cli/mod.rs"]
mod cli;
#[path = "../../tests/server/mod.rs"]
mod server;

use cli::{bare, bus_cli, lines, run};
use server::Server;

#[test]
fn a_wrong_command_line_is_2_and_needs_no_server() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage:"),
        (&["publish"], "neither TYPE nor --from"),
        (&["publish", "a b"], "a segment may hold only"),
        (&["publish", "a.b", "{"], "payload is no JSON"),
        (&["publish", "--from", "-", "--count", "2"], "--count cannot be used with --from"),
        (&["publish", "a.b", "--after", "5"], "has no unit"),
        (&["publish", "a.b", "--count", "0"], "--count"),
        (&["tail", "a..b"], "empty segment"),
        (&["tail", "--new", "--last", "1"], "--new cannot be used with --last"),
        (&["tail", "--output", "xml"], "possible values: pretty, json, raw"),
        (&["man"], "--out"),
        (&["completions", "tcsh"], "possible values: bash"),
    ];
    for (line, expected) in cases {
        let (out, err, code) = run(&mut bare(line));
        assert_eq!((code, out.as_str()), (2, ""), "{line:?}: {err}");
        assert!(err.contains(expected), "{line:?}: {err}");
    }
}

#[test]
fn help_and_version_are_success() {
    for line in [&["--help"][..], &["--version"], &["publish", "--help"], &["tail", "--help"]] {
        let (out, err, code) = run(bare(line).env("BUS_URL", "redis://:hunter22@host"));
        assert_eq!((code, err.as_str()), (0, ""), "{line:?}");
        assert!(!out.contains("hunter22"), "{out}");
    }
}

#[test]
fn an_unreachable_server_is_4_and_says_what_to_do() {
    // Nothing listens on port 1.
    for line in [&["publish", "a.b"][..], &["tail"]] {
        let url = "redis://alice:hunter22@127.0.0.1:1";
        let (out, err, code) = run(bare(line).args(["--url", url]));
        assert_eq!((code, out.as_str()), (4, ""), "{err}");
        assert!(
            err.starts_with("error: cannot connect to Redis on redis://127.0.0.1:1: Connection"),
            "{err}"
        );
        assert_eq!(err.matches("cannot connect").count(), 1, "it is said once: {err}");
        assert!(
            err.contains("\n  help: start the server, or name another one with --url"),
            "{err}"
        );
        assert!(!err.contains("hunter22"), "{err}");
    }
}

#[test]
fn an_unreadable_file_is_1() {
    for line in [&["publish", "a.b", "@/nowhere"][..], &["publish", "--from", "/nowhere"]] {
        let (_, err, code) = run(&mut bare(line));
        assert_eq!(code, 1, "{err}");
        assert!(err.starts_with("error: cannot read /nowhere\n  cause: "), "{err}");
    }
}

#[test]
fn flags_come_before_the_environment() {
    let server = Server::start();
    let mut publish = bus_cli(&server, &["publish", "a.b", "1", "--count", "2"]);
    publish.env("BUS_PUBLISH_COUNT", "7").env("BUS_PUBLISH_KEY", "k").env("BUS_OUTPUT", "raw");
    assert_eq!(lines(publish.env("BUS_PUBLISH_FROM", "/nowhere")).len(), 2);

    let mut tail = bus_cli(&server, &["tail", "--since", "1h"]);
    tail.env("BUS_TAIL_LAST", "1").env("BUS_TAIL_UNTIL_END", "yes");
    let shown = lines(&mut tail);
    assert_eq!(shown.len(), 2, "what was typed wins over another place to begin");
    assert!(shown[0].contains("\"key\":\"k\""), "{}", shown[0]);
    let mut tail = bus_cli(&server, &["tail", "-n", "1"]);
    assert_eq!(lines(tail.env("BUS_TAIL_LAST", "1").env("BUS_OUTPUT", "raw")), ["1"]);
    let mut both = bus_cli(&server, &["tail"]);
    both.env("BUS_TAIL_LAST", "1").env("BUS_TAIL_NEW", "true");
    assert_eq!(run(&mut both).2, 2);
}
