//! `bus-cli doctor` against real servers, and ones that are not there.

#[path = "cli/mod.rs"]
mod cli;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use cli::{bare, bus_cli, lines, run};
use rumormill::driver::redis::checks;
use serde_json::Value;
use server::Server;

/// Nothing is wrong with it but its version, where that is an old one.
const HEALTHY: [&str; 6] =
    ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory", "256mb"];

fn doctor(server: &Server, more: &[&str]) -> Command {
    bus_cli(server, &[&["doctor"], more].concat())
}

/// The one object that it wrote, and its exit code.
fn object(command: &mut Command) -> (Value, i32) {
    let (out, err, code) = run(command.args(["--output", "json"]));
    assert_eq!(out.lines().count(), 1, "{out}{err}");
    (serde_json::from_str(&out).expect("JSON"), code)
}

#[test]
fn a_screen_says_what_is_so_what_it_means_and_what_mends_it() {
    let server = Server::with(&["--appendonly", "no"]);
    let (out, err, code) = run(&mut doctor(&server, &[]));
    assert_eq!((code, err.as_str()), (3, ""), "{out}");
    assert!(out.contains(&format!(" at {}, a primary; durability: volatile\n", server.url())));
    for part in [
        "\nRISK   persistence.off\n  appendonly: appendonly is no",
        "\n    mend: redis-cli CONFIG SET appendonly yes && redis-cli CONFIG REWRITE\n",
        "\n  means: a restart of the server loses every event",
        "\n  cost:  all 3,134 of 3,134",
        "\nNOTE   memory.no_limit\n",
        &format!("\nredis-cli stands for: redis-cli -s {}\n", server.socket().display()),
    ] {
        assert!(out.contains(part), "{part:?}: {out}");
    }
    let end = out.lines().last().expect("a line");
    assert!(end.contains(" checks: ") && end.contains(" found something ("), "{end}");
    assert!(!out.contains('\u{1b}'), "it is no terminal");
}

#[test]
fn a_healthy_server_ends_with_0() {
    let server = Server::with(&HEALTHY);
    let (report, code) = object(&mut doctor(&server, &["--ignore", "version.holes"]));
    assert_eq!(code, 0, "{report}");
    assert!(report["worst"].is_null() || report["worst"] == "note", "{report}");
    assert_eq!(report["summary"]["unknown"], 0, "{report}");
}

#[test]
fn one_object_holds_every_check_in_the_order_of_the_catalogue() {
    let server = Server::with(&["--appendonly", "no"]);
    let (report, code) = object(&mut doctor(&server, &[]));
    assert_eq!((code, &report["worst"]), (3, &"risk".into()));
    assert_eq!(report["store"]["role"], "master");
    assert_eq!(report["store"]["durability"], "volatile");
    let known: Vec<&str> = checks().iter().map(|check| check.id).collect();
    let made = report["checks"].as_array().expect("a list");
    let ids: Vec<&str> = made.iter().map(|check| check["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, known);
    assert_eq!(made[0]["verdict"], "found");
    assert_eq!(made[0]["ignored"], false);
    assert_eq!(made[0]["detail"][0]["severity"], "risk");
    assert_eq!(made[0]["detail"][0]["subject"], "appendonly");
    let count = |name: &str| report["summary"][name].as_u64().expect("a number");
    assert_eq!(count("passed") + count("found") + count("unknown"), known.len() as u64);
    let (ids, _, code) = run(&mut doctor(&server, &["--output", "raw"]));
    assert_eq!((code, ids.lines().next()), (3, Some("persistence.off")), "{ids}");
}

#[test]
fn what_is_ignored_is_shown_and_does_not_count() {
    let server = Server::with(&["--appendonly", "no"]);
    let ids = "persistence.off,version.holes";
    let (out, _, code) = run(&mut doctor(&server, &["--ignore", ids]));
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("\nignored: risk persistence.off: appendonly is no"), "{out}");
    assert!(out.lines().last().expect("a line").contains("ignored)"), "{out}");
    let (ids, _, code) = run(doctor(&server, &["--output", "raw"]).env("BUS_DOCTOR_IGNORE", ids));
    assert!(code == 0 && !ids.contains("persistence.off"), "{ids}");

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("bus.toml");
    fs::write(&file, "[doctor]\nignore = [\"persistence.off\", \"version.holes\"]\n")
        .expect("a file");
    let (report, code) = object(doctor(&server, &["--config"]).arg(&file));
    assert_eq!((code, &report["checks"][0]["ignored"]), (0, &true.into()), "{report}");

    let (_, err, code) = run(&mut doctor(&server, &["--ignore", "persistence.of"]));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("did you mean persistence.off?"), "{err}");
    let (_, err, code) = run(&mut doctor(&server, &["--watch", "0s"]));
    assert_eq!(code, 2, "{err}");
}

#[test]
fn replicas_that_are_to_confirm_are_missed() {
    let server = Server::with(&HEALTHY);
    let (ids, _, code) = run(&mut doctor(&server, &["--wait", "2", "--output", "raw"]));
    assert_eq!((code, ids.lines().next()), (3, Some("replication.missing")), "{ids}");
}

#[test]
fn the_catalogue_needs_no_server() {
    let list = |more: &[&str]| lines(&mut bare(&[&["doctor", "--list"], more].concat()));
    let known: Vec<&str> = checks().iter().map(|check| check.id).collect();
    assert_eq!(list(&["--output", "raw"]), known);
    let objects = list(&["--output", "json"]);
    let first: Value = serde_json::from_str(&objects[0]).expect("JSON");
    assert!(objects.len() == known.len() && first["meaning"].is_string(), "{first}");
    assert!(list(&[])[0].starts_with("ID  "), "{:?}", list(&[])[0]);
}

/// A `doctor --watch` at work.
struct Watching {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Watching {
    fn start(server: &Server, output: &str) -> Self {
        let mut command = doctor(server, &["--watch", "50ms", "--output", output]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        assert!(line.ends_with('\n'), "it ended: {:?}", self.child.wait());
        line.trim_end().to_owned()
    }

    /// The next change of a check, or of the store where there is no id.
    fn change(&mut self, id: Option<&str>) -> String {
        loop {
            let change: Value = serde_json::from_str(&self.line()).expect("JSON");
            assert!(change["time"].is_string() && change["text"].is_string(), "{change}");
            if change["id"].as_str() == id {
                return change["change"].as_str().expect("a word").to_owned();
            }
        }
    }

    fn interrupt(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
        assert!(sent.success());
        self.child.wait().expect("it ends").code()
    }
}

#[test]
fn watching_tells_what_comes_and_what_goes() {
    let mut server = Server::with(&HEALTHY);
    let mut watching = Watching::start(&server, "json");
    assert_eq!(watching.change(Some("access.excess")), "came");
    let never = Some("persistence.never_synced");
    server.say("CONFIG SET appendfsync no");
    assert_eq!(watching.change(never), "came");
    server.say("CONFIG SET appendfsync always");
    assert_eq!(watching.change(never), "went");
    let evicts = Some("memory.evicts");
    server.say("CONFIG SET maxmemory-policy allkeys-lru");
    assert_eq!(watching.change(evicts), "came");
    server.say("CONFIG SET maxmemory 0");
    assert_eq!(watching.change(evicts), "better");
    server.kill();
    assert_eq!(watching.change(None), "lost");
    server.restart();
    assert_eq!(watching.change(None), "back");
    server.say("CONFIG SET appendfsync no");
    assert_eq!(watching.change(never), "came");
    assert_eq!(watching.interrupt(), Some(3));
}

#[test]
fn watching_writes_lines_where_there_is_no_terminal() {
    let server = Server::with(&["--appendonly", "no"]);
    let mut watching = Watching::start(&server, "pretty");
    let line = watching.line();
    assert!(line.contains(" came   RISK  persistence.off appendonly: appendonly is no"), "{line}");
    assert_eq!(watching.interrupt(), Some(3));
    let mut watching = Watching::start(&server, "raw");
    assert_eq!(watching.line(), "came persistence.off");
    drop(watching.stdout);
    // The next change finds that nobody reads.
    server.say("CONFIG SET appendonly yes");
    assert_eq!(watching.child.wait().expect("it ends").code().map(|code| code & !3), Some(0));
}

/// What it says of a server that it cannot look at.
fn unreachable(url: &str) -> String {
    let (out, err, code) = run(bare(&["doctor"]).args(["--url", url]));
    assert_eq!((code, err.as_str()), (4, ""), "{out}");
    assert!(out.contains("\n  tried: ") && out.contains("\n  it may be that "), "{out}");
    out
}

#[test]
fn a_server_that_is_not_there_may_be_one_that_cannot_start() {
    let out = unreachable("redis://127.0.0.1:1");
    assert!(out.contains("redis-check-aof") && out.contains("systemctl status"), "{out}");
    let (report, code) = object(&mut bare(&["doctor", "--url", "redis://:hunter22@127.0.0.1:1"]));
    assert_eq!(code, 4, "{report}");
    assert!(report["error"].as_str().expect("text").contains("refused"), "{report}");
    assert!(report["reasons"].as_array().expect("a list").len() > 1, "{report}");
    assert_eq!(report["address"], "redis://:***@127.0.0.1:1");
    let (out, err, code) = run(&mut bare(&["doctor", "--url", "memory:"]));
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
}

#[test]
fn a_server_that_refuses_says_why_it_may_be() {
    let server = Server::with(&["--requirepass", "right-one"]);
    let out = unreachable(&server.url());
    assert!(out.contains("NOAUTH") && out.contains("do: redis-cli -u redis://USER"), "{out}");
    let out = unreachable(&format!("{}?pass=hunter22", server.url()));
    assert!(out.contains("WRONGPASS") && !out.contains("hunter22"), "{out}");

    let server = Server::start();
    let mut operator = server.session().expect("a connection");
    operator.say("CONFIG SET maxclients 1");
    let out = unreachable(&server.url());
    assert!(out.contains("maxclients"), "{out}");
    drop(operator);

    let server = Server::with(&["--replicaof", "127.0.0.1", "1"]);
    let out = unreachable(&server.url());
    assert!(out.contains("is a replica of 127.0.0.1:1") && out.contains("failover"), "{out}");
}

#[test]
fn a_server_that_still_reads_its_files_says_so() {
    // It answers between two keys.
    let often = ["--loading-process-events-interval-bytes", "1024", "--rdbcompression", "no"];
    let mut server = Server::with(&often);
    let value = "x".repeat(2000);
    for number in 0..300 {
        server.ask(&["SET", &format!("key:{number}"), &value]);
    }
    server.say("SAVE");
    server.kill();
    server.restart_with(&["--key-load-delay", "50000"]);
    let out = unreachable(&server.url());
    assert!(out.contains("LOADING") && out.contains("loading_eta_seconds"), "{out}");
}

/// A server that refuses every write can be looked at.
#[test]
fn a_server_that_cannot_write_is_looked_at() {
    let server = Server::with(&["--appendonly", "no", "--enable-protected-configs", "yes"]);
    let gone = server.path("gone");
    fs::create_dir(&gone).expect("a folder");
    server.say(&format!("CONFIG SET dir {}", gone.display()));
    fs::remove_dir(&gone).expect("it is empty");
    server.ask(&["CONFIG", "SET", "save", "3600 1000000"]);
    let _refused = server.try_ask(&["BGSAVE"]);
    let failed = || server.say("INFO persistence").text().contains("rdb_last_bgsave_status:err");
    for _ in 0..1000 {
        if failed() {
            break;
        }
        // waits: for the snapshot to fail, with a deadline
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let (ids, _, code) = run(&mut doctor(&server, &["--output", "raw"]));
    assert_eq!((code, ids.lines().next()), (3, Some("persistence.snapshot_fails")), "{ids}");
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/how-to/doctor.md");

#[test]
fn the_catalogue_in_docs_is_what_the_code_says() {
    let mut table = "| id | what is looked at | what a finding means | what it has cost others |\n\
                     |---|---|---|---|\n"
        .to_owned();
    for check in checks() {
        let cells = [check.about, check.meaning, check.cost].map(|text| text.replace('|', "\\|"));
        table += &format!("| `{}` | {} |\n", check.id, cells.join(" | "));
    }
    let page = fs::read_to_string(PAGE).unwrap_or_default();
    let (head, rest) = page.split_once("| id |").expect("the page holds the table");
    let end = rest.find("\n\n").map_or("", |at| &rest[at + 1..]);
    let current = format!("{head}{table}{end}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(PAGE, &current).expect("the page can be written");
        return;
    }
    assert!(
        page == current,
        "the catalogue in docs/how-to/doctor.md is not what the code says; make it again with\n  \
         UPDATE_DOCS=1 cargo test -p bus-cli --test doctor catalogue_in_docs"
    );
}
