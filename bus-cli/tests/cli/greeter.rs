//! Runs the binary of `examples/greeter.rs`, and any daemon.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, none of which needs all of it")]

use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use crate::server::Server;

/// The binary of three lines and one service, which stands beside the stock one.
pub fn greeter(server: &Server, line: &[&str]) -> Command {
    let stock = PathBuf::from(env!("CARGO_BIN_EXE_bus-cli"));
    let path = stock.parent().expect("a directory").join("examples/greeter");
    assert!(path.exists(), "build it with cargo build -p bus-cli --example greeter");
    let mut command = Command::new(path);
    command.env_clear().args(line).env("BUS_URL", server.url()).stdin(Stdio::null());
    command
}

/// A daemon that is ready.
pub struct Daemon {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    pub stderr: Lines<BufReader<ChildStderr>>,
    /// What it said on the way.
    pub said: Vec<String>,
}

impl Daemon {
    pub fn start(command: &mut Command) -> Self {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the binary runs");
        let stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut daemon = Self { child, stdout, stderr, said: Vec::new() };
        daemon.until("ready");
        daemon
    }

    /// Reads stderr up to a line that begins so.
    pub fn until(&mut self, begin: &str) {
        loop {
            let line =
                self.stderr.next().unwrap_or_else(|| panic!("no {begin:?}: {:?}", self.said));
            self.said.push(line.expect("text"));
            if self.said.last().is_some_and(|line| line.starts_with(begin)) {
                return;
            }
        }
    }

    pub fn line(&mut self) -> String {
        self.stdout.next().expect("a line").expect("text")
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    /// The rest of stdout, and the exit code.
    pub fn end(mut self) -> (Vec<String>, i32) {
        let rest = self.stdout.map(|line| line.expect("text")).collect();
        (rest, self.child.wait().expect("it ends").code().expect("an exit code"))
    }
}
