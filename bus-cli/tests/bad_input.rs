//! Input that nobody should give to the command line: each case of `tests/bad_input/` ends with
//! its exit code and an error that names what is wrong; soon, and within little memory.

#[path = "../../tests/bad_input/cases.rs"]
mod cases;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bus_cli::fuzzing::{flaw_of_letter, patched};
use cases::{Input, cases};
use serde::Deserialize;
use tempfile::TempDir;

/// How long a process may take to end: it is busy, or hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Address space of a process, in KiB, where the shell can limit it.
const MEMORY_KIB: u64 = 1 << 20;

/// A call of the program and what is due.
struct Call {
    name: String,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    stdin: Vec<u8>,
    exit: i32,
    words: String,
}

/// What a process said, and its exit code.
struct Said {
    out: String,
    err: String,
    code: Option<i32>,
}

/// The program, within its memory.
fn program() -> Command {
    let path = env!("CARGO_BIN_EXE_bus-cli");
    let mut command = if cfg!(target_os = "linux") {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\""), path]);
        shell
    } else {
        Command::new(path)
    };
    command.env_clear();
    command
}

fn run(call: &Call) -> Said {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("in"), &call.stdin).expect("a file");
    let open = |name: &str| File::create(path(name)).expect("a file");
    let mut command = program();
    command.args(&call.args).envs(&call.env);
    command.stdin(File::open(path("in")).expect("a file")).stdout(open("out")).stderr(open("err"));
    let code = end(command.spawn().expect("the binary runs"));
    let text = |name| String::from_utf8_lossy(&std::fs::read(path(name)).expect("a file")).into();
    Said { out: text("out"), err: text("err"), code }
}

/// The exit code; nothing where it did not end in time, or by a signal.
fn end(mut child: Child) -> Option<i32> {
    for _ in 0..PATIENCE.as_millis() / 5 {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        // waits: for the process to end
        std::thread::sleep(Duration::from_millis(5));
    }
    let _gone = child.kill();
    let _gone = child.wait();
    None
}

/// What is wrong with how a call ended.
fn flaw(call: &Call) -> Option<String> {
    let Said { out, err, code } = run(call);
    let shown: String = err.chars().take(400).collect();
    let unsafe_signs = |sign: char| sign.is_control() && sign != '\n';
    let (first, words) = (err.lines().next().unwrap_or_default(), call.words.as_str());
    let what = match code {
        None => "it did not end in time, or by a signal",
        Some(code) if code != call.exit => "another exit code is due",
        Some(_) if !out.is_empty() => "something was done",
        Some(_) if !err.contains(words) => "the words are not there",
        Some(_) if !first.starts_with("error: ") => "it is no error",
        Some(_) if err.contains("panicked") || err.contains("s3cr3t") => "it says too much",
        Some(_) if err.contains(unsafe_signs) => "a control character is printed",
        Some(_) => return None,
    };
    Some(format!("{}: {what}: {code:?} {words:?}: {shown}", call.name))
}

/// Runs all calls, some at a time; says of all what is wrong.
fn hold(calls: &[Call]) {
    let (next, flaws) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(call) = calls.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(flaw) = flaw(call) {
                flaws.lock().expect("no panic").push(flaw);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
    let flaws = flaws.into_inner().expect("no panic");
    assert!(flaws.is_empty(), "{} flaws:\n{}", flaws.len(), flaws.join("\n"));
}

#[derive(Deserialize)]
struct Argument {
    name: String,
    args: Vec<Input>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    stdin: Option<Input>,
    exit: i32,
    words: String,
}

#[test]
fn bad_arguments_are_refused_and_named() {
    let calls: Vec<Call> = cases::<Argument>("arguments.ndjson")
        .into_iter()
        .map(|Argument { name, args, env, stdin, exit, words }| {
            let args = args.iter().map(Input::text).collect();
            let stdin = stdin.map(|stdin| stdin.bytes()).unwrap_or_default();
            Call { name, args, env, stdin, exit, words }
        })
        .collect();
    hold(&calls);
}

#[derive(Deserialize)]
struct Config {
    name: String,
    toml: Input,
    args: Vec<String>,
    exit: i32,
    words: String,
}

/// The path of a configuration file in a folder of its own.
fn written(folder: &TempDir, at: usize, toml: &[u8]) -> String {
    let own = folder.path().join(at.to_string());
    std::fs::create_dir(&own).expect("a folder");
    let file = own.join("bus.toml");
    std::fs::write(&file, toml).expect("a file");
    file.display().to_string()
}

#[test]
fn bad_configurations_are_refused_with_their_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let call = |(at, case): (usize, Config)| {
        let Config { name, toml, mut args, exit, words } = case;
        args.extend(["--config".to_owned(), written(&folder, at, &toml.bytes())]);
        Call { name, args, env: BTreeMap::new(), stdin: Vec::new(), exit, words }
    };
    let calls: Vec<Call> = cases("configs.ndjson").into_iter().enumerate().map(call).collect();
    hold(&calls);
}

#[derive(Deserialize)]
struct Line {
    name: String,
    line: Input,
    words: String,
}

/// Publishes lines for show; what was said.
fn rehearsed(folder: &Path, text: &[u8]) -> Said {
    let file = folder.join("events.ndjson");
    std::fs::write(&file, text).expect("a file");
    let mut args = vec!["publish".to_owned(), "--from".to_owned(), file.display().to_string()];
    args.push("--dry-run".to_owned());
    let (name, stdin, words) = (String::new(), Vec::new(), String::new());
    run(&Call { name, args, env: BTreeMap::new(), stdin, exit: 0, words })
}

#[test]
fn bad_lines_are_refused_one_by_one_and_the_others_are_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = cases::<Line>("lines.ndjson");
    let mut text = Vec::new();
    for case in &cases {
        text.extend(case.line.bytes());
        text.extend_from_slice(b"\n{\"type\":\"a.b\"}\n");
    }
    let Said { err, code, .. } = rehearsed(folder.path(), &text);
    assert_eq!(code, Some(3), "some are events: {err}");
    assert!(err.contains(&format!("would publish {} events", cases.len())), "{err}");
    let mut flaws = Vec::new();
    for (at, Line { name, words, .. }) in cases.iter().enumerate() {
        let head = format!("error: line {} is no event: ", 2 * at + 1);
        let said = err.lines().find(|line| line.starts_with(&head)).unwrap_or_default();
        if !said.contains(words) || said.len() > 1000 {
            flaws.push(format!("{name}: {words:?} is not in {said:?}"));
        }
    }
    assert!(flaws.is_empty(), "{} flaws:\n{}", flaws.len(), flaws.join("\n"));
}

#[test]
fn bad_lines_of_dead_letters_are_refused() {
    let mut flaws = Vec::new();
    for Line { name, line, words } in cases("letters.ndjson") {
        let said = flaw_of_letter(&line.text()).unwrap_or_default();
        if said.is_empty() || !said.contains(&words) || said.len() > 1000 {
            flaws.push(format!("{name}: {words:?} is not in {said:?}"));
        }
    }
    assert!(flaws.is_empty(), "{} flaws:\n{}", flaws.len(), flaws.join("\n"));
}

#[derive(Deserialize)]
struct Patch {
    name: String,
    payload: String,
    patch: Input,
    words: String,
}

#[test]
fn bad_patches_change_nothing() {
    let mut flaws = Vec::new();
    for Patch { name, payload, patch, words } in cases("patches.ndjson") {
        let said = patched(&payload, &patch.text()).err().unwrap_or_default();
        if said.is_empty() || !said.contains(&words) || said.len() > 1000 {
            flaws.push(format!("{name}: {words:?} is not in {said:?}"));
        }
    }
    assert!(flaws.is_empty(), "{} flaws:\n{}", flaws.len(), flaws.join("\n"));
}
