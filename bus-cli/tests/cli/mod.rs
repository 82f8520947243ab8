//! Runs the real binary against a server of the test's own.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, none of which needs all of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use crate::server::Server;

/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command line for `server`, with nothing of the caller's environment.
pub fn bus_cli(server: &Server, line: &[&str]) -> Command {
    let mut command = bare(line);
    command.env("BUS_URL", server.url());
    command
}

/// A command line without an address.
pub fn bare(line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bus-cli"));
    command.env_clear().args(line).stdin(Stdio::null());
    command
}

/// Runs to the end; what it wrote, and its exit code.
pub fn run(command: &mut Command) -> (String, String, i32) {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(stdout), text(stderr), status.code().expect("an exit code"))
}

/// Runs to a good end; the lines it wrote.
pub fn lines(command: &mut Command) -> Vec<String> {
    let (out, err, code) = run(command);
    assert_eq!(code, 0, "{err}");
    out.lines().map(str::to_owned).collect()
}

/// Feeds stdin and runs to the end.
pub fn feed(command: &mut Command, input: &str) -> (String, String, i32) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads its stdin");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(stdout), text(stderr), status.code().expect("an exit code"))
}

/// A `tail --new` that was anchored.
pub struct Tail {
    child: Child,
    pub stdout: BufReader<ChildStdout>,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Tail {
    pub fn start(server: &Server, line: &[&str]) -> Self {
        let mut command = bus_cli(server, &[&["tail"], line].concat());
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the binary runs");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut tail = Self { child, stdout, stderr };
        assert_eq!(tail.said(), "tailing");
        tail
    }

    /// The next line of stdout.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        assert!(line.ends_with('\n'), "it ended: {:?}", self.child.wait());
        line.trim_end().to_owned()
    }

    /// The next line of stderr.
    pub fn said(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Everything from here to the end, which must be a good one.
    pub fn rest(mut self) -> Vec<String> {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).expect("text");
        assert_eq!(self.end(), 0);
        text.lines().map(str::to_owned).collect()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Closes the pipe that it writes to, as `head` does.
    pub fn close(self) -> Closed {
        let Self { child, stdout, stderr: _ } = self;
        drop(stdout);
        Closed(child)
    }

    /// Waits for the end; the exit code.
    pub fn end(mut self) -> i32 {
        end(&mut self.child)
    }
}

/// A tail that nobody listens to.
pub struct Closed(Child);

impl Closed {
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_some()
    }

    pub fn end(mut self) -> i32 {
        end(&mut self.0)
    }
}

fn end(child: &mut Child) -> i32 {
    for _ in 0..PATIENCE.as_millis() / 10 {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code().expect("an exit code, not a signal");
        }
        // waits: for the process to end.
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    panic!("it did not end");
}
