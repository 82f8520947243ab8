//! Another process of the test's own program, which runs one of its functions.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

/// A process that is killed when it is dropped.
pub struct Process(Child);

impl Process {
    /// Runs the test function `name`, with a word in its environment that tells it to.
    pub fn start(name: &str, variable: &str, value: &str) -> Self {
        let program = std::env::current_exe().expect("the test knows itself");
        let mut command = Command::new(program);
        command.args(["--exact", name, "--nocapture"]).env(variable, value);
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts"))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// What it prints, line by line; once.
    pub fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        let out: ChildStdout = self.0.stdout.take().expect("nobody took it");
        BufReader::new(out).lines().map_while(Result::ok)
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.0.kill().expect("it runs");
    }

    /// As a supervisor does first.
    pub fn terminate(&self) {
        let pid = self.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(sent.success(), "signal -TERM");
    }

    pub fn wait(&mut self) -> ExitStatus {
        tokio::task::block_in_place(|| self.0.wait()).expect("it ends")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}
