//! `bus-cli daemon`: a binary with a service of its own, and a stock binary that maintains.

#[path = "cli/mod.rs"]
mod cli;
#[path = "cli/greeter.rs"]
mod greeter;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use cli::{bare, bus_cli, lines, run};
use greeter::{Daemon, greeter};
use server::Server;

const PATIENCE: Duration = Duration::from_secs(20);

fn publish(server: &Server, data: &str) {
    let line = ["publish", "user_service.user.created", data];
    assert_eq!(lines(&mut bus_cli(server, &line)).len(), 1);
}

#[test]
fn a_binary_of_three_lines_runs_its_own_services_until_it_is_told_to_end() {
    let server = Server::start();
    let mut daemon = Daemon::start(&mut greeter(&server, &["daemon", "--output", "json"]));
    assert_eq!(daemon.said[0], format!("starting greeter on {}", server.url()));
    publish(&server, "{\"user_id\":\"alice\",\"millis\":300}");
    assert_eq!(daemon.line(), "welcome, alice");
    daemon.signal("-TERM");
    daemon.until("draining: SIGTERM");
    daemon.until("drained");
    let (rest, code) = daemon.end();
    let report = "{\"dropped\":0,\"finished\":1,\"forced\":0,\"handed_over\":0}";
    assert_eq!((rest, code), (vec!["settled in, alice".to_owned(), report.to_owned()], 0));
}

#[test]
fn the_deadline_and_a_second_signal_force() {
    let server = Server::start();
    let mut daemon = Daemon::start(&mut greeter(&server, &["daemon", "--deadline", "50ms"]));
    publish(&server, "{\"user_id\":\"bob\",\"millis\":600000}");
    assert_eq!(daemon.line(), "welcome, bob");
    daemon.signal("-INT");
    daemon.until("drained by force");
    let (rest, code) = daemon.end();
    let report = "0 finished, 0 handed over, 1 forced, 0 dropped";
    assert_eq!((rest, code), (vec![report.to_owned()], 3));

    let line = ["daemon", "--services", "greeter", "--deadline", "1h"];
    let mut daemon = Daemon::start(&mut greeter(&server, &line));
    assert_eq!(daemon.line(), "welcome, bob", "it was handed over");
    daemon.signal("-TERM");
    daemon.until("draining: SIGTERM");
    daemon.signal("-TERM");
    daemon.until("forcing: SIGTERM");
    let (rest, code) = daemon.end();
    assert_eq!((rest, code), (vec![report.to_owned()], 3));
}

#[test]
fn systemd_is_told() {
    let mut server = Server::start();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let told = || {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut command = greeter(&server, &["daemon"]);
    let mut daemon = Daemon::start(command.env("NOTIFY_SOCKET", &path));
    assert_eq!(told(), "READY=1");
    server.kill();
    daemon.until("not ready: ");
    assert!(told().starts_with("STATUS=not ready: "));
    server.restart();
    daemon.until("ready again");
    let ready = || told() == "STATUS=ready again";
    assert!((0..1_000).any(|_| ready()), "why it is not ready may change meanwhile");
    daemon.signal("-TERM");
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(daemon.end().1, 0);
}

#[test]
fn a_stock_binary_has_nothing_to_run_and_says_what_to_do() {
    let server = Server::start();
    let (_, err, code) = run(&mut bare(&["daemon"]));
    assert_eq!(code, 2, "{err}");
    assert!(err.starts_with("error: nothing to run: no service is linked"), "{err}");
    assert!(err.contains("bus_cli::main()") && err.contains("--maintenance"), "{err}");
    let (_, err, code) = run(&mut greeter(&server, &["daemon", "--services", "greter"]));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("\"greter\" is not linked") && err.contains("linked: greeter"), "{err}");
    let (_, err, code) = run(bare(&["daemon", "--maintenance", "--url", "memory:"]).env("X", ""));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("\n  help: maintenance is for a store that is a server"), "{err}");
}

#[test]
fn maintenance_moves_what_is_due_of_groups_that_nobody_runs() {
    let server = Server::start();
    // A publisher that is gone before its event is due, and a group without a consumer.
    let delayed = ["publish", "a.b", "1", "--after", "300ms"];
    assert_eq!(lines(&mut bus_cli(&server, &delayed)).len(), 1);
    server.say("XGROUP CREATE rm:{a:0}:log email 0 MKSTREAM");
    server.say("ZADD rm:{a:0}:due:email 1 x");
    // A group of another program, on the same log.
    server.ask(&["XGROUP", "CREATE", "rm:{a:0}:log", "no group of ours", "0"]);

    let mut daemon = Daemon::start(&mut bus_cli(&server, &["daemon", "--maintenance"]));
    assert!(
        daemon.said.contains(&"maintaining 1 topics and 1 groups".to_owned()),
        "{:?}",
        daemon.said
    );
    let tail = ["tail", "--last", "1", "-n", "1", "--output", "raw"];
    assert_eq!(lines(&mut bus_cli(&server, &tail)), ["1"]);
    let moved = || server.say("XLEN rm:{a:0}:retry:email").int() == 1;
    let ticks = PATIENCE.as_millis() / 10;
    let waited = (0..ticks).any(|_| {
        // waits: for the daemon's next round.
        std::thread::sleep(Duration::from_millis(10));
        moved()
    });
    assert!(waited, "{}", server.log());
    assert_eq!(server.say("ZCARD rm:{a:0}:due:email").int(), 0);
    daemon.signal("-TERM");
    daemon.until("drained");
    let mut rest = String::new();
    for line in daemon.stderr.by_ref() {
        rest += &line.expect("text");
    }
    assert_eq!(rest, "");
    assert_eq!(daemon.end().1, 0);
}

#[test]
fn less_than_the_minimum_is_refused() {
    let server = Server::start();
    let line = ["publish", "a.b", "1", "--min-durability", "fsync"];
    let (out, err, code) = run(&mut bus_cli(&server, &line));
    assert_ne!((out.as_str(), code), ("", 0), "{err}");
    assert!(err.contains("is volatile, and fsync is the least"), "{err}");
    assert!(err.contains("help: set appendonly yes and appendfsync always"), "{err}");
    assert_eq!(server.say("EXISTS rm:{a:0}:log").int(), 0, "nothing was published");
    let mut daemon = bus_cli(&server, &["daemon", "--maintenance"]);
    let (_, err, code) = run(daemon.env("BUS_DAEMON_MIN_DURABILITY", "everysec"));
    assert_ne!(code, 0, "{err}");
    assert!(err.contains("everysec is the least"), "{err}");
    let line = ["publish", "a.b", "1", "--min-durability", "volatile"];
    assert_eq!(lines(&mut bus_cli(&server, &line)).len(), 1);
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let line = ["daemon", "--maintenance", "--url", "redis://127.0.0.1:1"];
    let (out, err, code) = run(&mut bare(&line));
    assert_eq!((code, out.as_str()), (4, ""), "{err}");
    assert!(err.starts_with("starting maintenance on redis://127.0.0.1:1\nerror: "), "{err}");
    assert!(!err.contains("ready"), "{err}");
}
