//! The configuration file, and `config show`.

#[path = "cli/mod.rs"]
mod cli;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::fs;

use cli::{bare, bus_cli, lines, run};
use serde_json::Value;
use server::Server;
use tempfile::TempDir;

/// A configuration file in a directory of its own.
struct Config(TempDir);

impl Config {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("bus.toml"), text).expect("a file");
        Self(directory)
    }

    fn path(&self) -> String {
        self.0.path().join("bus.toml").display().to_string()
    }
}

#[test]
fn flags_come_before_environment_and_environment_before_the_file() {
    let server = Server::start();
    let config =
        Config::new("output = \"raw\"\n[publish]\ncount = 3\nheader = [\"a=b\", \"c=d\"]\n");
    let line = ["publish", "a.b", "1", "--config", &config.path()];
    assert_eq!(lines(&mut bus_cli(&server, &line)).len(), 3);
    let line = ["publish", "a.b", "1"];
    let named =
        |command: &mut std::process::Command| lines(command.env("BUS_CONFIG", config.path())).len();
    assert_eq!(named(bus_cli(&server, &line).env("BUS_PUBLISH_COUNT", "2")), 2);
    let typed = [&line[..], &["--count", "1"]].concat();
    assert_eq!(named(bus_cli(&server, &typed).env("BUS_PUBLISH_COUNT", "2")), 1);

    let config = Config::new("[tail]\nlast = 2\nuntil_end = true\n");
    let line = ["--config", &config.path(), "tail"];
    let shown = lines(&mut bus_cli(&server, &line));
    assert_eq!(shown.len(), 2);
    let event: Value = serde_json::from_str(&shown[0]).expect("JSON");
    assert_eq!((&event["headers"]["a"], &event["headers"]["c"]), (&"b".into(), &"d".into()));
    let since = [&line[..], &["--since", "1h"]].concat();
    assert_eq!(lines(&mut bus_cli(&server, &since)).len(), 6, "one place to begin wins");
    let mut since = bus_cli(&server, &line);
    assert_eq!(lines(since.env("BUS_TAIL_SINCE", "1h")).len(), 6);
}

#[test]
fn what_is_not_known_is_refused_with_its_line_and_the_nearest_name() {
    let cases = [
        ("url = \"memory:\"\n\nnamespase = \"x\"\n", ":3: key `namespase`", "`namespace`"),
        ("[tial]\nlast = 1\n", ":1: table `tial` is not known", "`tail`"),
        (
            "[tail]\n\nuntil-end = true\n",
            ":3: key `until-end` is not known in [tail]",
            "`until_end`",
        ),
        ("[publish]\nzzzz = 1\n", ":2: key `zzzz`", "known: from, key, header"),
        ("config = \"x\"\n", ":1: key `config` is not known", "help: "),
        ("[tail]\nlast = \"x\"\n", ":2: \"x\" is no value of `last`: invalid digit", ""),
        ("output = \"xml\"\n", ":1: \"xml\" is no value of `output`: possible values: pretty", ""),
        ("[tail]\nlast = [1, 2]\n", ":2: `last` takes one value, not a list", ""),
        ("[tail]\nlast = 2026-01-02\n", ":2: `last` is no datetime", "--last"),
        ("[tail]\nsince = \"5\"\n", "--since: duration \"5\" has no unit", "bus.toml:2"),
        ("url =\n", ":1: ", ""),
    ];
    for (text, expected, help) in cases {
        let config = Config::new(text);
        let (out, err, code) = run(&mut bare(&["tail", "--config", &config.path()]));
        assert_eq!((code, out.as_str()), (2, ""), "{text}: {err}");
        assert!(err.contains(expected) && err.contains(help), "{text}: {err}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let (_, err, code) = run(bare(&["tail"]).env("BUS_CONFIG", "/nowhere.toml"));
    assert_eq!(code, 1, "{err}");
    assert!(err.starts_with("error: cannot read the configuration /nowhere.toml\n"), "{err}");
    assert!(err.contains("BUS_CONFIG"), "{err}");
    let (_, _, code) = run(bare(&["--help"]).env("BUS_CONFIG", "/nowhere.toml"));
    assert_eq!(code, 0);
}

#[test]
fn show_tells_where_each_setting_comes_from_and_no_secret() {
    let config = Config::new("url = \"redis://:hunter22@host\"\n[tail]\nsince = \"1h\"\n");
    let path = config.path();
    let line = ["config", "show", "--output", "json", "--config", &path];
    let shown = lines(bare(&line).env("BUS_NAMESPACE", "shop").env("BUS_PUBLISH_RATE", "7"));
    let of = |name: &str| -> (Value, String) {
        let rows = shown.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let row = rows.into_iter().find(|row| row["setting"] == name).expect(name);
        (row["value"].clone(), row["from"].as_str().expect("text").to_owned())
    };
    assert_eq!(of("url"), ("redis://:***@host".into(), format!("{path}:1")));
    assert_eq!(of("namespace"), ("shop".into(), "environment BUS_NAMESPACE".into()));
    assert_eq!(of("output"), ("json".into(), "flag".into()));
    assert_eq!(of("tail.since"), ("1h".into(), format!("{path}:3")));
    assert_eq!(of("publish.rate"), ("7".into(), "environment BUS_PUBLISH_RATE".into()));
    assert_eq!(of("tail.n"), (Value::Null, "default".into()));

    let table = lines(&mut bare(&["config", "show", "--config", &path]));
    assert!(table[0].starts_with("SETTING  "), "{table:?}");
    assert!(!table.join("\n").contains("hunter22"), "{table:?}");
    let (help, _, _) = run(&mut bare(&["tail", "--config", &path, "--help"]));
    assert!(!help.contains("hunter22"), "{help}");
}

#[test]
fn the_page_in_docs_is_what_the_command_line_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config.md");
    let (page, _, code) = run(&mut bare(&["config", "reference"]));
    assert_eq!(code, 0);
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == page,
        "docs/config.md is not what the command line says; make it again with\n  \
         cargo run -p bus-cli -- config reference > docs/config.md"
    );
}
