//! The built program runs a short round: it breaks something, and finds every promise kept.

use std::path::Path;
use std::process::{Command, Output};

fn chaos(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chaos")).args(arguments).output().expect("it runs")
}

fn text(output: &Output) -> String {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// The number behind a name in a report.
fn number(report: &str, name: &str) -> u64 {
    let value = report.split(&format!("\"{name}\": ")).nth(1).expect("it is in the report");
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[test]
fn a_round_breaks_something_and_finds_every_promise_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_string_lossy().into_owned();
    let run = [
        "run",
        "--seed",
        "1",
        "--faults",
        "2",
        "--kinds",
        "connections-cut,clients-killed,append-reply-lost",
        "--out",
        &out,
    ];
    let output = chaos(&run);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("chaos -- replay --seed 1 --mode always --faults 2"));
    let report = std::fs::read_to_string(folder.path().join("report.json")).expect("a report");
    assert!(number(&report, "acknowledged") > 0, "{report}");
    assert!(number(&report, "counted") > 0, "{report}");
    assert!(folder.path().join("1/report.html").exists());
    adds_up_and_goes_on(folder.path(), &run, &report);
}

/// What is there is not run again, and counts once.
fn adds_up_and_goes_on(folder: &Path, run: &[&str], report: &str) {
    let resumed = chaos(&[run, &["--resume"]].concat());
    assert!(resumed.status.success(), "{}", text(&resumed));
    let again = std::fs::read_to_string(folder.join("report.json")).expect("a report");
    assert_eq!(again, report);
    let sum = chaos(&["report", &folder.to_string_lossy()]);
    assert!(sum.status.success(), "{}", text(&sum));
    let acknowledged = format!("{} acknowledged", number(report, "acknowledged"));
    assert!(text(&sum).contains(&acknowledged), "{}", text(&sum));
}

#[test]
fn what_it_cannot_do_it_says() {
    let refused = |arguments: &[&str], says: &str| {
        let output = chaos(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(says), "{}", text(&output));
    };
    refused(&["run", "--plant", "no-such-bug"], "plant");
    refused(&["report", "/nowhere"], "/nowhere");
    let kinds = chaos(&["kinds"]);
    assert!(text(&kinds).lines().count() >= 30, "{}", text(&kinds));
}
