//! Servers on loopback, started for a round and stopped after it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::Error;
use crate::measure::cpu_ns_of;
use crate::peers::Needs;

/// How long a server may take to listen. Polls of 10 ms.
const POLLS_MAX: usize = 1000;

/// A server at work; killed on drop.
pub(crate) struct Server {
    child: Child,
    port: u16,
    needs: Needs,
    _directory: TempDir,
}

/// The program for a need, where it is found: by its variable, or on the path.
pub(crate) fn program(needs: Needs) -> Option<PathBuf> {
    let (variable, names): (_, &[&str]) = match needs {
        Needs::Redis => ("REDIS_SERVER", &["redis-server", "valkey-server"]),
        Needs::NatsFile | Needs::NatsMemory => ("NATS_SERVER", &["nats-server"]),
    };
    if let Some(named) = std::env::var_os(variable) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let candidates = std::env::split_paths(&path);
    candidates
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|program| program.is_file())
}

/// What a server's program says of its version, in one line.
pub(crate) fn version(needs: Needs) -> Option<String> {
    let output = Command::new(program(needs)?).arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}

impl Server {
    /// Starts one; `settings` are added to its command line.
    pub(crate) fn start(needs: Needs, settings: &[String]) -> Result<Self, Error> {
        let program = program(needs).ok_or("there is no such server here")?;
        let directory = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(program);
        match needs {
            Needs::Redis => {
                command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]);
                command.arg("--port").arg(port.to_string()).arg("--dir").arg(directory.path());
            }
            Needs::NatsFile | Needs::NatsMemory => {
                command.args(["--addr", "127.0.0.1", "--jetstream"]);
                command.arg("--port").arg(port.to_string());
                command.arg("--store_dir").arg(directory.path());
            }
        }
        command.args(settings);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { child: quiet.spawn()?, port, needs, _directory: directory };
        server.wait()?;
        Ok(server)
    }

    fn wait(&self) -> Result<(), Error> {
        for _ in 0..POLLS_MAX {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            // waits: for the server to listen
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("the server does not listen".into())
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.needs == Needs::Redis { "redis" } else { "nats" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Nanoseconds of CPU that it took so far.
    pub(crate) fn cpu_ns(&self) -> u64 {
        cpu_ns_of(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
